"""Cleaning deletes what the project lists as its own, here and in the buckets, and nothing else."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from conftest import jpeg

from lambda_function.cloud import find_buckets, make_client
from lambda_function.metrics_log import CSV_KEY, SMOKE_TEST_KEY
from metrics.common.cli import UserError
from metrics.common.paths import CHART_NAMES, PROJECT
from metrics.run.cleaning import clean_cloud, cloud_leftovers, list_keys
from metrics.run.uploads import upload_images
from onprem_images import outputs
from onprem_images.dataset import load_pictures, manifest_bytes

IN, OUT = "input-bucket", "output-bucket"
OWN_HASH = "ab" * 32
RESULTS = [
    *("metrics/lambda_metrics.csv", "metrics/merged_metrics.csv", "metrics/invocations.csv"),
    *("metrics/pixel_differences.csv", "metrics/manifest.json", "metrics/run.json"),
    *("metrics/summary.json", "metrics/report.html", "onprem_images/metrics/local_metrics.csv"),
    *(f"metrics/charts/{name}.png" for name in CHART_NAMES),
    f"metrics/cloud_outputs/{OWN_HASH}.jpg",
    # What a killed run was writing:
    *(f"{folder}/.image-pipeline-ab_12cd3.part" for folder in ("metrics", "metrics/charts")),
    "onprem_images/output_local/sub/.image-pipeline-ab_12cd3.part",
]
OUTPUTS = ["a.jpg", "sub/b c.png.jpg"]
FOREIGN = [
    *("images_to_upload/a.jpg", "images_to_upload/metrics.csv", "mine.txt"),
    *("onprem_images/output_local/mine.jpg", "onprem_images/output_local/sub/mine.jpg"),
    *("onprem_images/output_local/other/a.jpg", "onprem_images/metrics/mine.csv"),
    *("onprem_images/metrics/metrics/local_metrics.csv", "metrics/mine.csv", "metrics/old.html"),
    *("metrics/run.json.bak", "metrics/sub/run.json", "metrics/charts/mine.png"),
    *("metrics/charts/avg_time.png.txt", "metrics/charts/sub/avg_time.png"),
    *("metrics/cloud_outputs/mine.jpg", f"metrics/cloud_outputs/{OWN_HASH}.jpg.png"),
    *(f"metrics/cloud_outputs/{OWN_HASH.upper()}.jpg", f"metrics/cloud_outputs/sub/{OWN_HASH}.jpg"),
    *(f"metrics/cloud_outputs/x{OWN_HASH}.jpg", "metrics/.image-pipeline-mine.part"),
    "images_to_upload/.image-pipeline-ab_12cd3.part",
]


def write(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def files_in(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes().decode(errors="replace")
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def record_outputs(checkout: Path, names: list[str]) -> None:
    """As a run does that wrote just what is there now."""
    record = checkout / "onprem_images" / "metrics" / "outputs.jsonl"
    record.parent.mkdir(parents=True, exist_ok=True)
    with record.open("a") as file:
        for name in names:
            try:
                content = (checkout / "onprem_images" / "output_local" / name).read_bytes()
            except (OSError, ValueError):
                content = b""
            file.write(json.dumps([name, sha256(content).hexdigest()]) + "\n")


@pytest.fixture
def clean_here(checkout: Path) -> Callable[[], subprocess.CompletedProcess]:
    """The step as the pipeline takes it, in the checkout."""
    program = "from metrics.run.cleaning import clean_local; clean_local()"

    def clean() -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", program]
        return subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=60)

    return clean


# --- here -----------------------------------------------------------------------------------------


def test_foreign_files_and_the_code_survive_and_all_that_is_own_goes(checkout, clean_here):
    write(checkout, FOREIGN)
    before = files_in(checkout)
    write(checkout, [*RESULTS, *(f"onprem_images/output_local/{name}" for name in OUTPUTS)])
    record_outputs(checkout, OUTPUTS)
    assert clean_here().returncode == 0
    assert files_in(checkout) == before


def test_folders_and_links_that_bear_the_names_of_results_cost_nothing_outside(
    checkout, clean_here, tmp_path
):
    outside = tmp_path / "outside"
    write(outside, ["summary.json", "avg_time.png", f"{OWN_HASH}.jpg", "a.jpg", "kept.txt"])
    write(checkout, ["metrics/run.json/mine.txt", "metrics/report.html/a.jpg"])
    (checkout / "metrics" / "summary.json").symlink_to(outside / "summary.json")
    (checkout / "metrics" / "manifest.json").symlink_to(outside)
    (checkout / "metrics" / "charts").symlink_to(outside)
    (checkout / "metrics" / "cloud_outputs").symlink_to(outside)
    (checkout / "onprem_images" / "output_local").symlink_to(outside)
    record_outputs(checkout, ["a.jpg", "kept.txt"])
    before = files_in(outside)
    assert clean_here().returncode == 0
    assert files_in(outside) == before
    assert (checkout / "metrics" / "run.json" / "mine.txt").exists()
    assert (checkout / "metrics" / "report.html" / "a.jpg").exists()


def test_recorded_names_that_lead_out_of_the_folder_delete_nothing(checkout, clean_here, tmp_path):
    outside = tmp_path / "outside"
    write(outside, ["a.jpg"])
    write(checkout, ["onprem_images/output_local/own.jpg", "onprem_images/up.jpg"])
    folder = checkout / "onprem_images" / "output_local"
    (folder / "link").symlink_to(outside)
    names = ["../up.jpg", "../../README.md", "link/a.jpg", str(outside / "a.jpg"), "sub/../own.jpg"]
    record_outputs(checkout, [*names, "", ".", "..", "nul\0", "x" * 5000, "/"])
    before = files_in(checkout)
    assert clean_here().returncode == 0
    del before["onprem_images/metrics/outputs.jsonl"]
    assert files_in(checkout) == before
    assert files_in(outside) == {"a.jpg": "a.jpg"}


@pytest.mark.parametrize(
    "damaged",
    [
        "{",
        '"mine.jpg"',
        '{"mine.jpg": 1}',
        "[1]",
        "[" * 100_000,
        "null",
        "\udc80",
        '["mine.jpg", 1]',
    ],
)
def test_a_damaged_record_of_outputs_is_one_clear_error_and_deletes_nothing(
    monkeypatch, tmp_path, damaged
):
    monkeypatch.setattr(outputs, "OUTPUT_LOCAL", tmp_path)
    monkeypatch.setattr(outputs, "OUTPUTS_JSONL", tmp_path / "outputs.jsonl")
    (tmp_path / "mine.jpg").touch()
    outputs.OUTPUTS_JSONL.write_bytes(damaged.encode(errors="surrogateescape") + b"\n")
    with pytest.raises(UserError, match="is damaged"):
        outputs.clear_outputs()
    assert (tmp_path / "mine.jpg").exists()


@pytest.fixture
def output_local(monkeypatch, tmp_path) -> Path:
    monkeypatch.setattr(outputs, "OUTPUT_LOCAL", tmp_path / "output_local")
    monkeypatch.setattr(outputs, "OUTPUTS_JSONL", tmp_path / "outputs.jsonl")
    write(tmp_path, ["output_local/mine.jpg", "output_local/sub/own.jpg"])
    outputs.record_output("sub/own.jpg", sha256(b"output_local/sub/own.jpg").hexdigest())
    return tmp_path / "output_local"


def test_only_files_with_the_very_bytes_that_a_run_wrote_are_deleted(output_local, capsys):
    mine = sha256(b"output_local/mine.jpg").hexdigest()
    (output_local / "link.jpg").symlink_to(output_local / "mine.jpg")
    (output_local / "folder.jpg").mkdir()
    (output_local / "changed.jpg").write_bytes(b"edited by hand")
    for name in ("link.jpg", "folder.jpg", "gone.jpg"):
        outputs.record_output(name, mine)
    outputs.record_output("changed.jpg", sha256(b"as it was written").hexdigest())
    outputs.clear_outputs()
    left = {path.name for path in output_local.iterdir()}
    assert left == {"mine.jpg", "link.jpg", "folder.jpg", "changed.jpg"}
    assert (output_local / "changed.jpg").read_bytes() == b"edited by hand"
    told = capsys.readouterr().err.splitlines()
    assert [line.rpartition("/")[2] for line in told] == ["link.jpg", "changed.jpg"]
    assert all(line.startswith("left alone, changed since a run wrote it: ") for line in told)


def test_what_a_run_would_write_over_is_its_own_or_refused(output_local):
    outputs.check_outputs(["sub/own.jpg", "new.jpg", "sub/new.jpg"])
    outputs.record_output("mine.jpg", sha256(b"something else").hexdigest())
    (output_local / "dangling.jpg").symlink_to("nowhere")
    (output_local / "folder.jpg").mkdir()
    for name in ("mine.jpg", "dangling.jpg", "folder.jpg"):
        with pytest.raises(UserError, match=rf"{name} is not as a run wrote it.*move it away"):
            outputs.check_outputs(["sub/own.jpg", name])


def test_a_line_of_the_record_that_a_kill_cut_short_tells_of_nothing(output_local):
    with outputs.OUTPUTS_JSONL.open("a") as file:
        file.write('["mine.jp')
    outputs.clear_outputs()
    assert [path.name for path in output_local.rglob("*")] == ["mine.jpg"]


def test_no_code_deletes_a_folder_with_what_is_in_it():
    shipped = [
        path
        for path in PROJECT.rglob("*.py")
        if not {".venv", "tests"} & set(path.relative_to(PROJECT).parts)
    ]
    assert len(shipped) > 30
    assert [path for path in shipped if re.search(r"rmtree|rm -r", path.read_text())] == []


# --- in the buckets -------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> list:
    write(tmp_path / "pictures", ["a.jpg", "sub/b +%2B ü.png"])
    return load_pictures(tmp_path / "pictures")


def put(s3, bucket: str, keys: list[str], body: bytes = b"foreign") -> None:
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=body)


def stored(s3) -> dict[str, set[str]]:
    return {bucket: set(list_keys(s3, bucket, "")) for bucket in (IN, OUT)}


FOREIGN_KEYS = {
    IN: [
        *("input/mine.jpg", "input/a.jpg.bak", "input/A.jpg", "input/sub/a.jpg", "a.jpg"),
        *("Input/a.jpg", "input2/a.jpg", "processed/a.jpg", "metrics/x", CSV_KEY, "input/"),
        *("input/../a.jpg", "input//a.jpg"),
    ],
    OUT: [
        *("processed/mine.jpg", "processed/a.jpg.jpg", "processed/sub/a.jpg", "processed/"),
        *("input/a.jpg", "metrics/notes.txt", "metrics/lambda_metrics.csv.bak"),
        *("metrics/smoke_test.csv.bak", "other/metrics/lambda_metrics.csv"),
        *("metrics/rows/run-1/notes.txt", "metrics/manifests/run-1.json.bak"),
    ],
}


def fill_with_a_run(s3, buckets, pictures: list) -> None:
    upload_images(s3, buckets, pictures, "run-1")
    put(s3, OUT, [CSV_KEY, SMOKE_TEST_KEY])
    put(s3, OUT, ["processed/a.jpg", "processed/sub/b +%2B ü.png.jpg"])


def test_foreign_objects_survive_and_all_that_a_run_recorded_goes(s3, buckets, pictures):
    for bucket, keys in FOREIGN_KEYS.items():
        put(s3, bucket, keys)
    before = stored(s3)
    fill_with_a_run(s3, buckets, pictures)
    assert len(stored(s3)[OUT]) == len(before[OUT]) + 5
    clean_cloud(s3, buckets)
    assert stored(s3) == before


def test_without_a_manifest_nothing_is_deleted(s3, buckets):
    put(s3, OUT, [CSV_KEY, SMOKE_TEST_KEY])
    clean_cloud(s3, buckets)
    assert stored(s3) == {IN: set(), OUT: {CSV_KEY, SMOKE_TEST_KEY}}


def manifest(run_id: object = "run-1", **changes: object) -> bytes:
    picture = {"image_key": "mine.jpg", "size": 1, "sha256": "x"}
    return json.dumps({"run_id": run_id, "rounds": 1, "pictures": [picture], **changes}).encode()


def keyed(image_key: object) -> bytes:
    return manifest(pictures=[{"image_key": image_key, "size": 1, "sha256": "x"}])


NO_MANIFESTS = {
    "of another name": manifest("run-2"),
    "with a path as run id": manifest("../metrics"),
    "with a part of a key as run id": manifest("run-1/1"),
    "without run id": manifest(""),
    "with a number as run id": manifest(1),
    "with a key that leads up": keyed("../mine.jpg"),
    "with a key that leads up inside": keyed("sub/../mine.jpg"),
    "with an absolute key": keyed("/mine.jpg"),
    "with a folder as key": keyed("mine.jpg/"),
    "with an empty key": keyed(""),
    "with a number as key": keyed(1),
    "with a list of names": manifest(pictures=["mine.jpg"]),
    "with a text of pictures": manifest(pictures="mine.jpg"),
    "with a million rounds": manifest(rounds=1_000_000),
    "of another kind": b'{"manifest": ["mine.jpg"]}',
    "a list": b'["mine.jpg"]',
    "a text": b"mine.jpg",
    "no utf-8": b"\xff",
    "nested": b"[" * 100_000,
    "empty": b"",
}


@pytest.mark.parametrize("body", NO_MANIFESTS.values(), ids=NO_MANIFESTS)
def test_what_is_no_manifest_of_ours_is_left_alone_with_all_it_names(s3, buckets, capsys, body):
    put(s3, IN, ["input/mine.jpg", "mine.jpg", "input/../mine.jpg", "input//mine.jpg"])
    put(s3, OUT, ["processed/mine.jpg", CSV_KEY])
    s3.put_object(Bucket=OUT, Key="metrics/manifests/run-1.json", Body=body)
    before = stored(s3)
    clean_cloud(s3, buckets)
    assert stored(s3) == before
    assert capsys.readouterr().err == (
        f"left alone, not a manifest: s3://{OUT}/metrics/manifests/run-1.json\n"
    )


@pytest.mark.parametrize("run_id", ["sub/run-1", "", "../run-1", "-", "x" * 65])
def test_a_manifest_of_a_run_id_that_no_run_can_have_is_left_alone(s3, buckets, run_id):
    put(s3, IN, ["input/mine.jpg"])
    s3.put_object(Bucket=OUT, Key=f"metrics/manifests/{run_id}.json", Body=manifest(run_id))
    before = stored(s3)
    clean_cloud(s3, buckets)
    assert stored(s3) == before


def test_a_manifest_too_large_to_be_one_is_not_even_read(s3, buckets, monkeypatch, capsys):
    monkeypatch.setattr("metrics.run.cleaning.MAX_MANIFEST", 100)
    s3.put_object(Bucket=OUT, Key="metrics/manifests/run-1.json", Body=b" " * 101)
    s3.meta.events.register("before-call.s3.GetObject", lambda **_: pytest.fail("it was read"))
    clean_cloud(s3, buckets)
    assert "left alone" in capsys.readouterr().err


def test_a_manifest_of_very_many_pictures_asks_for_no_more_deletions_than_there_are_objects(
    s3, buckets, pictures
):
    fill_with_a_run(s3, buckets, pictures)
    many = [replace(pictures[0], image_key=f"{number}.jpg") for number in range(20_000)]
    body = manifest_bytes("run-2", 1, many)
    s3.put_object(Bucket=OUT, Key="metrics/manifests/run-2.json", Body=body)
    found = cloud_leftovers(s3, buckets)
    assert len(found) == 2 + 5 + 1
    requests = []
    s3.meta.events.register("before-call.s3.DeleteObjects", lambda **_: requests.append(1))
    clean_cloud(s3, buckets)
    assert len(requests) == 2
    assert stored(s3) == {IN: set(), OUT: set()}


def test_manifests_are_deleted_last_so_that_an_interrupted_clean_is_repeated(s3, buckets, pictures):
    fill_with_a_run(s3, buckets, pictures)
    keys = [key for _, key in cloud_leftovers(s3, buckets)]
    assert len(keys) == 7
    assert keys[-1] == "metrics/manifests/run-1.json"


def test_a_name_with_control_characters_is_printed_as_its_escape(s3, buckets, capsys):
    put(s3, OUT, ["metrics/manifests/a\x1b[31m\n\N{RIGHT-TO-LEFT OVERRIDE}.json"])
    clean_cloud(s3, buckets)
    assert r"metrics/manifests/a\x1b[31m\n\u202e.json'" in capsys.readouterr().err


# --- the dry run ----------------------------------------------------------------------------------


def leftovers_in(printed: str) -> list[str]:
    lines = printed.partition("would delete ")[2].splitlines()[1:]
    return [line.removeprefix("  ") for line in lines]


@pytest.mark.slow
def test_a_dry_run_prints_all_that_would_go_and_deletes_nothing(embedded, checkout, run_script_in):
    (checkout / "images_to_upload" / "sub").mkdir()
    (checkout / "images_to_upload" / "sub" / "a b.jpg").write_bytes(jpeg())
    flags = ("--endpoint-url", embedded.endpoint_url)
    assert run_script_in("master_pipeline.py", *flags, "--run-id", "dry").returncode == 0
    s3, buckets = make_client(embedded, "s3"), find_buckets(embedded)
    listed = [f"s3://{bucket}/{key}" for bucket, key in cloud_leftovers(s3, buckets)]
    before = files_in(checkout)
    done = run_script_in("master_pipeline.py", *flags, "--dry-run")
    assert done.returncode == 0, done.stderr
    printed = leftovers_in(done.stdout)
    assert listed[0] == f"s3://{buckets.input}/input/sub/a b.jpg"
    assert f"s3://{buckets.output}/metrics/manifests/dry.json" in listed
    assert [name for name in printed if name.startswith("s3://")] == listed
    here = {name for name in printed if not name.startswith("s3://")}
    assert here >= {"onprem_images/output_local/sub/a b.jpg", "metrics/report.html"}
    assert f"would delete {len(printed)} leftovers of earlier runs\n" in done.stdout
    assert files_in(checkout) == before
    assert [f"s3://{bucket}/{key}" for bucket, key in cloud_leftovers(s3, buckets)] == listed

    kept = run_script_in("master_pipeline.py", *flags, "--dry-run", "--no-clean")
    assert "would delete" not in kept.stdout
    alone = run_script_in("master_pipeline.py", "--dry-run")  # a cloud of its own starts empty
    assert set(leftovers_in(alone.stdout)) == here
    run_script_in("master_pipeline.py", "--self-check", "--run-id", "self_check")  # which cleans
    assert here - set(files_in(checkout)) >= {"metrics/lambda_metrics.csv"}
