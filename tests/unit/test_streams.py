"""Standard streams: closed, broken and full ones, in every combination."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from conftest import jpeg
from processes import LIMIT_S

from metrics.common.paths import PROJECT

FULL = "/dev/full"
STATES = ("ok", "closed", "broken", "full")
# A script: it prints, starts a process that does so too, and tells in a file what it has got.
SCRIPT = """
import os, subprocess, sys
from metrics.common.streams import start_script

def main():
    file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
    print("result\\n" * 5000)
    print("progress", file=sys.stderr)
    child = [sys.executable, "-c", "import os; [os.fstat(fd) for fd in (0, 1, 2)]"]
    told = [file, sys.stdin.read(), subprocess.run(child, stderr=subprocess.DEVNULL).returncode]
    os.write(file, repr(told).encode())
    return int(sys.argv[2])

sys.exit(start_script(main))
"""


def run_with(
    command: list[str], stdin: str, stdout: str, stderr: str, **options: object
) -> tuple[int, str, str]:
    """Exit code and what arrived at stdout and stderr, each of which is ok, closed, broken (a pipe
    that nobody reads) or full."""
    kinds = {0: stdin, 1: stdout, 2: stderr}
    descriptors, to_close = [], []
    for number, kind in kinds.items():
        if kind == "broken":
            reader, writer = os.pipe()
            os.close(reader)
            to_close.append(writer)
            descriptors.append(writer)
        elif kind == "full":
            to_close.append(os.open(FULL, os.O_WRONLY))
            descriptors.append(to_close[-1])
        else:
            descriptors.append(subprocess.PIPE if number else subprocess.DEVNULL)

    def close_some() -> None:
        for number, kind in kinds.items():
            if kind == "closed":
                os.close(number)

    try:
        process = subprocess.Popen(
            command,
            **dict(zip(("stdin", "stdout", "stderr"), descriptors, strict=True)),
            preexec_fn=close_some,
            text=True,
            **options,
        )
    finally:
        for descriptor in to_close:
            os.close(descriptor)
    output, errors = process.communicate(timeout=LIMIT_S)
    return process.returncode, output or "", errors or ""


@pytest.mark.parametrize(
    ("stdin", "stdout", "stderr"),
    list(itertools.product(STATES[:2], STATES, STATES)),
)
def test_a_script_does_its_work_whatever_its_standard_streams_are(tmp_path, stdin, stdout, stderr):
    told = tmp_path / "told"
    command = [sys.executable, "-c", SCRIPT, str(told), "0"]
    code, output, errors = run_with(command, stdin, stdout, stderr, cwd=PROJECT)
    assert code == (1 if stdout == "full" else 0)
    assert output == ("result\n" * 5000 + "\n" if stdout == "ok" else "")
    problem = "error: cannot write to stdout: No space left on device\n"
    said = "progress\n" + (problem if stdout == "full" else "")
    assert errors == (said if stderr == "ok" else "")
    # No file took the place of a stream, and what is started has all three.
    assert told.read_text() == "[3, '', 0]"


@pytest.mark.parametrize("code", [1, 2, 130])
@pytest.mark.parametrize("stdout", ["closed", "broken", "full"])
def test_an_exit_code_that_says_more_than_lost_output_stays(tmp_path, stdout, code):
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "told"), str(code)]
    assert run_with(command, "ok", stdout, "ok", cwd=PROJECT)[0] == code


def test_a_pipe_that_does_not_block_gets_all_of_the_output(tmp_path):
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    command = [sys.executable, "-c", SCRIPT.replace("5000", "50000"), str(tmp_path / "told"), "0"]
    process = subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=writer)
    os.close(writer)
    with os.fdopen(reader) as file:
        assert file.read() == "result\n" * 50000 + "\n"
    assert process.wait(LIMIT_S) == 0


SCRIPTS = (
    *("master_pipeline.py", "upload_images_s3.py", "compare_cloud_onprem_metrics.py"),
    *("onprem_images/local_image_proc.py", "lambda_function/deploy.py"),
    "lambda_function/embedded_cloud.py",
)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_says_that_its_help_did_not_fit_and_does_not_mind_a_reader_that_left(name):
    command = [sys.executable, str(PROJECT / name), "--help"]
    said = "error: cannot write to stdout: No space left on device\n"
    assert run_with(command, "ok", "full", "ok") == (1, "", said)
    assert run_with(command, "ok", "broken", "ok") == (0, "", "")
    assert run_with(command, "closed", "closed", "closed") == (0, "", "")


def test_wrong_usage_exits_2_where_nobody_can_be_told():
    command = [sys.executable, str(PROJECT / "upload_images_s3.py"), "--colour"]
    for stderr in ("closed", "broken", "full"):
        assert run_with(command, "ok", "ok", stderr) == (2, "", "")


@pytest.fixture
def run_in_checkout(checkout) -> Callable[..., tuple[int, str, str]]:
    for number in range(2):
        (checkout / "images_to_upload" / f"{number}.jpg").write_bytes(jpeg(90 + number, 70))

    def run(script: str, *streams: str) -> tuple[int, str, str]:
        command = [sys.executable, *script.split()]
        return run_with(command, *streams, cwd=checkout)

    return run


ONE_CLOSED_OR_BROKEN = [
    *(("closed", "ok", "ok"), ("ok", "closed", "ok"), ("ok", "ok", "closed")),
    *(("ok", "broken", "ok"), ("ok", "ok", "broken"), ("ok", "ok", "full")),
    ("closed", "closed", "closed"),
]


@pytest.mark.parametrize("streams", ONE_CLOSED_OR_BROKEN, ids="-".join)
def test_workers_work_without_some_streams(checkout, run_in_checkout, streams):
    code, output, errors = run_in_checkout("onprem_images/local_image_proc.py", *streams)
    assert (code, errors) == (0, "")
    assert ("2 pictures, 0 failed" in output) == (streams[1] == "ok")
    rows = (checkout / "onprem_images/metrics/local_metrics.csv").read_text()
    assert rows.count(",ok,") == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "streams",
    [("closed", "closed", "closed"), ("ok", "broken", "broken"), ("closed", "full", "ok")],
    ids="-".join,
)
def test_a_whole_run_is_done_and_its_record_has_the_exit_code_of_the_process(
    checkout, run_in_checkout, streams
):
    code, _, errors = run_in_checkout("master_pipeline.py --workers 1 --concurrency 1", *streams)
    assert code == (1 if streams[1] == "full" else 0), errors
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors
    record = json.loads((checkout / "metrics/run.json").read_text())
    assert record["exit_code"] == code
    summary = json.loads((checkout / "metrics/summary.json").read_text())
    assert summary["comparable"] is True
    assert (checkout / "metrics/report.html").stat().st_size > 0


def test_an_embedded_cloud_that_cannot_say_where_it_listens_ends():
    command = [sys.executable, str(PROJECT / "lambda_function/embedded_cloud.py"), "--empty"]
    code, _, errors = run_with(command, "ok", "full", "ok")
    assert (code, errors) == (1, "error: cannot write to stdout: No space left on device\n")


WARN = """
import subprocess, sys, warnings
from metrics.common.streams import start_script

