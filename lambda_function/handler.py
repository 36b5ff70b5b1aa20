"""The cloud arm: an S3 event -> picture -> output JPEG and one metrics row.

Reads   s3://<bucket of the event>/input/<image_key>   (metadata: run-id, round, sha256)
Writes  s3://$OUTPUT_BUCKET/processed/<output name>
Sends   the row to the queue at $ROWS_QUEUE_URL, see metrics_log.py

A picture that cannot be processed is an `error` row and the invocation succeeds. A fault of S3 or
SQS makes it fail, so that Lambda retries it; doing a picture twice changes nothing. What is no
event of S3's, or about an object that is gone, can never work: it is named in the log and counted,
and the invocation succeeds, too.
"""

import json
import os
import time
import uuid
from collections import Counter
from functools import cache
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from lambda_function.events import is_test_event, not_of_s3, object_key, records_of
from lambda_function.image_transform import (
    MAX_BYTES,
    measure_picture,
    output_name,
    stays_inside,
    warm_up,
)
from lambda_function.metrics_log import (
    INPUT_PREFIX,
    PROCESSED_PREFIX,
    MetricRow,
    is_missing,
    send_row,
    timed,
    utc_now,
)

WORKER = uuid.uuid4().hex[:12]  # names this execution environment in the rows
MAX_KEY = 1024  # bytes; S3's limit
NAMED = 60  # characters of a key that is longer
MAX_NUMBER = 10  # digits of a number in metadata, which may be anybody's
NO_RUN = "no-run"  # the run id of an object that was not put by upload_images_s3.py

_is_cold = True
# By service and operation, since the last invocation's log line.
_requests: dict[str, Counter[str]] = {"s3": Counter(), "sqs": Counter()}


@cache
def client(service: str):
    """The one client of this execution environment; it counts its requests: AWS bills each."""
    made = boto3.client(
        service,
        config=Config(
            retries={"mode": "standard", "max_attempts": 5}, connect_timeout=5, read_timeout=20
        ),
    )
    made.meta.events.register(f"before-send.{service}", count_request)
    return made


def count_request(event_name: str, **_: object) -> None:
    """For each try, since AWS bills retries, too. `event_name` is before-send.s3.GetObject."""
    _, service, operation = event_name.split(".")
    _requests[service][operation] += 1


if "AWS_LAMBDA_RUNTIME_API" in os.environ:  # in Lambda: in the init phase, before any event
    client("s3")
    client("sqs")
    warm_up()


class Gone(Exception):
    """The object was deleted before it was read."""


def lambda_handler(event: object, context) -> dict:
    """Process every S3 record of `event`; returns how many were done, failed, gone and refused, and
    the `reasons` of the latter. Raises the first fault of S3 or SQS once all records were tried."""
    global _is_cold
    start, cold, _is_cold = time.perf_counter(), _is_cold, False
    s3, output_bucket = client("s3"), os.environ["OUTPUT_BUCKET"]
    counts = dict.fromkeys(("ok", "error", "gone", "refused", "test"), 0)
    reasons, faults = Counter(), []
    for record in records_of(event):
        if is_test_event(record):
            counts["test"] += 1
            log_line(context, level="INFO", test="S3's, sent when the notification was set up")
            continue
        if reason := refusal(record, output_bucket):
            reasons[reason] += 1
            continue
        try:
            row = process_record(s3, record, output_bucket, cold, context.aws_request_id)
            cold = False
            send_row(client("sqs"), os.environ["ROWS_QUEUE_URL"], row)
        except Gone as gone:
            counts["gone"] += 1
            log_line(context, level="WARNING", gone=str(gone))
            continue
        except (ClientError, BotoCoreError) as fault:
            faults.append(fault)
            continue
        counts[row.status] += 1
    for reason, count in reasons.items():
        counts["refused"] += count
        log_line(context, level="ERROR", refused=reason, count=count)
    took_ms = round((time.perf_counter() - start) * 1000, 1)
    requests = {f"{name}_requests": dict(counter) for name, counter in _requests.items()}
    log_line(context, took_ms=took_ms, **counts, **requests)
    for counter in _requests.values():
        counter.clear()
    if faults:
        raise faults[0]
    return counts | {"reasons": dict(reasons)}


