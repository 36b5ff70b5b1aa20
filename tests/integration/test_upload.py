"""Uploading, cleaning and waiting: what goes into the buckets and what comes back."""

import json
import subprocess
import sys

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from conftest import jpeg
from rows import row

from lambda_function.cloud import Buckets, find_buckets, make_client
from lambda_function.metrics_log import (
    CSV_KEY,
    MetricsLogError,
    RowId,
    append_rows,
    put_row,
    read_object,
)
from metrics.collect import cloud_rows
from metrics.collect.cloud_rows import download_rows, new_rows, wait_for_rows
from metrics.common.cli import UserError
from metrics.run.cleaning import list_keys
from metrics.run.uploads import check_conditional_writes, check_run_is_new, upload_images
from onprem_images.dataset import load_pictures

IN, OUT = "input-bucket", "output-bucket"


def plenty() -> float:
    return 60.0


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    for name in ("a.jpg", "sub/b +%2B ü\n.png", "no-picture"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg() + name.encode())
    return load_pictures(folder)


# --- uploading ----------------------------------------------------------------------------------


def test_every_picture_is_uploaded_as_it_is_with_run_and_type(s3, buckets, pictures):
    upload_images(s3, buckets, pictures, "run-1")
    followers = []
    assert set(list_keys(s3, IN, "")) == {f"input/{p.image_key}" for p in pictures}
    for picture in pictures:
        stored = s3.get_object(Bucket=IN, Key=f"input/{picture.image_key}")
        assert stored["Body"].read() == picture.path.read_bytes()
        about = stored["Metadata"]
        followers.append(int(about.pop("followers")))
        assert about == {"run-id": "run-1", "round": "1", "sha256": picture.sha256}
    assert sorted(followers) == list(range(len(pictures)))
    types = {
        p.image_key: s3.head_object(Bucket=IN, Key=f"input/{p.image_key}")["ContentType"]
        for p in pictures
    }
    assert types["a.jpg"] == "image/jpeg"
    assert types["no-picture"] == "application/octet-stream"


def test_the_manifest_lists_every_picture_with_size_and_hash(s3, buckets, pictures):
    upload_images(s3, buckets, pictures, "run-1")
    manifest = json.loads(read_object(s3, OUT, "metrics/manifests/run-1.json").data)
    assert manifest["run_id"] == "run-1"
    assert {(p["image_key"], p["size"], p["sha256"]) for p in manifest["pictures"]} == {
        (p.image_key, p.size, p.sha256) for p in pictures
    }


def test_uploads_that_fail_are_named_and_the_others_are_done(s3, buckets, pictures, capsys):
    pictures[0].path.unlink()
    with pytest.raises(UserError, match="1 of 3 pictures were not uploaded"):
        upload_images(s3, buckets, pictures, "run-1")
    assert pictures[0].image_key.encode().splitlines()[0].decode() in capsys.readouterr().err
    assert len(list_keys(s3, IN, "")) == 2


def test_a_missing_bucket_is_one_line_for_each_picture(s3, pictures, capsys):
    with pytest.raises(UserError):
        upload_images(s3, Buckets("no-such-bucket", OUT), pictures, "run-1")
    assert capsys.readouterr().err.count("NoSuchBucket") == 3


def test_a_server_that_ignores_conditions_is_refused(s3, monkeypatch):
    check_conditional_writes(s3, OUT)
    s3.meta.events.register(
        "provide-client-params.s3.PutObject",
        lambda params, **_: {k: v for k, v in params.items() if k != "IfNoneMatch"},
    )
    with pytest.raises(UserError, match="ignores If-None-Match"):
        check_conditional_writes(s3, OUT)
    assert list_keys(s3, OUT, "") == []


def test_a_large_picture_goes_up_in_parts_and_gets_one_row(embedded, tmp_path):
    (tmp_path / "large.jpg").write_bytes(jpeg() + b"\0" * 9_000_000)
    s3, buckets = make_client(embedded, "s3"), find_buckets(embedded)
    upload_images(s3, buckets, load_pictures(tmp_path), "parts")
    (row,) = wait_for_rows(s3, buckets.output, {RowId("parts", 1, "large.jpg")}, 60)
    assert (row.status, row.orig_size) == ("ok", len(jpeg()) + 9_000_000)
    assert "-2" in s3.head_object(Bucket=buckets.input, Key="input/large.jpg")["ETag"]


