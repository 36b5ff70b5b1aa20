"""How a script begins and ends: standard streams that are closed, broken or full end no run, and
lose no exit code.

A daemon may start a script without some of them, a pipe's reader may leave (`| head -1`), the disk
behind a file may be full. The work goes on: its results are files.
"""

import io
import os
import select
import sys
import warnings
from collections.abc import Callable
from typing import TextIO

from metrics.common.cli import DONE, FAILED


def exit_code_of(main: Callable[[], int]) -> int:
    """The exit code of a script whose work is `main`; also where argparse ends it."""
    open_missing_streams()
    sys.stdout, sys.stderr = map(enduring, (sys.stdout, sys.stderr))
    forget_warnings_as_errors()
    try:
        code = main()
    except SystemExit as end:  # help or wrong usage
        code = end.code
    return after_output(code)


def forget_warnings_as_errors() -> None:
    """Here and in all that is started: what a library only warns of (a picture's odd metadata, a
    name that will go) must not end a run because of PYTHONWARNINGS=error."""
    os.environ.pop("PYTHONWARNINGS", None)
    sys.warnoptions.clear()
    warnings.filters[:] = [one for one in warnings.filters if one[0] != "error"]


def open_missing_streams() -> None:
    """Let /dev/null take the place of standard streams that are closed.

    The next file or socket to be opened would get a number from 0 to 2, and what is started would
    take it for its standard stream; and print(file=sys.stderr) writes to stdout when that is None.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


class _EnduringFile(io.FileIO):
    """Takes all that is written, also when it cannot pass it on any more; `loss` is why."""

    loss: OSError | None = None
    is_said = False

    def write(self, data) -> int:
        if self.loss is None:
            try:
                while (written := super().write(data)) is None:  # a pipe that does not block
                    select.select([], [self], [])
                return written
            except OSError as error:
                self.loss = error
        return memoryview(data).nbytes


def enduring(stream: TextIO) -> TextIO:
    """`stream` anew, on a file that nothing breaks."""
    file = _EnduringFile(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(file),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def after_output(code: int) -> int:
    """`code`, or FAILED where not all of the output could be written, which is said once.

    That a pipe's reader has left is no failure: it has what it wanted.
    """
    file = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if not isinstance(file, _EnduringFile):  # in a program that only calls main()
        return code
    sys.stdout.flush()
    if file.loss is None or isinstance(file.loss, BrokenPipeError):
        return code
    if not file.is_said:
        file.is_said = True
        print(f"error: cannot write to stdout: {file.loss.strerror}", file=sys.stderr)
    return FAILED if code == DONE else code
