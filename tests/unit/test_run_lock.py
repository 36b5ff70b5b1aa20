"""One run at a time in a checkout, whatever becomes of the run; and none passes for another."""

import contextlib
import errno
import fcntl
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import jpeg
from processes import LIMIT_S, alive, descendants, read_until, started, until

from metrics.common import run_lock
from metrics.common.cli import UserError
from metrics.common.paths import PROJECT
from metrics.common.run_lock import checkout_lock
from metrics.run import round_runner

LOCK = "metrics/.run.lock"


@pytest.fixture
def lock_file(tmp_path, monkeypatch) -> Path:
    path = tmp_path / ".run.lock"
    monkeypatch.setattr(run_lock, "RUN_LOCK", path)
    return path


@pytest.fixture
def pictures(checkout) -> Path:
    for number in range(6):
        (checkout / "images_to_upload" / f"{number}.jpg").write_bytes(jpeg(900 + number, 700))
    return checkout / "images_to_upload"


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


# --- the lock -------------------------------------------------------------------------------------


def test_who_comes_second_is_told_who_was_first_and_can_come_again(lock_file):
    with checkout_lock("first"):
        with pytest.raises(UserError) as refusal, checkout_lock("second"):
            pytest.fail("both have it")
        assert f"run 'first' ({Path(sys.argv[0]).name}, process {os.getpid()})" in str(
            refusal.value
        )
        assert len(str(refusal.value).splitlines()) == 1
    assert not lock_file.exists()
    with checkout_lock("second"), pytest.raises(UserError, match="run 'second'"), checkout_lock():
        pass


def test_the_lock_holds_although_somebody_deletes_its_file(lock_file):
    """As `git clean -fdX` does."""
    with checkout_lock("first"):
        lock_file.unlink()
        with pytest.raises(UserError, match="another run is at work"), checkout_lock("second"):
            pytest.fail("both have it")
    with checkout_lock("second"):
        pass


def test_an_error_gives_the_lock_back(lock_file):
    with pytest.raises(ZeroDivisionError), checkout_lock():
        raise ZeroDivisionError
    with checkout_lock():
        pass


def test_a_run_that_is_named_later_is_told_by_its_name(lock_file):
    with checkout_lock() as lock:
        with pytest.raises(UserError, match=rf"\(process {os.getpid()}\) is at work"):
            checkout_lock().__enter__()
        lock.name("x" * 64)
        with pytest.raises(UserError, match="run '" + "x" * 64):
            checkout_lock().__enter__()


@pytest.mark.parametrize(
    "left", [b"", b"{", b"[1]", b'{"pid": "x"}', b'{"pid": 99999999999999999999}', b"\xff" * 600]
)
def test_what_a_killed_run_left_is_in_nobodys_way(lock_file, left, monkeypatch):
    monkeypatch.setattr(run_lock, "TELLS_WITHIN_S", 0)
    lock_file.write_bytes(left)
    with checkout_lock("next"), pytest.raises(UserError, match="run 'next'"), checkout_lock():
        pass
    lock_file.write_bytes(left)
    with lock_file.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="is at work in this checkout"), checkout_lock():
            pass


def test_a_lock_file_deleted_by_hand_does_not_let_the_next_delete_that_of_another(lock_file):
    with checkout_lock("first"):
        lock_file.unlink()
        lock_file.touch()  # of another
    assert lock_file.exists()


