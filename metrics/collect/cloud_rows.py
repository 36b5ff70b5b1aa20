"""The cloud arm's rows, as this machine sees them in the output bucket."""

import contextlib
import csv
import io
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError
from botocore.exceptions import ConnectionError as CannotConnect

from lambda_function.image_transform import output_name
from lambda_function.metrics_log import (
    COLUMNS,
    CSV_KEY,
    HEADER,
    PARALLEL_READS,
    PROCESSED_PREFIX,
    RUN_ID,
    RowId,
    id_of,
    open_csv,
    read_object,
    status_of,
)
from metrics.collect.dead_letters import Queues, settle
from metrics.common.cli import UserError, cloud_problem
from metrics.common.paths import cloud_output_path, write_whole
from metrics.common.progress import tqdm
from metrics.common.reasons import Failure, failure_findings, failures_by_reason

MANIFESTS_PREFIX = "metrics/manifests/"
POLL_S = 0.5
STALLED_S = 5  # without a new row for this long, the failure queue is looked at
LAST_CHANCE_S = 30  # for rows that the failure queue gave when the time was up
STATUS, ERROR, REQUEST_ID, TIMESTAMP = (
    COLUMNS.index(name) for name in ("status", "error", "request_id", "timestamp")
)


def default_timeout_s(pictures: int, on_aws: bool) -> float:
    """Generous: cold starts and late events, and a second for each picture; three tries of 60 s,
    and on AWS the one and two minutes before the retries, so that a failure is known by then."""
    return (500 if on_aws else 200) + pictures


class CloudRows:
    """The rows of one run, read as the CSV grows: each byte of it once.

    `found` are the rows there are so far, `failed` the errors of those with status error,
    `others` how many rows of other runs the CSV has.
    """

    def __init__(self, s3, bucket: str, run_id: str):
        self.bucket = bucket
        self._s3, self._run_id = s3, run_id
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._size, self._generation = 0, ""
        self._text = io.StringIO(newline="")
        self._writer = csv.writer(self._text, lineterminator="\r\n")
        self.found: set[RowId] = set()
        self.failed: dict[RowId, str] = {}
        self.others: Counter[str] = Counter()
        self.request_ids: set[str] = set()
        self.begin = ""  # the earliest timestamp

    def look(self) -> int:
        """Read what was added since the last look; how many rows of the run that were."""
        known = (self._size, self._generation)
        if (part := open_csv(self._s3, self.bucket, CSV_KEY, *known)) is None:
            self._begin_anew()
            return 0
        records = list(part.records())  # all or nothing: it may break off
        if not part.start:
            self._begin_anew()
        before = len(self.found)
        for record in records:
            self._take(record)
        self._size, self._generation = part.size, part.generation
        return len(self.found) - before

    def _take(self, record: list[str]) -> None:
        if record[RUN_ID] != self._run_id:
            self.others[record[RUN_ID]] += 1
            return
        row_id = id_of(record)
        self.found.add(row_id)
        if record[STATUS] == "error":
            self.failed[row_id] = record[ERROR]
        self._writer.writerow(record)
        self.request_ids.add(record[REQUEST_ID])
        self.begin = min(self.begin or record[TIMESTAMP], record[TIMESTAMP])

    def csv(self) -> str:
        """The run's rows with a header."""
        return HEADER + self._text.getvalue()

    def save(self, target: Path) -> None:
        """Write the run's rows; says on stderr how many of other runs are left out. Raises
        UserError when there are none."""
        for other, count in self.others.items():
            print(f"left out {count} rows of another run, {other}", file=sys.stderr)
        if not self.found:
            where = f"s3://{self.bucket}/{CSV_KEY}"
            if not self._size:
                raise UserError(f"{where} does not exist: no picture was processed yet")
            raise UserError(f"{where} holds no row of run {self._run_id!r}")
        write_whole(target, self.csv().encode())


