"""Watching processes and waiting for what they do, for tests."""

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

LIMIT_S = 60


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


def is_starting_workers(pid: int) -> bool:
    """Whether a worker of a pool is among the processes that `pid` started."""
    return any(b"spawn_main" in _command(child) for child in descendants(pid) - {pid})


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
