"""THE row: its schema, its way through the queue, and the CSV in S3 as far as it is read.

The handler sends each row to a queue; the metrics writer (metrics_writer.py) takes them from there
in batches, and appends what the CSV lacks. So rows are lost nowhere on the way, and one that is
delivered twice is written once.

Vocabulary
    message     one row as JSON, in the rows queue
    CSV         metrics/lambda_metrics.csv, header and rows; it only ever grows at its end
    generation  a random name in the metadata of the CSV, given when it is created: what was read of
                a CSV stays true as long as the generation is the same
"""

import csv
import dataclasses
import io
import json
import math
import operator
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, NamedTuple

from botocore.exceptions import ClientError

from lambda_function.image_transform import Measurement, transform_id

INPUT_PREFIX = "input/"  # in the input bucket
PROCESSED_PREFIX = "processed/"
CSV_KEY = "metrics/lambda_metrics.csv"
SMOKE_TEST_KEY = "metrics/smoke_test.csv"  # the CSV of smoke_test.py's rows
SMOKE_TEST_RUN = ".smoke-test"  # and their run id: no user run is called so
PARALLEL_READS = 16
MAX_DELETED_KEYS = 1000  # by one DeleteObjects
READ_BYTES = 2**20  # of a CSV at once


class MetricsLogError(Exception):
    """The CSV in S3 cannot be read or appended to; the message says what to do."""


class RowId(NamedTuple):
    """What a row is about; there is exactly one row for each."""

    run_id: str
    round: int
    image_key: str


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """One picture, processed once by one arm. The field order is the CSV's column order.

    The first five keep the published reference run's names and order. Times are wall-clock
    milliseconds but `cpu_ms`; sizes are bytes; `new_size` and `proc_ms` of a failed picture are 0
    and what the attempt took. `timestamp` is when reading the picture began (UTC, ISO 8601), so
    that `fetch_ms`, `proc_ms` and `store_ms` follow it. `memory_mb` is what the arm could use.
    `request_id` is Lambda's, of the invocation that the row came from; empty on-prem.
    """

    timestamp: str
    image_key: str
    orig_size: int
    new_size: int
    proc_ms: float
    source: str
    run_id: str
    round: int
    status: str
    error: str
    cpu_ms: float
    fetch_ms: float
    store_ms: float
    cold_start: bool
    worker: str
    memory_mb: int
    environment: str
    output_sha256: str
    transform: str
    request_id: str = ""

    @property
    def id(self) -> RowId:
        return RowId(self.run_id, self.round, self.image_key)

    @classmethod
    def of(cls, measured: Measurement, **facts: object) -> "MetricRow":
        """The row of a measured picture; `facts` are the fields that a measurement lacks."""
        return cls(
            new_size=len(measured.output or b""),
            proc_ms=measured.proc_ms,
            cpu_ms=measured.cpu_ms,
            status="error" if measured.error else "ok",
            error=measured.error,
            output_sha256=measured.output_sha256,
            transform=transform_id(),
            **facts,
        )


COLUMNS = tuple(field.name for field in dataclasses.fields(MetricRow))
HEADER = ",".join(COLUMNS) + "\r\n"
RUN_ID, ROUND, IMAGE_KEY = (COLUMNS.index(name) for name in RowId._fields)
PARSE = {int: int, float: float, bool: lambda text: text == "true", str: str}


def utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def timed(function: Callable, *args: object) -> tuple[object, float]:
    """What `function(*args)` returns, and the wall time it took in ms."""
    start = time.perf_counter()
    result = function(*args)
    return result, round((time.perf_counter() - start) * 1000, 3)


# --- rows as CSV (RFC 4180: CRLF ends a record, so that any key, new lines included, survives) ---


