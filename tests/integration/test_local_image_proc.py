"""The on-prem arm as a user runs it: a row for every picture, and outputs that match the rows."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import jpeg
from processes import LIMIT_S, hear_ctrl_c, is_starting_workers, until

from lambda_function.image_transform import measure_transform, output_name, transform_image
from lambda_function.metrics_log import HEADER, MetricRow, rows_from_csv
from onprem_images import local_image_proc
from onprem_images.dataset import Picture, load_pictures
from onprem_images.local_image_proc import process_picture

SCRIPT = "onprem_images/local_image_proc.py"
GOOD = {
    "a.jpg": jpeg(1700, 1300),
    "with space + plus.JPG": jpeg(300, 200, "navy"),
    "deep/er/ü%.jpeg": jpeg(200, 300, "olive"),
}
BAD = {"deep/notes.txt": b"not a picture", "empty.png": b""}


def write_pictures(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def rows_of(project: Path) -> list[MetricRow]:
    text = (project / "onprem_images/metrics/local_metrics.csv").read_bytes().decode()
    assert text.startswith(HEADER)
    return rows_from_csv(text.removeprefix(HEADER))


def outputs_of(project: Path) -> dict[str, bytes]:
    folder = project / "onprem_images/output_local"
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def is_one_error_line(done: subprocess.CompletedProcess) -> bool:
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return done.returncode == 1 and len(errors) == 1 and "Traceback" not in done.stderr


# --- a run ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_every_picture_has_a_row_and_every_good_one_an_output(checkout, run_script_in, workers):
    write_pictures(checkout / "images_to_upload", GOOD | BAD)
    done = run_script_in(SCRIPT, "--run-id", "run-7", "--workers", str(workers))
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)

    rows = {row.image_key: row for row in rows_of(checkout)}
    assert rows.keys() == GOOD.keys() | BAD.keys()
    for key, content in GOOD.items():
        output = outputs_of(checkout)[output_name(key)]
        assert output == transform_image(content)
        assert (rows[key].status, rows[key].error) == ("ok", "")
        assert (rows[key].orig_size, rows[key].new_size) == (len(content), len(output))
        assert rows[key].output_sha256 == hashlib.sha256(output).hexdigest()
    for key, content in BAD.items():
        assert (rows[key].status, rows[key].new_size) == ("error", 0)
        assert rows[key].error == measure_transform(content).error
        assert rows[key].error in done.stderr
    assert outputs_of(checkout).keys() == {output_name(key) for key in GOOD}
    assert done.stdout.splitlines() == [
        "on-prem: 5 pictures, 2 failed, run run-7",
        "onprem_images/metrics/local_metrics.csv",
    ]
    assert len({row.worker for row in rows.values()}) <= workers


def test_why_pictures_failed_and_how_many_are_copies_is_said_once_for_all(checkout, run_script_in):
    bad = {f"{n}.jpg": f"no picture {n}".encode() for n in range(7)}
    copies = {f"copy {n}.jpg": jpeg() for n in range(3)}
    write_pictures(checkout / "images_to_upload", bad | copies)
    done = run_script_in(SCRIPT, "--workers", "1", "--rounds", "2")
    assert done.stdout.startswith("on-prem: 10 pictures x 2 rounds, 14 failed, run ")
    told = [line for line in done.stderr.splitlines() if "picture" in line and "|" not in line]
    reason = "UnreadableImage: not a picture that can be read here: text"
    first, second = told
    assert first.startswith(f"on-prem: 7 pictures failed ({reason}): '")
    assert first.endswith(" and 2 more")
    assert second == "only 8 different pictures among 10"


def test_rows_say_where_and_how_they_were_made(checkout, run_script_in):
    slow = {"slow.jpg": jpeg(4000, 1199)}  # begun first, and not the first to be done
    write_pictures(checkout / "images_to_upload", GOOD | slow)
    run_script_in(SCRIPT, "--workers", "2")
    rows = rows_of(checkout)
    assert rows == sorted(rows, key=lambda row: row.timestamp)
    assert len({row.run_id for row in rows}) == 1
    for row in rows:
        assert (row.source, row.environment, row.round) == ("on_prem", "local", 1)
        assert row.cold_start is False
        assert min(row.proc_ms, row.cpu_ms, row.fetch_ms, row.store_ms, row.memory_mb) > 0


def test_pictures_from_elsewhere_are_processed_from_any_working_directory(
    checkout, run_script_in, tmp_path
):
    write_pictures(tmp_path / "photos", {"a.jpg": jpeg(), "b.jpg": jpeg(640, 480)})
    done = run_script_in(SCRIPT, "--images", "photos", "--workers", "1", cwd=tmp_path)
    assert done.returncode == 0
    assert [row.image_key for row in rows_of(checkout)] == ["b.jpg", "a.jpg"]  # the largest first
    assert done.stdout.splitlines()[-1] == "project/onprem_images/metrics/local_metrics.csv"
    assert not (tmp_path / "onprem_images").exists()


def test_side_files_are_counted_and_left_out_unless_all_files_are_asked_for(
    checkout, run_script_in, tmp_path
):
    photos = {"a.jpg": jpeg(), "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg": jpeg(80, 60), "._a.jpg": b"x"}
    write_pictures(tmp_path / "photos", photos)
    flags = ("--images", str(tmp_path / "photos"), "--workers", "1")
    done = run_script_in(SCRIPT, *flags)
    assert "left out: 1 ._*, 1 in @eaDir; --all-files takes them\n" in done.stderr
    assert [row.image_key for row in rows_of(checkout)] == ["a.jpg"]
    done = run_script_in(SCRIPT, *flags, "--all-files")
    assert "left out" not in done.stderr
    assert {row.image_key: row.status for row in rows_of(checkout)} == {
        key: "error" if key == "._a.jpg" else "ok" for key in photos
    }


def test_a_run_replaces_the_outputs_of_the_last_one_and_nothing_else(
    checkout, run_script_in, tmp_path
):
    first = write_pictures(tmp_path / "first", {"old/a.jpg": jpeg(), "both/b.jpg": jpeg()})
    second = write_pictures(tmp_path / "second", {"both/b.jpg": jpeg(colour="red")})
    mine = {"mine.jpg": b"mine", "both/mine.txt": b"mine"}
    write_pictures(checkout / "onprem_images/output_local", mine)
    for folder in (first, second):
        assert run_script_in(SCRIPT, "--images", str(folder), "--workers", "1").returncode == 0
    outputs = outputs_of(checkout)
    assert outputs.keys() == mine.keys() | {"both/b.jpg"}
    assert {name: outputs[name] for name in mine} == mine
    assert outputs["both/b.jpg"] == transform_image(jpeg(colour="red"))
    assert not (checkout / "onprem_images/output_local/old").exists()
    assert [row.image_key for row in rows_of(checkout)] == ["both/b.jpg"]


def test_a_list_of_outputs_never_deletes_a_file_outside_of_the_folder(
    checkout, run_script_in, tmp_path
):
    write_pictures(checkout / "images_to_upload", {"a.jpg": jpeg()})
    inside = checkout / "onprem_images/output_local"
    write_pictures(inside, {"mine.jpg": b"mine"})
    write_pictures(tmp_path, {"precious.jpg": b"mine"})
    names = [str(tmp_path / "precious.jpg"), "../../../precious.jpg"]
    lines = [json.dumps([name, hashlib.sha256(b"mine").hexdigest()]) + "\n" for name in names]
    record = {"outputs.jsonl": "".join(lines).encode()}
    write_pictures(checkout / "onprem_images/metrics", record)
    assert run_script_in(SCRIPT, "--workers", "1").returncode == 0
    assert (tmp_path / "precious.jpg").read_bytes() == b"mine"


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [("--workers", "0"), ("--workers", "two"), ("--run-id", "a/b"), ("--unknown",), ("stray",)],
)
def test_wrong_usage_exits_2(checkout, run_script_in, arguments):
    done = run_script_in(SCRIPT, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage:")
    assert not (checkout / "onprem_images/output_local").exists()


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_a_folder_without_pictures_is_one_line_of_error(run_script_in, tmp_path, name):
    (tmp_path / "empty").mkdir()
    done = run_script_in(SCRIPT, "--images", str(tmp_path / name))
    assert is_one_error_line(done)
    assert str(tmp_path / name) in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_an_unreadable_picture_is_an_error_row(checkout, run_script_in):
    write_pictures(checkout / "images_to_upload", {"good.jpg": jpeg()})
    (checkout / "images_to_upload/bad.jpg").symlink_to("/proc/self/mem")
    assert run_script_in(SCRIPT, "--workers", "1").returncode == 0
    assert {row.image_key: row.error for row in rows_of(checkout)} == {
        "good.jpg": "",
        "bad.jpg": "OSError: Input/output error",
    }


def test_a_picture_that_vanished_is_an_error_row(tmp_path):
    gone = Picture("gone.jpg", tmp_path / "gone.jpg", 5, "")
    row = process_picture(gone, "run-7", 1)
    assert (row.image_key, row.run_id, row.status) == ("gone.jpg", "run-7", "error")
    assert row.error == "FileNotFoundError: No such file or directory"
    assert (row.orig_size, row.new_size, row.output_sha256) == (0, 0, "")


def test_a_picture_that_changed_since_it_was_listed_is_an_error_row(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg())
    (listed,) = load_pictures(tmp_path)
    path.write_bytes(jpeg(colour="red"))
    row = process_picture(listed, "run-7", 1)
    assert (row.status, row.new_size, row.orig_size) == ("error", 0, path.stat().st_size)
    assert row.error == "ChangedPicture: not the bytes that were listed"


def test_a_file_that_is_too_large_is_not_read_and_keeps_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(local_image_proc, "MAX_BYTES", 9)
    (tmp_path / "large.jpg").write_bytes(bytes(10))
    row = process_picture(Picture("large.jpg", tmp_path / "large.jpg", 10, ""), "run-7", 1)
    assert (row.orig_size, row.error) == (10, measure_transform(None).error)


@pytest.mark.parametrize("target", ["outside", "project/onprem_images/output_local/other"])
def test_a_link_among_the_outputs_that_leads_elsewhere_is_refused(
    checkout, run_script_in, tmp_path, target
):
    write_pictures(
        checkout / "images_to_upload", {"sub/deep/a.jpg": jpeg(), "other/deep/a.jpg": b""}
    )
    write_pictures(tmp_path / target, {"mine.txt": b"mine"})
    outputs = checkout / "onprem_images/output_local"
    outputs.mkdir(exist_ok=True)
    (outputs / "sub").symlink_to(tmp_path / target)
    done = run_script_in(SCRIPT, "--workers", "1")
    assert is_one_error_line(done)
    assert "output_local/sub/deep leads elsewhere" in done.stderr
    assert [path.name for path in (tmp_path / target).rglob("*")] == ["mine.txt"]


DEADLY = """
import os, pathlib, sys
from metrics.common.cli import run_script
from onprem_images import local_image_proc
from onprem_images import local_image_proc
from onprem_images.dataset import Picture

