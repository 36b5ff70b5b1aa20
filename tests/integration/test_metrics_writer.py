"""The metrics writer: exactly one row, whatever comes twice, and whoever else writes."""

import csv
import io
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, ParamValidationError
from rows import append_rows, appended_rows, row

from lambda_function import metrics_writer
from lambda_function.cloud import find_buckets, make_client
from lambda_function.metrics_log import (
    COLUMNS,
    CSV_KEY,
    HEADER,
    SMOKE_TEST_KEY,
    SMOKE_TEST_RUN,
    MetricsLogError,
    put_if,
    read_object,
    row_to_message,
    rows_to_csv,
)
from lambda_function.metrics_writer import MetricsCsv, lambda_handler

OUT = "output-bucket"
WRITERS = 8


def plenty() -> float:
    return 60.0


def keys_in(s3, bucket: str = OUT) -> list[str]:
    return [one.image_key for one in appended_rows(s3, bucket)]


class Watched:
    """An S3 client that counts its calls, and loses the answer or refuses where it is told to."""

    def __init__(self, s3):
        self._s3 = s3
        self.calls: list[str] = []
        self.before: dict[str, list] = {}  # what to do before a call, by operation, each once
        self.lost: set[str] = set()  # operations whose next answer is lost

    def __getattr__(self, operation: str):
        def call(**params: object) -> dict:
            self.calls.append(operation)
            if self.before.get(operation):
                self.before[operation].pop(0)()
            answer = getattr(self._s3, operation)(**params)
            if operation in self.lost:
                self.lost.remove(operation)
                raise ConnectionClosedError(endpoint_url="http://x")
            return answer

        return call


@pytest.fixture
def watched(s3) -> Watched:
    return Watched(s3)


@pytest.fixture
def writer(watched) -> MetricsCsv:
    return MetricsCsv(watched, OUT, CSV_KEY)


@pytest.fixture
def small_copies(monkeypatch) -> None:
    """CSVs of two rows are copied by S3 already, in several parts."""
    monkeypatch.setattr(metrics_writer, "COPY_FROM_BYTES", 500)
    monkeypatch.setattr(metrics_writer, "PART_BYTES", 700)
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)


# --- a batch --------------------------------------------------------------------------------------


@pytest.fixture
def write(s3, monkeypatch):
    """Call the writer with messages of these bodies."""
    monkeypatch.setenv("OUTPUT_BUCKET", OUT)
    monkeypatch.setattr(metrics_writer, "s3_client", lambda: s3)
    monkeypatch.setattr(metrics_writer, "_csvs", {})
    context = SimpleNamespace(
        aws_request_id="r", get_remaining_time_in_millis=lambda: plenty() * 1000
    )

    def call(*bodies: str) -> dict:
        records = [{"messageId": f"m{n}", "body": body} for n, body in enumerate(bodies)]
        return lambda_handler({"Records": records}, context)

    return call


def test_a_batch_becomes_rows_and_no_message_failed(s3, write):
    rows = [row("a"), row("b", status="error", error='no "picture",\r\n')]
    assert write(*map(row_to_message, rows)) == {"batchItemFailures": []}
    assert appended_rows(s3, OUT) == rows


def test_messages_that_are_no_rows_are_reported_and_stop_no_other(s3, write, capsys):
    answer = write("no row", row_to_message(row("a")), "{}")
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m0"}, {"itemIdentifier": "m2"}]}
    assert keys_in(s3) == ["a"]
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["no_row"] for line in lines[:2]] == ["m0", "m2"]


def test_a_batch_without_any_row_writes_nothing(s3, write):
    assert len(write("1", "2")["batchItemFailures"]) == 2
    assert read_object(s3, OUT, CSV_KEY) is None


def test_rows_of_the_smoke_test_have_a_csv_of_their_own(s3, write):
    write(row_to_message(row("a")), row_to_message(row("test", run_id=SMOKE_TEST_RUN)))
    assert keys_in(s3) == ["a"]
    assert "test" in read_object(s3, OUT, SMOKE_TEST_KEY).data.decode()


def test_a_row_that_comes_again_is_not_written_again(s3, write):
    message = row_to_message(row("a", proc_ms=1.0))
    write(message, message)
    write(row_to_message(row("a", proc_ms=2.0)), row_to_message(row("b")))
    assert [(one.image_key, one.proc_ms) for one in appended_rows(s3, OUT)] == [
        ("a", 1.0),
        ("b", 12.5),
    ]


def test_rounds_runs_and_pictures_are_told_apart(s3):
    rows = [row("a"), row("a", round=2), row("a", run_id="other"), row("a2"), row("2a")]
    assert append_rows(s3, OUT, *rows) == 5
    assert append_rows(s3, OUT, *rows) == 0


def test_a_key_that_is_no_text_for_a_file_is_written_once_all_the_same(s3):
    assert append_rows(s3, OUT, row("lone \ud800 surrogate")) == 1
    assert append_rows(s3, OUT, row("lone \ud800 surrogate")) == 0


# --- requests -------------------------------------------------------------------------------------


