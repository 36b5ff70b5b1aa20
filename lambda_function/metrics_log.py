"""THE row: its schema, and appending rows to the CSV in S3 without losing one.

S3 cannot append, and many Lambdas finish at once. Group commit: each writes its row as an object
of its own, which is durable at once and in nobody's way; then one of them, who holds the lease,
appends all row objects to the CSV under compare-and-swap (If-Match on its ETag) and deletes them.
Who does not get the lease is done: the holder looks once more after giving it back, so it finds
every row that was written while it held the lease.

Vocabulary
    row object  metrics/rows/<run_id>/<round>/<hash>   one CSV record, until it is appended
    CSV         metrics/lambda_metrics.csv             header and all appended records
    lease       metrics/lambda_metrics.lease           "somebody is appending"; it only saves work:
                safety rests on the row objects and the compare-and-swap alone
"""

import csv
import dataclasses
import hashlib
import io
import logging
import random
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import quote

from botocore.exceptions import ClientError

from lambda_function.image_transform import Measurement, transform_id

INPUT_PREFIX = "input/"  # in the input bucket
PROCESSED_PREFIX = "processed/"
CSV_KEY = "metrics/lambda_metrics.csv"
LEASE_KEY = "metrics/lambda_metrics.lease"
ROWS_PREFIX = "metrics/rows/"

LEASE_S = 30  # a holder that is older than this is taken for dead
STOP_BEFORE_S = 5  # stop appending this long before the function's time-out
MAX_WAIT_S = 0.2  # upper bound of the random wait after a lost compare-and-swap
BATCH_ROWS = 1000  # one page of a listing, and the most that one DeleteObjects takes
PARALLEL_READS = 16

log = logging.getLogger(__name__)


class MetricsLogError(Exception):
    """The CSV in S3 cannot be appended to; the message says what to do."""


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
    for row in rows:
        values = dataclasses.astuple(row)
        writer.writerow([str(v).lower() if isinstance(v, bool) else v for v in values])
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


# --- appending ----------------------------------------------------------------------------------


def row_key(row_id: RowId) -> str:
    """S3 key of a row object: hashed, since an image key may be long or hostile."""
    digest = hashlib.sha256(row_id.image_key.encode()).hexdigest()[:32]
    return f"{ROWS_PREFIX}{quote(row_id.run_id, safe='')}/{row_id.round}/{digest}"


def put_row(s3, bucket: str, row: MetricRow) -> tuple[str, bytes]:
    """Make `row` durable; returns key and content of its object. Idempotent: of two rows of one
    picture the first written stays."""
    key, body = row_key(row.id), rows_to_csv([row]).encode()
    while not put_if(s3, bucket, key, body, IfNoneMatch="*"):
        if read_object(s3, bucket, key):
            break
        # A conflict (409), or the earlier row was appended meanwhile: then this one, put now,
        # is found to be in the CSV already and dropped.
        time.sleep(random.uniform(0, MAX_WAIT_S))  # nosec B311 # a wait, no secret
    return key, body


def append_rows(
    s3,
    bucket: str,
    time_left_s: Callable[[], float],
    own: Mapping[str, bytes] = MappingProxyType({}),
    look_again: bool = True,
) -> int:
    """Append all row objects to the CSV; returns how many rows this call appended.

    Returns early, leaving the rest to the next caller, when somebody else holds the lease or when
    less than STOP_BEFORE_S remains; without `look_again` also what came meanwhile. `own` are the
    contents, by key, of row objects that the caller wrote, and need not be read.
    """
    appended, no_rows = 0, set()
    while time_left_s() > STOP_BEFORE_S and _take_lease(s3, bucket):
        try:
            found = _read_pending(s3, bucket, no_rows, own)
            appended += _append(s3, bucket, found, time_left_s)
        finally:
            s3.delete_object(Bucket=bucket, Key=LEASE_KEY)
        if not look_again and len(found) < BATCH_ROWS:
            break
        # Once more: a writer that found the lease taken relies on its holder to see its row, also
        # one whose picture came twice and has its row object there again.
        if not pending_rows(s3, bucket, no_rows):
            break
    return appended


def append_leftovers(s3, bucket: str, time_left_s: Callable[[], float]) -> int:
    """Append all row objects without the lease, for who has seen that nobody else does: its holder
    may have died. Returns how many rows this call appended."""
    appended, no_rows = 0, set()
    while time_left_s() > STOP_BEFORE_S and (found := _read_pending(s3, bucket, no_rows)):
        appended += _append(s3, bucket, found, time_left_s)
    return appended


def pending_rows(s3, bucket: str, no_rows: Collection[str] = ()) -> dict[str, str]:
    """ETags by the keys of row objects that wait to be appended, one page at most. Objects that are
    known to be `no_rows` are passed over, also when they fill pages."""
    after = ROWS_PREFIX
    while True:
        page = s3.list_objects_v2(
            Bucket=bucket, Prefix=ROWS_PREFIX, MaxKeys=BATCH_ROWS, StartAfter=after
        )
        etags = {entry["Key"]: entry.get("ETag", "") for entry in page.get("Contents", [])}
        waiting = {key: etag for key, etag in etags.items() if key not in no_rows}
        if waiting or not page["IsTruncated"]:
            return waiting
        after = max(etags)


