"""The share of a processor that Lambda gives a function by its memory, enforced on a process.

At 1,769 MB a function has one vCPU, with less memory a part in proportion:
https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
As in Linux's CFS bandwidth control, which Lambda uses with periods of 20 ms: in each period the
process may use its share of the period, as fast as the processor goes; then it stands still until
the next. What it used beyond its quota is taken off the next one; what it left is lost.

The kernel does that where this process may make a cgroup (v2) with a quota. Elsewhere on Linux a
meter does: a process that reads the CPU clock of the other and stops and continues it by signals.
It is a process of its own since the embedded cloud's server, busy and with one interpreter lock,
is late more often; and since it survives the server, so that nothing stays stopped. What the
process itself starts is metered by a cgroup only. macOS has neither, and says so.

The init phase runs at full speed, as has been measured of AWS:
https://bitesizedserverless.com/bite/lambda-cold-start-bootstrap/
From 1,769 MB on nothing is enforced: the handler keeps one processor busy and no second.
"""

import contextlib
import functools
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

FULL_VCPU_MB = 1769  # memory that gives one vCPU, and what the template gives by default
PERIOD_S = 0.02
SHORTEST_LOOK_S = 0.0002  # between looks at the clock; what is used meanwhile is carried over
BUSY, IDLE = b"1", b"0"  # what the meter is told


class WholeProcessor:
    """No limit; and what the others offer."""

    @contextlib.contextmanager
    def enforced(self) -> Iterator[None]:
        """Within it, the process has no more than its share."""
        yield

    def close(self) -> None:
        """To be called when the process is gone."""


def share_of(process: subprocess.Popen, memory_mb: int) -> WholeProcessor:
    """Hold `process` to the share of a function of that memory, by what this system offers."""
    if memory_mb >= FULL_VCPU_MB:
        return WholeProcessor()
    quota_s = PERIOD_S * memory_mb / FULL_VCPU_MB
    with contextlib.suppress(OSError):  # no cgroup v2, or none that this user may write
        return Cgroup(process, quota_s, cgroup_parent())
    if hasattr(os, "pidfd_open"):  # Linux
        with contextlib.suppress(OSError):  # older than 5.3, or forbidden in a sandbox
            return Meter(process, quota_s)
    say_that_nothing_is_enforced()
    return WholeProcessor()


@functools.cache  # once a process
def say_that_nothing_is_enforced() -> None:
    print(
        "warning: this system offers no way to hold a function to its share of a processor: below "
        f"{FULL_VCPU_MB} MB, functions of the embedded cloud are faster than their memory says",
        file=sys.stderr,
    )


class Cgroup(WholeProcessor):
    """A cgroup (v2) of its own. https://docs.kernel.org/admin-guide/cgroup-v2.html"""

    def __init__(self, process: subprocess.Popen, quota_s: float, parent: Path):
        self._limit = f"{quota_s * 1e6:.0f} {PERIOD_S * 1e6:.0f}"  # microseconds
        self._is_limited = False
        self._folder = parent / f"lambda-{uuid.uuid4().hex}"
        self._folder.mkdir()
        try:
            (self._folder / "cpu.max").write_text(f"max {PERIOD_S * 1e6:.0f}")
            (self._folder / "cgroup.procs").write_text(str(process.pid))
        except OSError:
            self._folder.rmdir()
            raise

    @contextlib.contextmanager
    def enforced(self) -> Iterator[None]:
        if not self._is_limited:  # and from then on: it costs an idle process nothing
            (self._folder / "cpu.max").write_text(self._limit)
            self._is_limited = True
        yield

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a process that it started is not gone yet
            self._folder.rmdir()


def cgroup_parent() -> Path:
    """The cgroup, this process's own or the one above, whose children may have a quota. Raises
    OSError when there is none."""
    from metrics.common.machine import (
        own_cgroups,  # this file is also a script, which sees no other
    )

    for folder in own_cgroups("")[:2]:
        if "cpu" in (folder / "cgroup.subtree_control").read_text().split():
            return folder
    raise FileNotFoundError("no cgroup whose children may have a quota")


class Meter(WholeProcessor):
    """A process that runs stop_and_continue(), told when the other one is busy."""

    def __init__(self, process: subprocess.Popen, quota_s: float):
        self._process = process
        handle = os.pidfd_open(process.pid)  # no other process that gets its number is meant
        try:
            self._meter = subprocess.Popen(  # nosec B603 # this file, no shell
                [
                    *(sys.executable, "-I", "-S", "-B", __file__),
                    *(str(process.pid), str(handle), str(quota_s)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=[handle],
                start_new_session=True,  # Ctrl-C in the terminal is for the orchestrator
            )
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def enforced(self) -> Iterator[None]:
        self._tell(BUSY)
        try:
            yield
        finally:
            self._tell(IDLE)

    def _tell(self, state: bytes) -> None:
        try:
            os.write(self._meter.stdin.fileno(), state)
        except BrokenPipeError:  # it ends before the process only when somebody killed it
            self._process.kill()

    def close(self) -> None:
        self._meter.stdin.close()
        self._meter.wait()


class Budget:
    """Processor time that a process may still use in the period under way; negative: debt."""

    def __init__(self, quota_s: float, now_s: float, used_s: float):
        self._quota_s = self.left_s = quota_s
        self.period_end_s = now_s + PERIOD_S
        self._used_s = used_s

    def look(self, now_s: float, used_s: float) -> None:
        """Take note of the processor time used until now, and of the periods that have ended."""
        self.left_s -= used_s - self._used_s
        self._used_s = used_s
        if now_s >= self.period_end_s:
            periods = (now_s - self.period_end_s) // PERIOD_S + 1
            self.period_end_s += periods * PERIOD_S
            self.left_s = min(self.left_s + periods * self._quota_s, self._quota_s)


def stop_and_continue(pid: int, handle: int, quota_s: float, orders: int) -> None:
    """Hold a process to `quota_s` of processor time in each period while `orders` say that it is
    busy. Ends with the process, or with the other end of `orders`."""
    clock = (~pid << 3) | 2  # the CPU clock of another process, as clock_getcpuclockid(3) has it
    budget, busy, stopped, wait_s = None, False, False, None
    try:
        while True:
            ready = select.select([orders, handle], [], [], wait_s)[0]
            if handle in ready:
                return
            if orders in ready:
                if not (text := os.read(orders, 1024)):
                    return
                busy = text.endswith(BUSY)
            if busy:
                now_s, used_s = time.monotonic(), time.clock_gettime(clock)
                budget = budget or Budget(quota_s, now_s, used_s)
                budget.look(now_s, used_s)
                stop = budget.left_s <= 0
                left_s = max(budget.left_s, SHORTEST_LOOK_S)
                wait_s = budget.period_end_s - now_s if stop else left_s
            else:
                stop, wait_s = False, None  # nothing to look at
            if stop != stopped:
                signal.pidfd_send_signal(handle, signal.SIGSTOP if stop else signal.SIGCONT)
                stopped = stop
    except OSError:
        if not select.select([handle], [], [], 0)[0]:
            raise
        # Else it has ended meanwhile, and has no clock any more.
    finally:
        if stopped:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGCONT)


if __name__ == "__main__":
    process_id, inherited, quota = sys.argv[1:]
    low = os.dup(int(inherited))  # select() takes numbers below 1024 only
    stop_and_continue(int(process_id), low, float(quota), sys.stdin.fileno())