def test_the_csv_is_read_once_and_each_batch_is_one_write(writer, watched):
    writer.append([row("first")], plenty)
    assert watched.calls == ["get_object", "put_object", "get_object", "put_object"]
    watched.calls.clear()
    for number in range(3):
        writer.append([row(f"{number}")], plenty)
    assert watched.calls == ["put_object"] * 3


def test_what_is_known_already_takes_no_request(writer, watched):
    writer.append([row("a")], plenty)
    watched.calls.clear()
    assert writer.append([row("a")], plenty) == 0
    assert watched.calls == []


def test_a_large_csv_is_not_sent_again(writer, watched, s3, small_copies):
    keys = [f"{number}" for number in range(8)]
    for key in keys:
        writer.append([row(key)], plenty)
    assert keys_in(s3) == keys
    assert watched.calls.count("put_object") <= 3
    assert watched.calls.count("get_object") == 2
    assert watched.calls.count("upload_part_copy") > watched.calls.count("upload_part") > 4


# --- somebody else, and faults --------------------------------------------------------------------


def test_rows_of_another_writer_are_noticed_and_kept(s3, writer):
    writer.append([row("a")], plenty)
    append_rows(s3, OUT, row("b"), row("c"))
    assert writer.append([row("b"), row("d")], plenty) == 1
    assert keys_in(s3) == ["a", "b", "c", "d"]


def test_only_what_the_other_added_is_read(s3, writer, watched):
    writer.append([row(f"{n}") for n in range(50)], plenty)
    append_rows(s3, OUT, row("other"))
    ranges = []
    watched.before["get_object"] = []
    real = s3.get_object
    s3.get_object = lambda **params: (ranges.append(params["Range"]), real(**params))[1]
    writer.append([row("mine")], plenty)
    assert ranges != ["bytes=0-"]
    assert len(ranges) == 1


@pytest.mark.parametrize("copies", [False, True])
def test_who_loses_a_race_looks_at_what_was_added_and_tries_again(
    s3, writer, watched, copies, request
):
    if copies:
        request.getfixturevalue("small_copies")
    writer.append([row("a"), row("b"), row("c")], plenty)
    last = "complete_multipart_upload" if copies else "put_object"
    if copies:  # which is where moto itself ignores the condition
        refuse_stale_uploads(s3)
    watched.before[last] = [lambda: append_rows(s3, OUT, row("other"))] * 2
    assert writer.append([row("mine"), row("other")], plenty) == 1
    assert keys_in(s3) == ["a", "b", "c", "other", "mine"]


def refuse_stale_uploads(s3) -> None:
    """The embedded cloud's complete_multipart_upload for moto in this process."""
    real = s3.complete_multipart_upload

    def complete(*, IfMatch: str, **params: object) -> dict:
        there = s3.head_object(Bucket=params["Bucket"], Key=params["Key"])
        if there["ETag"] != IfMatch:
            answer = {"Error": {"Code": "PreconditionFailed"}}
            answer["ResponseMetadata"] = {"HTTPStatusCode": 412}
            raise ClientError(answer, "CompleteMultipartUpload")
        return real(**params)

    s3.complete_multipart_upload = complete


def test_a_copy_is_not_made_again_for_a_lost_race(s3, writer, watched, small_copies):
    refuse_stale_uploads(s3)
    writer.append([row("a"), row("b"), row("c")], plenty)
    watched.calls.clear()
    watched.before["complete_multipart_upload"] = [lambda: append_rows(s3, OUT, row("other"))]
    writer.append([row("mine")], plenty)
    assert watched.calls.count("create_multipart_upload") == 1
    assert watched.calls.count("complete_multipart_upload") == 2
    assert keys_in(s3) == ["a", "b", "c", "other", "mine"]


@pytest.mark.parametrize("copies", [False, True])
def test_a_write_whose_answer_was_lost_is_found_and_not_done_again(
    s3, writer, watched, copies, request
):
    if copies:
        request.getfixturevalue("small_copies")
    writer.append([row("a"), row("b"), row("c")], plenty)
    watched.lost = {"complete_multipart_upload" if copies else "put_object"}
    assert writer.append([row("d")], plenty) == 0  # as far as it knows
    assert keys_in(s3) == ["a", "b", "c", "d"]
    assert writer.append([row("e")], plenty) == 1


def test_a_csv_that_was_deleted_is_begun_anew(s3, writer):
    writer.append([row("a")], plenty)
    s3.delete_object(Bucket=OUT, Key=CSV_KEY)
    assert writer.append([row("b")], plenty) == 1
    assert keys_in(s3) == ["b"]


def test_a_csv_that_somebody_wrote_by_hand_is_appended_to(s3, writer):
    s3.put_object(Bucket=OUT, Key=CSV_KEY, Body=(HEADER + rows_to_csv([row("a")])).encode())
    assert writer.append([row("a"), row("b")], plenty) == 1
    assert writer.append([row("c")], plenty) == 1
    assert keys_in(s3) == ["a", "b", "c"]


