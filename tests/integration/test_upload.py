"""Uploading, cleaning and waiting: what goes into the buckets and what comes back."""

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, IncompleteReadError
from conftest import jpeg
from rows import append_rows, row, waited_rows

from lambda_function.cloud import Buckets, find_buckets, make_client
from lambda_function.metrics_log import (
    CSV_KEY,
    HEADER,
    MetricsLogError,
    RowId,
    read_object,
    rows_from_csv,
    rows_to_csv,
)
from metrics.collect import cloud_rows
from metrics.collect.cloud_rows import CloudRows
from metrics.common.cli import UserError
from metrics.run.cleaning import list_keys
from metrics.run.uploads import check_conditional_writes, check_run_is_new, upload_images
from onprem_images.dataset import load_pictures

IN, OUT = "input-bucket", "output-bucket"


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
    assert set(list_keys(s3, IN, "")) == {f"input/{p.image_key}" for p in pictures}
    for picture in pictures:
        stored = s3.get_object(Bucket=IN, Key=f"input/{picture.image_key}")
        assert stored["Body"].read() == picture.path.read_bytes()
        about = {"run-id": "run-1", "round": "1", "sha256": picture.sha256}
        assert stored["Metadata"] == about
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


@pytest.mark.parametrize(
    ("operation", "condition", "named"),
    [
        ("PutObject", "IfNoneMatch", "If-None-Match on PUT"),
        ("CompleteMultipartUpload", "IfMatch", "If-Match on CompleteMultipartUpload"),
    ],
)
def test_a_server_that_ignores_a_condition_is_refused(embedded, operation, condition, named):
    s3, bucket = make_client(embedded, "s3"), find_buckets(embedded).output
    check_conditional_writes(s3, bucket)
    s3.meta.events.register(
        f"provide-client-params.s3.{operation}",
        lambda params, **_: {k: v for k, v in params.items() if k != condition},
    )
    with pytest.raises(UserError, match=f"ignores {named}"):
        check_conditional_writes(s3, bucket)
    assert list_keys(s3, bucket, "metrics/probe") == []
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


def test_a_large_picture_goes_up_in_parts_and_gets_one_row(embedded, tmp_path):
    (tmp_path / "large.jpg").write_bytes(jpeg() + b"\0" * 9_000_000)
    s3, buckets = make_client(embedded, "s3"), find_buckets(embedded)
    upload_images(s3, buckets, load_pictures(tmp_path), "parts")
    (row,) = waited_rows(s3, buckets.output, {RowId("parts", 1, "large.jpg")}, 60)
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


EXPECTED = {RowId("run", 1, "a")}


class Counted:
    """How many messages wait where, and what the failure queue gives when it is drained."""

    def __init__(self, *given: Callable[[], int]):
        self.given = list(given)
        self.drained: list[set[RowId]] = []

    def drain(self, _, missing: set[RowId]) -> int:
        self.drained.append(missing)
        return self.given.pop(0)() if self.given else 0

    def describe(self) -> str:
        return "the rows queue holds 2 waiting and 1 in flight, the failure queue 3"


@pytest.fixture
def drained(monkeypatch):
    """A failure queue that gives, each time that it is drained, what the next function does."""

    def make(*given: Callable[[], int]) -> Counted:
        counted = Counted(*given)
        monkeypatch.setattr(cloud_rows, "settle", counted.drain)
        monkeypatch.setattr(cloud_rows, "STALLED_S", 0)
        monkeypatch.setattr(cloud_rows, "POLL_S", 0)
        return counted

    return make


