"""Worker processes that are ready before the first task, and never outlive their parent.

Ctrl-C raises KeyboardInterrupt wherever the main thread is. Where it has just got a lock of the
pool, that lock is never given back, and the pool's own thread waits for it for ever. So tasks are
handed over with interrupts put off, and waited for on a queue that an interrupt leaves intact.
"""

import contextlib
import itertools
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from metrics.common.cli import UserError

START_LIMIT_S = 120
TASKS_AHEAD = 500  # handed over and not finished: more than any machine has processors


@contextlib.contextmanager
def worker_pool(
    workers: int, warm_up: Callable[[], None], start_method: str = "spawn"
) -> Iterator[ProcessPoolExecutor]:
    """A pool in which every worker has run `warm_up` before the first task starts.

    Workers are "spawn"ed alike on every system, and share nothing; a "fork" has all that this
    process has loaded already. Leaving the context early (Ctrl-C, an error) drops the tasks that
    have not begun.
    """
    context = multiprocessing.get_context(start_method)
    together = context.Barrier(workers)
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_prepare_worker, initargs=(together, warm_up)
    )
    try:
        # The pool starts a worker for each task that finds none idle, and all are busy with
        # starting until the last one has.
        started = queue.SimpleQueue()
        with defer_interrupts():
            for _ in range(workers):
                pool.submit(_nothing).add_done_callback(started.put)
        try:
            for _ in range(workers):
                started.get(timeout=START_LIMIT_S).result()
        except (BrokenProcessPool, queue.Empty) as error:
            raise UserError("the worker processes did not start; use fewer --workers") from error
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def results(pool: ProcessPoolExecutor, function: Callable, tasks: Iterable[tuple]) -> Iterator:
    """What `function(*task)` returns for each task, in the order in which they are finished.

    Raises BrokenProcessPool when a worker died.
    """
    done, waiting = queue.SimpleQueue(), iter(tasks)
    handed_over = taken = 0
    while True:
        with defer_interrupts():
            for task in itertools.islice(waiting, TASKS_AHEAD - (handed_over - taken)):
                pool.submit(function, *task).add_done_callback(done.put)
                handed_over += 1
        if taken == handed_over:
            return
        yield done.get().result()
        taken += 1


@contextlib.contextmanager
def defer_interrupts() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait: between two starts they would leave a worker waiting for others.

    What starts meanwhile inherits the blocked SIGINT for good: Ctrl-C is for the parent, which ends
    the pool. (A worker that ignored it by its own doing would still show a traceback if it came
    while the worker imports its modules.)
    """
    came, handlers = [], {}
    if threading.current_thread() is threading.main_thread():  # no other can be interrupted
        for number in (signal.SIGINT, signal.SIGTERM):
            handlers[number] = signal.signal(number, lambda number, _: came.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in came[:1]:
            signal.raise_signal(number)


def _prepare_worker(together: "multiprocessing.Barrier", warm_up: Callable[[], None]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    warm_up()
    together.wait(START_LIMIT_S)


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _nothing() -> None:
    """A first task for each worker."""
