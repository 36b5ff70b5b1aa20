"""The metrics writer: rows from the queue -> the CSV in S3, exactly one row a picture and round.

A Lambda function of its own, from the same zip. SQS hands it batches of messages, in any order, at
times twice, and at times two writers run at once. What a batch brings that the CSV lacks is
appended in one conditional write (If-Match on the ETag): of two writers one wins, and the other
looks at what was added and tries again. Which rows a CSV holds is remembered from batch to batch,
so it is read only when somebody else wrote it.

S3 cannot append. A small CSV is kept in memory and written anew; of a large one, S3 itself copies
what is there into a multipart upload, whose last part is what is new.

Writes  s3://$OUTPUT_BUCKET/metrics/lambda_metrics.csv, of smoke tests metrics/smoke_test.csv
"""

import hashlib
import json
import math
import os
import random
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError
from botocore.exceptions import ConnectionError as CannotConnect

from lambda_function.metrics_log import (
    CSV_KEY,
    HEADER,
    SMOKE_TEST_KEY,
    SMOKE_TEST_RUN,
    MetricRow,
    MetricsLogError,
    RowId,
    error_code,
    id_of,
    open_csv,
    put_if,
    row_from_message,
    rows_to_csv,
    status_of,
)

STOP_BEFORE_S = 5  # begin no other try so shortly before the function's time-out
MAX_WAIT_S = 0.2  # upper bound of the random wait before another try
COPY_FROM_BYTES = (
    8 * 2**20
)  # as large, a CSV is copied by S3; a part but the last has 5 MB at least
PART_BYTES = 64 * 2**20  # of a copy at most, which S3 makes side by side
PARALLEL_COPIES = 8
ID_BYTES = 16  # of a hash that stands for a row: two are alike once in 10^26 for a million rows

FAULTS = (ClientError, HTTPClientError, CannotConnect, IncompleteReadError)

_csvs: dict[str, "MetricsCsv"] = {}  # by key: what this execution environment knows


@cache
def s3_client():
    """Its own retries are few: after each failure the writer looks at the CSV before it goes on."""
    return boto3.client(
        "s3",
        config=Config(
            retries={"mode": "standard", "max_attempts": 2},
            max_pool_connections=PARALLEL_COPIES,
            connect_timeout=5,
            read_timeout=20,
        ),
    )


if "AWS_LAMBDA_RUNTIME_API" in os.environ:  # in Lambda: in the init phase, before any batch
    s3_client()


def lambda_handler(event: dict, context) -> dict:
    """Append the rows of a batch of messages. Tells SQS which of them are no rows: those come
    again, and in the end to the failure queue."""
    start = time.perf_counter()
    # The context tells by the wall clock, which may be set while this runs.
    end_s = time.monotonic() + context.get_remaining_time_in_millis() / 1000
    rows, refused = rows_of_batch(event["Records"])
    appended = 0
    for key, its_rows in rows.items():
        if key not in _csvs:
            _csvs[key] = MetricsCsv(s3_client(), os.environ["OUTPUT_BUCKET"], key)
        appended += _csvs[key].append(its_rows, lambda: end_s - time.monotonic())
    line = {
        "request_id": context.aws_request_id,
        "took_ms": round((time.perf_counter() - start) * 1000, 1),
        "messages": len(event["Records"]),
        "appended": appended,
    }
    print(json.dumps(line))
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in refused]}


def rows_of_batch(messages: list[dict]) -> tuple[dict[str, list[MetricRow]], list[str]]:
    """Rows by the key of their CSV; and the ids of the messages that are none, which are logged."""
    rows, refused = defaultdict(list), []
    for message in messages:
        try:
            row = row_from_message(message["body"])
        except ValueError as error:
            refused.append(message["messageId"])
            print(json.dumps({"no_row": message["messageId"], "why": str(error)[:200]}))
            continue
        rows[SMOKE_TEST_KEY if row.run_id == SMOKE_TEST_RUN else CSV_KEY].append(row)
    return rows, refused


class Upload(NamedTuple):
    """A multipart upload in which S3 has copied the first `size` bytes of a generation."""

    id: str
    generation: str
    size: int
    parts: list[dict]


