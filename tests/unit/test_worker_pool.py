"""Worker processes: ready before the first task, and gone with their parent."""

import _multiprocessing
import contextlib
import errno
import functools
import multiprocessing.util
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from processes import LIMIT_S, until

from metrics.common.cli import UserError
from metrics.common.paths import PROJECT
from metrics.common.worker_pool import TASKS_AHEAD, results, worker_pool


def leave_mark(folder: Path) -> None:
    (folder / str(os.getpid())).touch()


def marks(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def nothing() -> None:
    pass


def fail() -> None:
    raise RuntimeError("warm-up failed")


def run_until(started: Path, end: Path) -> None:
    started.touch()
    until(end.exists)


def test_every_worker_has_warmed_up_before_the_first_task(tmp_path):
    with worker_pool(3, functools.partial(leave_mark, tmp_path)) as pool:
        seen = [pool.submit(marks, tmp_path) for _ in range(6)]
        workers = {pool.submit(os.getpid).result() for _ in range(20)}
    assert [len(names.result()) for names in seen] == [3] * 6
    assert {str(pid) for pid in workers} <= marks(tmp_path)
    assert str(os.getpid()) not in marks(tmp_path)


def test_results_come_one_for_each_task_however_many_there_are():
    with worker_pool(2, nothing) as pool:
        tasks = ((number, 1) for number in range(2 * TASKS_AHEAD + 7))
        assert sorted(results(pool, pow, tasks)) == list(range(2 * TASKS_AHEAD + 7))
        assert list(results(pool, pow, [])) == []


def test_tasks_that_have_not_begun_are_dropped_on_an_early_exit(tmp_path):
    started, end, ran = tmp_path / "started", tmp_path / "end", tmp_path / "ran"
    ran.mkdir()

    tasks = []

    def leave_early() -> None:
        with worker_pool(1, nothing) as pool:
            tasks.append(pool.submit(run_until, started, end))
            tasks.extend(pool.submit((ran / str(number)).touch) for number in range(20))
            # The task under way ends when the last one is dropped, and not before.
            tasks[-1].add_done_callback(lambda _: end.touch())
            until(started.exists)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave_early()
    assert tasks[0].done()
    assert tasks[-1].cancelled()
    assert len(marks(ran)) <= 2  # what was already on its way to the worker


def test_a_failing_warm_up_is_an_error_and_not_an_endless_wait():
    with pytest.raises(UserError, match="did not start"), worker_pool(2, fail):
        pytest.fail("no worker is ready")


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOENT, errno.ENOSPC, errno.EROFS])
def test_shared_memory_that_cannot_be_had_is_named(monkeypatch, number):
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(_multiprocessing, "SemLock", refuse)
    with (
        pytest.raises(UserError, match="see that /dev/shm is there") as caught,
        worker_pool(1, nothing),
    ):
        pytest.fail("no worker is ready")
    assert os.strerror(number) in str(caught.value)


def test_a_process_that_cannot_be_started_is_said_in_one_line(monkeypatch):
    def refuse(*_: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(multiprocessing.util, "spawnv_passfds", refuse)
    problem = r"did not start .*unavailable.*; use fewer --workers"
    with pytest.raises(UserError, match=problem), worker_pool(1, nothing):
        pytest.fail("no worker is ready")


class InterruptedWarmUp:
    """A warm-up that sends this process a signal when it is sent to the second worker."""

    def __init__(self, number: int) -> None:
        self.number, self.starts = number, 0

    def __reduce__(self) -> tuple:
        self.starts += 1
        if self.starts == 2:
            os.kill(os.getpid(), self.number)
        return functools.partial, (nothing,)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_between_two_starts_is_put_off_until_all_have_started(number, capfd):
    before = signal.signal(number, signal.default_int_handler)
    end = threading.Event()
    bystander = threading.Thread(target=end.wait)  # it takes signals that the main thread blocks
    bystander.start()
    warm_up = InterruptedWarmUp(number)
    try:
        with pytest.raises(KeyboardInterrupt), worker_pool(3, warm_up):
            until(lambda: False)
    finally:
        end.set()
        signal.signal(number, before)
    assert warm_up.starts == 3
    assert capfd.readouterr().err == ""  # no worker waited in vain for the others


PARENT = """
import os, sys, threading
sys.path[:0] = {paths!r}
from test_worker_pool import announce_and_wait, nothing
from metrics.common.worker_pool import TASKS_AHEAD, results, worker_pool

if __name__ == "__main__":
    with worker_pool(2, nothing) as pool:
        tasks = [pool.submit(announce_and_wait) for _ in range(2)]
        for task in tasks:
            task.result()
"""


def announce_and_wait() -> None:
    os.write(1, b"working\n")  # in one piece, which print does not promise
    threading.Event().wait()


@pytest.fixture
def parent(tmp_path):
    """A process whose two workers are in the middle of tasks that never end."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(paths=[str(Path(__file__).parents[n]) for n in (0, 1)]))
    process = subprocess.Popen(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    try:
        assert [process.stdout.readline() for _ in range(2)] == ["working\n"] * 2
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_workers_end_when_their_parent_is_killed(parent):
    parent.kill()
    # The workers hold the other ends of these pipes: reading ends when they have ended.
    parent.communicate(timeout=LIMIT_S)
    assert parent.returncode == -signal.SIGKILL
