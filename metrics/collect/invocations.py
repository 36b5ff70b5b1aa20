"""What Lambda itself measured of a run: the REPORT lines in the function's log group.

Vocabulary
    invocation  one try of one event; retries have the same request id, and a line each
    REPORT      the platform's own line: duration, billed duration (with the init phase), memory
"""

import csv
import io
import json
import re
import time
from collections import Counter
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from metrics.common.paths import write_whole

if TYPE_CHECKING:
    from metrics.collect.cloud_rows import CloudRows

POLL_S = 2.0
# Written within seconds as a rule; AWS promises nothing.
MAX_WAIT_S = 60.0
MAX_SILENCE_S = 10.0  # without a single line: other emulators write none
CLOCK_SKEW_MS = 5 * 60 * 1000  # between the rows' clock and the log group's, and the init phase
NUMBER = r"([0-9.]+)"
REPORT = {
    "duration_ms": re.compile(rf"\tDuration: {NUMBER} ms"),
    "billed_ms": re.compile(rf"\tBilled Duration: {NUMBER} ms"),
    "init_ms": re.compile(rf"\tInit Duration: {NUMBER} ms"),
    "memory_mb": re.compile(rf"\tMemory Size: {NUMBER} MB"),
    "max_memory_mb": re.compile(rf"\tMax Memory Used: {NUMBER} MB"),
}
REQUEST_ID = re.compile(r"REPORT RequestId: (\S+)")


@dataclass(frozen=True)
class Invocation:
    """Times in ms, memory in MB; `init_ms` is 0 for a warm start. `s3_puts` are the requests in
    S3's dearer price class (PUT, LIST), `s3_gets` those in the other; both of the whole request."""

    request_id: str
    duration_ms: float
    billed_ms: float
    init_ms: float
    memory_mb: float
    max_memory_mb: float
    timed_out: bool
    architecture: str = "x86_64"
    s3_puts: int = 0
    s3_gets: int = 0


def parse_report(line: str) -> Invocation | None:
    """The invocation that a REPORT line tells of; None for any other line."""
    if not (found := REQUEST_ID.match(line)):
        return None
    numbers = {name: pattern.search(line) for name, pattern in REPORT.items()}
    return Invocation(
        request_id=found[1],
        timed_out="Status: timeout" in line,
        **{name: float(match[1]) if match else 0.0 for name, match in numbers.items()},
    )


def save_invocations(
    logs, lambda_client, function: dict[str, str], rows: "CloudRows", target: Path
) -> None:
    """Write what Lambda measured of the cloud arm's `rows`; `function` are the stack's outputs."""
    request_ids = rows.request_ids - {""}
    since_ms = int(datetime.fromisoformat(rows.begin).timestamp() * 1000) - CLOCK_SKEW_MS
    found = collect_invocations(logs, function["LogGroupName"], request_ids, since_ms)
    settings = lambda_client.get_function_configuration(FunctionName=function["FunctionName"])
    architecture = settings.get("Architectures", ["x86_64"])[0]
    found = [replace(one, architecture=architecture) for one in found]
    write_whole(target, invocations_to_csv(found))


def collect_invocations(
    logs, log_group: str, request_ids: set[str], since_ms: int, limit_s: float = MAX_WAIT_S
) -> list[Invocation]:
    """All tries of these requests that the log group tells of, waiting up to `limit_s` for lines
    that are not there yet."""
    begin, wait_s = time.monotonic(), POLL_S
    while True:
        found = _read(logs, log_group, request_ids, since_ms)
        waited_s = time.monotonic() - begin
        limit = limit_s if found else min(limit_s, MAX_SILENCE_S)
        if request_ids <= {one.request_id for one in found} or waited_s >= limit:
            return found
        time.sleep(min(wait_s, limit_s))
        wait_s *= 2