@pytest.mark.parametrize("content", [b"other,columns\r\n", HEADER.encode() + b"1,2\r\n", b""])
def test_a_csv_that_is_not_ours_is_left_alone(s3, writer, content):
    s3.put_object(Bucket=OUT, Key=CSV_KEY, Body=content)
    with pytest.raises(MetricsLogError, match="move it away"):
        writer.append([row("a")], plenty)
    assert read_object(s3, OUT, CSV_KEY).data == content
    s3.delete_object(Bucket=OUT, Key=CSV_KEY)  # moved away, as the message says
    assert writer.append([row("a")], plenty) == 1


def test_nothing_is_begun_when_the_time_is_almost_up_and_the_rows_come_again(s3, writer):
    with pytest.raises(MetricsLogError, match=r"1 rows may not be in .* come again"):
        writer.append([row("a")], lambda: metrics_writer.STOP_BEFORE_S - 1)
    assert read_object(s3, OUT, CSV_KEY) is None


def test_an_sdk_without_if_match_fails_with_the_first_row_so_that_the_smoke_test_sees_it(s3):
    class Old:
        def __getattr__(self, operation: str):
            return getattr(s3, operation)

        def put_object(self, **params: object) -> dict:
            if "IfMatch" in params:
                raise ParamValidationError(report="Unknown parameter in input: IfMatch")
            return s3.put_object(**params)

    with pytest.raises(ParamValidationError):
        MetricsCsv(Old(), OUT, CSV_KEY).append([row("a")], plenty)


def test_what_s3_refuses_for_good_fails_the_batch(s3):
    with pytest.raises(ClientError, match="NoSuchBucket"):
        append_rows(s3, "nowhere", row("a"))


# --- many at once, on the embedded cloud's S3 -----------------------------------------------------


def all_at_once(work, count: int = WRITERS) -> list:
    """Results of `work(0..count-1)`, each in a thread of its own, begun together."""
    together = threading.Barrier(count)

    def begin(number: int):
        together.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


@pytest.fixture
def own_bucket(embedded, request):
    """A client of the embedded S3 and an empty bucket of the test's own."""
    client = make_client(embedded, "s3")
    bucket = re.sub("[^a-z]+", "-", request.node.name.lower())[:60].strip("-")
    client.create_bucket(Bucket=bucket)
    return client, bucket


def read_modify_write(client, bucket, new) -> None:
    """What the published reference run did."""
    current = read_object(client, bucket, CSV_KEY)
    text = current.data.decode() if current else HEADER
    client.put_object(Bucket=bucket, Key=CSV_KEY, Body=(text + rows_to_csv([new])).encode())


def test_plain_read_modify_write_loses_rows(own_bucket):
    client, bucket = own_bucket
    all_at_once(lambda n: read_modify_write(client, bucket, row(f"{n}")))
    assert len(appended_rows(client, bucket)) < WRITERS


@pytest.mark.parametrize("kept", [0, 8 * 2**20 // 250])
def test_writers_lose_no_row_when_all_write_at_once(own_bucket, kept):
    """A small CSV, and one that S3 copies."""
    client, bucket = own_bucket
    append_rows(client, bucket, *(row(f"before-{n}") for n in range(kept)))
    per_writer = 4

    def write(number: int) -> None:
        writer = MetricsCsv(client, bucket, CSV_KEY)
        for picture in range(per_writer):
            writer.append([row(f"{number}-{picture}"), row(f"all-{picture}")], lambda: 600)

    all_at_once(write)
    expected = {f"{n}-{p}" for n in [*range(WRITERS), "all"] for p in range(per_writer)}
    keys = keys_in(client, bucket)
    assert {key for key in keys if not key.startswith("before")} == expected
    assert len(keys) == len(expected) + kept


def test_the_csv_is_whole_at_every_moment(own_bucket):
    client, bucket = own_bucket
    done = threading.Event()

    def watch() -> int:
        seen = 0
        while not done.is_set():
            if stored := read_object(client, bucket, CSV_KEY):
                records = list(csv.reader(io.StringIO(stored.data.decode(), newline="")))
                assert all(len(record) == len(COLUMNS) for record in records)
                assert len(records) - 1 >= seen  # rows never go away
                seen = len(records) - 1
        return seen

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            all_at_once(lambda n: append_rows(client, bucket, row(f"{n}\r\n,")))
        finally:
            done.set()
        assert watching.result() > 0


@pytest.mark.parametrize("condition", ["IfNoneMatch", "IfMatch"])
def test_of_concurrent_conditional_puts_exactly_one_wins(own_bucket, condition):
    client, bucket = own_bucket
    for attempt in range(20):
        key = f"object-{attempt}"
        if condition == "IfMatch":
            client.put_object(Bucket=bucket, Key=key, Body=b"first")
            held = {"IfMatch": read_object(client, bucket, key).etag}
        else:
            held = {"IfNoneMatch": "*"}
        won = all_at_once(lambda n, k=key, h=held: put_if(client, bucket, k, b"%d" % n, **h), 8)
        assert sum(won) == 1
        assert read_object(client, bucket, key).data == b"%d" % won.index(True)


def test_the_stack_of_the_embedded_cloud_is_found(embedded):
    assert find_buckets(embedded).input != find_buckets(embedded).output
