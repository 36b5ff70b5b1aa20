"""compare_cloud_onprem_metrics.py: what it prints and writes, and when it exits 0."""

import dataclasses
import re
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from rows import row

import compare_cloud_onprem_metrics as compare_script
from lambda_function.metrics_log import CSV_KEY, HEADER, MetricRow, rows_to_csv
from metrics.script import UserError

SCRIPT = "compare_cloud_onprem_metrics.py"
KEYS = ("a.jpg", "dir/b,c.jpg", "ü.jpg")
CHART_NAMES = ("avg_time.png", "boxplot_time.png", "size_vs_time.png", "total_time.png")
REFERENCE_HEADER = "timestamp,image_key,orig_size,new_size,proc_ms\n"


def on_prem_rows(run_id: str = "run", proc_ms: float = 10.0) -> list[MetricRow]:
    facts = {"source": "on_prem", "environment": "local", "run_id": run_id}
    times = [(key, proc_ms + n) for n, key in enumerate(KEYS)]
    return [row(key, proc_ms=ms, cpu_ms=ms, **facts) for key, ms in times]


def cloud_rows(run_id: str = "run", times: float = 2.0) -> list[MetricRow]:
    return [
        row(key, proc_ms=times * (10.0 + n), cpu_ms=times * (10.0 + n), run_id=run_id)
        for n, key in reversed([*enumerate(KEYS)])
    ]


def csv_of(rows: list[MetricRow]) -> bytes:
    return (HEADER + rows_to_csv(rows)).encode()


def write_rows(checkout: Path, on_prem: list[MetricRow], cloud: list[MetricRow]) -> None:
    local_csv = checkout / "onprem_images" / "metrics" / "local_metrics.csv"
    local_csv.parent.mkdir(exist_ok=True)
    local_csv.write_bytes(csv_of(on_prem))
    (checkout / "metrics" / "lambda_metrics.csv").write_bytes(csv_of(cloud))


def error_line(done) -> str:
    """The one line on stderr of a script that a user's error ended."""
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


# --- as a user runs it --------------------------------------------------------------------------


def test_a_complete_pair_of_files_gives_table_ratio_verdict_and_files(
    checkout, run_script_in, tmp_path
):
    write_rows(checkout, on_prem_rows(), cloud_rows())
    done = run_script_in(SCRIPT, "--no-download", cwd=tmp_path)  # from wherever it is called
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^on_prem +local +3 +0 +0 +11\.0", done.stdout, re.MULTILINE)
    assert re.search(r"^ +cloud +embedded +3 +0 +0 +22\.0", done.stdout, re.MULTILINE)
    assert "geometric mean 2.000, median 2.000, from 2.000 to 2.000, n = 3" in done.stdout
    assert "per picture: on-prem is 2.00x faster" in done.stdout
    assert "problem" not in done.stdout

    merged = checkout / "metrics" / "merged_metrics.csv"
    lines = pd.read_csv(merged)
    assert list(lines["image_key"]) == list(KEYS)
    assert list(lines["arms"]) == ["both"] * 3
    charts = [checkout / "metrics" / "charts" / name for name in CHART_NAMES]
    for chart in charts:
        with Image.open(chart) as picture:
            picture.load()
    printed = done.stdout.splitlines()[-5:]
    assert [tmp_path / path for path in printed] == [merged, *charts]


def test_problems_are_printed_with_their_reason_and_the_exit_code_is_1(checkout, run_script_in):
    cloud = cloud_rows()[1:]
    cloud[0] = dataclasses.replace(cloud[0], output_sha256="cd" * 32)
    write_rows(checkout, on_prem_rows(), cloud)
    done = run_script_in(SCRIPT, "--no-download")
    assert (done.returncode, done.stderr) == (1, "")
    assert "\nproblem: 1 of 3 pictures have no cloud row: 'ü.jpg'\n" in done.stdout
    assert "\nproblem: the output differs for 1 pictures: 'dir/b,c.jpg'\n" in done.stdout
    assert "\nnot comparable: 2 problems, see above\n" in done.stdout
    assert "faster" not in done.stdout
    merged = pd.read_csv(checkout / "metrics" / "merged_metrics.csv")
    assert list(merged["arms"]) == ["both", "both", "left_only"]
    for name in CHART_NAMES:
        assert (checkout / "metrics" / "charts" / name).exists()