def _read_pending(
    s3, bucket: str, no_rows: set[str], own: Mapping[str, bytes] = MappingProxyType({})
) -> dict[str, MetricRow]:
    """Rows that wait, by the keys of their objects, a page at most; empty when there are none. Adds
    to `no_rows` the keys of other objects."""
    found = {}
    while not found and (waiting := pending_rows(s3, bucket, no_rows)):
        bodies = {key: own[key] for key in own if _is_content(waiting.get(key), own[key])}
        with ThreadPoolExecutor(PARALLEL_READS) as pool:
            others = [key for key in waiting if key not in bodies]
            read = pool.map(lambda key: read_object(s3, bucket, key), others)
            # None: appended by another.
            bodies |= {key: it.data for key, it in zip(others, read, strict=True) if it}
        for key, body in bodies.items():
            try:
                found[key] = rows_from_csv(body.decode())[0]
            except (ValueError, IndexError, csv.Error) as error:
                log.error("%s is not a row and stays where it is: %s", key, error)
                no_rows.add(key)
    return found


def _is_content(etag: str | None, body: bytes) -> bool:
    """Whether an object of this ETag surely has this content. Under some kinds of encryption an
    ETag is no MD5 sum: then it does not seem so."""
    return etag == f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


def _append(s3, bucket: str, found: dict[str, MetricRow], time_left_s: Callable[[], float]) -> int:
    """How many of the `found` rows are newly in the CSV, after which their objects are gone."""
    while found and time_left_s() > STOP_BEFORE_S:
        current = read_object(s3, bucket, CSV_KEY)
        text = current.data.decode() if current else HEADER
        known = _ids_of_csv(text, bucket)
        new = {row.id: row for row in found.values() if row.id not in known}.values()
        condition = {"IfMatch": current.etag} if current else {"IfNoneMatch": "*"}
        whole = (text + rows_to_csv(new)).encode()
        if not new or put_if(s3, bucket, CSV_KEY, whole, "text/csv", **condition):
            delete_objects(s3, bucket, list(found))
            return len(new)
        time.sleep(random.uniform(0, MAX_WAIT_S))  # nosec B311 # a wait, no secret
    return 0


def _ids_of_csv(text: str, bucket: str) -> set[RowId]:
    """Which rows the CSV has; cheaper than rows_of_csv, since this is done at every append."""
    run, number, key = (COLUMNS.index(name) for name in RowId._fields)
    try:
        records = csv.reader(io.StringIO(_without_header(text), newline=""), strict=True)
        return {RowId(record[run], int(record[number]), record[key]) for record in records}
    except (ValueError, IndexError, csv.Error) as error:
        raise MetricsLogError(_unusable(bucket)) from error


def rows_of_csv(text: str, bucket: str) -> list[MetricRow]:
    """All rows of the CSV in `bucket`. Raises MetricsLogError when it is not one of ours."""
    try:
        return rows_from_csv(_without_header(text))
    except (ValueError, csv.Error) as error:
        raise MetricsLogError(_unusable(bucket)) from error


def _without_header(text: str) -> str:
    if not text.startswith(HEADER):
        raise ValueError("other columns")
    return text.removeprefix(HEADER)


def _unusable(bucket: str) -> str:
    return (
        f"s3://{bucket}/{CSV_KEY} has other columns or other content than this version writes; "
        "move it away, and the rows that wait will start a new one"
    )


def _take_lease(s3, bucket: str) -> bool:
    """Whether this caller may append now. A lease whose holder seems dead is taken over."""
    me = uuid.uuid4().hex
    condition = {"IfNoneMatch": "*"}
    while not put_if(s3, bucket, LEASE_KEY, me.encode(), Metadata={"holder": me}, **condition):
        try:
            lease = s3.head_object(Bucket=bucket, Key=LEASE_KEY)
        except ClientError as error:
            if is_missing(error):  # just given back; its holder is about to look once more
                return False
            raise
        if lease["Metadata"].get("holder") == me:  # a retried PUT whose first try was carried out
            return True
        # Both times are the server's own, so that a wrong clock here takes no lease away.
        headers = lease["ResponseMetadata"]["HTTPHeaders"]
        now = parsedate_to_datetime(headers["date"]) if "date" in headers else datetime.now(UTC)
        if (now - lease["LastModified"]).total_seconds() < LEASE_S:
            return False
        log.warning("taking over a lease of %s", lease["LastModified"])
        condition = {"IfMatch": lease["ETag"]}
    return True


# --- S3, as far as appending needs it -------------------------------------------------------------


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
    content_type: str = "application/octet-stream",
    **options,
) -> bool:
    """Put under a condition (IfMatch or IfNoneMatch); whether the condition held.

    412 is a condition that failed, 409 a race with another writer, 404 an If-Match on an object
    that is gone. After a PUT that was carried out but whose answer was lost, the client's own
    retry is answered 412 too: callers read back before they conclude that somebody else was first.
    """
    try:
        s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType=content_type, **options)
    except ClientError as error:
        if status_of(error) in (404, 409, 412) and error_code(error) != "NoSuchBucket":
            return False
        raise
    return True


def delete_objects(s3, bucket: str, keys: list[str]) -> None:
    """Delete any number of keys; one that is gone already counts as deleted."""
    for start in range(0, len(keys), BATCH_ROWS):
        batch = [{"Key": key} for key in keys[start : start + BATCH_ROWS]]
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": batch, "Quiet": True})
        for error in answer.get("Errors", []):  # of S3's making they pass; others are raised here
            s3.delete_object(Bucket=bucket, Key=error["Key"])


def status_of(error: ClientError) -> int:
    return error.response["ResponseMetadata"]["HTTPStatusCode"]


def error_code(error: ClientError) -> str:
    return error.response["Error"]["Code"]


def is_missing(error: ClientError) -> bool:
    return status_of(error) == 404 and error_code(error) != "NoSuchBucket"
