"""The cloud arm: an S3 event -> picture -> output JPEG and one metrics row.

Reads   s3://<bucket of the event>/input/<image_key>   (metadata: run-id, round, sha256, followers)
Writes  s3://$OUTPUT_BUCKET/processed/<output name>  and the row, see metrics_log.py

A picture that cannot be processed is an `error` row and the invocation succeeds. A fault of S3
makes it fail, so that Lambda retries it; doing a picture twice changes nothing.
"""

import json
import math
import os
import threading
import time
import uuid
from collections import Counter
from functools import cache
from urllib.parse import unquote_plus, urlsplit

import boto3
from botocore.config import Config

from lambda_function.image_transform import (
    MAX_BYTES,
    measure_picture,
    output_name,
    stays_inside,
    warm_up,
)
from lambda_function.metrics_log import (
    INPUT_PREFIX,
    PARALLEL_READS,
    PROCESSED_PREFIX,
    MetricRow,
    append_rows,
    put_row,
    timed,
    utc_now,
)

WORKER = uuid.uuid4().hex[:12]  # names this execution environment in the rows
MAX_NUMBER = 10  # digits of a number in metadata, which may be anybody's
NO_RUN = "no-run"  # the run id of an object that was not put by upload_images_s3.py
SMOKE_TEST_RUN = (
    ".smoke-test"  # gets an output and no row, see smoke_test.py; no user run is called so
)

# An append takes 6 or 7 requests, and one more for each row that another environment wrote. So one
# that is busy appends from time to time only, and leaves its rows to the next: its own, or that of
# the pass's end. Where events come late, the last of all may be none of those: then whoever reads
# the rows, the wait or the compare script, appends what is left.
APPEND_EVERY_S = 2.0
LAST_OF_PASS = 16  # pictures with fewer followers: perhaps no other comes after, so they append
# With more followers, hardly any of those last ones is under way during the same append, to rely on
# another look; where many environments are that fast, the wait appends what is left 5 s later. With
# a second look a busy environment would hardly ever end appending: new rows come all the time.
NEAR_THE_END = 128

_is_cold = True
_last_append = -math.inf  # by time.monotonic()
_own_rows: dict[str, bytes] = {}  # row objects that this environment wrote since its last append
_counting = threading.Lock()  # rows are read in parallel
_s3_requests: Counter[str] = Counter()  # by operation, since the last invocation's log line


@cache
def s3_client():
    """The one S3 client of this execution environment; it counts its requests: AWS bills each."""
    client = boto3.client(
        "s3",
        config=Config(
            retries={"mode": "standard", "max_attempts": 5},
            max_pool_connections=PARALLEL_READS,
            connect_timeout=5,
            read_timeout=20,
        ),
    )
    client.meta.events.register("before-send.s3", count_request)
    return client


def count_request(event_name: str, **_: object) -> None:
    """For each try, since AWS bills retries, too. `event_name` ends in the operation."""
    with _counting:
        _s3_requests[event_name.rpartition(".")[2]] += 1


if "AWS_LAMBDA_RUNTIME_API" in os.environ:  # in Lambda: in the init phase, before any event
    s3_client()
    warm_up()


def lambda_handler(event: dict, context) -> dict:
    """Process every record of an S3 event; returns how many were done, failed and refused."""
    global _is_cold, _last_append
    start, cold, _is_cold = time.perf_counter(), _is_cold, False
    s3, output_bucket = s3_client(), os.environ["OUTPUT_BUCKET"]
    counts = {"ok": 0, "error": 0, "refused": 0, "smoke_test": 0, "appended": 0}
    least_followers = math.inf
    for record in event.get("Records", []):
        if reason := refusal(record, output_bucket):
            counts["refused"] += 1
            print(json.dumps({"refused": reason, "request_id": context.aws_request_id}))
            continue
        row, followers = process_record(s3, record, output_bucket, cold, context.aws_request_id)
        cold = False
        if row.run_id == SMOKE_TEST_RUN:
            counts["smoke_test"] += 1
            continue
        key, content = put_row(s3, output_bucket, row)
        _own_rows[key] = content
        counts[row.status] += 1
        least_followers = min(least_followers, followers)
    is_due = time.monotonic() - _last_append >= APPEND_EVERY_S
    if (counts["ok"] or counts["error"]) and (is_due or least_followers < LAST_OF_PASS):
        counts["appended"] = append_rows(
            s3,
            output_bucket,
            lambda: context.get_remaining_time_in_millis() / 1000,
            _own_rows,
            look_again=least_followers < NEAR_THE_END,
        )
        _own_rows.clear()
        _last_append = time.monotonic()
    took_ms = round((time.perf_counter() - start) * 1000, 1)
    line = {"request_id": context.aws_request_id, "took_ms": took_ms, **counts}
    print(json.dumps({**line, "s3_requests": dict(_s3_requests)}))
    _s3_requests.clear()
    return counts


def refusal(record: dict, output_bucket: str) -> str:
    """Why `record` must not be processed; empty when it may.

    What this function writes must never come back to it as an event: that would never end.
    """
    bucket, key = record["s3"]["bucket"]["name"], object_key(record)
    if bucket == output_bucket:
        return f"s3://{bucket}/{key} is in the output bucket"
    if not record["eventName"].startswith("ObjectCreated:"):
        return f"{record['eventName']} is not the creation of an object"
    if not key.startswith(INPUT_PREFIX) or key.endswith("/"):
        return f"s3://{bucket}/{key} is not a picture under {INPUT_PREFIX}"
    if not stays_inside(key.removeprefix(INPUT_PREFIX)):
        return f"s3://{bucket}/{key} has a part that leads out of the folder of an output"
    return ""


def object_key(record: dict) -> str:
    """The object's key; S3 form-encodes it in events (a space is `+`, `+` is `%2B`)."""
    return unquote_plus(record["s3"]["object"]["key"])


def process_record(
    s3, record: dict, output_bucket: str, cold_start: bool, request_id: str
) -> tuple[MetricRow, int]:
    """Store the output of the picture that `record` tells of. Returns its row, not yet stored, and
    how many pictures were to be uploaded after it."""
    bucket, key = record["s3"]["bucket"]["name"], object_key(record)
    image_key = key.removeprefix(INPUT_PREFIX)
    timestamp = utc_now()
    (data, size, metadata), fetch_ms = timed(fetch, s3, bucket, key)
    measured = measure_picture(data, metadata.get("sha256", ""))
    store_ms = 0.0
    if measured.output is not None:
        target = PROCESSED_PREFIX + output_name(image_key)
        _, store_ms = timed(store, s3, output_bucket, target, measured.output)
    row = MetricRow.of(
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
    return row, number_in(metadata, "followers", 0)


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
    uploaded with."""
    response = s3.get_object(Bucket=bucket, Key=key)
    with response["Body"] as body:
        size = response["ContentLength"]
        return (body.read() if size <= MAX_BYTES else None), size, response["Metadata"]


def store(s3, bucket: str, key: str, jpeg: bytes) -> None:
    s3.put_object(Bucket=bucket, Key=key, Body=jpeg, ContentType="image/jpeg")
