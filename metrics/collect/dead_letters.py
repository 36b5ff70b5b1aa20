"""What was given up on its way: read from the failure queue, and sent on as rows.

Lambda puts a record of each event into that queue on which the function failed for good, and SQS
each message of the rows queue that the metrics writer did not take. Without this such a picture
would be waited for until the time-out, and then be missing without a reason.
"""

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from botocore.exceptions import ClientError

from lambda_function.cloud import Buckets, Cloud, make_client
from lambda_function.handler import INPUT_PREFIX, environment_of, number_in, object_key
from lambda_function.metrics_log import (
    MetricRow,
    RowId,
    is_missing,
    row_from_message,
    send_row,
)

MESSAGES_AT_ONCE = 10  # the most that SQS hands out
HIDDEN_S = 120  # from a message's delivery until it may come again
ROUNDED = timedelta(seconds=1)  # LastModified has whole seconds


COUNTS = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")


@dataclass(frozen=True)
class Queues:
    """The queues of a stack, and what it takes to read what is in them."""

    s3: object
    sqs: object
    rows_url: str
    failures_url: str
    buckets: Buckets

    def describe(self) -> str:
        """How many messages wait where."""
        waiting, in_flight = self.count(self.rows_url)
        failures = sum(self.count(self.failures_url))
        if not (waiting or in_flight or failures):
            return "nothing waits in the rows queue or the failure queue"
        return (
            f"the rows queue holds {waiting} waiting and {in_flight} in flight, "
            f"the failure queue {failures}"
        )

    def count(self, url: str) -> tuple[int, int]:
        """Messages that wait, and that somebody works on."""
        answer = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(COUNTS))
        waiting, in_flight = (int(answer["Attributes"].get(name, 0)) for name in COUNTS)
        return waiting, in_flight


def find_queues(cloud: Cloud, stack: dict[str, str], s3, buckets: Buckets) -> Queues | None:
    """The queues that the outputs of a stack name; None without."""
    if not {"RowsQueueUrl", "FailureQueueUrl"} <= stack.keys():
        return None
    sqs = make_client(cloud, "sqs")
    return Queues(s3, sqs, stack["RowsQueueUrl"], stack["FailureQueueUrl"], buckets)


def drain_failure_queue(queues: Queues, missing: set[RowId]) -> int:
    """Send a row for each missing picture that the failure queue tells of; how many that were.

    Messages about them alone are deleted, others stay: they are of another run or another user.
    """
    sent = 0
    for message in receive(queues.sqs, queues.failures_url):
        told_of = _rows(queues, message)
        found = [row for row in told_of if row.id in missing]
        for row in found:
            send_row(queues.sqs, queues.rows_url, row)
        if found and found == told_of:
            handle = message["ReceiptHandle"]
            queues.sqs.delete_message(QueueUrl=queues.failures_url, ReceiptHandle=handle)
        sent += len(found)
    return sent


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


def _rows(queues: Queues, message: dict) -> list[MetricRow]:
    """Rows of the pictures that a message tells of; none when it is neither a row nor a record of
    the function."""
    body = message["Body"]
    with contextlib.suppress(ValueError):
        return [row_from_message(body)]
    try:
        record = json.loads(body)
        events = record["requestPayload"]["Records"]
        rows = [_row(queues.s3, event, record, queues.buckets) for event in events]
    except (ValueError, KeyError, TypeError, AttributeError):
        what = f"message {message['MessageId']} of the failure queue, {body[:80]!r},"
        print(f"{what} is neither a row nor a record of the function; it stays", file=sys.stderr)
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
