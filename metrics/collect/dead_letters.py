"""Events that the function failed on for good: read from its failure queue, and turned into rows.

Lambda puts a record of each into the queue after the last retry. Without this such a picture would
be waited for until the time-out, and then be missing without a reason.
"""

import json
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial

from botocore.exceptions import ClientError

from lambda_function.cloud import Buckets, Cloud, make_client
from lambda_function.handler import INPUT_PREFIX, environment_of, number_in, object_key
from lambda_function.metrics_log import MetricRow, RowId, is_missing, put_row

MESSAGES_AT_ONCE = 10  # the most that SQS hands out
HIDDEN_S = 120  # from a message's delivery until it may come again
ROUNDED = timedelta(seconds=1)  # LastModified has whole seconds


def failure_queue_drainer(
    cloud: Cloud, function: dict[str, str], s3, buckets: Buckets
) -> Callable[[set[RowId]], object] | None:
    """Gives the missing their rows, as far as the queue tells of them; None without a queue."""
    if "FailureQueueUrl" not in function:
        return None
    sqs = make_client(cloud, "sqs")
    return partial(rows_of_failures, s3, sqs, function["FailureQueueUrl"], buckets)


def rows_of_failures(
    s3, sqs, queue_url: str, buckets: Buckets, missing: set[RowId]
) -> list[MetricRow]:
    """Make an `error` row durable for each missing picture that the queue tells of.

    Messages about them alone are deleted, others stay: they are of another run or another user.
    """
    rows = []
    for message in receive(sqs, queue_url):
        told_of = _rows(s3, message["Body"], buckets)
        found = [row for row in told_of if row.id in missing]
        for row in found:
            put_row(s3, buckets.output, row)
        if found and found == told_of:
            sqs.delete_message(QueueUrl=queue_url, ReceiptHandle=message["ReceiptHandle"])
        rows += found
    return rows


def receive(sqs, queue_url: str) -> Iterator[dict]:
    """All messages that the queue hands out, each once; it hides them from others for a while."""
    seen: set[str] = set()
    while messages := sqs.receive_message(
        QueueUrl=queue_url,
        MaxNumberOfMessages=MESSAGES_AT_ONCE,
        WaitTimeSeconds=1,
        VisibilityTimeout=HIDDEN_S,
    ).get("Messages"):
        new = [message for message in messages if message["MessageId"] not in seen]
        if not new:  # those that were read first come back: that was all
            return
        seen |= {message["MessageId"] for message in new}
        yield from new


def _rows(s3, body: str, buckets: Buckets) -> list[MetricRow]:
    """Rows of the pictures that a message tells of; none when it is no record of the function."""
    try:
        record = json.loads(body)
        events = record["requestPayload"]["Records"]
        rows = [_row(s3, event, record, buckets) for event in events]
    except (ValueError, KeyError, TypeError, AttributeError):
        print("a message of the failure queue is no record of the function", file=sys.stderr)
        return []
    return [row for row in rows if row is not None]


def _row(s3, event: dict, record: dict, buckets: Buckets) -> MetricRow | None:
    """The row of a picture that the function failed on; None when it is not there any more, or was
    uploaded again since."""
    bucket, key = event["s3"]["bucket"]["name"], object_key(event)
    if bucket != buckets.input or not key.startswith(INPUT_PREFIX):
        return None
    stored = _head(s3, bucket, key)
    # The same bytes may have been put again since, by another run or round: then the event is old.
    event_time = datetime.fromisoformat(event["eventTime"])
    if stored is None or event_time < stored["LastModified"] - ROUNDED:
        return None
    if stored["ETag"].strip('"') != event["s3"]["object"].get("eTag"):
        return None
    context = record["requestContext"]
    problem = record.get("responsePayload") or {}
    tries = context.get("approximateInvokeCount", "several")
    reason = f"{problem.get('errorType', 'no answer')}: {problem.get('errorMessage', '')}"
    return MetricRow(
        timestamp=record["timestamp"].replace("Z", "+00:00"),
        image_key=key.removeprefix(INPUT_PREFIX),
        orig_size=stored["ContentLength"],
        new_size=0,
        proc_ms=0.0,
        source="cloud",
        run_id=stored["Metadata"].get("run-id", ""),
        round=number_in(stored["Metadata"], "round", 1),
        status="error",
        error=f"LambdaFailure: {context.get('condition')} after {tries} tries: {reason}",
        cpu_ms=0.0,
        fetch_ms=0.0,
        store_ms=0.0,
        cold_start=False,
        worker="",
        memory_mb=0,
        environment=environment_of(s3),
        output_sha256="",
        transform="",
        request_id=context["requestId"],
    )


def _head(s3, bucket: str, key: str) -> dict | None:
    """What S3 says of an object; None when it is gone."""
    try:
        return s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if is_missing(error):
            return None
        raise
