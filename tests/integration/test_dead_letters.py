"""Events that the function gave up on become rows that say why."""

import json

import boto3
import pytest
from conftest import jpeg
from rows import row, waited_rows

from lambda_function.cloud import Buckets, find_buckets, find_function, make_client
from lambda_function.embedded_cloud import embedded_cloud
from lambda_function.metrics_log import RowId, row_from_message, row_to_message
from metrics.collect import cloud_rows
from metrics.collect.dead_letters import Queues, drain_failure_queue, find_queues, receive

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
    assert len(messages) == sent
    return [row_from_message(message["Body"]) for message in messages]


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
    assert messages_left(queues) == 6


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


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "[1]",
        '"x"',
        "{}",
        '{"requestPayload": {"Records": [{"x": 1}]}}',
        '{"requestPayload": 1}',
    ],
)
def test_a_message_that_is_no_record_of_the_function_does_not_stop_the_others(s3, queues, body):
    send(queues, body)
    send(queues, failure("input/a.jpg", upload(s3, "a.jpg")))
    assert [row.image_key for row in drain(queues, "a.jpg")] == ["a.jpg"]
    assert messages_left(queues) == 1


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


def test_a_message_that_is_nothing_of_ours_is_named_and_stays(s3, queues, capsys):
    send(queues, "what is this")
    assert drain(queues, "a.jpg") == []
    assert "'what is this', is neither a row nor a record" in capsys.readouterr().err
    assert messages_left(queues) == 1


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