def log_line(context, **facts: object) -> None:
    """One JSON line; never a whole event, which may hold anything."""
    print(json.dumps({"request_id": context.aws_request_id, **facts}))


def refusal(record: object, output_bucket: str) -> str:
    """Why `record` must not be processed; empty when it may.

    What this function writes must never come back to it as an event: that would never end.
    """
    if what := not_of_s3(record):
        return f"{what}, and no S3 event of a picture"
    bucket, key = record["s3"]["bucket"]["name"], object_key(record)
    if bucket == output_bucket:
        return f"s3://{bucket}/{key} is in the output bucket"
    if not record["eventName"].startswith("ObjectCreated:"):
        return f"{record['eventName']} is not the creation of an object"
    if not key.startswith(INPUT_PREFIX) or key.endswith("/"):
        return f"s3://{bucket}/{key} is not a picture under {INPUT_PREFIX}"
    if len(key.encode()) > MAX_KEY:
        return f"s3://{bucket}/{key[:NAMED]}... is longer than a key of S3 can be"
    if not stays_inside(key.removeprefix(INPUT_PREFIX)):
        return f"s3://{bucket}/{key} has a part that leads out of the folder of an output"
    return ""


def process_record(
    s3, record: dict, output_bucket: str, cold_start: bool, request_id: str
) -> MetricRow:
    """Store the output of the picture that `record` tells of. Returns its row, not yet sent."""
    bucket, key = record["s3"]["bucket"]["name"], object_key(record)
    image_key = key.removeprefix(INPUT_PREFIX)
    timestamp = utc_now()
    (data, size, metadata), fetch_ms = timed(fetch, s3, bucket, key)
    measured = measure_picture(data, metadata.get("sha256", ""))
    store_ms = 0.0
    if measured.output is not None:
        target = PROCESSED_PREFIX + output_name(image_key)
        _, store_ms = timed(store, s3, output_bucket, target, measured.output)
    return MetricRow.of(
        measured,
        timestamp=timestamp,
        image_key=image_key,
        orig_size=size,
        source="cloud",
        run_id=metadata.get("run-id", NO_RUN),
        round=number_in(metadata, "round", 1),
        fetch_ms=fetch_ms,
        store_ms=store_ms,
        cold_start=cold_start,
        worker=WORKER,
        memory_mb=int(os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", 0)),
        environment=environment_of(s3),
        request_id=request_id,
    )


def number_in(metadata: dict[str, str], name: str, default: int) -> int:
    """`default` for an object that was not put by upload_images_s3.py."""
    text = metadata.get(name, "")
    return int(text) if text.isdecimal() and len(text) < MAX_NUMBER else default


def environment_of(s3) -> str:
    """`aws` when the S3 in use is AWS's own, else `embedded`: an emulator on somebody's machine."""
    host = urlsplit(s3.meta.endpoint_url).hostname
    return "aws" if host.endswith((".amazonaws.com", ".amazonaws.com.cn")) else "embedded"


def fetch(s3, bucket: str, key: str) -> tuple[bytes | None, int, dict[str, str]]:
    """The picture's bytes (None: too many to be read), their number, and the metadata that it was
    uploaded with. Raises Gone."""
    try:
        response = s3.get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if is_missing(error):  # 404, since the role may list the bucket
            raise Gone(f"s3://{bucket}/{key}") from error
        raise
    with response["Body"] as body:
        size = response["ContentLength"]
        return (body.read() if size <= MAX_BYTES else None), size, response["Metadata"]


def store(s3, bucket: str, key: str, jpeg: bytes) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=jpeg, ContentType="image/jpeg")
