"""Events that the function gave up on become rows that say why."""

import json

import boto3
import pytest
from conftest import jpeg
from rows import append_rows, appended_rows, row, waited_rows

from lambda_function.cloud import Buckets, find_buckets, find_function, make_client
from lambda_function.embedded_cloud import embedded_cloud
from lambda_function.metrics_log import RowId, row_from_message, row_to_message, send_row
from metrics.collect import cloud_rows
from metrics.collect.dead_letters import (
    Queues,
    drain_failure_queue,
    find_queues,
    receive,
    send_rows_of_vanished,
    settle,
)

IN, OUT = "input-bucket", "output-bucket"


@pytest.fixture
def queues(s3) -> Queues:
    sqs = boto3.client("sqs")
    rows, failures = (sqs.create_queue(QueueName=n)["QueueUrl"] for n in ("rows", "failures"))
    return Queues(s3, sqs, rows, failures, Buckets(IN, OUT))


def upload(s3, key: str, run_id: str = "run", body: bytes = b"picture") -> str:
    """The ETag of a picture that was put as upload_images_s3.py does it."""
    metadata = {"run-id": run_id, "round": "1"}
    put = s3.put_object(Bucket=IN, Key=f"input/{key}", Body=body, Metadata=metadata)
    return put["ETag"].strip('"')


def failure(key: str, etag: str, bucket: str = IN) -> dict:
    """A record as Lambda sends it to a destination on failure."""
    return {
        "version": "1.0",
        "timestamp": "2026-01-02T03:04:05.678Z",
        "requestContext": {
            "requestId": "r-1",
            "condition": "RetriesExhausted",
            "approximateInvokeCount": 3,
        },
        "requestPayload": {
            "Records": [
                {
                    "eventName": "ObjectCreated:Put",
                    "eventTime": "2036-01-02T03:00:00.000Z",
                    "s3": {"bucket": {"name": bucket}, "object": {"key": key, "eTag": etag}},
                }
            ]
        },
        "responsePayload": {"errorType": "Sandbox.Timedout", "errorMessage": "Task timed out"},
    }


def send(queues: Queues, record: dict | str) -> None:
    body = record if isinstance(record, str) else json.dumps(record)
    queues.sqs.send_message(QueueUrl=queues.failures_url, MessageBody=body)


def messages_left(queues: Queues) -> int:
    return sum(queues.count(queues.failures_url))


def drain(queues: Queues, *missing: str, run_id: str = "run") -> list:
    """The rows that were sent to the rows queue."""
    sent = drain_failure_queue(queues, {RowId(run_id, 1, key) for key in missing})
    messages = list(receive(queues.sqs, queues.rows_url))
    rows = [row_from_message(message["Body"]) for message in messages]
    assert {row.id for row in rows} == sent
    return rows


def test_a_failure_becomes_an_error_row_that_says_why_and_its_message_is_deleted(s3, queues):
    send(queues, failure("input/my+picture%2B.jpg", upload(s3, "my picture+.jpg")))
    (row,) = drain(queues, "my picture+.jpg")
    assert row.id == RowId("run", 1, "my picture+.jpg")
    assert (row.status, row.source, row.request_id) == ("error", "cloud", "r-1")
    assert row.error == (
        "LambdaFailure: RetriesExhausted after 3 tries: Sandbox.Timedout: Task timed out"
    )
    assert row.orig_size == len(b"picture")
    assert messages_left(queues) == 0


def test_what_is_not_missing_or_of_another_run_or_upload_is_left_alone(s3, queues):
    send(queues, failure("input/done.jpg", upload(s3, "done.jpg")))
    send(queues, failure("input/other.jpg", upload(s3, "other.jpg", run_id="earlier")))
    send(queues, failure("input/again.jpg", "0" * 32))
    upload(s3, "again.jpg")
    send(queues, failure("input/gone.jpg", "0" * 32))
    send(queues, failure("input/a.jpg", upload(s3, "a.jpg"), bucket=OUT))
    send(queues, failure("elsewhere/a.jpg", "0" * 32))
    assert drain(queues, "other.jpg", "again.jpg", "gone.jpg", "a.jpg") == []
    assert messages_left(queues) == 5  # not the one about a picture that is gone


def test_messages_about_pictures_that_are_gone_are_taken_off_the_queue_and_counted(
    s3, queues, capsys
):
    send(queues, failure("input/gone.jpg", "0" * 32))
    both = failure("input/a.jpg", upload(s3, "a.jpg"))
    both["requestPayload"]["Records"] += failure("input/gone too.jpg", "0" * 32)["requestPayload"][
        "Records"
    ]
    send(queues, both)
    assert [row.image_key for row in drain(queues, "a.jpg")] == ["a.jpg"]
    assert messages_left(queues) == 0
    err = capsys.readouterr().err
    assert err == "took messages about 2 pictures that are gone off the failure queue\n"


