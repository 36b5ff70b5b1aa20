"""Watching processes, what they do and what they are connected with, for tests."""

import contextlib
import ipaddress
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

LIMIT_S = 900  # ends a test that hangs; a busy machine may be 20 times as slow


def until(condition: Callable[[], object]) -> object:
    """What `condition` returns, once it is true."""
    end = time.monotonic() + LIMIT_S
    while not (result := condition()):
        assert time.monotonic() < end, "the condition did not come true"
        threading.Event().wait(0.01)
    return result


def alive(pid: int) -> bool:
    return pid in _living()


def descendants(pid: int) -> set[int]:
    """`pid` and the living processes that it started, and so on, whatever their session."""
    living, found = _living(), {pid}
    while more := {child for child, parent in living.items() if parent in found} - found:
        found |= more
    return found


def children(pid: int) -> list[int]:
    """Living processes that `pid` itself started."""
    return sorted(child for child, parent in _living().items() if parent == pid)


def is_starting_workers(pid: int) -> bool:
    """Whether a worker of a pool is among the processes that `pid` started."""
    return any(b"spawn_main" in _command(child) for child in descendants(pid) - {pid})


@dataclass(frozen=True)
class TcpSocket:
    """`local` and `remote` are IP addresses without their ports."""

    is_listening: bool
    local: str
    remote: str


def tcp_sockets(pids: Iterable[int]) -> set[TcpSocket]:
    """Those that these processes hold, whatever network namespace they are in."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):  # ended meanwhile
            links = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
            inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
            for table in ("tcp", "tcp6"):
                for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                    fields = line.split()
                    if fields[9] in inodes:
                        local, remote = map(_address, fields[1:3])
                        found.add(TcpSocket(fields[3] == "0A", local, remote))
    return found


def _address(text: str) -> str:
    """Of `0100007F:1F90`: words of 32 bits in the machine's byte order."""
    words = re.findall("[0-9A-F]{8}", text.partition(":")[0])
    packed = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
    return str(ipaddress.ip_address(packed))


def started(checkout: Path, *arguments: str, **environment: str) -> subprocess.Popen:
    """The pipeline under way, in a session of its own, with its stderr to be read."""
    return subprocess.Popen(
        [sys.executable, "master_pipeline.py", *arguments],
        cwd=checkout,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
        start_new_session=True,
        env={**os.environ, **environment},
    )


def read_until(process: subprocess.Popen, beginning: str) -> list[str]:
    """Lines of stderr up to the first that begins so."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith(beginning):
            break
    return lines


def peak_memory_mb(command: list[str], **options: object) -> tuple[int, float]:
    """Exit code of a command, and the peak memory of the largest of its processes. A small process
    starts it: Linux counts the memory of the one that starts another as the other's, too."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", MEASURE, *command], text=True, stderr=-1, **options
    )
    *lines, last = done.stderr.splitlines()
    if done.returncode:
        print(*lines, sep="\n", file=sys.stderr)
    return done.returncode, int(last) / 1024


MEASURE = """
import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
print(usage.ru_maxrss, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def hear_ctrl_c() -> None:
    """For a new process: shells let what they start in the background ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _living() -> dict[int, int]:
    """Processes that are no zombies, with their parents."""
    living = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # ended meanwhile
            continue
        if state != "Z":
            living[int(path.parent.name)] = int(parent)
    return living


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