def wait_for_rows(
    rows: CloudRows,
    expected: set[RowId],
    timeout_s: float,
    allow_partial: bool = False,
    queues: Queues | None = None,
) -> None:
    """Returns once `rows` has found all `expected` ones.

    When rows stop coming, and before giving up, rows of what will never have one are sent on their
    way to the CSV. Faults of the cloud that may pass are waited out. After `timeout_s`,
    raises UserError that names the missing, and what waits in which queue; with `allow_partial`
    says so on stderr and returns.
    """
    end = time.monotonic() + timeout_s
    last_news, had_last_chance = time.monotonic(), False
    done = 0
    with tqdm(total=len(expected), desc="cloud", unit="picture", disable=None) as bar:
        while True:
            with _faults_waited_out():
                rows.look()
            missing = expected - rows.found
            now, before, done = time.monotonic(), done, len(expected) - len(missing)
            if done != before:  # bar.n does not count where no bar is shown
                last_news = now
                bar.update(done - before)
            if not missing:
                return
            left_s = max(0, end - now)
            failed = len(rows.failed.keys() & expected)
            bar.set_postfix_str(f"{failed} failed, time-out in {left_s:.0f} s")
            is_over = left_s == 0
            sent: set[RowId] = set()
            if is_over or now - last_news > STALLED_S:
                last_news = now
                sent = _settled(queues, missing) if queues else set()
            if is_over and sent and not had_last_chance:
                had_last_chance, end = True, now + LAST_CHANCE_S
            elif is_over:
                break
            time.sleep(min(POLL_S, left_s))
    message = missing_message(missing, len(expected), timeout_s, where_they_wait(queues))
    for failure in failure_findings("the cloud", _failures(rows.failed, expected)):
        print(failure, file=sys.stderr)
    if not allow_partial:
        raise UserError(message)
    print(f"going on: {message}", file=sys.stderr)


def settle_at_once(rows: CloudRows, expected: set[RowId], queues: Queues) -> None:
    """Without waiting for others: what the failure queue knows of those that `rows` lacks."""
    rows.look()
    if sent := _settled(queues, expected - rows.found):
        wait_for_rows(rows, sent, LAST_CHANCE_S, allow_partial=True)


def _settled(queues: Queues, missing: set[RowId]) -> set[RowId]:
    """Those of which rows were sent. A permission that is missing for this costs the reasons of the
    missing, and no answer."""
    try:
        with _faults_waited_out():
            return settle(queues, missing)
    except ClientError as error:
        print(f"going on without asking the failure queue: {cloud_problem(error)}", file=sys.stderr)
    return set()


def _failures(errors: dict[RowId, str], expected: set[RowId]) -> list[Failure]:
    return failures_by_reason(
        (row_id.image_key, error) for row_id, error in errors.items() if row_id in expected
    )


def where_they_wait(queues: Queues | None) -> str:
    """What the queues hold, as far as they can be asked."""
    told = ""
    if queues:
        with contextlib.suppress(ClientError), _faults_waited_out():
            told = queues.describe()
    return told or "nothing is known of the queues"


@contextlib.contextmanager
def _faults_waited_out() -> Iterator[None]:
    """Goes on after an error of the cloud or the network: the rows are durable, and can be had when
    it is over. Any other error is raised."""
    try:
        yield
    except (ClientError, HTTPClientError, CannotConnect, IncompleteReadError) as error:
        if isinstance(error, ClientError) and status_of(error) < 500:
            raise
        print(f"still waiting after: {cloud_problem(error)}", file=sys.stderr)


def missing_message(
    missing: set[RowId], expected: int, timeout_s: float, where_they_wait: str
) -> str:
    """Names all: who has to find them should not have to guess."""
    names = sorted(row_id.image_key for row_id in missing)
    return (
        f"{len(missing)} of {expected} pictures have no cloud row after {timeout_s:g} s: "
        f"{', '.join(map(repr, names))}; {where_they_wait}; "
        "see the function's log group, or wait longer with --timeout"
    )


def download_outputs(s3, bucket: str, image_keys: list[str]) -> None:
    """Put the cloud outputs of these pictures where output_equivalence.py looks for them."""

    def download(image_key: str) -> None:
        stored = read_object(s3, bucket, PROCESSED_PREFIX + output_name(image_key))
        if stored is not None:  # else it is not at hand, which the judgement allows for
            write_whole(cloud_output_path(image_key), stored.data)

    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        list(pool.map(download, image_keys))
