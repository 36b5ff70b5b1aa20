"""Rows for tests: made, put into the CSV, and waited for."""

import hashlib

from lambda_function.metrics_log import (
    CSV_KEY,
    HEADER,
    MetricRow,
    RowId,
    read_object,
    rows_from_csv,
)
from lambda_function.metrics_writer import MetricsCsv
from metrics.collect.cloud_rows import CloudRows, wait_for_rows


def row(image_key: str = "a.jpg", **fields: object) -> MetricRow:
    """A plausible cloud row of a picture, with `fields` in place of what is not told apart."""
    defaults = {
        "timestamp": "2026-01-02T03:04:05.678+00:00",
        "image_key": image_key,
        "orig_size": 1000,
        "new_size": 500,
        "proc_ms": 12.5,
        "source": "cloud",
        "run_id": "run",
        "round": 1,
        "status": "ok",
        "error": "",
        "cpu_ms": 12.25,
        "fetch_ms": 1.5,
        "store_ms": 2.5,
        "cold_start": False,
        "worker": "w1",
        "memory_mb": 1769,
        "environment": "embedded",
        "output_sha256": hashlib.sha256(image_key.encode(errors="surrogatepass")).hexdigest(),
        "transform": "v1",
    }
    return MetricRow(**(defaults | fields))


def append_rows(s3, bucket: str, *rows: MetricRow) -> int:
    """As the metrics writer does it that knows nothing of the CSV yet; how many that were."""
    return MetricsCsv(s3, bucket, CSV_KEY).append(rows, lambda: 60)


def appended_rows(s3, bucket: str) -> list[MetricRow]:
    stored = read_object(s3, bucket, CSV_KEY)
    return rows_from_csv(stored.data.decode().removeprefix(HEADER)) if stored else []


def waited_rows(
    s3, bucket: str, expected: set[RowId], timeout_s: float, **options: object
) -> list[MetricRow]:
    """Those of the `expected` rows, which are of one run, that there are when the wait is over."""
    rows = CloudRows(s3, bucket, next(iter(expected)).run_id)
    wait_for_rows(rows, expected, timeout_s, **options)
    found = rows_from_csv(rows.csv().removeprefix(HEADER))
    return [row for row in found if row.id in expected]