def rows_to_csv(rows: Iterable[MetricRow]) -> str:
    """CSV records of `rows`, without a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    values_of = operator.attrgetter(*COLUMNS)
    for row in rows:
        writer.writerow([str(v).lower() if isinstance(v, bool) else v for v in values_of(row)])
    return text.getvalue()


def rows_from_csv(text: str) -> list[MetricRow]:
    """Rows of CSV records without a header. Raises ValueError on a record that is no row."""
    return [_row(record) for record in csv.reader(io.StringIO(text, newline=""), strict=True)]


def _row(record: list[str]) -> MetricRow:
    if len(record) != len(COLUMNS):
        raise ValueError(f"{len(record)} columns where a row has {len(COLUMNS)}")
    fields = dataclasses.fields(MetricRow)
    return MetricRow(
        **{f.name: PARSE[f.type](text) for f, text in zip(fields, record, strict=True)}
    )


# --- rows as messages -----------------------------------------------------------------------------


def row_to_message(row: MetricRow) -> str:
    return json.dumps(dataclasses.asdict(row), separators=(",", ":"))


def row_from_message(text: str) -> MetricRow:
    """Raises ValueError for what is no row: it would make the CSV unreadable for everybody."""
    try:
        fields = json.loads(text)
    except RecursionError as error:
        raise ValueError(str(error)) from None
    if not isinstance(fields, dict):
        raise ValueError("no JSON object")
    try:
        row = MetricRow(**fields)
    except TypeError as error:
        raise ValueError(str(error)) from None
    for field in dataclasses.fields(row):
        if not _is_a(field.type, getattr(row, field.name)):
            raise ValueError(f"{field.name} is {getattr(row, field.name)!r}")
    if row.status not in ("ok", "error") or row.round < 1:
        raise ValueError(f"status {row.status!r}, round {row.round}")
    return row


def _is_a(kind: type, value: object) -> bool:
    if kind in (int, float):
        is_number = type(value) in (int, kind)  # JSON has 1 for 1.0; bool is no number
        return is_number and math.isfinite(value) and value >= 0
    return type(value) is kind


def send_row(sqs, queue_url: str, row: MetricRow) -> None:
    """Durable once this returns."""
    sqs.send_message(QueueUrl=queue_url, MessageBody=row_to_message(row))


# --- the CSV in S3, read --------------------------------------------------------------------------


@dataclass
class CsvPart:
    """The end of a CSV in S3 from byte `start` on, of `size` bytes in all. `start` is not 0 when
    the reader knows what is before it."""

    etag: str
    size: int
    generation: str
    start: int
    _body: IO[bytes]
    _where: str

    def records(self, keep: Callable[[str], object] = lambda _: None) -> Iterator[list[str]]:
        """Its records without the header; `keep` gets all of its text, line by line. Raises
        MetricsLogError when it is not a CSV of ours."""
        buffered = io.BufferedReader(self._body, READ_BYTES)
        text = io.TextIOWrapper(buffered, encoding="utf-8", newline="")
        try:
            if self.start and text.read(1) != "\n":  # the end of what is known
                raise ValueError("other content")
            reader = csv.reader(_whole_lines(text, keep), strict=True)
            if not self.start and next(reader, None) != list(COLUMNS):
                raise ValueError("other columns")
            for record in reader:
                if len(record) != len(COLUMNS) or not record[ROUND].isdecimal():
                    raise ValueError("no row")
                yield record
        except (ValueError, csv.Error) as error:
            raise MetricsLogError(_unusable(self._where, str(error))) from error


def _unusable(where: str, why: str) -> str:
    return (
        f"{where} has other columns or other content than this version writes ({why}); move it "
        "away, and the rows that wait will start a new one"
    )


def _whole_lines(text: Iterable[str], keep: Callable[[str], object]) -> Iterator[str]:
    line = "\r\n"
    for line in text:
        keep(line)
        yield line
    if not line.endswith("\r\n"):
        raise ValueError("its last row is torn")


def open_csv(s3, bucket: str, key: str, size: int = 0, generation: str = "") -> CsvPart | None:
    """What the CSV has beyond the first `size` bytes, known from before, while it is still of that
    generation; else all of it. None when there is none. One request, or two for another CSV."""
    # From one byte before: a range that is empty would be refused.
    start = size - 1 if size and generation else 0
    try:
        answer = s3.get_object(Bucket=bucket, Key=key, Range=f"bytes={start}-")
    except ClientError as error:
        if error_code(error) == "InvalidRange":  # shorter: another one, or an empty one
            if start:
                return open_csv(s3, bucket, key)
            raise MetricsLogError(_unusable(f"s3://{bucket}/{key}", "empty")) from error
        if is_missing(error):
            return None
        raise
    its_generation = answer["Metadata"].get("generation", "")
    if start and its_generation != generation:
        answer["Body"].close()
        return open_csv(s3, bucket, key)
    its_size = int(answer["ContentRange"].rpartition("/")[2])
    where = f"s3://{bucket}/{key}"
    return CsvPart(answer["ETag"], its_size, its_generation, start, answer["Body"], where)


def id_of(record: list[str]) -> RowId:
    return RowId(record[RUN_ID], int(record[ROUND]), record[IMAGE_KEY])


# --- S3 -------------------------------------------------------------------------------------------


class StoredObject(NamedTuple):
    data: bytes
    etag: str


def read_object(s3, bucket: str, key: str) -> StoredObject | None:
    """The object, or None when there is none of that key."""
    try:
        response = s3.get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if is_missing(error):
            return None
        raise
    return StoredObject(response["Body"].read(), response["ETag"])


def put_if(
    s3,
    bucket: str,
    key: str,
    body: bytes,
    **options,
) -> bool:
    """Put under a condition (IfMatch or IfNoneMatch); whether the condition held.

    412 is a condition that failed, 409 a race with another writer, 404 an If-Match on an object
    that is gone. After a PUT that was carried out but whose answer was lost, the client's own
    retry is answered 412 too: callers read back before they conclude that somebody else was first.
    """
    try:
        s3.put_object(Bucket=bucket, Key=key, Body=body, **options)
    except ClientError as error:
        if status_of(error) in (404, 409, 412) and error_code(error) != "NoSuchBucket":
            return False
        raise
    return True


def delete_objects(s3, bucket: str, keys: list[str]) -> None:
    """Delete any number of keys; one that is gone already counts as deleted."""
    for start in range(0, len(keys), MAX_DELETED_KEYS):
        batch = [{"Key": key} for key in keys[start : start + MAX_DELETED_KEYS]]
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": batch, "Quiet": True})
        for error in answer.get("Errors", []):  # of S3's making they pass; others are raised here
            s3.delete_object(Bucket=bucket, Key=error["Key"])


def status_of(error: ClientError) -> int:
    return error.response["ResponseMetadata"]["HTTPStatusCode"]


def error_code(error: ClientError) -> str:
    return error.response["Error"]["Code"]


def is_missing(error: ClientError) -> bool:
    return status_of(error) == 404 and error_code(error) != "NoSuchBucket"