def test_the_script_uploads_with_the_run_id_of_the_local_rows(
    embedded, checkout, run_script_in, tmp_path
):
    (checkout / "images_to_upload" / "script é+.jpg").write_bytes(jpeg())
    assert run_script_in("onprem_images/local_image_proc.py", "--run-id", "by-hand").returncode == 0
    done = run_script_in(
        "upload_images_s3.py", cwd=tmp_path, AWS_ENDPOINT_URL=embedded.endpoint_url
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "uploaded 1 pictures" in done.stdout
    compared = run_script_in(
        "compare_cloud_onprem_metrics.py",
        "--timeout",
        "60",
        cwd=tmp_path,
        AWS_ENDPOINT_URL=embedded.endpoint_url,
    )
    assert compared.returncode == 0
    assert "per picture:" in compared.stdout


def test_a_dry_run_says_what_it_would_do_and_does_nothing(embedded, checkout, run_script_in):
    (checkout / "images_to_upload" / "dry.jpg").write_bytes(jpeg())
    done = run_script_in("upload_images_s3.py", "--dry-run", AWS_ENDPOINT_URL=embedded.endpoint_url)
    assert done.returncode == 0
    buckets = find_buckets(embedded)
    assert f"s3://{buckets.input}/input/dry.jpg" in done.stdout
    assert list_keys(make_client(embedded, "s3"), buckets.input, "input/dry") == []


def test_a_dry_run_names_what_it_would_leave_out(embedded, checkout, run_script_in):
    (checkout / "images_to_upload" / "dry.jpg").write_bytes(jpeg())
    (checkout / "images_to_upload" / "THUMBS.DB").write_bytes(b"x")
    flags, url = ("upload_images_s3.py", "--dry-run"), embedded.endpoint_url
    done = run_script_in(*flags, AWS_ENDPOINT_URL=url)
    assert "would upload 1 pictures" in done.stdout
    assert done.stdout.endswith("would leave out 1 Thumbs.db\n  THUMBS.DB\n")
    done = run_script_in(*flags, "--all-files", AWS_ENDPOINT_URL=url)
    assert "would upload 2 pictures" in done.stdout
    assert "would leave out" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 1, "error: no embedded cloud is running"),
        (["--endpoint-url", "http://example.com"], 1, "not on this machine"),
        (["--endpoint-url", "http://127.0.0.1:1"], 1, "Could not connect"),
        (["--run-id", "a/b"], 2, "is no run id"),
        (["--workers", "0"], 2, "not a whole number above 0"),
        (["--images", "/no/such/folder"], 1, "is not a folder"),
        (["--input-bucket", "same", "--output-bucket", "same"], 1, "must differ"),
    ],
)
def test_wrong_use_is_one_line_and_the_right_exit_code(
    checkout, run_script_in, arguments, code, message
):
    (checkout / "images_to_upload" / "a.jpg").write_bytes(jpeg())
    done = run_script_in("upload_images_s3.py", *arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


# --- waiting ------------------------------------------------------------------------------------


def test_new_rows_are_read_once_each(s3):
    reader = new_rows(s3, OUT)
    assert next(reader) == []
    for key in ("a", "ü\r\nb", "c"):
        put_row(s3, OUT, row(key))
        append_rows(s3, OUT, plenty)
        assert next(reader) == [row(key)]
    assert next(reader) == []


def test_a_reader_begins_again_when_the_csv_was_cleaned(s3):
    reader = new_rows(s3, OUT)
    for key in ("a", "b"):
        put_row(s3, OUT, row(key))
    append_rows(s3, OUT, plenty)
    assert len(next(reader)) == 2
    s3.delete_object(Bucket=OUT, Key=CSV_KEY)
    put_row(s3, OUT, row("c"))
    append_rows(s3, OUT, plenty)
    assert next(reader) == [row("c")]


def test_the_wait_ends_with_a_row_of_every_picture(s3):
    for key in ("a", "b"):
        put_row(s3, OUT, row(key))
    append_rows(s3, OUT, plenty)
    rows = wait_for_rows(s3, OUT, {RowId("run", 1, "a"), RowId("run", 1, "b")}, 10)
    assert sorted(r.image_key for r in rows) == ["a", "b"]


def test_rows_of_other_runs_and_rounds_do_not_count(s3):
    put_row(s3, OUT, row("a", run_id="earlier"))
    put_row(s3, OUT, row("a", round=2))
    append_rows(s3, OUT, plenty)
    with pytest.raises(UserError, match=r"1 of 1 pictures have no cloud row .*'a'"):
        wait_for_rows(s3, OUT, {RowId("run", 1, "a")}, 0.1)


def test_rows_that_wait_are_appended_before_they_are_downloaded(s3):
    put_row(s3, OUT, row("a"))
    assert [r.image_key for r in download_rows(s3, OUT, "run")] == ["a"]


def test_a_time_out_names_the_missing(s3):
    put_row(s3, OUT, row("there"))
    append_rows(s3, OUT, plenty)
    expected = {RowId("run", 1, key) for key in ("there", "lost", "gone")}
    with pytest.raises(UserError, match=r"2 of 3 pictures have no cloud row .*'gone', 'lost'"):
        wait_for_rows(s3, OUT, expected, 0.1)


def test_rows_that_a_dead_function_left_are_appended_by_the_wait(s3, monkeypatch):
    monkeypatch.setattr(cloud_rows, "STALLED_S", 0)
    put_row(s3, OUT, row("a"))  # durable, and nobody is left to append it
    (found,) = wait_for_rows(s3, OUT, {RowId("run", 1, "a")}, 10)
    assert found == row("a")


def test_before_giving_up_the_wait_appends_what_is_durable(s3):
    put_row(s3, OUT, row("a"))
    (found,) = wait_for_rows(s3, OUT, {RowId("run", 1, "a")}, 0.01)
    assert found == row("a")


def test_a_reader_begins_anew_when_the_csv_was_cleaned_and_is_longer_again(s3):
    reader = new_rows(s3, OUT)
    put_row(s3, OUT, row("a"))
    append_rows(s3, OUT, plenty)
    assert next(reader) == [row("a")]
    s3.delete_object(Bucket=OUT, Key=CSV_KEY)
    others = [row(f"another-{number}") for number in range(3)]
    for other in others:
        put_row(s3, OUT, other)
    append_rows(s3, OUT, plenty)
    assert sorted(r.image_key for r in next(reader)) == [r.image_key for r in others]


def test_a_csv_that_is_not_ours_is_said_at_once(s3):
    s3.put_object(Bucket=OUT, Key=CSV_KEY, Body=b"other,columns\r\n")
    with pytest.raises(MetricsLogError, match="move it away"):
        wait_for_rows(s3, OUT, {RowId("run", 1, "a")}, 60)


def test_a_run_id_is_used_once(s3, buckets, pictures):
    check_run_is_new(s3, OUT, "run-1")
    upload_images(s3, buckets, pictures, "run-1")
    with pytest.raises(UserError, match="was used before"):
        check_run_is_new(s3, OUT, "run-1")


def test_a_bucket_that_is_denied_or_gone_fails_at_once(s3):
    with pytest.raises(ClientError):
        wait_for_rows(s3, "no-such-bucket", {RowId("run", 1, "a")}, 60)


def fault(status: int) -> ClientError:
    answer = {"Error": {"Code": "Fault"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "Call")


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("head_object", EndpointConnectionError(endpoint_url="http://x")),
        ("get_object", fault(503)),
        ("list_objects_v2", fault(500)),
        ("delete_objects", fault(500)),
    ],
)
def test_the_wait_outlives_faults_of_the_cloud(s3, monkeypatch, capsys, call, error):
    monkeypatch.setattr(cloud_rows, "STALLED_S", 0)
    monkeypatch.setattr(cloud_rows, "POLL_S", 0)
    put_row(s3, OUT, row("a"))
    real, errors = getattr(s3, call), iter([error])

    def fail_once(**params: object) -> dict:
        for problem in errors:
            raise problem
        return real(**params)

    monkeypatch.setattr(s3, call, fail_once)
    (found,) = wait_for_rows(s3, OUT, {RowId("run", 1, "a")}, 60)
    assert found == row("a")
    assert "still waiting after: " in capsys.readouterr().err


def test_the_wait_outlives_faults_of_the_failure_queue(s3, monkeypatch):
    monkeypatch.setattr(cloud_rows, "STALLED_S", 0)
    monkeypatch.setattr(cloud_rows, "POLL_S", 0)
    calls = []

    def settle(missing: set[RowId]) -> None:
        calls.append(missing)
        if len(calls) == 1:
            raise fault(500)
        put_row(s3, OUT, row("a", status="error"))

    (found,) = wait_for_rows(s3, OUT, {RowId("run", 1, "a")}, 60, drain_failure_queue=settle)
    assert (len(calls), found.status) == (2, "error")


def test_the_names_of_the_missing_are_told_when_the_cloud_never_answers(s3, monkeypatch):
    def fail(**_: object) -> dict:
        raise fault(500)

    monkeypatch.setattr(s3, "head_object", fail)
    with pytest.raises(UserError, match=r"1 of 1 pictures have no cloud row .*'a'"):
        wait_for_rows(s3, OUT, {RowId("run", 1, "a")}, 0.01)


def test_importing_the_scripts_does_nothing():
    program = "import master_pipeline, upload_images_s3, compare_cloud_onprem_metrics"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