class Deadly(type(pathlib.Path())):
    def read_bytes(self):
        os._exit(1)

def run(args):
    paths = pathlib.Path("a.jpg"), Deadly("deadly.jpg"), pathlib.Path("b.jpg")
    pictures = [Picture(path.name, path, 1, "") for path in paths]
    local_image_proc.process_on_prem(pictures, "run-7", 1)
    return 0

if __name__ == "__main__":
    sys.exit(run_script(run, None))
"""


def test_a_worker_that_dies_is_one_line_of_error_that_names_the_picture(checkout, run_script_in):
    (checkout / "deadly.py").write_text(DEADLY)
    write_pictures(checkout, {"a.jpg": jpeg(), "deadly.jpg": jpeg(), "b.jpg": jpeg()})
    done = run_script_in("deadly.py")
    assert is_one_error_line(done)
    assert "'deadly.jpg'" in done.stderr
    assert not (checkout / "onprem_images/metrics/local_metrics.csv").exists()


# --- Ctrl-C ---------------------------------------------------------------------------------------


@pytest.fixture
def long_run(checkout):
    """The script at work on far more pictures than a test waits for, after an earlier run's CSV."""
    images = write_pictures(checkout / "images_to_upload", {"0.jpg": jpeg(3000, 2000)})
    for number in range(1, 2000):
        (images / f"{number}.jpg").symlink_to(images / "0.jpg")
    write_pictures(checkout, {"onprem_images/metrics/local_metrics.csv": b"of an earlier run"})
    process = subprocess.Popen(
        [sys.executable, str(checkout / SCRIPT), "--workers", "2"],
        cwd=checkout,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=hear_ctrl_c,
        start_new_session=True,  # as from a terminal, a signal reaches the workers too
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def is_at_work(checkout: Path) -> bool:
    return any((checkout / "onprem_images/output_local").glob("*.jpg"))


@pytest.mark.parametrize("moment", ["workers start", "pictures are processed"])
def test_ctrl_c_ends_the_whole_run_quietly_and_leaves_no_csv(checkout, long_run, moment):
    if moment == "workers start":
        until(lambda: is_starting_workers(long_run.pid))
    else:
        until(lambda: is_at_work(checkout))
    os.killpg(long_run.pid, signal.SIGINT)
    # Reading ends when the last worker has ended, since they hold the pipes' other ends.
    output, errors = long_run.communicate(timeout=LIMIT_S)
    assert (long_run.returncode, output, errors) == (130, "", "interrupted\n")
    assert not list((checkout / "onprem_images/metrics").glob("*.csv"))
    assert not list((checkout / "onprem_images/output_local").rglob("*.part"))


def test_the_run_after_an_interrupted_one_removes_its_outputs(checkout, long_run, run_script_in):
    until(lambda: is_at_work(checkout))
    os.killpg(long_run.pid, signal.SIGINT)
    long_run.communicate(timeout=LIMIT_S)
    assert len(outputs_of(checkout)) >= 1
    other = write_pictures(checkout / "other", {"new.jpg": jpeg()})
    assert run_script_in(SCRIPT, "--images", str(other), "--workers", "1").returncode == 0
    assert outputs_of(checkout).keys() == {"new.jpg"}