def test_a_message_that_tells_of_another_runs_picture_too_stays_for_that_run(s3, queues):
    record = failure("input/a.jpg", upload(s3, "a.jpg"))
    other = failure("input/b.jpg", upload(s3, "b.jpg", run_id="other"))
    record["requestPayload"]["Records"] += other["requestPayload"]["Records"]
    send(queues, record)
    assert [row.image_key for row in drain(queues, "a.jpg")] == ["a.jpg"]
    assert messages_left(queues) == 1


def test_a_message_of_an_earlier_upload_of_the_same_bytes_is_not_taken_for_this_one(s3, queues):
    record = failure("input/a.jpg", upload(s3, "a.jpg"))
    record["requestPayload"]["Records"][0]["eventTime"] = "2020-01-02T03:00:00.000Z"
    send(queues, record)
    assert drain(queues, "a.jpg") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        "{",
        "[1]",
        '"x"',
        "{}",
        '{"requestPayload": {"Records": [{"x": 1}]}}',
        '{"requestPayload": {"Records": [{"eventSource": "aws:sqs", "body": "{}"}]}}',
        '{"requestPayload": {"source": "aws.s3", "detail-type": "Object Created", "detail": {}}}',
        '{"requestPayload": {"Records": []}}',
        '{"requestPayload": null}',
        '{"requestPayload": 1}',
        "[" * 100_000,
    ],
)
def test_a_message_that_is_no_record_of_the_function_does_not_stop_the_others(s3, queues, body):
    send(queues, body)
    send(queues, failure("input/a.jpg", upload(s3, "a.jpg")))
    assert [row.image_key for row in drain(queues, "a.jpg")] == ["a.jpg"]
    assert messages_left(queues) == 1


def test_what_stays_in_the_queue_is_named_with_its_count(s3, queues, capsys):
    for key in ("a.jpg", "b.jpg"):
        send(queues, {"requestPayload": {"source": "s", "detail-type": "d", "detail": key}})
    send(queues, "what is this")
    assert drain(queues, "a.jpg") == []
    told = capsys.readouterr().err.splitlines()
    assert sorted(line.removeprefix("left in the failure queue, ") for line in told) == [
        "1 times: a message that is neither a row nor the function's record",
        "2 times: a record of an EventBridge event, 'd' of 's'",
    ]
    assert messages_left(queues) == 3


OF_THE_EVENT = ("eventTime", "eTag", "key", "bucket", "s3", "object", "eventName")
OF_THE_RECORD = ("timestamp", "requestContext", "requestId", "responsePayload")


def broken(record: dict, member: str, value: object) -> dict:
    """A record of Lambda's with one member replaced; `value` None: without it."""
    inner = record["requestPayload"]["Records"][0]
    for part in (record, inner, record["requestContext"], inner["s3"], inner["s3"]["object"]):
        if member in part:
            part[member] = value
            if value is None:
                del part[member]
    return record


@pytest.mark.parametrize("value", [None, 7, "x", [], {}, "\ud800"])
def test_a_record_of_any_shape_ends_neither_the_wait_nor_costs_it_the_others(s3, queues, value):
    for member in (*OF_THE_EVENT, *OF_THE_RECORD):
        odd, good = f"{member}.jpg", f"{member} good.jpg"
        record = broken(failure(f"input/{odd}", upload(s3, odd)), member, value)
        if member in OF_THE_EVENT:
            event = failure(f"input/{good}", upload(s3, good))["requestPayload"]["Records"]
            record["requestPayload"]["Records"] += event
        send(queues, record)
    names = [
        f"{member}{end}.jpg" for member in (*OF_THE_EVENT, *OF_THE_RECORD) for end in ("", " good")
    ]
    found = {row.image_key for row in drain(queues, *names)}
    assert {f"{member} good.jpg" for member in OF_THE_EVENT} <= found
    assert "responsePayload.jpg" in found  # whatever the function said, it failed


# --- pictures that are gone ---------------------------------------------------------------------


def test_a_missing_picture_that_the_bucket_does_not_hold_any_more_gets_a_row_that_says_so(
    s3, queues
):
    upload(s3, "there.jpg")
    missing = {RowId("run", 2, "there.jpg"), RowId("run", 2, "gone +.jpg")}
    assert send_rows_of_vanished(queues, missing) == {RowId("run", 2, "gone +.jpg")}
    (message,) = receive(queues.sqs, queues.rows_url)
    row = row_from_message(message["Body"])
    assert row.id == RowId("run", 2, "gone +.jpg")
    assert (row.status, row.source, row.orig_size) == ("error", "cloud", 0)
    assert row.error == (
        f"Gone: s3://{IN}/input/gone +.jpg was deleted, and the function wrote no row"
    )
    assert send_rows_of_vanished(queues, set()) == set()


