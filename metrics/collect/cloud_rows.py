"""The cloud arm's rows, as this machine sees them in the output bucket."""

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from botocore.exceptions import ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as CannotConnect

from lambda_function.image_transform import output_name
from lambda_function.metrics_log import (
    CSV_KEY,
    HEADER,
    PARALLEL_READS,
    PROCESSED_PREFIX,
    STOP_BEFORE_S,
    MetricRow,
    MetricsLogError,
    RowId,
    append_leftovers,
    is_missing,
    read_object,
    rows_of_csv,
    rows_to_csv,
    status_of,
)
from metrics.common.cli import UserError, cloud_problem
from metrics.common.paths import cloud_output_path, write_whole
from metrics.common.progress import tqdm
from metrics.common.reasons import Failure, failure_findings, failures_by_reason

MANIFESTS_PREFIX = "metrics/manifests/"
POLL_S = 0.5
STALLED_S = 5  # without a new row for this long, rows that wait are appended from here
APPEND_LIMIT_S = 30
DOWNLOAD_LIMIT_S = 600  # for appending all that is left: nobody else may come


def default_timeout_s(pictures: int, on_aws: bool) -> float:
    """Generous: cold starts and late events, and a second for each picture; three tries of 60 s,
    and on AWS the one and two minutes before the retries, so that a failure is known by then."""
    return (500 if on_aws else 200) + pictures


def wait_for_rows(
    s3,
    bucket: str,
    expected: set[RowId],
    timeout_s: float,
    allow_partial: bool = False,
    drain_failure_queue: Callable[[set[RowId]], object] | None = None,
) -> list[MetricRow]:
    """The rows of all `expected` pictures, once each has one.

    When rows stop coming, and before giving up, what is durable is appended from here (the function
    that was appending may have died), after `drain_failure_queue` has made error rows for those of
    the missing that the function failed on. Faults of the cloud that may pass are waited out. After
    `timeout_s`, raises UserError that names the missing; with `allow_partial` says so on stderr and
    returns what there is.
    """
    found: dict[RowId, MetricRow] = {}
    end = time.monotonic() + timeout_s
    last_news, gave_last_chance = time.monotonic(), False
    reader = new_rows(s3, bucket)
    with tqdm(total=len(expected), desc="cloud", unit="picture", disable=None) as bar:
        while True:
            news = [r for r in next(reader) if r.id in expected and r.id not in found]
            found.update((row.id, row) for row in news)
            bar.update(len(news))
            failed = sum(row.status == "error" for row in found.values())
            left_s = max(0, end - time.monotonic())
            bar.set_postfix_str(f"{failed} failed, time-out in {left_s:.0f} s")
            if len(found) == len(expected):
                return list(found.values())
            if gave_last_chance:
                message = missing_message(expected - found.keys(), len(expected), timeout_s)
                for failure in failure_findings("the cloud", _failures(found.values())):
                    print(failure, file=sys.stderr)
                if not allow_partial:
                    raise UserError(message)
                print(f"going on: {message}", file=sys.stderr)
                return list(found.values())
            gave_last_chance = left_s == 0
            if news:
                last_news = time.monotonic()
            if gave_last_chance or time.monotonic() - last_news > STALLED_S:
                with _faults_waited_out():
                    if drain_failure_queue:
                        drain_failure_queue(expected - found.keys())
                with _faults_waited_out():
                    append_leftovers(s3, bucket, time_left_s(APPEND_LIMIT_S))
                last_news = time.monotonic()
            else:
                time.sleep(min(POLL_S, left_s))


def _failures(rows: Iterable[MetricRow]) -> list[Failure]:
    return failures_by_reason((row.image_key, row.error) for row in rows if row.status == "error")


def time_left_s(limit_s: float) -> Callable[[], float]:
    """Tells how much is left of `limit_s` that begin now."""
    end = time.monotonic() + limit_s
    return lambda: end - time.monotonic()


