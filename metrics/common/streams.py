"""How a script begins and ends: standard streams that are closed, broken or full end no run, and
lose no exit code; a locale changes no name.

A daemon may start a script without some of them, a pipe's reader may leave (`| head -1`), the disk
behind a file may be full. The work goes on: its results are files.
"""

import io
import os
import select
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from metrics.common.cli import DONE, FAILED


def start_script(main: Callable[[], int]) -> int:
    """The exit code of a script whose work is `main`; also where argparse ends it.

    All names of files, arguments and texts are in UTF-8 whatever the locale says; only what the
    terminal shows is in the locale's encoding, and what that lacks is escaped.
    """
    open_missing_streams()
    be_in_utf8_mode()
    encoding = sys._xoptions.get("shown_in")
    for name in ("stdout", "stderr"):
        getattr(sys, name).reconfigure(encoding=encoding, errors="backslashreplace")
        setattr(sys, name, enduring(getattr(sys, name)))
    forget_warnings_as_errors()
    try:
        code = main()
    except SystemExit as end:  # help or wrong usage
        code = end.code
    return after_output(code)


def be_in_utf8_mode() -> None:
    """Python's UTF-8 mode, for which the interpreter starts anew where the locale is another's."""
    if sys.getfilesystemencoding() != "utf-8":
        words = ["-X", "utf8", "-X", f"shown_in={sys.stdout.encoding}", *_words_after_python()]
        os.execv(sys.executable, [sys.executable, *words])  # nosec B606 # this interpreter, no shell
    if "shown_in" in sys._xoptions:
        sys._xoptions["utf8"] = True  # for the worker processes, too, whatever else was said of it


def _words_after_python() -> list[bytes]:
    """Of this process's command line, as they were given: not every locale's reading of them can be
    turned back into the same bytes."""
    try:
        return Path("/proc/self/cmdline").read_bytes().split(b"\0")[1:-1]
    except OSError:  # no Linux
        return [os.fsencode(word) for word in sys.orig_argv[1:]]


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