def test_a_lock_that_was_deleted_while_it_was_opened_is_asked_for_anew(lock_file, monkeypatch):
    real, opened = run_lock._open, []

    def opens(writes: bool) -> int:
        opened.append(real(writes))
        if len(opened) == 1:
            lock_file.unlink()
        return opened[-1]

    monkeypatch.setattr(run_lock, "_open", opens)
    with checkout_lock("mine"):
        assert len(opened) == 2
        assert json.loads(lock_file.read_bytes())["run_id"] == "mine"


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_locks_of_the_file_system_a_line_says_so_and_it_goes_on(
    lock_file, monkeypatch, capsys, code
):
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with checkout_lock("mine"):
        pass
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be locked here" in line
    assert "start no second run" in line


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_where_nothing_can_be_written_who_only_reads_needs_no_lock(lock_file, monkeypatch, code):
    real = os.open

    def refuse(path, flags, *more, **named):
        if path == lock_file and flags & os.O_CREAT:
            raise OSError(code, os.strerror(code), str(path))
        return real(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", refuse)
    with checkout_lock(writes=False) as lock:
        lock.name("mine")
    with pytest.raises(OSError, match=re.escape(str(lock_file))), checkout_lock():
        pass
    lock_file.write_bytes(b"of another user's")
    with checkout_lock(), pytest.raises(UserError, match="at work"), checkout_lock(writes=False):
        pass


def _wait_for(gate) -> None:
    gate.wait(LIMIT_S)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_worker_that_lives_on_does_not_keep_the_lock(lock_file, method):
    context = multiprocessing.get_context(method)
    gate = context.Event()
    with checkout_lock("parent"):
        worker = context.Process(target=_wait_for, args=[gate])
        worker.start()
        with pytest.raises(UserError, match="run 'parent'"), checkout_lock():
            pass  # neither does the worker's end of it release the parent's
    try:
        with checkout_lock("next"):
            assert worker.is_alive()
    finally:
        gate.set()
        worker.join(LIMIT_S)


KEEPS_CHILDREN = """
import os, subprocess, sys, time
from metrics.common.run_lock import checkout_lock
with checkout_lock("killed"):
    if (pid := os.fork()) == 0:
        time.sleep(600)
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(pid, program.pid, flush=True)
    time.sleep(600)
"""


def test_a_killed_holder_gives_the_lock_back_although_its_children_live(checkout):
    holder = subprocess.Popen(
        [sys.executable, "-c", KEEPS_CHILDREN], cwd=checkout, stdout=subprocess.PIPE, text=True
    )
    children = [int(word) for word in holder.stdout.readline().split()]
    holder.kill()
    holder.wait()
    try:
        assert all(map(alive, children))
        program = (
            "from metrics.common.run_lock import checkout_lock\nwith checkout_lock('next'): pass"
        )
        done = subprocess.run([sys.executable, "-c", program], cwd=checkout, timeout=LIMIT_S)
        assert done.returncode == 0
        assert not (checkout / LOCK).exists()
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
        holder.communicate()


# --- two runs at once -----------------------------------------------------------------------------


@pytest.fixture
def held(checkout, pictures) -> Iterator[subprocess.Popen]:
    """A run under way, `first`, stopped where its on-prem pass is done."""
    process = started(checkout, "--run-id", "first", "--rounds", "2")
    read_until(process, "on-prem (1 of 2): ")
    process.send_signal(signal.SIGSTOP)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


SECOND = {
    "a run": ["master_pipeline.py"],
    "a run on AWS": ["master_pipeline.py", "--cloud", "aws"],
    "a resumed run": ["master_pipeline.py", "--resume"],
    "the on-prem arm": ["onprem_images/local_image_proc.py"],
    "an upload": ["upload_images_s3.py"],
    "a comparison": ["compare_cloud_onprem_metrics.py", "--no-download"],
    "a download": ["compare_cloud_onprem_metrics.py", "--timeout", "1"],
    "a benchmark": ["tests/benchmarks/aa.py", "--repeat", "1"],
}


def test_beside_a_run_every_script_that_works_here_is_refused_and_both_stay_whole(
    checkout, pictures, held, run_script_in
):
    before = bytes_in(checkout)
    for command in SECOND.values():
        done = run_script_in(*command)
        assert done.returncode == 1, command
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: "), command
        assert f"run 'first' (master_pipeline.py, process {held.pid})" in line, command
        assert bytes_in(checkout) == before, command
    assert run_script_in("master_pipeline.py", "--dry-run").returncode == 0
    for script in ("master_pipeline.py", "onprem_images/local_image_proc.py"):
        assert run_script_in(script, "--help").returncode == 0
    assert bytes_in(checkout) == before
    other = shutil.copytree(checkout, checkout.with_name("other"))
    beside = subprocess.run(
        [sys.executable, "onprem_images/local_image_proc.py", "--workers", "1"],
        cwd=other,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert beside.returncode == 0, beside.stderr
    held.send_signal(signal.SIGCONT)
    _, errors = held.communicate(timeout=2 * LIMIT_S)
    assert held.returncode == 0, errors
    summary = json.loads((checkout / "metrics/summary.json").read_text())
    assert (summary["run_id"], summary["ledger"]["completeness"]) == ("first", 1)
    assert run_script_in("compare_cloud_onprem_metrics.py", "--no-download").returncode == 0


@pytest.mark.slow
def test_of_two_runs_started_at_once_one_is_whole_and_one_is_refused(checkout, pictures):
    commands = [["--run-id", name, "--self-check", "--rounds", "1"] for name in ("one", "two")]
    runs = [started(checkout, *command) for command in commands]
    errors = [run.communicate(timeout=2 * LIMIT_S)[1] for run in runs]
    codes = [run.returncode for run in runs]
    assert sorted(codes) == [0, 1], errors
    won = ("one", "two")[codes.index(0)]
    refused = codes.index(1)
    assert errors[refused].startswith(f"error: run '{won}' (master_pipeline.py, process ")
    assert f"process {runs[1 - refused].pid})" in errors[refused]
    assert len(errors[refused].splitlines()) == 1
    for path in ("metrics/manifest.json", "metrics/run.json", "metrics/summary.json"):
        assert json.loads((checkout / path).read_text())["run_id"] == won
    assert len(bytes_in(pictures)) == 6


@pytest.mark.slow
def test_after_a_kill_the_next_run_starts_at_once_although_workers_may_live(
    checkout, pictures, run_script_in
):
    process = started(checkout, "--run-id", "killed")
    read_until(process, "clean: ")
    until(lambda: len(descendants(process.pid)) > 1)
    family = descendants(process.pid) - {process.pid}
    for child in family:  # so that none sees that its parent ended
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGSTOP)
    process.kill()
    process.wait()
    try:
        assert (checkout / LOCK).exists()
        done = run_script_in("master_pipeline.py", "--self-check", "--run-id", "next")
        assert done.returncode == 0, done.stderr
        summary = json.loads((checkout / "metrics/summary.json").read_text())
        assert summary["run_id"] == "next"
    finally:
        for child in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        process.communicate()


@pytest.mark.slow
def test_results_elsewhere_from_a_bundle_need_no_lock(checkout, pictures, run_script_in, tmp_path):
    flags = ("--self-check", "--rounds", "1", "--bundle", str(tmp_path / "run.zip"))
    assert run_script_in("master_pipeline.py", *flags).returncode == 0
    with (checkout / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        judge = ("compare_cloud_onprem_metrics.py", "--from-bundle", str(tmp_path / "run.zip"))
        done = run_script_in(*judge, "--output", str(tmp_path / "elsewhere"))
        assert done.returncode == 0, done.stderr
        done = run_script_in(*judge)
        assert "is at work in this checkout" in done.stderr


def test_git_does_not_see_the_lock():
    ignored = (PROJECT / ".gitignore").read_text().splitlines()
    assert f"/{LOCK}" in ignored


# --- none passes for another ----------------------------------------------------------------------


def goes_on(held: subprocess.Popen) -> str:
    """Its stderr, of a run that fails."""
    held.send_signal(signal.SIGCONT)
    _, errors = held.communicate(timeout=2 * LIMIT_S)
    assert held.returncode == 1
    assert "Traceback" not in errors
    return errors


@pytest.mark.slow
def test_a_run_does_not_judge_by_the_manifest_of_another(checkout, held):
    path = checkout / "metrics" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"run_id": "other"}))
    errors = goes_on(held)
    assert "error: metrics/manifest.json is of run 'other', and no longer of 'first': " in errors
    assert not (checkout / "metrics" / "summary.json").exists()


