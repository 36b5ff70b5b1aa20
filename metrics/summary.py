"""Joining the rows of both arms picture by picture, and what can be said about them.

Vocabulary
    pair        one picture (of one round) with a row in both arms, both `ok`
    ratio       cloud proc_ms / on-prem proc_ms of a pair; above 1 the cloud is slower
    busy time   sum of proc_ms: work, whatever the parallelism
    cpu share   sum of cpu_ms / busy time; below 1 the processor was doing something else, too
    makespan    from the first picture's begin to the last one's end, by the rows' own clock
    problem     something that voids the comparison; any makes the exit code 1
"""

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lambda_function.metrics_log import COLUMNS
from metrics.files import shown
from metrics.script import UserError

REFERENCE_COLUMNS = COLUMNS[:5]  # all that the published reference run's files have
NUMBERS = ("orig_size", "new_size", "proc_ms", "cpu_ms", "fetch_ms", "store_ms", "round")
JOIN = ["image_key", "round"]
NAMED_AT_MOST = 5
# Two passes one after the other over the same pictures on the same machine differed by up to 24%
# (24 A/A trials on a shared 2-core machine): less than that, one pass cannot tell from drift.
DRIFT_ALLOWANCE = 1.25
# An arm on this machine that had the processor for less of its time was measured beside other
# work, or with more processes than processors: its wall times say little about the arm.
LEAST_CPU_SHARE = 0.9
LEAST_PAIRS = 3  # of fewer, the bad luck of one picture decides the mean


@dataclass(frozen=True)
class ArmSummary:
    """The numbers of one arm. Times of a picture are over its `ok` rows."""

    source: str
    environment: str
    rows: int
    failed: int
    cold_starts: int
    mean_ms: float
    median_ms: float
    p95_ms: float
    busy_s: float
    cpu_share: float
    makespan_s: float

    @property
    def pictures_per_s(self) -> float:
        return self.rows / self.makespan_s if self.makespan_s else math.nan


@dataclass(frozen=True)
class Comparison:
    """Both arms joined. `merged` has a line for each picture of either arm, `pairs` for each pair;
    columns of an arm end in `_on_prem` or `_cloud`."""

    on_prem: ArmSummary
    cloud: ArmSummary
    merged: pd.DataFrame
    pairs: pd.DataFrame
    problems: list[str]

    @property
    def ratios(self) -> pd.Series:
        return self.pairs["proc_ms_cloud"] / self.pairs["proc_ms_on_prem"]


# --- reading ------------------------------------------------------------------------------------