def test_rows_are_read_once_each_and_saved_as_they_are(s3, tmp_path):
    rows = CloudRows(s3, OUT, "run")
    assert rows.look() == 0
    written = [row("a"), row("ü\r\nb", status="error"), row("c", cold_start=True)]
    for number, one in enumerate(written, 1):
        append_rows(s3, OUT, one)
        assert rows.look() == 1
        assert len(rows.found) == number
    append_rows(s3, OUT, row("a", run_id="other"))
    assert rows.look() == 0
    assert rows.failed == {written[1].id: written[1].error}
    rows.save(tmp_path / "rows.csv")
    assert (tmp_path / "rows.csv").read_bytes() == (HEADER + rows_to_csv(written)).encode()


def test_the_wait_reads_only_what_was_added(s3):
    rows, ranges = CloudRows(s3, OUT, "run"), []
    append_rows(s3, OUT, *(row(f"{number}") for number in range(20)))
    rows.look()
    size = s3.head_object(Bucket=OUT, Key=CSV_KEY)["ContentLength"]
    append_rows(s3, OUT, row("last"))
    s3.meta.events.register(
        "provide-client-params.s3.GetObject", lambda params, **_: ranges.append(params["Range"])
    )
    assert rows.look() == 1
    assert ranges == [f"bytes={size - 1}-"]


def test_a_reader_begins_again_when_the_csv_was_cleaned(s3):
    rows = CloudRows(s3, OUT, "run")
    append_rows(s3, OUT, row("a"), row("b"))
    assert rows.look() == 2
    s3.delete_object(Bucket=OUT, Key=CSV_KEY)
    rows.look()
    assert rows.found == set()
    append_rows(s3, OUT, row("c"))
    rows.look()
    assert rows.found == {row("c").id}


@pytest.mark.parametrize("others", [1, 2, 3, 9])
def test_a_reader_begins_anew_when_the_csv_was_written_anew_in_between(s3, others):
    rows = CloudRows(s3, OUT, "run")
    append_rows(s3, OUT, row("a"), row("b"))
    rows.look()
    s3.delete_object(Bucket=OUT, Key=CSV_KEY)
    written = [row(f"another-{number}") for number in range(others)]
    append_rows(s3, OUT, *written)
    rows.look()
    assert rows.found == {one.id for one in written}
    assert rows_from_csv(rows.csv().removeprefix(HEADER)) == written


def test_the_wait_ends_with_a_row_of_every_picture(s3):
    append_rows(s3, OUT, row("a"), row("b"))
    rows = waited_rows(s3, OUT, {RowId("run", 1, "a"), RowId("run", 1, "b")}, 10)
    assert sorted(r.image_key for r in rows) == ["a", "b"]


def test_rows_that_stop_coming_are_noticed_after_the_first_ones_too(s3, drained, monkeypatch):
    ticks, drained_at = itertools.count(), []
    clock = SimpleNamespace(monotonic=lambda: next(ticks), sleep=lambda _: None)
    monkeypatch.setattr(cloud_rows, "time", clock)

    def drain() -> int:
        drained_at.append(next(ticks))
        return append_rows(s3, OUT, row("b", status="error"))

    append_rows(s3, OUT, row("a"))
    expected = {RowId("run", 1, "a"), RowId("run", 1, "b")}
    assert len(waited_rows(s3, OUT, expected, 500, queues=drained(drain))) == 2
    assert drained_at[0] < 100  # and not when the time was up


def test_rows_of_other_runs_and_rounds_do_not_count(s3):
    append_rows(s3, OUT, row("a", run_id="earlier"), row("a", round=2))
    with pytest.raises(UserError, match=r"1 of 1 pictures have no cloud row .*'a'"):
        waited_rows(s3, OUT, EXPECTED, 0.1)


def test_a_time_out_names_the_missing_and_what_waits_where(s3, drained):
    append_rows(s3, OUT, row("there"))
    expected = {RowId("run", 1, key) for key in ("there", "lost", "gone")}
    with pytest.raises(UserError) as caught:
        waited_rows(s3, OUT, expected, 0.1, queues=drained())
    assert str(caught.value) == (
        "2 of 3 pictures have no cloud row after 0.1 s: 'gone', 'lost'; the rows queue holds 2 "
        "waiting and 1 in flight, the failure queue 3; see the function's log group, or wait "
        "longer with --timeout"
    )