def test_reference_files_of_five_columns_are_compared(checkout, run_script_in):
    lines = "2025-11-20T10:00:00Z,{}a.jpg,1000,{},{}\n2025-11-20T10:00:01Z,{}b.jpg,2000,{},{}\n"
    (checkout / "here.csv").write_text(
        REFERENCE_HEADER + lines.format("", 400, 99.1, "", 500, 99.1)
    )
    (checkout / "there.csv").write_text(
        REFERENCE_HEADER + lines.format("input/", 1000, 1.75, "input/", 2000, 1.75)
    )
    arguments = ("--no-download", "--local-csv", "here.csv", "--cloud-csv", "there.csv")
    done = run_script_in(SCRIPT, *arguments)
    assert (done.returncode, done.stderr) == (1, "")
    assert "problem: no picture was changed in the cloud arm" in done.stdout
    assert "problem: the output differs in size for 2 pictures: 'a.jpg', 'b.jpg'" in done.stdout
    assert "n = 2" in done.stdout


def test_a_missing_file_is_one_line_that_says_what_to_run(checkout, run_script_in):
    assert "local_metrics.csv does not exist; run onprem" in error_line(
        run_script_in(SCRIPT, "--no-download")
    )
    write_rows(checkout, on_prem_rows(), cloud_rows())
    (checkout / "metrics" / "lambda_metrics.csv").unlink()
    assert "lambda_metrics.csv does not exist; run the cloud arm" in error_line(
        run_script_in(SCRIPT, "--no-download")
    )


def test_with_no_cloud_to_download_from_one_line_says_how_to_start_one(checkout, run_script_in):
    write_rows(checkout, on_prem_rows(), cloud_rows())
    line = error_line(run_script_in(SCRIPT))
    assert "no embedded cloud is running" in line
    assert "lambda_function/embedded_cloud.py" in line


# --- in this process ----------------------------------------------------------------------------


@pytest.fixture
def compare_files(tmp_path, monkeypatch, capsys):
    """Run the script on two files of rows; the exit code, stdout and stderr."""
    monkeypatch.setattr(compare_script, "MERGED_CSV", tmp_path / "merged.csv")
    monkeypatch.setattr(compare_script, "CHARTS", tmp_path / "charts")
    on_prem_csv, cloud_csv = tmp_path / "on_prem.csv", tmp_path / "cloud.csv"

    def run(on_prem, cloud, *arguments: str):
        on_prem_csv.write_bytes(csv_of(on_prem))
        if cloud is not None:
            cloud_csv.write_bytes(csv_of(cloud))
        files = ("--local-csv", str(on_prem_csv), "--cloud-csv", str(cloud_csv))
        code = compare_script.main([*files, *arguments])
        return code, *capsys.readouterr()

    run.cloud_csv = cloud_csv
    return run


def changed(rows: list[MetricRow], **fields: object) -> list[MetricRow]:
    return [dataclasses.replace(rows[0], **fields), *rows[1:]]


FAILURE = {"status": "error", "error": "OSError: x", "new_size": 0, "output_sha256": ""}
PROBLEMS = {
    "a missing cloud row": (on_prem_rows(), cloud_rows()[1:], "have no cloud row"),
    "a missing on-prem row": (on_prem_rows()[1:], cloud_rows(), "have no on_prem row"),
    "a second row": (on_prem_rows(), [*cloud_rows(), cloud_rows()[0]], "more than one cloud row"),
    "another run": (on_prem_rows(), cloud_rows("old"), "rows of different runs are mixed"),
    "another output": (on_prem_rows(), changed(cloud_rows(), output_sha256="0"), "the output diff"),
    "a failure": (on_prem_rows(), changed(cloud_rows(), **FAILURE), "differ in success or error"),
    "another transform": (on_prem_rows(), changed(cloud_rows(), transform="v2"), "other transform"),
    "another input": (on_prem_rows(), changed(cloud_rows(), orig_size=1), "the input differs"),
    "no work": (
        on_prem_rows(),
        [dataclasses.replace(r, new_size=r.orig_size) for r in cloud_rows()],
        "no picture was changed in the cloud arm",
    ),
}


@pytest.mark.parametrize(("on_prem", "cloud", "reason"), PROBLEMS.values(), ids=PROBLEMS)
def test_each_problem_alone_makes_the_exit_code_1(compare_files, on_prem, cloud, reason):
    code, out, _ = compare_files(on_prem, cloud, "--no-download")
    assert code == 1
    (problem,) = [line for line in out.splitlines() if line.startswith("problem: ")]
    assert reason in problem
    assert "\nnot comparable: 1 problem, see above\n" in out


