"""A run that was interrupted goes on where it ended."""

import json
import shutil
import signal

import pytest
from conftest import jpeg
from processes import LIMIT_S, read_until, started, until
from rows import append_rows, appended_rows, row

from lambda_function.cloud import find_buckets, make_client
from lambda_function.metrics_log import read_object
from metrics.analysis.rows import read_rows
from metrics.common.cli import UserError
from metrics.run import resume
from metrics.run.resume import unfinished_run
from metrics.run.uploads import object_key, upload_images, uploaded_before
from onprem_images.dataset import load_pictures, manifest_bytes


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a +.jpg", "b.jpg", "c.jpg"):
        (folder / name).write_bytes(jpeg(colour={"a": "red", "b": "blue", "c": "tan"}[name[0]]))
    return load_pictures(folder)


def put_times(s3, buckets) -> dict[str, object]:
    found = s3.list_objects_v2(Bucket=buckets.input).get("Contents", [])
    return {entry["Key"]: s3.head_object(Bucket=buckets.input, Key=entry["Key"]) for entry in found}


# --- what was uploaded --------------------------------------------------------------------------


def test_what_has_a_row_or_is_in_the_bucket_for_this_run_and_round_was_uploaded(
    s3, buckets, pictures
):
    upload_images(s3, buckets, pictures[:1], "run", 2)
    upload_images(s3, buckets, pictures[1:2], "run", 1)  # of the round before
    append_rows(s3, buckets.output, row(pictures[2].image_key, run_id="run", round=2))
    before = uploaded_before(s3, buckets, pictures, "run", 2)
    assert before == {pictures[0].image_key, pictures[2].image_key}
    assert uploaded_before(s3, buckets, pictures, "other", 2) == frozenset()


def test_what_was_uploaded_before_is_not_uploaded_again(s3, buckets, pictures):
    first = pictures[0]
    s3.put_object(Bucket=buckets.input, Key=object_key(first), Body=b"as it was")
    upload_images(s3, buckets, pictures, "run", before=frozenset([first.image_key]))
    sizes = {key: head["ContentLength"] for key, head in put_times(s3, buckets).items()}
    assert len(sizes) == 3
    assert sizes[object_key(first)] == len(b"as it was")
    manifest = json.loads(read_object(s3, buckets.output, "metrics/manifests/run.json").data)
    assert len(manifest["pictures"]) == 3


# --- which run ----------------------------------------------------------------------------------


@pytest.fixture
def left(tmp_path, monkeypatch, pictures):
    """The files of an interrupted run `run` of two rounds; the first is done on-prem."""
    files = {name: tmp_path / name for name in ("MANIFEST_JSON", "RUN_JSON", "LOCAL_CSV")}
    for name, path in files.items():
        monkeypatch.setattr(resume, name, path)
    files["MANIFEST_JSON"].write_bytes(manifest_bytes("run", 2, pictures))
    write_record(files, exit_code=None)
    from lambda_function.metrics_log import HEADER, rows_to_csv

    rows = [row(p.image_key, run_id="run", source="on_prem", round=1) for p in pictures]
    rows += [row(pictures[0].image_key, run_id="run", source="on_prem", round=2)]
    files["LOCAL_CSV"].write_text(HEADER + rows_to_csv(rows), newline="")
    return files


def write_record(files, **facts) -> None:
    record = {"run_id": "run", "cloud": "aws", "steps": [], **facts}
    files["RUN_JSON"].write_text(json.dumps(record))


def test_only_passes_with_all_their_rows_are_done(left, pictures):
    before = unfinished_run(pictures, "aws")
    assert (before.run_id, before.passes, before.done_on_prem) == ("run", 2, {1})


def test_a_run_that_was_interrupted_before_its_first_step_was_over_can_be_resumed(left, pictures):
    left["RUN_JSON"].unlink()
    left["LOCAL_CSV"].unlink()
    assert unfinished_run(pictures, "aws").done_on_prem == frozenset()


@pytest.mark.parametrize("exit_code", [0, 1])
def test_a_run_that_is_done_is_not_resumed(left, pictures, exit_code):
    write_record(left, exit_code=exit_code)
    with pytest.raises(UserError, match="run 'run' is done"):
        unfinished_run(pictures, "aws")


def test_a_run_whose_record_another_run_replaced_is_not_resumed(left, pictures):
    write_record(left, run_id="other")
    with pytest.raises(UserError, match=r"MANIFEST_JSON is of run 'run', and .*RUN_JSON is not"):
        unfinished_run(pictures, "aws")


def test_a_run_on_another_cloud_is_not_resumed(left, pictures):
    with pytest.raises(UserError, match="begun with cloud 'aws', and not with 'embedded'"):
        unfinished_run(pictures, "embedded")