def test_a_row_that_the_function_wrote_is_kept_although_the_picture_is_gone(s3, queues):
    written = row("a.jpg", run_id="run")
    append_rows(s3, OUT, written)
    assert settle(queues, {written.id}) == {written.id}
    (message,) = receive(queues.sqs, queues.rows_url)
    append_rows(s3, OUT, row_from_message(message["Body"]))
    assert appended_rows(s3, OUT) == [written]


def test_while_rows_wait_in_the_queue_nothing_is_said_to_be_gone(s3, queues):
    gone, written = RowId("run", 1, "a.jpg"), row("b.jpg", run_id="run")
    failed = failure("input/c.jpg", upload(s3, "c.jpg"))
    send(queues, failed)
    send_row(queues.sqs, queues.rows_url, written)
    failed_id = RowId("run", 1, "c.jpg")
    assert settle(queues, {gone, written.id, failed_id}) == {failed_id}
    queues.sqs.purge_queue(QueueUrl=queues.rows_url)
    assert settle(queues, {gone}) == {gone}


def test_a_picture_that_is_deleted_before_it_is_read_ends_the_wait_with_a_row(monkeypatch):
    monkeypatch.setattr(cloud_rows, "STALLED_S", 1)
    with embedded_cloud(1) as cloud:
        s3, buckets, function = make_client(cloud, "s3"), find_buckets(cloud), find_function(cloud)
        s3.put_bucket_notification_configuration(
            Bucket=buckets.input, NotificationConfiguration={}
        )  # the event comes late: after the picture is deleted
        event = {
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": buckets.input}, "object": {"key": "input/a.jpg"}},
        }
        answer = make_client(cloud, "lambda").invoke(
            FunctionName=function["FunctionName"], Payload=json.dumps({"Records": [event]})
        )
        assert "FunctionError" not in answer
        assert json.loads(answer["Payload"].read())["gone"] == 1
        queues = find_queues(cloud, function, s3, buckets)
        expected = {RowId("gone", 1, "a.jpg")}
        (found,) = waited_rows(s3, buckets.output, expected, 60, queues=queues)
    assert found.error.startswith(f"Gone: s3://{buckets.input}/input/a.jpg was deleted")


def test_messages_that_come_back_while_reading_are_read_once():
    class Queue:
        def receive_message(self, **_: object) -> dict:
            return {"Messages": [{"MessageId": "1"}, {"MessageId": "2"}]}

    assert len(list(receive(Queue(), "url"))) == 2


def test_more_messages_than_one_call_hands_out_are_read(s3, queues):
    keys = [f"{n}.jpg" for n in range(25)]
    for key in keys:
        send(queues, failure(f"input/{key}", upload(s3, key)))
    assert sorted(row.image_key for row in drain(queues, *keys)) == sorted(keys)


def test_a_row_that_the_writer_did_not_take_is_sent_again_when_it_is_missing(s3, queues):
    send(queues, row_to_message(row("a.jpg")))
    send(queues, row_to_message(row("there.jpg")))
    send(queues, row_to_message(row("a.jpg", run_id="other")))
    assert drain(queues, "a.jpg") == [row("a.jpg")]
    assert messages_left(queues) == 2


def test_what_waits_where_is_told(s3, queues):
    assert queues.describe() == "nothing waits in the rows queue or the failure queue"
    for number in range(3):
        queues.sqs.send_message(QueueUrl=queues.rows_url, MessageBody=f"{number}")
    queues.sqs.receive_message(QueueUrl=queues.rows_url)
    send(queues, "x")
    assert queues.describe() == (
        "the rows queue holds 2 waiting and 1 in flight, the failure queue 1"
    )


def test_without_a_stack_there_are_no_queues(embedded):
    assert find_queues(embedded, {}, None, Buckets(IN, OUT)) is None


def test_a_picture_that_the_function_fails_on_ends_the_wait_with_a_row(monkeypatch):
    monkeypatch.setattr(cloud_rows, "STALLED_S", 1)
    with embedded_cloud(1) as cloud:
        s3, buckets, function = make_client(cloud, "s3"), find_buckets(cloud), find_function(cloud)
        make_client(cloud, "lambda").update_function_configuration(
            FunctionName=function["FunctionName"],
            Environment={"Variables": {"OUTPUT_BUCKET": "no-such-bucket"}},
        )
        s3.put_object(
            Bucket=buckets.input,
            Key="input/a.jpg",
            Body=jpeg(),
            Metadata={"run-id": "failing", "round": "1"},
        )
        queues = find_queues(cloud, function, s3, buckets)
        expected = {RowId("failing", 1, "a.jpg")}
        (found,) = waited_rows(s3, buckets.output, expected, 60, queues=queues)
    assert found.status == "error"
    assert found.error.startswith("LambdaFailure: RetriesExhausted after 3 tries: ")
    assert "AccessDenied" in found.error  # its role allows no other bucket