def test_run_id_selects_one_run_of_files_that_hold_two(compare_files):
    on_prem = [*on_prem_rows("one"), *on_prem_rows("two", 20.0)]
    cloud = [*cloud_rows("one", 1.0), *cloud_rows("two", 4.0)]
    assert compare_files(on_prem, cloud, "--no-download")[0] == 1
    code, out, _ = compare_files(on_prem, cloud, "--no-download", "--run-id", "one")
    assert code == 0
    assert "geometric mean 1.000" in out
    code, _, err = compare_files(on_prem, cloud, "--no-download", "--run-id", "three")
    assert code == 1
    assert err == "error: no row of run 'three'; there are ['one', 'two']\n"


WRONG_USAGE = [["--run-id", "a/b"], ["--timeout", "0"], ["--cloud", "azure"], ["--rounds"]]


@pytest.mark.parametrize("arguments", WRONG_USAGE, ids=" ".join)
def test_wrong_usage_exits_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        compare_script.main(arguments)
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err


AWS = ("--cloud", "aws", "--region", "us-east-1")


@pytest.fixture
def named_buckets(s3, buckets):
    """S3 of moto's, and the flags that choose it with its buckets."""
    names = ("--input-bucket", buckets.input, "--output-bucket", buckets.output)
    return s3, buckets.output, (*AWS, *names)


def test_cloud_rows_are_downloaded_without_those_of_other_runs(compare_files, named_buckets):
    s3, bucket, flags = named_buckets
    stored = [*cloud_rows("old"), *cloud_rows(), *cloud_rows("older")[:1]]
    s3.put_object(Bucket=bucket, Key=CSV_KEY, Body=csv_of(stored))
    code, out, err = compare_files(on_prem_rows(), cloud_rows("stale"), *flags)
    assert code == 0
    assert "on-prem is 2.00x faster" in out
    assert "left out 3 rows of another run, old\n" in err
    assert "left out 1 rows of another run, older\n" in err
    assert compare_files.cloud_csv.read_bytes() == csv_of(cloud_rows())


def test_a_timeout_for_rows_that_never_come_names_them_and_keeps_the_file(
    compare_files, named_buckets
):
    s3, bucket, flags = named_buckets
    s3.put_object(Bucket=bucket, Key=CSV_KEY, Body=csv_of(cloud_rows()[1:]))
    before = cloud_rows("before")
    code, out, err = compare_files(on_prem_rows(), before, *flags, "--timeout", "0.01")
    assert (code, out) == (1, "")
    assert "error: 1 of 3 pictures have no cloud row after 0.01 s: 'ü.jpg'" in err
    assert compare_files.cloud_csv.read_bytes() == csv_of(before)


def test_a_bucket_without_rows_is_one_line(compare_files, named_buckets):
    _, bucket, flags = named_buckets
    code, out, err = compare_files(on_prem_rows(), None, *flags)
    assert (code, out) == (1, "")
    assert err == f"error: s3://{bucket}/{CSV_KEY} does not exist: no picture was processed yet\n"
    assert not compare_files.cloud_csv.exists()


def test_a_bucket_that_does_not_exist_is_one_line_that_names_it(compare_files, named_buckets):
    code, _, err = compare_files(on_prem_rows(), None, *named_buckets[2], "--output-bucket", "none")
    assert code == 1
    assert err.startswith("error: GetObject none: NoSuchBucket: ")
    assert err.count("\n") == 1


def test_on_prem_rows_of_two_runs_are_not_compared_with_a_download(compare_files, named_buckets):
    on_prem = [*on_prem_rows("one"), *on_prem_rows("two")]
    code, _, err = compare_files(on_prem, None, *named_buckets[2])
    assert code == 1
    assert err == ("error: the on-prem rows are of 2 runs ['one', 'two']; choose with --run-id\n")


def test_fetched_rows_replace_the_file_only_when_there_are_some(s3, buckets, tmp_path, capsys):
    target = tmp_path / "new" / "rows.csv"
    with pytest.raises(UserError, match="no picture was processed yet"):
        compare_script.fetch_cloud_rows(s3, buckets.output, "run", target)
    assert not target.exists()
    s3.put_object(Bucket=buckets.output, Key=CSV_KEY, Body=csv_of([*cloud_rows("old"), row("a")]))
    compare_script.fetch_cloud_rows(s3, buckets.output, "run", target)
    assert target.read_bytes() == csv_of([row("a")])
    assert capsys.readouterr().err == "left out 3 rows of another run, old\n"