def read_rows(path: Path, source: str) -> pd.DataFrame:
    """Rows of a metrics CSV, also of one with only the reference run's five columns.

    Raises UserError that names the file, and line and column of what cannot be read.
    """
    name = shown(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        step = "onprem_images/local_image_proc.py" if source == "on_prem" else "the cloud arm"
        raise UserError(f"{name} does not exist; run {step} first") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8 text: {error}") from None
    rows = _records(text, name)
    if missing := [column for column in REFERENCE_COLUMNS if column not in rows]:
        raise UserError(f"{name} has no column {missing[0]!r}; its columns are {list(rows)}")
    if source == "cloud" and "run_id" not in rows:  # reference keys carry the bucket's prefix
        rows["image_key"] = rows["image_key"].str.removeprefix("input/")
    defaults = {"source": source, "round": "1", "status": "ok", "cold_start": "false"}
    for column in COLUMNS:
        if column not in rows:
            rows[column] = defaults.get(column, "")
    for column in NUMBERS:
        rows[column] = _numbers(rows, column, name)
    rows["cold_start"] = rows["cold_start"] == "true"
    return rows[list(COLUMNS)].reset_index(drop=True)


def _records(text: str, name: str) -> pd.DataFrame:
    """Texts by column, indexed by line of the file; every record is as long as the header."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines, records = [], []
    try:
        header = next(reader, [])
        if doubles := sorted({column for column in header if header.count(column) > 1}):
            raise UserError(f"{name}, line 1: more than one column {doubles[0]!r}")
        for record in reader:
            if len(record) != len(header):
                raise UserError(
                    f"{name}, line {reader.line_num}: {len(record)} columns, "
                    f"where the header has {len(header)}"
                )
            lines.append(reader.line_num)
            records.append(record)
    except csv.Error as error:
        raise UserError(f"{name}, line {reader.line_num}: {error}") from None
    if not records:
        raise UserError(f"{name} holds no row")
    return pd.DataFrame(records, columns=header, index=lines, dtype=object)


def _numbers(rows: pd.DataFrame, column: str, name: str) -> pd.Series:
    """`column` as numbers. An empty cell is NaN, where the reference run has no such column."""
    texts = rows[column]
    numbers = pd.to_numeric(texts, errors="coerce")
    bad = ~((np.isfinite(numbers)) & (numbers >= 0))
    if column not in REFERENCE_COLUMNS:
        bad &= texts != ""
    if column == "proc_ms":  # work takes time, and ratios need it
        bad |= (numbers == 0) & (rows["status"] == "ok")
    if bad.any():
        line = bad.idxmax()
        raise UserError(f"{name}, line {line}, column {column}: {texts[line]!r} is no valid number")
    return numbers


# --- joining and judging ------------------------------------------------------------------------


def compare(on_prem: pd.DataFrame, cloud: pd.DataFrame) -> Comparison:
    """Join the arms' rows and find what voids the comparison."""
    problems = [*_mixed_runs(on_prem, cloud)]
    for source, rows in (("on_prem", on_prem), ("cloud", cloud)):
        problems += _odd_arm(source, rows)
    merged = on_prem.drop_duplicates(JOIN).merge(
        cloud.drop_duplicates(JOIN),
        on=JOIN,
        how="outer",
        suffixes=("_on_prem", "_cloud"),
        indicator="arms",
        validate="one_to_one",
    )
    both = merged[merged["arms"] == "both"]
    pairs = both[(both["status_on_prem"] == "ok") & (both["status_cloud"] == "ok")]
    problems += _missing(merged)
    problems += _different_work(both, pairs)
    if pairs.empty:
        problems.append("no picture was processed in both arms")
    return Comparison(
        summarise(on_prem, "on_prem"), summarise(cloud, "cloud"), merged, pairs, problems
    )


def _mixed_runs(on_prem: pd.DataFrame, cloud: pd.DataFrame) -> list[str]:
    runs = pd.concat([on_prem["run_id"], cloud["run_id"]]).value_counts()
    if len(runs) < 2:
        return []
    counts = ", ".join(f"{count} of {run or 'no run id'!r}" for run, count in runs.items())
    return [f"rows of different runs are mixed: {counts}; choose one with --run-id"]


def _odd_arm(source: str, rows: pd.DataFrame) -> list[str]:
    """What voids an arm whatever the other one did."""
    problems = []
    if doubles := _names(rows.loc[rows.duplicated(["run_id", *JOIN]), "image_key"]):
        problems.append(f"more than one {source} row for {doubles}")
    if others := sorted(set(rows["source"]) - {source}):
        problems.append(f"rows of {', '.join(others)} among the {source} rows")
    if len(environments := sorted(set(rows["environment"]))) > 1:
        problems.append(f"{source} rows of different environments: {', '.join(environments)}")
    done = rows[rows["status"] == "ok"]
    if len(done) and (done["new_size"] == done["orig_size"]).all():
        problems.append(f"no picture was changed in the {source} arm: new_size equals orig_size")
    return problems


def _missing(merged: pd.DataFrame) -> list[str]:
    problems = []
    for arm, only in (("cloud", "left_only"), ("on_prem", "right_only")):
        lost = merged.loc[merged["arms"] == only, "image_key"]
        if len(lost):
            problems.append(
                f"{len(lost)} of {len(merged)} pictures have no {arm} row: {_names(lost)}"
            )
    return problems


def _different_work(both: pd.DataFrame, pairs: pd.DataFrame) -> list[str]:
    """Evidence that the arms did not do the same to the same pictures."""
    problems = []

    def note(rows: pd.DataFrame, what: str) -> None:
        if len(rows):
            problems.append(f"{what} for {len(rows)} pictures: {_names(rows['image_key'])}")

    outcome = {arm: _outcome(both, arm) for arm in ("on_prem", "cloud")}
    note(both[outcome["on_prem"] != outcome["cloud"]], "the arms differ in success or error")
    note(both[both["orig_size_on_prem"] != both["orig_size_cloud"]], "the input differs in size")
    note(pairs[pairs["transform_on_prem"] != pairs["transform_cloud"]], "other transform versions")
    # A file from elsewhere may have no hashes; where one arm has them, so must the other.
    hashed = (pairs["output_sha256_on_prem"] != "") | (pairs["output_sha256_cloud"] != "")
    other_hash = pairs["output_sha256_on_prem"] != pairs["output_sha256_cloud"]
    other_size = pairs["new_size_on_prem"] != pairs["new_size_cloud"]
    note(pairs[hashed & other_hash], "the output differs")
    note(pairs[~hashed & other_size], "the output differs in size")
    return problems


def _outcome(both: pd.DataFrame, arm: str) -> pd.Series:
    """Status and error class; the error's wording may differ between systems."""
    return both[f"status_{arm}"] + both[f"error_{arm}"].str.split(":", n=1).str[0]


def _names(keys: pd.Series) -> str:
    more = f" and {len(keys) - NAMED_AT_MOST} more" if len(keys) > NAMED_AT_MOST else ""
    return ", ".join(map(repr, keys.head(NAMED_AT_MOST))) + more


def summarise(rows: pd.DataFrame, source: str) -> ArmSummary:
    times = rows.loc[rows["status"] == "ok", "proc_ms"]
    return ArmSummary(
        source=source,
        environment=", ".join(sorted(set(rows["environment"]) - {""})) or "unknown",
        rows=len(rows),
        failed=int((rows["status"] != "ok").sum()),
        cold_starts=int(rows["cold_start"].sum()),
        mean_ms=times.mean(),
        median_ms=times.median(),
        p95_ms=times.quantile(0.95),
        busy_s=times.sum() / 1000,
        cpu_share=_cpu_share(rows),
        makespan_s=makespan_s(rows),
    )


def _cpu_share(rows: pd.DataFrame) -> float:
    """NaN for a file without CPU times."""
    done = rows[(rows["status"] == "ok") & rows["cpu_ms"].notna()]
    return done["cpu_ms"].sum() / done["proc_ms"].sum() if len(done) else math.nan


def makespan_s(rows: pd.DataFrame) -> float:
    """NaN where a timestamp cannot be read, as in a file from elsewhere."""
    begin = pd.to_datetime(rows["timestamp"], format="ISO8601", utc=True, errors="coerce")
    phases = rows[["fetch_ms", "proc_ms", "store_ms"]].sum(axis=1)
    if begin.empty or begin.isna().any():
        return math.nan
    begin_s = (begin - begin.min()).dt.total_seconds()
    return float((begin_s + phases / 1000).max())


# --- saying it ----------------------------------------------------------------------------------


def table(comparison: Comparison) -> str:
    """The summary of both arms as aligned text."""
    arms = (comparison.on_prem, comparison.cloud)
    columns = {
        "arm": [arm.source for arm in arms],
        "runs on": [arm.environment for arm in arms],
        "n": [arm.rows for arm in arms],
        "failed": [arm.failed for arm in arms],
        "cold": [arm.cold_starts for arm in arms],
        "mean ms": [f"{arm.mean_ms:.1f}" for arm in arms],
        "median ms": [f"{arm.median_ms:.1f}" for arm in arms],
        "p95 ms": [f"{arm.p95_ms:.1f}" for arm in arms],
        "busy s": [f"{arm.busy_s:.2f}" for arm in arms],
        "cpu share": [f"{arm.cpu_share:.0%}" for arm in arms],
        "makespan s": [f"{arm.makespan_s:.2f}" for arm in arms],
        "pictures/s": [f"{arm.pictures_per_s:.1f}" for arm in arms],
    }
    return pd.DataFrame(columns).to_string(index=False)


def geometric_mean(ratios: pd.Series) -> float:
    return float(np.exp(np.log(ratios).mean()))


def verdict(comparison: Comparison) -> str:
    """One sentence; what one pass over the pictures can and cannot say is part of it."""
    if comparison.problems:
        count = len(comparison.problems)
        return f"not comparable: {count} problem{'' if count == 1 else 's'}, see above"
    ratio = geometric_mean(comparison.ratios)
    n = len(comparison.ratios)
    environment = comparison.cloud.environment
    where = {"embedded": "embedded cloud, not AWS", "aws": "AWS"}.get(
        environment, f"cloud environment {environment}"
    )
    basis = (
        f"geometric mean of cloud/on-prem {ratio:.2f}, {n} pictures x 1 round, {where}; "
        f"one pass allows for {DRIFT_ALLOWANCE - 1:.0%} drift of the machine"
    )
    if crowded := crowded_arms(comparison):
        return (
            f"per picture: cannot tell which is faster: {crowded} had the processor for less than "
            f"{LEAST_CPU_SHARE:.0%} of the time; end other work, use no more workers or "
            f"concurrency than processors, and run again ({basis})"
        )
    if n < LEAST_PAIRS:
        return f"per picture: cannot tell which is faster from fewer than {LEAST_PAIRS} ({basis})"
    if 1 / DRIFT_ALLOWANCE < ratio < DRIFT_ALLOWANCE:
        return f"per picture: cannot tell which is faster ({basis})"
    faster, times = ("on-prem", ratio) if ratio > 1 else ("the cloud", 1 / ratio)
    return f"per picture: {faster} is {times:.2f}x faster ({basis})"


def crowded_arms(comparison: Comparison) -> str:
    """Names of the arms on this machine whose processor was shared; empty when none was."""
    arms = {"the on-prem arm": comparison.on_prem, "the cloud arm": comparison.cloud}
    crowded = [
        name
        for name, arm in arms.items()
        if arm.environment in ("local", "embedded") and arm.cpu_share < LEAST_CPU_SHARE
    ]
    return " and ".join(crowded)
