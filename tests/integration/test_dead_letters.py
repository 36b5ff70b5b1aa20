"""Events that the function gave up on become rows that say why."""

import json

import boto3
import pytest
from conftest import jpeg

from lambda_function.cloud import Buckets, find_buckets, find_function, make_client
from lambda_function.embedded_cloud import embedded_cloud
from lambda_function.metrics_log import RowId, append_rows
from metrics.collect import cloud_rows
from metrics.collect.cloud_rows import wait_for_rows
from metrics.collect.dead_letters import failure_queue_drainer, receive, rows_of_failures

IN, OUT = "input-bucket", "output-bucket"


@pytest.fixture
def queue(s3):
    """A queue of moto's: client and URL."""
    sqs = boto3.client("sqs")
    return sqs, sqs.create_queue(QueueName="failures")["QueueUrl"]


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


def send(queue, record: dict) -> None:
    sqs, url = queue
    sqs.send_message(QueueUrl=url, MessageBody=json.dumps(record))


def messages_left(queue) -> int:
    sqs, url = queue
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return sum(map(int, found.values()))


def settle(s3, queue, *missing: str, run_id: str = "run"):
    expected = {RowId(run_id, 1, key) for key in missing}
    return rows_of_failures(s3, *queue, Buckets(IN, OUT), expected)


def test_a_failure_becomes_an_error_row_that_says_why_and_its_message_is_deleted(s3, queue):
    send(queue, failure("input/my+picture%2B.jpg", upload(s3, "my picture+.jpg")))
    (row,) = settle(s3, queue, "my picture+.jpg")
    assert row.id == RowId("run", 1, "my picture+.jpg")
    assert (row.status, row.source, row.request_id) == ("error", "cloud", "r-1")
    assert row.error == (
        "LambdaFailure: RetriesExhausted after 3 tries: Sandbox.Timedout: Task timed out"
    )
    assert row.orig_size == len(b"picture")
    assert append_rows(s3, OUT, lambda: 60) == 1
    assert messages_left(queue) == 0


def test_what_is_not_missing_or_of_another_run_or_bucket_or_uploaded_again_is_left_alone(s3, queue):
    send(queue, failure("input/done.jpg", upload(s3, "done.jpg")))
    send(queue, failure("input/other.jpg", upload(s3, "other.jpg", run_id="earlier")))
    send(queue, failure("input/again.jpg", "0" * 32))
    upload(s3, "again.jpg")
    send(queue, failure("input/gone.jpg", "0" * 32))
    send(queue, failure("input/a.jpg", upload(s3, "a.jpg"), bucket=OUT))
    send(queue, failure("elsewhere/a.jpg", "0" * 32))
    assert settle(s3, queue, "other.jpg", "again.jpg", "gone.jpg", "a.jpg") == []
    assert messages_left(queue) == 6


def test_a_message_that_tells_of_another_runs_picture_too_stays_for_that_run(s3, queue):
    record = failure("input/a.jpg", upload(s3, "a.jpg"))
    other = failure("input/b.jpg", upload(s3, "b.jpg", run_id="other"))
    record["requestPayload"]["Records"] += other["requestPayload"]["Records"]
    send(queue, record)
    assert [row.image_key for row in settle(s3, queue, "a.jpg")] == ["a.jpg"]
    assert messages_left(queue) == 1


def test_a_message_of_an_earlier_upload_of_the_same_bytes_is_not_taken_for_this_one(s3, queue):
    record = failure("input/a.jpg", upload(s3, "a.jpg"))
    record["requestPayload"]["Records"][0]["eventTime"] = "2020-01-02T03:00:00.000Z"
    send(queue, record)
    assert settle(s3, queue, "a.jpg") == []


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
def test_a_message_that_is_no_record_of_the_function_does_not_stop_the_others(s3, queue, body):
    sqs, url = queue
    sqs.send_message(QueueUrl=url, MessageBody=body)
    send(queue, failure("input/a.jpg", upload(s3, "a.jpg")))
    assert [row.image_key for row in settle(s3, queue, "a.jpg")] == ["a.jpg"]
    assert messages_left(queue) == 1


def test_messages_that_come_back_while_reading_are_read_once():
    class Queue:
        def receive_message(self, **_: object) -> dict:
            return {"Messages": [{"MessageId": "1"}, {"MessageId": "2"}]}

    assert len(list(receive(Queue(), "url"))) == 2


def test_more_messages_than_one_call_hands_out_are_read(s3, queue):
    keys = [f"{n}.jpg" for n in range(25)]
    for key in keys:
        send(queue, failure(f"input/{key}", upload(s3, key)))
    assert sorted(row.image_key for row in settle(s3, queue, *keys)) == sorted(keys)


def test_without_a_queue_there_is_nothing_to_settle(embedded):
    assert failure_queue_drainer(embedded, {}, None, Buckets(IN, OUT)) is None


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
        settler = failure_queue_drainer(cloud, function, s3, buckets)
        expected = {RowId("failing", 1, "a.jpg")}
        (row,) = wait_for_rows(s3, buckets.output, expected, 60, drain_failure_queue=settler)
    assert row.status == "error"
    assert row.error.startswith("LambdaFailure: RetriesExhausted after 3 tries: ")
    assert "AccessDenied" in row.error  # its role allows no other bucket
