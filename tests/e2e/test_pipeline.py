"""The whole experiment, run as a user runs it."""

import json
import os
import random
import shutil
import signal
import threading
from pathlib import Path

import pytest
from conftest import jpeg
from PIL import Image
from processes import LIMIT_S, alive, descendants, read_until, started, until

from metrics.analysis.rows import read_rows
from metrics.common.paths import CHART_NAMES

CHARTS = {f"{name}.png" for name in CHART_NAMES}


def fill(folder: Path, count: int = 10) -> None:
    """Pictures of several kinds, and one file that is none."""
    (folder / "sub").mkdir()
    for number in range(count):
        (folder / f"picture {number}+.jpg").write_bytes(jpeg(300 + number, 200))
    (folder / "sub" / "grey.jpg").write_bytes(jpeg(1700, 1300))
    Image.new("RGBA", (50, 50), (255, 0, 0, 99)).save(folder / "alpha.png")
    (folder / "notes.txt").write_text("no picture")


def test_the_whole_experiment_compares_every_picture_and_leaves_nothing(
    checkout, run_script_in, tmp_path
):
    fill(checkout / "images_to_upload")
    (checkout / "images_to_upload" / "._alpha.png").write_bytes(b"of macOS")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    done = run_script_in(
        *("master_pipeline.py", "--run-id", "e2e", "--workers", "1"),
        cwd=tmp_path,
        TMPDIR=str(temporary),
    )
    assert done.returncode == 0, done.stderr
    assert "faster per picture" in done.stdout
    assert "embedded cloud, not AWS" in done.stdout
    assert "completeness 100.0%: 26 of 26 rows, 24 done, 2 failed\n" in done.stdout
    assert "same work: of 12 pairs, 12 identical, 0 equivalent, 0 different\n" in done.stdout

    from metrics.analysis.comparison import compare

    on_prem = read_rows(checkout / "onprem_images/metrics/local_metrics.csv", "on_prem")
    cloud = read_rows(checkout / "metrics/lambda_metrics.csv", "cloud")
    comparison = compare(on_prem, cloud)
    assert comparison.problems == []
    assert len(comparison.merged) == 13
    assert len(comparison.pairs) == 12
    hashes = comparison.pairs[["output_sha256_on_prem", "output_sha256_cloud"]]
    assert (hashes.iloc[:, 0] == hashes.iloc[:, 1]).all()
    assert set(comparison.merged["run_id_cloud"]) == {"e2e"}
    assert {path.name for path in (checkout / "metrics/charts").iterdir()} == CHARTS
    summary = json.loads((checkout / "metrics/summary.json").read_text())
    assert summary["verdict"]["per_picture"] in done.stdout
    assert summary["ledger"]["from_manifest"] is True
    assert (summary["lambda"]["requests"], summary["lambda"]["reported"]) == (13, 13)
    assert summary["lambda"]["cost_usd"]["in all"] > 0
    report = (checkout / "metrics/report.html").read_text()
    assert report.count("data:image/jpeg") == 10  # both outputs of the slowest pictures
    assert list(temporary.iterdir()) == []
    run_json_tells_what_was_run_and_when(json.loads((checkout / "metrics/run.json").read_text()))


def run_json_tells_what_was_run_and_when(record: dict) -> None:
    assert record["run_id"] == "e2e"
    assert record["command_line"] == "master_pipeline.py --run-id e2e --workers 1"
    assert record["data_set"]["pictures"] == 13
    assert len(record["data_set"]["fingerprint"]) == 64
    assert record["data_set"]["left_out"] == {"._*": 1}
    assert record["environment"]["packages"]["Pillow"] == "13.0.0"
    assert {"cpu", "cpus", "memory_mb", "git_commit", "python"} <= set(record["environment"])
    steps = record["steps"]
    assert [s["step"] for s in steps] == ["clean", "on-prem", "upload", "wait", "logs", "compare"]
    assert {s["status"] for s in steps} == {"done"}
    assert record["exit_code"] == 0
    times = [time for step in steps for time in (step["start"], step["end"])]
    assert times == sorted(times)