def _read(logs, log_group: str, request_ids: set[str], since_ms: int) -> list[Invocation]:
    invocations, counted = [], {}
    pages = logs.get_paginator("filter_log_events").paginate(
        logGroupName=log_group,
        startTime=since_ms,
        filterPattern='?"REPORT RequestId" ?"s3_requests"',
    )
    for page in pages:
        for event in page["events"]:
            message = event["message"]
            if (one := parse_report(message)) is not None:
                if one.request_id in request_ids:
                    invocations.append(one)
            elif (line := _json(message)).get("request_id") in request_ids:
                counted.setdefault(line["request_id"], []).append(line.get("s3_requests", {}))
    return [_with_requests(one, counted) for one in invocations]


def _json(message: str) -> dict:
    try:
        line = json.loads(message)
    except ValueError:
        return {}
    return line if isinstance(line, dict) else {}


def _with_requests(one: Invocation, counted: dict[str, list[dict[str, int]]]) -> Invocation:
    """With the S3 requests of one try; one that was killed has no line of its own."""
    counts = counted[one.request_id].pop() if counted.get(one.request_id) else {}
    puts = sum(n for name, n in counts.items() if name.startswith(("Put", "List", "Copy", "Post")))
    gets = sum(n for name, n in counts.items() if name.startswith(("Get", "Head")))
    return replace(one, s3_puts=puts, s3_gets=gets)


def with_invocations(merged: pd.DataFrame, invocations: pd.DataFrame | None) -> pd.DataFrame:
    """`merged` with what Lambda measured of each cloud row's request: billed time of all its tries,
    and the largest init time and memory. Empty where no line tells of it."""
    if invocations is None:
        return merged
    by_request = invocations.groupby("request_id").agg(
        billed_ms_cloud=("billed_ms", "sum"),
        init_ms_cloud=("init_ms", "max"),
        max_memory_mb_cloud=("max_memory_mb", "max"),
    )
    return merged.join(by_request, on="request_id_cloud")


def duration_by_round(rows: pd.DataFrame, invocations: pd.DataFrame) -> pd.Series | None:
    """Milliseconds of a picture in each round by Lambda's own clock: of all its tries, without cold
    starts. None when a round lacks reports."""
    of_request = invocations.groupby("request_id")["duration_ms"].sum()
    known = rows[["round", "request_id"]].join(of_request, on="request_id", how="inner")
    of_rounds = known.groupby("round")["duration_ms"].mean()
    return of_rounds if len(of_rounds) == rows["round"].nunique() > 0 else None


def count_refused(logs, log_group: str, since: datetime) -> dict[str, int]:
    """How many events the function refused, by reason: they were no S3 events of pictures."""
    counts: Counter[str] = Counter()
    pages = logs.get_paginator("filter_log_events").paginate(
        logGroupName=log_group,
        startTime=int(since.timestamp() * 1000),
        filterPattern='"ERROR"',
    )
    for page in pages:
        for event in page["events"]:
            line = _json(event["message"])
            reason, count = line.get("refused"), line.get("count")
            if isinstance(reason, str) and isinstance(count, int):
                counts[reason] += count
    return dict(counts)


def count_throttles(cloudwatch, function_name: str, begin: datetime, end: datetime) -> int | None:
    """Invocations of the function that AWS put off for lack of concurrency; None when its metrics
    do not tell yet: they come a minute or two late."""
    begin, end = sorted((begin, end))  # the clock may have been set back meanwhile
    answer = cloudwatch.get_metric_statistics(
        Namespace="AWS/Lambda",
        MetricName="Throttles",
        Dimensions=[{"Name": "FunctionName", "Value": function_name}],
        StartTime=begin,
        EndTime=end,
        Period=3600,
        Statistics=["Sum"],
    )
    points = answer["Datapoints"]
    return int(sum(point["Sum"] for point in points)) if points else None


COLUMNS = [field.name for field in fields(Invocation)]


def invocations_to_csv(invocations: list[Invocation]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    for one in sorted(invocations, key=lambda one: (one.request_id, one.duration_ms)):
        writer.writerow(asdict(one))
    return text.getvalue().encode()


def invocations_from_csv(data: bytes) -> pd.DataFrame:
    """One line for each invocation. Raises ValueError when `data` is not of invocations_to_csv."""
    table = pd.read_csv(io.BytesIO(data), dtype={"request_id": str, "architecture": str})
    if list(table.columns) != COLUMNS:
        raise ValueError(f"columns {list(table.columns)}")
    return table
