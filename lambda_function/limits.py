"""What one picture may take of a worker: memory and processor time, the same in both arms.

The transform refuses what is too large by its header. This catches what no header tells: a decoder
that needs many times the picture, or a small file that keeps it busy for an hour. Such a picture
becomes an `error` row; the worker, or the Lambda environment, lives on.
"""

import contextlib
import resource
import signal
import threading
import time
from collections.abc import Iterator

# Bytes beyond what the process held before it read the file. With the 100 MB that a Lambda
# environment has at rest, it stays below the function's default memory, 1769 MB.
MAX_MEMORY = 1500 * 2**20
# Seconds of processor time, which other work on the machine does not change; the function's
# time-out is 60 s by default. Decoders in C need 17 s at most for the largest picture; those that
# Pillow has in Python (QOI, DDS, plain PPM) 1 s for each megapixel.
MAX_CPU_S = 40
# And seconds in all: where the processor is shared, or a small function has a part of one, the
# time-out would come first, three times, and leave no row that says why.
MAX_WALL_S = 50
# Looked at from then on, so often. A timer of processor time would be exact, but while one runs,
# Linux reads out processor time by the tick only, and cpu_ms would be worthless.
LOOK_AGAIN_S = 4


class TooSlow(BaseException):
    """The picture took too long. No Exception: Pillow drops some of those, such as in EXIF."""


@contextlib.contextmanager
def limits(file_size: int) -> Iterator[None]:
    """Within it, more than MAX_MEMORY raises MemoryError, than MAX_CPU_S or MAX_WALL_S TooSlow.

    `file_size` bytes are in memory already. Memory is limited on Linux only; time in the main
    thread only, which both arms run in.
    """
    with contextlib.ExitStack() as stack:
        if (held := _private_bytes()) is not None:
            soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
            most = min(x for x in (held - file_size + MAX_MEMORY, soft, hard) if x >= 0)
            stack.callback(resource.setrlimit, resource.RLIMIT_DATA, (soft, hard))
            resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
        if threading.current_thread() is threading.main_thread():
            end_cpu = time.process_time() + MAX_CPU_S
            end_wall = time.monotonic() + MAX_WALL_S

            def look(*_: object) -> None:
                if time.process_time() >= end_cpu or time.monotonic() >= end_wall:
                    raise TooSlow(
                        f"it takes more than {MAX_CPU_S} s of processor time, or {MAX_WALL_S} s"
                    )

            before = signal.signal(signal.SIGALRM, look)
            stack.callback(signal.signal, signal.SIGALRM, before)
            stack.callback(signal.setitimer, signal.ITIMER_REAL, 0)
            signal.setitimer(signal.ITIMER_REAL, MAX_CPU_S, LOOK_AGAIN_S)
        yield


def _private_bytes() -> int | None:
    """Memory that RLIMIT_DATA counts; None where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[5]) * resource.getpagesize()
    except OSError:
        return None