@pytest.mark.slow
def test_rows_of_another_run_are_not_counted_and_those_they_replaced_are_missed(checkout, held):
    path = checkout / "onprem_images/metrics/local_metrics.csv"
    path.write_bytes(path.read_bytes().replace(b",first,", b",other,"))
    goes_on(held)
    summary = json.loads((checkout / "metrics/summary.json").read_text())
    assert (summary["run_id"], summary["comparable"]) == ("first", False)
    ledger = summary["ledger"]
    assert (ledger["late"]["on_prem"], ledger["accounted"], ledger["expected"]) == (6, 18, 24)


@pytest.mark.parametrize("name", ["MANIFEST_JSON", "RUN_JSON"])
@pytest.mark.parametrize("content", [b'{"run_id": "other"}', b'{"run_id": 1}', b"[", None])
def test_whatever_another_run_left_here_a_run_takes_for_its_own_only_what_is(
    tmp_path, monkeypatch, name, content
):
    run = object.__new__(round_runner.Run)
    run.run_id = "mine"
    for own in ("MANIFEST_JSON", "RUN_JSON"):
        (tmp_path / own).write_text('{"run_id": "mine"}')
        monkeypatch.setattr(round_runner, own, tmp_path / own)
    run._check_own()
    (tmp_path / name).unlink() if content is None else (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} is of run .* and no longer of 'mine'"):
        run._check_own()