def steps_of(checkout: Path) -> list[tuple[str, int]]:
    record = json.loads((checkout / "metrics/run.json").read_text())
    return [(step["step"], step.get("round", 1)) for step in record["steps"]]


def test_rounds_are_counter_balanced_complete_and_packed_so_that_they_can_be_judged_again(
    checkout, run_script_in, tmp_path
):
    fill(checkout / "images_to_upload", 3)
    bundle = tmp_path / "run.zip"
    done = run_script_in("master_pipeline.py", "--rounds", "3", "--bundle", str(bundle))
    assert done.returncode == 0, done.stderr
    on_prem, upload, wait = (
        [(step, number) for number in (1, 2, 3)] for step in ("on-prem", "upload", "wait")
    )
    assert steps_of(checkout) == [
        *[("clean", 1), on_prem[0], upload[0], wait[0], upload[1], wait[1], on_prem[1]],
        *[upload[2], wait[2], on_prem[2], ("logs", 1), ("compare", 1)],
    ]
    packed = (checkout / "metrics/summary.json").read_bytes()
    summary = json.loads(packed)
    counts = [(r["arm"], r["round"], r["done"], r["failed"]) for r in summary["ledger"]["rounds"]]
    assert counts == [(arm, n, 5, 1) for arm in ("on_prem", "cloud") for n in (1, 2, 3)]
    assert summary["per_picture"]["pictures"] == 5
    assert summary["per_picture"]["drift_margin"] == 1
    assert "5 pictures x 3 rounds" in summary["verdict"]["per_picture"]

    compare, elsewhere = "compare_cloud_onprem_metrics.py", tmp_path / "elsewhere"
    report = (checkout / "metrics/report.html").read_bytes()
    shutil.rmtree(checkout / "onprem_images/output_local")
    again = run_script_in(compare, "--from-bundle", str(bundle), "--output", str(elsewhere))
    assert again.returncode == 0, again.stderr
    assert "same statistics as packed in" in again.stdout
    assert (elsewhere / "summary.json").read_bytes() == packed
    assert (elsewhere / "report.html").read_bytes() == report

    changed = run_script_in(compare, "--no-download", "--baseline", str(bundle))
    assert changed.returncode == 0
    lines = [line for line in changed.stdout.splitlines() if line.startswith("changed: ")]
    assert [line[:48] for line in lines] == [
        "changed: on-prem: cannot tell whether it is fast",
        "changed: the cloud: cannot tell whether it is fa",
    ]


@pytest.mark.slow
def test_on_prem_against_itself_needs_no_cloud_and_compares_pass_with_pass(
    checkout, run_script_in, tmp_path
):
    fill(checkout / "images_to_upload", 2)
    done = run_script_in(
        "master_pipeline.py", "--self-check", "--rounds", "2", "--run-id", "self_check"
    )
    assert done.returncode == 0, done.stderr
    passes = [("on-prem", number) for number in (1, 2, 3, 4)]
    assert steps_of(checkout) == [("clean", 1), *passes, ("compare", 1)]
    summary = json.loads((checkout / "metrics/summary.json").read_text())
    assert list(summary["arms"]) == ["pass_a", "pass_b"]
    assert summary["ledger"]["completeness"] == 1
    assert (summary["per_picture"]["pictures"], summary["per_picture"]["rounds"]) == (4, 2)
    assert not (checkout / "metrics/lambda_metrics.csv").exists()
    again = run_script_in("compare_cloud_onprem_metrics.py", "--self-check")
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_a_second_run_replaces_the_first(checkout, run_script_in):
    images = checkout / "images_to_upload"
    (images / "first.png").write_bytes(jpeg())
    foreign = checkout / "onprem_images" / "output_local" / "mine.txt"
    assert run_script_in("master_pipeline.py").returncode == 0
    foreign.write_text("not the project's")
    (images / "first.png").rename(images / "second.png")
    assert run_script_in("master_pipeline.py").returncode == 0
    left = {p.name for p in foreign.parent.iterdir() if not p.name.startswith(".")}
    assert left == {"second.png.jpg", "mine.txt"}
    assert "first.png" not in (checkout / "metrics/lambda_metrics.csv").read_text()