class MetricsCsv:
    """A CSV in S3, as far as one writer knows it.

    `_etag` is empty when it has to be looked at before it is written. `_text` is its content from
    byte `_copied` on: all of a small one, and of a large one what others added during a copy.
    """

    def __init__(self, s3, bucket: str, key: str):
        self._s3, self._where = s3, {"Bucket": bucket, "Key": key}
        self._etag, self._generation, self._size = "", "", 0
        self._copied, self._text = 0, b""
        self._ids: set[bytes] = set()

    def append(self, rows: Iterable[MetricRow], time_left_s: Callable[[], float]) -> int:
        """How many of `rows` this call knows to have appended; all are in the CSV then, each once.

        Raises MetricsLogError when the time is up before, or when the CSV is not one of ours; and
        what S3 refuses for good.
        """
        by_id = {}
        for row in rows:
            by_id.setdefault(hash_of(row.id), row)
        upload = None
        while time_left_s() > STOP_BEFORE_S:
            try:
                if not self._etag:
                    self._look()
                new = {hashed: row for hashed, row in by_id.items() if hashed not in self._ids}
                text = rows_to_csv(new.values()).encode(errors="replace")
                if new and self._copied:
                    upload = self._copy(upload)
                    self._complete(upload, text)
                elif new:
                    self._put(text)
            except FAULTS as error:
                self._etag = ""  # whatever became of the request: look before the next try
                if not may_pass(error):
                    raise
                if not is_refused(error):  # else what was copied is there still
                    upload = None
                time.sleep(random.uniform(0, MAX_WAIT_S))  # nosec B311 # a wait, no secret
                continue
            self._ids.update(new)
            return len(new)
        bucket, key = self._where.values()
        raise MetricsLogError(
            f"the time is up, and {len(by_id)} rows may not be in s3://{bucket}/{key}; "
            "they stay in the queue, and come again"
        )

    def _look(self) -> None:
        """Read what was added since the last look; everything, when it is another CSV."""
        known = (self._size, self._generation)
        while (part := open_csv(self._s3, *self._where.values(), *known)) is None:
            about = {"ContentType": "text/csv", "Metadata": {"generation": uuid.uuid4().hex}}
            put_if(self._s3, *self._where.values(), HEADER.encode(), IfNoneMatch="*", **about)
        is_another = part.start == 0
        copied = 0 if is_another else self._copied
        is_kept = part.size - copied < (PART_BYTES if copied else COPY_FROM_BYTES)
        lines = []
        keep = lines.append if is_kept else lambda _: None
        ids = {hash_of(id_of(record)) for record in part.records(keep)}
        added = "".join(lines).encode()
        if is_another:
            self._ids, self._text = ids, b""
        else:
            self._ids |= ids
        self._copied, self._text = (copied, self._text + added) if is_kept else (part.size, b"")
        self._size, self._generation = part.size, part.generation or uuid.uuid4().hex
        self._etag = part.etag

    def _put(self, text: bytes) -> None:
        """Write all of a small CSV anew, with `text` at its end."""
        whole = self._text + text
        answer = self._s3.put_object(
            **self._where,
            Body=whole,
            ContentType="text/csv",
            Metadata={"generation": self._generation},
            IfMatch=self._etag,
        )
        self._etag, self._size, self._text = answer["ETag"], len(whole), whole
        if self._size >= COPY_FROM_BYTES:
            self._copied, self._text = self._size, b""

    def _copy(self, upload: Upload | None) -> Upload:
        """An upload in which S3 has copied the CSV: the one there is, while that fits."""
        if upload and (upload.generation, upload.size) == (self._generation, self._copied):
            return upload
        self._copied, self._text = self._size, b""
        upload_id = self._s3.create_multipart_upload(
            **self._where, ContentType="text/csv", Metadata={"generation": self._generation}
        )["UploadId"]
        count = math.ceil(self._size / PART_BYTES)
        ends = [self._size * number // count for number in range(count + 1)]

        def copy(number: int) -> dict:
            answer = self._s3.upload_part_copy(
                **self._where,
                UploadId=upload_id,
                PartNumber=number,
                CopySource=self._where,
                CopySourceRange=f"bytes={ends[number - 1]}-{ends[number] - 1}",
            )
            return {"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]}

        with ThreadPoolExecutor(PARALLEL_COPIES) as pool:
            parts = list(pool.map(copy, range(1, count + 1)))
        return Upload(upload_id, self._generation, self._copied, parts)

    def _complete(self, upload: Upload, text: bytes) -> None:
        """Make the copy, with what others added meanwhile and `text`, the CSV: unless somebody else
        was faster. What was copied may be of a later CSV of that generation: it begins alike."""
        last, its_end = len(upload.parts) + 1, self._text + text
        where = {**self._where, "UploadId": upload.id}
        etag = self._s3.upload_part(**where, PartNumber=last, Body=its_end)["ETag"]
        parts = [*upload.parts, {"PartNumber": last, "ETag": etag}]
        answer = self._s3.complete_multipart_upload(
            **where, MultipartUpload={"Parts": parts}, IfMatch=self._etag
        )
        self._etag, self._size = answer["ETag"], upload.size + len(its_end)
        self._copied, self._text = self._size, b""


def hash_of(row_id: RowId) -> bytes:
    text = f"{row_id.run_id}\0{row_id.round}\0{row_id.image_key}"
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=ID_BYTES).digest()


def may_pass(error: Exception) -> bool:
    """Whether another look and another try make sense: a lost race, or a fault of S3."""
    if not isinstance(error, ClientError):
        return True
    status = status_of(error)
    return status >= 500 or (
        status in (404, 409, 412, 416, 429) and error_code(error) != "NoSuchBucket"
    )


def is_refused(error: Exception) -> bool:
    """Whether somebody else was faster. After 409 S3 wants an upload to be begun anew."""
    return isinstance(error, ClientError) and status_of(error) == 412