def new_rows(s3, bucket: str) -> Iterator[list[MetricRow]]:
    """Rows appended since the last look, without reading the CSV again from its start; none when a
    look failed in a way that may pass."""
    offset = 0
    while True:
        rows = []
        with _faults_waited_out():
            rows, offset = _rows_since(s3, bucket, offset)
        yield rows


def _rows_since(s3, bucket: str, offset: int) -> tuple[list[MetricRow], int]:
    """Rows of the CSV from a byte on, and its size."""
    size = _csv_size(s3, bucket)
    if size < offset:  # cleaned meanwhile
        offset = 0
    if size == offset:
        return [], size
    answer = s3.get_object(Bucket=bucket, Key=CSV_KEY, Range=f"bytes={offset}-{size - 1}")
    text = answer["Body"].read().decode(errors="replace")
    try:
        return rows_of_csv(HEADER + text if offset else text, bucket), size
    except MetricsLogError:
        if offset == 0:
            raise
        return _rows_since(s3, bucket, 0)  # cleaned meanwhile and longer again: begin anew


@contextlib.contextmanager
def _faults_waited_out() -> Iterator[None]:
    """Goes on after an error of the cloud or the network: the rows are durable, and can be had when
    it is over. Any other error is raised."""
    try:
        yield
    except (ClientError, HTTPClientError, CannotConnect) as error:
        if isinstance(error, ClientError) and status_of(error) < 500:
            raise
        print(f"still waiting after: {cloud_problem(error)}", file=sys.stderr)


def _csv_size(s3, bucket: str) -> int:
    try:
        return s3.head_object(Bucket=bucket, Key=CSV_KEY)["ContentLength"]
    except s3.exceptions.ClientError as error:
        if is_missing(error):
            return 0
        raise


def missing_message(missing: set[RowId], expected: int, timeout_s: float) -> str:
    """Names all: who has to find them should not have to guess."""
    names = sorted(row_id.image_key for row_id in missing)
    return (
        f"{len(missing)} of {expected} pictures have no cloud row after {timeout_s:g} s: "
        f"{', '.join(map(repr, names))}; "
        "see the function's log group and failure queue, or wait longer with --timeout"
    )


def download_rows(s3, bucket: str, run_id: str) -> list[MetricRow]:
    """The run's rows in the bucket's CSV, once those that wait are appended; says on stderr how
    many of other runs it left out."""
    with _faults_waited_out():
        left_s = time_left_s(DOWNLOAD_LIMIT_S)
        append_leftovers(s3, bucket, left_s)
        if left_s() <= STOP_BEFORE_S:
            print("rows may still wait to be appended; run it again", file=sys.stderr)
    stored = read_object(s3, bucket, CSV_KEY)
    if stored is None:
        raise UserError(f"s3://{bucket}/{CSV_KEY} does not exist: no picture was processed yet")
    rows = rows_of_csv(stored.data.decode(errors="replace"), bucket)
    for other, count in Counter(row.run_id for row in rows if row.run_id != run_id).items():
        print(f"left out {count} rows of another run, {other}", file=sys.stderr)
    found = [row for row in rows if row.run_id == run_id]
    if not found:
        raise UserError(f"s3://{bucket}/{CSV_KEY} holds no row of run {run_id!r}")
    return found


def fetch_cloud_rows(s3, bucket: str, run_id: str, target: Path) -> None:
    """Write the run's rows in the bucket to `target`."""
    rows = download_rows(s3, bucket, run_id)
    write_whole(target, (HEADER + rows_to_csv(rows)).encode())


def download_outputs(s3, bucket: str, image_keys: list[str]) -> None:
    """Put the cloud outputs of these pictures where output_equivalence.py looks for them."""

    def download(image_key: str) -> None:
        stored = read_object(s3, bucket, PROCESSED_PREFIX + output_name(image_key))
        if stored is not None:  # else it is not at hand, which the judgement allows for
            write_whole(cloud_output_path(image_key), stored.data)

    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        list(pool.map(download, image_keys))