def test_without_a_stack_a_time_out_says_that_nothing_is_known_of_the_queues(s3):
    with pytest.raises(UserError, match="'a'; nothing is known of the queues; "):
        waited_rows(s3, OUT, EXPECTED, 0.01)


def test_when_rows_stop_coming_the_failure_queue_is_drained(s3, drained):
    queues = drained(lambda: append_rows(s3, OUT, row("a", status="error")))
    (found,) = waited_rows(s3, OUT, EXPECTED, 60, queues=queues)
    assert found.status == "error"
    assert queues.drained == [EXPECTED]


def test_what_the_failure_queue_gives_in_the_end_is_waited_for(s3, drained, monkeypatch):
    later = []

    def send() -> int:
        later.append(1)
        return 1

    queues = drained(send)
    monkeypatch.setattr(cloud_rows, "STALLED_S", 60)
    look = CloudRows.look
    monkeypatch.setattr(
        CloudRows, "look", lambda rows: later and append_rows(s3, OUT, row("a")) + look(rows)
    )
    (found,) = waited_rows(s3, OUT, EXPECTED, 0.01, queues=queues)
    assert found == row("a")


def test_a_csv_that_is_not_ours_is_said_at_once(s3):
    s3.put_object(Bucket=OUT, Key=CSV_KEY, Body=b"other,columns\r\n")
    with pytest.raises(MetricsLogError, match="move it away"):
        waited_rows(s3, OUT, EXPECTED, 60)


def test_a_run_id_is_used_once(s3, buckets, pictures):
    check_run_is_new(s3, OUT, "run-1")
    upload_images(s3, buckets, pictures, "run-1")
    with pytest.raises(UserError, match="was used before"):
        check_run_is_new(s3, OUT, "run-1")


def test_a_bucket_that_is_denied_or_gone_fails_at_once(s3):
    with pytest.raises(ClientError):
        waited_rows(s3, "no-such-bucket", EXPECTED, 60)


def fault(status: int) -> ClientError:
    answer = {"Error": {"Code": "Fault"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "Call")


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(endpoint_url="http://x"),
        fault(503),
        fault(500),
        IncompleteReadError(actual_bytes=1, expected_bytes=2),
    ],
)
def test_the_wait_outlives_faults_of_the_cloud(s3, monkeypatch, capsys, error):
    monkeypatch.setattr(cloud_rows, "POLL_S", 0)
    append_rows(s3, OUT, row("a"))
    real, errors = s3.get_object, iter([error])

    def fail_once(**params: object) -> dict:
        for problem in errors:
            raise problem
        return real(**params)

    monkeypatch.setattr(s3, "get_object", fail_once)
    (found,) = waited_rows(s3, OUT, EXPECTED, 60)
    assert found == row("a")
    assert "still waiting after: " in capsys.readouterr().err


def test_the_wait_outlives_faults_of_the_failure_queue(s3, drained):
    def fail() -> int:
        raise fault(500)

    queues = drained(fail, lambda: append_rows(s3, OUT, row("a", status="error")))
    (found,) = waited_rows(s3, OUT, EXPECTED, 60, queues=queues)
    assert (len(queues.drained), found.status) == (2, "error")


def test_the_names_of_the_missing_are_told_when_the_cloud_never_answers(s3, monkeypatch):
    def fail(**_: object) -> dict:
        raise fault(500)

    monkeypatch.setattr(s3, "get_object", fail)
    with pytest.raises(UserError, match=r"1 of 1 pictures have no cloud row .*'a'"):
        waited_rows(s3, OUT, EXPECTED, 0.01)


def test_importing_the_scripts_does_nothing():
    program = "import master_pipeline, upload_images_s3, compare_cloud_onprem_metrics"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