def main():
    warnings.warn("odd metadata", UserWarning)
    child = "import warnings; warnings.warn('odd metadata', UserWarning)"
    flags = subprocess._args_from_interpreter_flags()  # what worker processes are started with
    return subprocess.run([sys.executable, *flags, "-c", child]).returncode

sys.exit(start_script(main))
"""


@pytest.mark.parametrize("flags", [[], ["-W", "error"]])
def test_a_warning_ends_neither_a_script_nor_what_it_starts(flags):
    command = [sys.executable, *flags, "-c", WARN]
    variables = os.environ | ({} if flags else {"PYTHONWARNINGS": "error"})
    code, _, errors = run_with(command, "ok", "ok", "ok", cwd=PROJECT, env=variables)
    assert (code, errors.count("UserWarning: odd metadata")) == (0, 2)


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_odd_setting_of_the_progress_bar_ends_no_script(name):
    odd = {"TQDM_MININTERVAL": "often", "TQDM_FILE": "x", "TQDM_DISABLE": "1", "TQDM_NCOLS": "x"}
    modules = ("onprem_images.sample_images", "metrics.collect.cloud_rows")
    program = f"import {', '.join(modules)}, lambda_function.stack.change_sets"
    for command in ([str(PROJECT / name), "--help"], ["-c", program]):
        done = run_with(
            [sys.executable, *command], "ok", "ok", "ok", cwd=PROJECT, env=os.environ | odd
        )
        assert (done[0], done[2]) == (0, "")
