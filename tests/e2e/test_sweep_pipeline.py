"""Sweeps and added rounds, run as a user runs them."""

import json
import re
import signal
from pathlib import Path

import pytest
from conftest import jpeg
from processes import LIMIT_S, read_until, started

from lambda_function.cloud import find_function, make_client
from lambda_function.stack.function_settings import settings_now

pytestmark = pytest.mark.slow


@pytest.fixture
def pictures(checkout) -> Path:
    for number in range(6):
        (checkout / "images_to_upload" / f"{number}.jpg").write_bytes(jpeg(60 + 9 * number))
    return checkout / "images_to_upload"


def summary_of(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_bytes())


def test_all_sweeps_in_one_run_are_whole_and_repeat_from_a_bundle(
    checkout, pictures, run_script_in, tmp_path
):
    flags = ("--rounds", "2", "--scale", "2,4", "--workers", "1,2", "--concurrency", "1,2")
    bundle = tmp_path / "all.zip"
    done = run_script_in(
        *("master_pipeline.py", *flags, "--memory", "1024,1769", "--bundle", str(bundle))
    )
    assert done.returncode == 0, done.stderr
    assert "left out" not in done.stderr  # each run finds a clean cloud
    scale, parallelism, memory = summary_of(checkout / "metrics")["sweeps"]
    assert [p["pictures"] for p in scale["points"]] == [2, 4, 6]
    assert [p["workers"] for p in parallelism["points"]] == [1, 2]
    assert [p["concurrency"] for p in parallelism["points"]] == [1, 2]
    assert [p["memory_mb"] for p in memory["points"]] == [1024, 1769]
    for found in (scale, parallelism, memory):
        assert found["incomplete"] == []
        assert found["answer"] in done.stdout
        for point in found["points"]:
            assert point["whole"]
            assert point["ratio"]["rounds"] == 2
            assert point["makespan_s"]["cloud"]["ratio"] > 0
    assert memory["points"][0]["cost_usd"]["ratio"] > 0
    page = (checkout / "metrics/report.html").read_text()
    for kind in ("scale", "parallelism", "memory"):
        assert f'<section id="{kind}">' in page
        assert (checkout / f"metrics/charts/{kind}.png").stat().st_size > 10_000
    assert not (checkout / "metrics/function_settings.json").exists()

    again = run_script_in(
        *("compare_cloud_onprem_metrics.py", "--from-bundle", str(bundle)),
        *("--output", str(tmp_path / "from")),
    )
    assert again.returncode == 0, again.stderr
    assert summary_of(tmp_path / "from") == summary_of(checkout / "metrics")

    plain = run_script_in(
        "master_pipeline.py", "--self-check"
    )  # the next run is about itself alone
    assert plain.returncode == 0, plain.stderr
    assert summary_of(checkout / "metrics")["sweeps"] == []
    assert list((checkout / "metrics/sweep").iterdir()) == []
    charts = {path.stem for path in (checkout / "metrics/charts").iterdir()}
    assert not charts & {"scale", "parallelism", "memory"}  # they would be of the run before


def test_an_interrupted_sweep_restores_the_function_and_goes_on(
    checkout, pictures, run_script_in, embedded
):
    client, name = make_client(embedded, "lambda"), find_function(embedded)["FunctionName"]
    before = settings_now(client, name)
    flags = ("--endpoint-url", embedded.endpoint_url, "--rounds", "2", "--memory", "1024,1280,1536")
    process = started(checkout, *flags)
    read_until(process, "memory: ")
    read_until(process, "memory: ")  # the first is done and kept
    read_until(process, "upload (1 of 2)")
    assert settings_now(client, name)["memory_mb"] == 1280
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130
    assert settings_now(client, name) == before
    kept = [path.name for path in (checkout / "metrics/sweep").iterdir()]
    assert kept == ["memory-1024"]

    done = run_script_in("master_pipeline.py", *flags, "--resume")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\nmemory: ") == 2
    assert done.stderr.startswith("done before: memory: 6 pictures x 2 rounds, 2 workers, 1,024 MB")
    (memory,) = summary_of(checkout / "metrics")["sweeps"]
    assert [p["memory_mb"] for p in memory["points"]] == [1024, 1280, 1536, before["memory_mb"]]
    assert memory["incomplete"] == []
    assert settings_now(client, name) == before


def test_a_sweep_in_a_cloud_of_its_own_goes_on_with_the_run_that_was_interrupted(
    checkout, pictures, run_script_in
):
    flags = ("--rounds", "2", "--scale", "2,4")
    process = started(checkout, *flags)
    read_until(process, "scale: ")
    read_until(process, "scale: ")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=LIMIT_S)
    done = run_script_in("master_pipeline.py", *flags, "--resume")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\nscale: ") == 1
    (scale,) = summary_of(checkout / "metrics")["sweeps"]
    assert [p["pictures"] for p in scale["points"]] == [2, 4, 6]


