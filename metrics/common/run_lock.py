"""One run at a time in a checkout: two would judge each other's files.

The lock is the system's (flock), which gives it back when the process ends, however it ends. Its
file says who has it. One that a killed run left is locked by nobody, and is in nobody's way.
"""

import contextlib
import errno
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from metrics.common.cli import UserError
from metrics.common.paths import RUN_LOCK, shown

READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}
OWNER_BYTES = 512  # written at once, so that nobody reads a part
TELLS_WITHIN_S = 2  # who has just got the lock says so
POLL_S = 0.02


class RunLock:
    """What the holder knows of its lock; `file` is None where there is none to hold."""

    def __init__(self, file: int | None):
        self._file = file

    def name(self, run_id: str | None) -> None:
        """Say which run this is, to those who come meanwhile."""
        if self._file is None:
            return
        owner = {"pid": os.getpid(), "script": Path(sys.argv[0]).name, "run_id": run_id}
        line = json.dumps(owner).encode()[:OWNER_BYTES].ljust(OWNER_BYTES)
        with contextlib.suppress(OSError):  # opened to be read only: the lock holds all the same
            os.pwrite(self._file, line, 0)


@contextlib.contextmanager
def checkout_lock(run_id: str | None = None, writes: bool = True) -> Iterator[RunLock]:
    """Within it, no other run or script works with the files of this checkout.

    Raises UserError that names the one that does. Where the file system knows no locks, a line on
    stderr says so; who only reads (`writes` false) goes without one where nothing can be written.
    """
    file = _locked_file(writes)
    lock = RunLock(file)
    with contextlib.ExitStack() as held:
        if file is not None:
            held.callback(_give_back, file)
            _held.add(file)
            _lock_folder(held)
        lock.name(run_id)
        yield lock


def _give_back(file: int) -> None:
    with contextlib.suppress(OSError):
        if _is_still_there(file):  # who waits for it sees that it is gone, and begins anew
            RUN_LOCK.unlink()
    _close(file)


def _close(file: int) -> None:
    _held.discard(file)
    os.close(file)


def _lock_folder(held: contextlib.ExitStack) -> None:
    """Lock the file's folder, too: somebody may delete the file (`git clean`) while a run works,
    and the next one would lock another."""
    with contextlib.suppress(OSError):  # of a file system that locks no folder
        folder = os.open(RUN_LOCK.parent, os.O_RDONLY | os.O_CLOEXEC)
        held.callback(_close, folder)
        _held.add(folder)
        end = time.monotonic() + TELLS_WITHIN_S
        while True:
            try:
                return fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise UserError(_refusal(None)) from None
            time.sleep(POLL_S)  # a child that was just forked has not closed its copy yet


def _locked_file(writes: bool) -> int | None:
    """The lock's file, held; None where there is nothing to hold."""
    end = time.monotonic() + TELLS_WITHIN_S
    while True:
        if (file := _open(writes)) is None:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _owner(file)
            os.close(file)
            if (owner and _lives(owner["pid"])) or time.monotonic() > end:
                raise UserError(_refusal(owner)) from None
            time.sleep(POLL_S)  # it has only just got the lock, or just given it back
            continue
        except OSError as error:
            os.close(file)
            print(
                f"{shown(RUN_LOCK)} cannot be locked here ({error.strerror}); "
                "start no second run in this checkout while this one works",
                file=sys.stderr,
            )
            return None
        if _is_still_there(file):
            return file
        os.close(file)  # deleted meanwhile: others would lock another file


def _open(writes: bool) -> int | None:
    flags = os.O_CLOEXEC | os.O_NOFOLLOW  # a program that is started does not inherit it
    try:
        return os.open(RUN_LOCK, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
        with contextlib.suppress(OSError):  # another user's: a lock needs no right to write
            return os.open(RUN_LOCK, os.O_RDONLY | flags)
        if writes:
            raise
        return None


def _is_still_there(file: int) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(RUN_LOCK))
    except FileNotFoundError:
        return False


def _owner(file: int) -> dict | None:
    try:
        owner = json.loads(os.pread(file, OWNER_BYTES, 0))
        return owner if isinstance(owner["pid"], int) else None
    except (ValueError, KeyError, TypeError):
        return None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's
        return True
    return True


def _refusal(owner: dict | None) -> str:
    if owner is None:
        who = "another run"
    elif owner.get("run_id"):
        who = f"run {owner['run_id']!r} ({owner.get('script')}, process {owner['pid']})"
    else:
        who = f"{owner.get('script')} (process {owner['pid']})"
    return (
        f"{who} is at work in this checkout; wait until it ends, or start this in another copy of "
        "the project"
    )


_held: set[int] = set()  # file descriptors of this process's locks


def _close_in_child() -> None:
    """A forked worker would keep the lock when its parent is killed. Closing a copy of the file
    leaves the parent's lock as it is."""
    for file in _held:
        os.close(file)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)