def test_too_short_a_wait_names_the_missing_and_exits_1(checkout, run_script_in):
    fill(checkout / "images_to_upload", 1)
    done = run_script_in("master_pipeline.py", "--timeout", "0.01")
    assert done.returncode == 1
    assert "pictures have no cloud row after 0.01 s: " in done.stderr
    assert "notes.txt" in done.stderr or "picture 0+.jpg" in done.stderr
    assert "Traceback" not in done.stderr
    record = json.loads((checkout / "metrics/run.json").read_text())
    assert record["steps"][-1]["status"] == "failed"


def test_the_pipeline_runs_on_a_cloud_that_is_running_and_cleans_it(
    embedded, checkout, run_script_in
):
    (checkout / "images_to_upload" / "a.jpg").write_bytes(jpeg())
    for run_id in ("one", "two"):
        done = run_script_in(
            "master_pipeline.py", "--endpoint-url", embedded.endpoint_url, "--run-id", run_id
        )
        assert done.returncode == 0, done.stderr
    assert ",one," not in (checkout / "metrics/lambda_metrics.csv").read_text()


def test_a_cloud_of_ones_own_is_started_whatever_the_environment_says(checkout, run_script_in):
    (checkout / "images_to_upload" / "a.jpg").write_bytes(jpeg())
    done = run_script_in(
        "master_pipeline.py",
        AWS_ENDPOINT_URL="https://s3.example.com",
        AWS_PROFILE="production",
        HTTP_PROXY="http://127.0.0.1:1",
        HTTPS_PROXY="http://127.0.0.1:1",
        INPUT_BUCKET="production",
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--images", "/no/such/folder"], 1, "is not a folder"),
        (["--cloud", "aws", "--stack", "Not_A_Stack"], 2, "is no stack name"),
        (["--timeout", "-1"], 2, "not a number of seconds"),
        (["--workers", "none"], 2, "not a whole number"),
        (["--no-such-flag"], 2, "unrecognized arguments"),
        (["--self-check", "--cloud", "aws"], 2, "--self-check compares on-prem with itself"),
        (["--resume"], 1, "nothing to resume"),
    ],
)
def test_wrong_use_is_one_line_and_the_right_exit_code(
    checkout, run_script_in, arguments, code, message
):
    (checkout / "images_to_upload" / "a.jpg").write_bytes(jpeg())
    done = run_script_in("master_pipeline.py", *arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_dry_run_says_what_would_be_done_and_cost_and_does_nothing(checkout, run_script_in):
    fill(checkout / "images_to_upload", 2)
    (checkout / "images_to_upload" / "._alpha.png").write_bytes(b"of macOS")
    done = run_script_in("master_pipeline.py", "--dry-run", "--rounds", "3")
    assert (done.returncode, done.stderr) == (0, "left out: 1 ._*; --all-files takes them\n")
    assert done.stdout.startswith("would process 5 pictures, ")
    assert done.stdout.endswith("would leave out 1 ._*\n  ._alpha.png\n")
    all_files = run_script_in("master_pipeline.py", "--dry-run", "--all-files")
    assert all_files.stdout.startswith("would process 6 pictures, ")
    assert "in 3 rounds" in done.stdout
    assert "S3 PUT and LIST" in done.stdout
    assert not (checkout / "metrics" / "run.json").exists()
    assert not list((checkout / "onprem_images").rglob("*.csv"))


def test_a_run_on_aws_that_would_cost_more_than_allowed_is_refused_before_it_starts(
    embedded, checkout, run_script_in
):
    fill(checkout / "images_to_upload", 2)
    flags = ("--cloud", "aws", "--endpoint-url", embedded.endpoint_url, "--region", "us-east-1")
    done = run_script_in("master_pipeline.py", *flags, "--max-cost", "0.0000001")
    assert done.returncode == 1
    assert done.stderr.startswith("error: the run is expected to cost 0.0")
    assert "more than --max-cost 1e-07" in done.stderr
    assert not (checkout / "metrics" / "run.json").exists()
    done = run_script_in("master_pipeline.py", *flags, "--max-cost", "1", "--dry-run")
    assert done.returncode == 0, done.stderr


def test_two_pictures_with_one_output_are_refused_before_anything_starts(checkout, run_script_in):
    for name in ("a.png", "a.png.jpg"):
        (checkout / "images_to_upload" / name).write_bytes(jpeg())
    done = run_script_in("master_pipeline.py")
    assert done.returncode == 1
    assert "'a.png'" in done.stderr
    assert "'a.png.jpg'" in done.stderr
    assert not (checkout / "metrics" / "run.json").exists()


@pytest.fixture
def interrupted(checkout, tmp_path):
    """Run the pipeline, and send it a signal at a random moment after a step is done ("" for the
    beginning); returns what it printed, with nothing of it left."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()

    def run_and_interrupt(number: signal.Signals, step: str, *arguments: str) -> str:
        process, errors = started(checkout, *arguments, TMPDIR=str(temporary)), []
        if step:
            errors = read_until(process, step)
        else:
            until(lambda: len(descendants(process.pid)) > 1 or process.poll() is not None)
        threading.Event().wait(random.Random(f"{number} {step}").uniform(0, 0.5))
        family = descendants(process.pid)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as from a terminal
        else:
            process.send_signal(number)
        errors += process.stderr.readlines()
        assert process.wait(LIMIT_S) == (-number if number == signal.SIGKILL else 130)
        assert "Traceback" not in "".join(errors)
        until(lambda: not any(alive(pid) for pid in family))
        assert list(temporary.iterdir()) == []
        return "".join(errors)

    return run_and_interrupt


@pytest.mark.parametrize(
    ("number", "step"),
    [
        (signal.SIGTERM, ""),
        (signal.SIGKILL, "clean: "),
        (signal.SIGINT, "clean: "),
        (signal.SIGTERM, "on-prem: "),
        (signal.SIGKILL, "upload: "),
        (signal.SIGINT, "upload: "),
        (signal.SIGTERM, "wait: "),
        (signal.SIGKILL, "logs: "),
    ],
)
def test_an_interruption_in_any_step_leaves_whole_files_no_process_and_no_temporary_folder(
    checkout, interrupted, number, step
):
    fill(checkout / "images_to_upload", 60)
    interrupted(number, step)
    if number != signal.SIGKILL:  # which nothing can tidy up after
        assert not list(checkout.rglob("*.part"))
    for path in (checkout / "onprem_images/metrics").glob("*.csv"):
        assert len(read_rows(path, "on_prem")) == 63
    for path in [p for p in (checkout / "metrics").iterdir() if p.suffix in (".csv", ".json")]:
        assert path.suffix == ".csv" or json.loads(path.read_bytes())


def test_the_run_after_a_killed_one_works_and_removes_what_that_one_left(
    checkout, interrupted, run_script_in
):
    fill(checkout / "images_to_upload", 40)
    interrupted(signal.SIGKILL, "clean: ")
    done = run_script_in("master_pipeline.py")
    assert done.returncode == 0, done.stderr
    assert not list(checkout.rglob("*.part"))


def test_an_empty_folder_gets_the_sample_set_once(checkout, run_script_in):
    first = run_script_in("onprem_images/local_image_proc.py")
    assert first.returncode == 0
    assert "generating a sample set" in first.stderr
    assert "on-prem: 16 pictures, 0 failed" in first.stdout
    second = run_script_in("upload_images_s3.py")
    assert "generating" not in second.stderr
