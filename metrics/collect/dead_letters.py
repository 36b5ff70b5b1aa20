"""What was given up on its way: read from the failure queue, and sent on as rows.

Lambda puts a record of each event into that queue on which the function failed for good, and SQS
each message of the rows queue that the metrics writer did not take. Without this such a picture
would be waited for until the time-out, and then be missing without a reason.
"""

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from botocore.exceptions import ClientError

from lambda_function.cloud import Buckets, Cloud, make_client
from lambda_function.events import not_of_s3, object_key, records_of
from lambda_function.handler import INPUT_PREFIX, environment_of, number_in
from lambda_function.metrics_log import (
    PARALLEL_READS,
    MetricRow,
    RowId,
    is_missing,
    row_from_message,
    send_row,
    utc_now,
)
from metrics.common.text import counted

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


class Told(NamedTuple):
    """What a message tells of: rows, those of pictures that the function failed on too, how many
    pictures are gone, and what else is in it, by name."""

    rows: list[MetricRow]
    gone: int
    foreign: list[str]


def settle(queues: Queues, missing: set[RowId]) -> set[RowId]:
    """Send a row for each missing picture that will never have one otherwise; which these are.

    While rows wait in the rows queue, a picture that is gone may have one there, and the first to
    come into the CSV stays: so nothing is sent for such pictures then.
    """
    rows_wait = any(queues.count(queues.rows_url))
    sent = drain_failure_queue(queues, missing)
    if not rows_wait:
        sent |= send_rows_of_vanished(queues, missing - sent)
    return sent


def drain_failure_queue(queues: Queues, missing: set[RowId]) -> set[RowId]:
    """Send a row for each missing picture that the failure queue tells of; which these are.

    Messages about them alone, and about pictures that are gone, are deleted. Others stay: they are
    of another run or another user, or not the function's, and then said to be there.
    """
    sent, gone, foreign = set(), 0, Counter()
    for message in receive(queues.sqs, queues.failures_url):
        told = _read(queues, message["Body"])
        found = [row for row in told.rows if row.id in missing]
        for row in found:
            send_row(queues.sqs, queues.rows_url, row)
        if (found or told.gone) and found == told.rows and not told.foreign:
            handle = message["ReceiptHandle"]
            queues.sqs.delete_message(QueueUrl=queues.failures_url, ReceiptHandle=handle)
            gone += told.gone
        sent |= {row.id for row in found}
        foreign.update(told.foreign)
    if gone:
        pictures = counted(gone, "picture")
        print(
            f"took messages about {pictures} that are gone off the failure queue", file=sys.stderr
        )
    for what, count in foreign.items():
        print(f"left in the failure queue, {count} times: {what}", file=sys.stderr)
    return sent


def send_rows_of_vanished(queues: Queues, missing: set[RowId]) -> set[RowId]:
    """Send a row for each missing picture that the input bucket does not hold any more; which these
    are."""
    if not missing:
        return set()
    bucket = queues.buckets.input
    pages = queues.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=INPUT_PREFIX)
    there = {entry["Key"] for page in pages for entry in page.get("Contents", [])}
    rows = [
        _error_row(
            queues.s3,
            row_id,
            f"Gone: s3://{bucket}/{INPUT_PREFIX}{row_id.image_key} was deleted, and the function "
            "wrote no row",
        )
        for row_id in sorted(missing)
        if INPUT_PREFIX + row_id.image_key not in there
    ]
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        list(pool.map(lambda row: send_row(queues.sqs, queues.rows_url, row), rows))
    return {row.id for row in rows}


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


def _read(queues: Queues, body: str) -> Told:
    """What a message tells of, whoever sent it."""
    told = Told([], 0, [])
    with contextlib.suppress(ValueError):
        return told._replace(rows=[row_from_message(body)])
    try:
        record = json.loads(body)
        events = records_of(record["requestPayload"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return told._replace(foreign=["a message that is neither a row nor the function's record"])
    s3, buckets = queues.s3, queues.buckets
    for event in events:
        try:
            if what := not_of_s3(event):
                told.foreign.append(f"a record of {what}")
                continue
            if not _is_picture(event, buckets):
                continue
            if (stored := _head(s3, buckets.input, object_key(event))) is None:
                told = told._replace(gone=told.gone + 1)
            elif _is_of(event, stored):
                told.rows.append(_row(s3, event, record, stored))
        except (ValueError, KeyError, TypeError, AttributeError):
            told.foreign.append("a record that is not whole")
    return told


def _is_picture(event: dict, buckets: Buckets) -> bool:
    bucket, key = event["s3"]["bucket"]["name"], object_key(event)
    return bucket == buckets.input and key.startswith(INPUT_PREFIX)


def _is_of(event: dict, stored: dict) -> bool:
    """Whether the event is about what is stored now. The same bytes may have been put again since,
    by another run or round: then the event is old."""
    event_time = datetime.fromisoformat(event["eventTime"])
    if event_time < stored["LastModified"] - ROUNDED:
        return False
    return stored["ETag"].strip('"') == event["s3"]["object"].get("eTag")


def _row(s3, event: dict, record: dict, stored: dict) -> MetricRow:
    """The row of a picture that the function failed on."""
    context, problem = record["requestContext"], record.get("responsePayload")
    problem = problem if isinstance(problem, dict) else {}
    tries = context.get("approximateInvokeCount", "several")
    reason = f"{problem.get('errorType', 'no answer')}: {problem.get('errorMessage', '')}"
    row_id = RowId(
        stored["Metadata"].get("run-id", ""),
        number_in(stored["Metadata"], "round", 1),
        object_key(event).removeprefix(INPUT_PREFIX),
    )
    return _error_row(
        s3,
        row_id,
        f"LambdaFailure: {context.get('condition')} after {tries} tries: {reason}",
        timestamp=_utc(record["timestamp"]),
        orig_size=stored["ContentLength"],
        request_id=_text(context["requestId"]),
    )


def _text(value: object) -> str:
    """As a row can hold it: a record may have what is no UTF-8."""
    return str(value).encode(errors="backslashreplace").decode()


def _utc(timestamp: str) -> str:
    return datetime.fromisoformat(timestamp).astimezone(UTC).isoformat(timespec="milliseconds")


def _error_row(s3, row_id: RowId, error: str, **facts: object) -> MetricRow:
    """The row of a picture that nothing was measured of, with the `facts` that are known."""
    known = {"timestamp": utc_now(), "orig_size": 0, "request_id": ""} | facts
    return MetricRow(
        **row_id._asdict(),
        **known,
        new_size=0,
        proc_ms=0.0,
        source="cloud",
        status="error",
        error=_text(error),
        cpu_ms=0.0,
        fetch_ms=0.0,
        store_ms=0.0,
        cold_start=False,
        worker="",
        memory_mb=0,
        environment=environment_of(s3),
        output_sha256="",
        transform="",
    )


def _head(s3, bucket: str, key: str) -> dict | None:
    """What S3 says of an object; None when it is gone."""
    try:
        return s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if is_missing(error):
            return None
        raise
