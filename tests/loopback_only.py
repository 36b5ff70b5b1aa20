"""Run a command in a network of its own, in which there is nothing but this machine.

    unshare --map-root-user --net python tests/loopback_only.py REPORT command...

Exits as the command does. REPORT, a JSON file, says how often something was sent that found no way
out, and how many datagrams were sent at all: pipelines use TCP only, so these are name look-ups.
"""

import fcntl
import json
import socket
import struct
import subprocess
import sys
from pathlib import Path

SIOCSIFFLAGS, IFF_UP = 0x8914, 1
COUNTERS = {"IpOutNoRoutes", "Ip6OutNoRoutes", "UdpOutDatagrams", "Udp6OutDatagrams"}


def main() -> int:
    report, *command = sys.argv[1:]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    before = counters()
    code = subprocess.run(command).returncode
    sent = {name: count - before[name] for name, count in counters().items()}
    Path(report).write_text(json.dumps(sent))
    return code


def counters() -> dict[str, int]:
    """Of this network since it was made: https://docs.kernel.org/networking/snmp_counter.html"""
    lines = Path("/proc/net/snmp").read_text().splitlines()
    found = dict(line.split() for line in Path("/proc/net/snmp6").read_text().splitlines())
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        protocol = names.partition(":")[0]
        pairs = zip(names.split()[1:], values.split()[1:], strict=True)
        found |= {protocol + name: value for name, value in pairs}
    return {name: int(found[name]) for name in COUNTERS & found.keys()}


if __name__ == "__main__":
    sys.exit(main())
