"""The cloud arm's rows, as this machine sees them in the output bucket."""

import sys
import time
from collections.abc import Iterator

from tqdm import tqdm

from lambda_function.metrics_log import (
    CSV_KEY,
    HEADER,
    MetricRow,
    RowId,
    append_rows,
    is_missing,
    pending_rows,
    read_object,
    rows_of_csv,
)
from metrics.script import UserError

MANIFESTS_PREFIX = "metrics/manifests/"
POLL_S = 0.5
STALLED_S = 5  # without a new row for this long, rows that wait are appended from here
APPEND_LIMIT_S = 60
NAMED_AT_MOST = 10


def default_timeout_s(pictures: int) -> float:
    """Generous: cold starts and late events, and a second for each picture."""
    return 120 + pictures


def wait_for_rows(s3, bucket: str, expected: set[RowId], timeout_s: float) -> list[MetricRow]:
    """The rows of all `expected` pictures, once each has one.

    When rows stop coming although some wait to be appended (the function that was appending died),
    they are appended from here. Raises UserError that names the missing after `timeout_s`.
    """
    found: dict[RowId, MetricRow] = {}
    end = time.monotonic() + timeout_s
    last_news = time.monotonic()
    reader = new_rows(s3, bucket)
    with tqdm(total=len(expected), desc="cloud", unit="picture", disable=None) as bar:
        while True:
            news = [r for r in next(reader) if r.id in expected and r.id not in found]
            found.update((row.id, row) for row in news)
            bar.update(len(news))
            failed = sum(row.status == "error" for row in found.values())
            left_s = end - time.monotonic()
            bar.set_postfix_str(f"{failed} failed, time-out in {max(0, left_s):.0f} s")
            if len(found) == len(expected):
                return list(found.values())
            if left_s <= 0:
                raise UserError(missing_message(expected - found.keys(), len(expected), timeout_s))
            if news:
                last_news = time.monotonic()
            elif time.monotonic() - last_news > STALLED_S and pending_rows(s3, bucket):
                append_end = time.monotonic() + APPEND_LIMIT_S
                append_rows(s3, bucket, lambda: append_end - time.monotonic())  # noqa: B023
                last_news = time.monotonic()
                continue
            time.sleep(min(POLL_S, max(0, left_s)))


def new_rows(s3, bucket: str) -> Iterator[list[MetricRow]]:
    """Rows appended since the last look, without reading the CSV again from its start."""
    offset = 0
    while True:
        size = _csv_size(s3, bucket)
        if size < offset:  # cleaned meanwhile
            offset = 0
        if size == offset:
            yield []
            continue
        answer = s3.get_object(Bucket=bucket, Key=CSV_KEY, Range=f"bytes={offset}-{size - 1}")
        text = answer["Body"].read().decode()
        yield rows_of_csv(HEADER + text if offset else text, bucket)
        offset = size


def _csv_size(s3, bucket: str) -> int:
    try:
        return s3.head_object(Bucket=bucket, Key=CSV_KEY)["ContentLength"]
    except s3.exceptions.ClientError as error:
        if is_missing(error):
            return 0
        raise


def missing_message(missing: set[RowId], expected: int, timeout_s: float) -> str:
    names = sorted(row_id.image_key for row_id in missing)
    more = f" and {len(names) - NAMED_AT_MOST} more" if len(names) > NAMED_AT_MOST else ""
    return (
        f"{len(missing)} of {expected} pictures have no cloud row after {timeout_s:.0f} s: "
        f"{', '.join(map(repr, names[:NAMED_AT_MOST]))}{more}; "
        "see the function's log group and failure queue, or wait longer with --timeout"
    )


def download_rows(s3, bucket: str, run_id: str) -> tuple[list[MetricRow], dict[str, int]]:
    """The run's rows in the bucket's CSV, and the number of rows of each other run there."""
    stored = read_object(s3, bucket, CSV_KEY)
    if stored is None:
        raise UserError(f"s3://{bucket}/{CSV_KEY} does not exist: no picture was processed yet")
    rows = rows_of_csv(stored.data.decode(), bucket)
    others: dict[str, int] = {}
    for row in rows:
        if row.run_id != run_id:
            others[row.run_id] = others.get(row.run_id, 0) + 1
    for other, count in others.items():
        print(f"left out {count} rows of another run, {other}", file=sys.stderr)
    return [row for row in rows if row.run_id == run_id], others