def test_other_pictures_are_named(left, pictures):
    pictures[1].path.write_bytes(jpeg(colour="black"))
    changed = load_pictures(pictures[1].path.parent)
    with pytest.raises(UserError, match=f"1 differ, such as '{pictures[1].image_key}'"):
        unfinished_run(changed, "aws")
    with pytest.raises(UserError, match="1 differ"):
        unfinished_run(pictures[:2], "aws")


def test_a_picture_that_changed_since_is_uploaded_again(s3, buckets, pictures):
    upload_images(s3, buckets, pictures, "run")
    pictures[1].path.write_bytes(jpeg(colour="black"))
    listed = load_pictures(pictures[1].path.parent)
    before = uploaded_before(s3, buckets, listed, "run", 1)
    assert before == {picture.image_key for picture in pictures} - {pictures[1].image_key}


def test_without_a_manifest_there_is_nothing_to_resume(left, pictures):
    left["MANIFEST_JSON"].unlink()
    with pytest.raises(UserError, match="nothing to resume"):
        unfinished_run(pictures, "aws")


# --- the pipeline -------------------------------------------------------------------------------


def test_without_a_run_before_there_is_nothing_to_resume(checkout, run_script_in):
    (checkout / "images_to_upload" / "a.jpg").write_bytes(jpeg())
    done = run_script_in("master_pipeline.py", "--resume")
    assert done.returncode == 1
    assert "nothing to resume" in done.stderr


@pytest.mark.parametrize("after", ["upload (1 of 2): ", "wait (1 of 2): "])
def test_an_interrupted_run_goes_on_without_doing_anything_twice(
    embedded, checkout, run_script_in, after
):
    for number in range(30):
        (checkout / "images_to_upload" / f"{number}.jpg").write_bytes(jpeg(60 + number))
    flags = ("--endpoint-url", embedded.endpoint_url, "--rounds", "2")
    process = started(checkout, *flags)
    read_until(process, after)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=LIMIT_S)

    s3, bucket = make_client(embedded, "s3"), find_buckets(embedded).output
    run_id = json.loads((checkout / "metrics/manifest.json").read_text())["run_id"]
    until(lambda: read_object(s3, bucket, "metrics/lambda_metrics.csv"))
    earlier = {r.id: r for r in appended_rows(s3, bucket) if r.run_id == run_id}
    on_prem = read_rows(checkout / "onprem_images/metrics/local_metrics.csv", "on_prem")
    done = run_script_in("master_pipeline.py", *flags[:2], "--resume")
    assert done.returncode == 0, done.stderr
    assert "completeness 100.0%: 120 of 120 rows" in done.stdout
    assert "on-prem (1 of 2)" not in done.stderr
    later = {r.id: r for r in appended_rows(s3, bucket) if r.run_id == run_id}
    assert {row_id: later[row_id] for row_id in earlier} == earlier
    both = read_rows(checkout / "onprem_images/metrics/local_metrics.csv", "on_prem")
    assert both[: len(on_prem)]["timestamp"].tolist() == on_prem["timestamp"].tolist()
    record = json.loads((checkout / "metrics/run.json").read_text())
    assert (record["run_id"], record["exit_code"]) == (run_id, 0)
    assert len(record["resumed_at"]) == 1
    assert "the run was interrupted and resumed on" in done.stdout
    assert "finishes the whole job" not in done.stdout.replace("which finishes", "")
    again = run_script_in("master_pipeline.py", *flags[:2], "--resume")
    assert again.returncode == 1
    assert f"run {run_id!r} is done" in again.stderr


def test_on_prem_against_itself_goes_on_too(checkout, run_script_in):
    for number in range(3):
        (checkout / "images_to_upload" / f"{number}.jpg").write_bytes(jpeg(60 + number))
    first = run_script_in("master_pipeline.py", "--self-check", "--rounds", "2")
    assert first.returncode == 0, first.stderr
    path = checkout / "metrics/run.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"exit_code": None, "steps": record["steps"][:4]}))
    rows = checkout / "onprem_images/metrics/local_metrics.csv"
    lines = rows.read_text().splitlines(keepends=True)
    rows.write_text("".join(lines[: 1 + 3 * 3]))  # three of the four passes
    shutil.rmtree(checkout / "metrics/charts")
    done = run_script_in("master_pipeline.py", "--self-check", "--resume")
    assert done.returncode == 0, done.stderr
    assert "on-prem (3 of 4)" not in done.stderr
    assert "on-prem (4 of 4)" in done.stderr
    assert "completeness 100.0%: 12 of 12 rows" in done.stdout