def test_rounds_are_added_until_the_limit_and_the_record_says_why(
    checkout, pictures, run_script_in
):
    done = run_script_in("master_pipeline.py", "--precision", "0.001%", "--max-rounds", "5")
    assert done.returncode == 0, done.stderr
    reason = json.loads((checkout / "metrics/run.json").read_bytes())["rounds_ended"]
    assert reason.startswith("--max-rounds 5 is reached; the interval is ±")
    assert f"no more rounds after 5: {reason}" in done.stderr
    assert "completeness 100.0%: 60 of 60 rows" in done.stdout
    manifest = json.loads((checkout / "metrics/manifest.json").read_bytes())
    assert (manifest["rounds"], manifest["precision"]) == (5, 1e-5)


def test_added_rounds_go_on_after_an_interruption(checkout, pictures, run_script_in, embedded):
    flags = ("--endpoint-url", embedded.endpoint_url, "--precision", "0.001%", "--max-rounds", "5")
    process = started(checkout, *flags)
    read_until(process, "upload (3 of 5)")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=LIMIT_S)
    done = run_script_in("master_pipeline.py", *flags, "--resume")
    assert done.returncode == 0, done.stderr
    assert "no more rounds after 5" in done.stderr
    assert "on-prem (2 of 5)" not in done.stderr
    assert "completeness 100.0%: 60 of 60 rows" in done.stdout


def test_parallelism_alone_has_the_comparison_as_its_last_point(checkout, pictures, run_script_in):
    for _ in range(2):  # the second finds what the first kept
        done = run_script_in(
            "master_pipeline.py", "--no-clean", "--workers", "1,2", "--rounds", "2"
        )
        assert done.returncode == 0, done.stderr
    (parallelism,) = summary_of(checkout / "metrics")["sweeps"]
    assert [p["workers"] for p in parallelism["points"]] == [1, 2]
    assert "no two points are whole" not in parallelism["answer"]


def test_rounds_are_added_until_on_prem_against_itself_is_sharp_enough(
    checkout, pictures, run_script_in
):
    done = run_script_in("master_pipeline.py", "--self-check", "--precision", "99%", "--plan", "5%")
    assert done.returncode == 0, done.stderr
    told = re.search(r"no more rounds after (\d+): the interval is ±", done.stderr)
    rounds = int(told[1])  # more than 4 where the machine is busy
    assert rounds >= 4
    assert f"completeness 100.0%: {12 * rounds} of {12 * rounds} rows" in done.stdout
    assert "to find a difference of 5% in 80% of such experiments" in done.stdout


def test_the_time_limit_ends_a_run_after_its_first_round(checkout, pictures, run_script_in):
    done = run_script_in(
        "master_pipeline.py", "--self-check", "--precision", "0.001%", "--max-time", "0.01"
    )
    assert done.returncode == 0, done.stderr
    assert "no more rounds after 1: another round would exceed --max-time 0.01" in done.stderr


def test_a_dry_run_of_a_sweep_names_its_runs_and_their_cost_and_does_nothing(
    checkout, pictures, run_script_in
):
    whole = run_script_in("master_pipeline.py", "--dry-run", "--rounds", "3")
    done = run_script_in(
        "master_pipeline.py", "--dry-run", "--scale", "2,4", "--memory", "512,1024"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("would run before: ") == 4
    assert "in all" in done.stdout

    def usd(text: str) -> float:
        return float(text.partition("in all")[2].split()[0])

    assert usd(done.stdout) > 2 * usd(whole.stdout)
    assert not (checkout / "metrics/manifest.json").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--precision", "5%", "--rounds", "4"], "--precision adds rounds by itself"),
        (["--precision", "0%"], "not a number of percent above 0"),
        (["--precision", "0.05"], "write 0.05% or 5%"),
        (["--max-rounds", "3"], "limit --precision, which is not there"),
        (
            ["--self-check", "--scale", "2"],
            "--self-check compares on-prem with itself: without sweeps",
        ),
        (["--memory", "64"], "128 to 10240 MB"),
        (["--scale", "4,2"], "each number must be above the one before"),
        (["--scale", "2", "--run-id", "r" * 41], "40 characters at most"),
    ],
)
def test_flags_that_make_no_sense_exit_2(run_script_in, flags, said):
    done = run_script_in("master_pipeline.py", *flags)
    assert done.returncode == 2
    assert said in done.stderr


def test_more_pictures_than_there_are_is_one_line(checkout, pictures, run_script_in):
    done = run_script_in("master_pipeline.py", "--scale", "2,7")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: --scale asks for 7 pictures, and there are 6"
