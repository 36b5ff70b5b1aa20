"""Was the measurement stable? Warnings that say what to do next, as pyperf does.

Vocabulary
    residual    log of a picture's time over what was to be expected of it: with several rounds, the
                mean of the same picture in the same arm; with one, the median of the pictures next
                to it in size
    spread      standard deviation of the residuals, from their interquartile range
    drift       change of the residual from a pass's first picture to its last
"""

import math

import numpy as np
import pandas as pd
from scipy import stats

from lambda_function.emulator.cpu_quota import FULL_VCPU_MB
from metrics.analysis.clock_jumps import name_of
from metrics.common.findings import NAMED_AT_MOST, Finding
from metrics.common.text import counted, printable

MAX_SPREAD = 0.10  # pyperf's limit, too
MAX_DRIFT = 0.05
DRIFT_P = 0.01
MIN_PLACE_SD = 0.1  # of places in a pass: two rounds have one order, which tells nothing of drift
FEW_PICTURES = 20
NEIGHBOURS = 11  # pictures of like size that one is held against
OUTLIER_SPREADS = 6.0
OUTLIER_FACTOR = 1.5  # and at least this much slower than expected
MIN_CPU_UTILISATION = 0.9
MAX_STEAL = 0.02
ON_THIS_MACHINE = ("local", "embedded")
IN_CLOUD = ("aws", "embedded")


def residuals(rows: pd.DataFrame) -> pd.Series:
    """Residuals of an arm's `ok` rows; NaN where nothing tells what was to be expected."""
    log_ms, log_size = np.log(rows["proc_ms"]), np.log(rows["orig_size"].clip(lower=1))
    if log_size.nunique() > 1:  # the largest picture has smaller neighbours only
        log_ms = log_ms - stats.linregress(log_size, log_ms).slope * log_size
    return beyond_expected(log_ms, rows, "median")


def beyond_expected(values: pd.Series, rows: pd.DataFrame, middle: str = "mean") -> pd.Series:
    """`values` less those of the same picture over the rounds, or of its neighbours in size."""
    if rows["round"].nunique() > 1:
        of_picture = values.groupby(rows["image_key"])
        count = of_picture.transform("count")
        # A mean of few rounds follows its own terms: without this the spread would look smaller.
        inflation = np.sqrt(count / (count - 1).where(count > 1))
        return (values - of_picture.transform("mean")) * inflation
    if len(rows) < NEIGHBOURS:
        return pd.Series(math.nan, index=rows.index)
    by_size = values[rows["orig_size"].sort_values(kind="stable").index]
    around = by_size.rolling(NEIGHBOURS, center=True, min_periods=NEIGHBOURS // 2 + 1)
    return (by_size - getattr(around, middle)()).reindex(rows.index)


def place_in_pass(rows: pd.DataFrame) -> pd.Series:
    """From 0, a pass's first picture, to 1, its last, by when each was begun."""
    rank = rows.groupby("round")["begin_s"].rank(method="first")
    count = rows.groupby("round")["begin_s"].transform("count")
    return (rank - 1) / (count - 1).clip(lower=1)


def warnings_of_arm(label: str, rows: pd.DataFrame) -> list[Finding]:
    """Warnings about one arm, from its `ok` rows (with `begin_s`)."""
    if rows.empty:
        return []
    residual = residuals(rows)
    rounds = rows["round"].nunique()
    return [
        *_spread(label, residual, rounds),
        *_drift_within(label, rows, residual),
        *_drift_between(label, rows),
        *_outliers(label, rows, residual),
        *_shared_processor(label, rows),
    ]


def spread(residual: pd.Series) -> float:
    """Robust standard deviation: a few outliers do not count, they are named on their own."""
    known = residual.dropna()
    return float(stats.iqr(known, scale="normal")) if len(known) > 1 else 0.0


def _spread(label: str, residual: pd.Series, rounds: int) -> list[Finding]:
    if (width := spread(residual)) <= MAX_SPREAD:
        return []
    if rounds > 1:
        text = f"{label}: times of the same picture spread by {width:.0%} from round to round"
        return [Finding(text, advice="end other work on the machine, and run more rounds")]
    text = f"{label}: times of like-sized pictures spread by {width:.0%}"
    return [Finding(text, advice="--rounds 4 tells whether the machine or the pictures do that")]


def _drift_within(label: str, rows: pd.DataFrame, residual: pd.Series) -> list[Finding]:
    # Less what is usual, like the residual: a picture that always comes early tells nothing.
    place = beyond_expected(place_in_pass(rows), rows)
    known = residual.notna() & place.notna()
    if known.sum() < FEW_PICTURES or place[known].std() < MIN_PLACE_SD:
        return []
    line = stats.linregress(place[known], residual[known])
    if line.pvalue >= DRIFT_P or abs(line.slope) < math.log1p(MAX_DRIFT):
        return []
    change = f"{abs(math.expm1(line.slope)):.0%} {'slower' if line.slope > 0 else 'faster'}"
    text = f"{label}: pictures became {change} from the first to the last of a pass"
    cause = "let the machine cool down" if line.slope > 0 else "let it settle before a run"
    return [Finding(text, advice=f"end other work, {cause}, or use more rounds")]


def _drift_between(label: str, rows: pd.DataFrame) -> list[Finding]:
    rounds_of_picture = rows.groupby("image_key")["round"].transform("nunique")
    complete = rows[rounds_of_picture == rows["round"].nunique()]
    mean = np.log(complete["proc_ms"]).groupby(complete["round"]).mean()
    if len(mean) < 2 or np.ptp(mean) < math.log1p(MAX_DRIFT):
        return []
    return [
        Finding(
            f"{label}: round {mean.idxmax()} took {math.expm1(np.ptp(mean)):.0%} longer per "
            f"picture than round {mean.idxmin()}",
            advice="the interval allows for it; more rounds narrow it",
        )
    ]


def _outliers(label: str, rows: pd.DataFrame, residual: pd.Series) -> list[Finding]:
    limit = max(OUTLIER_SPREADS * spread(residual), math.log(OUTLIER_FACTOR))
    slow = residual[residual > limit].sort_values(ascending=False)
    if slow.empty:
        return []
    names = list(dict.fromkeys(rows.loc[slow.index, "image_key"]))
    text = (
        f"{label}: {counted(len(slow), 'time')} at least {math.exp(slow.iloc[-1]):.1f}x as long as "
        "expected (kept)"
    )
    return [Finding(text, names, "see whether the same pictures stand out again in another run")]


def _shared_processor(label: str, rows: pd.DataFrame) -> list[Finding]:
    share = cpu_utilisation(rows)
    if is_throttled(rows):
        memory_mb = function_memory_mb(rows)
        text = (
            f"{label}: a function of {memory_mb:.0f} MB has {memory_mb / FULL_VCPU_MB:.0%} of a "
            "processor, and is throttled to it"
        )
        if not math.isnan(share):
            text += f" (CPU time is {share:.0%} of wall time)"
        return [Finding(text, advice=f"{FULL_VCPU_MB} MB give a whole one")]
    if not share < MIN_CPU_UTILISATION:
        return []
    return [
        Finding(
            f"{label}: CPU time is {share:.0%} of wall time: the processor was shared",
            advice="end other work; use no more workers or concurrency than processors",
        )
    ]


def is_throttled(rows: pd.DataFrame) -> bool:
    """Whether an arm is a function that has no whole processor, on AWS or in the embedded cloud."""
    in_cloud = rows["environment"].isin(IN_CLOUD).any()
    return bool(in_cloud and function_memory_mb(rows) < FULL_VCPU_MB)


def function_memory_mb(rows: pd.DataFrame) -> float:
    return float(pd.to_numeric(rows["memory_mb"], errors="coerce").max())


def cpu_utilisation(rows: pd.DataFrame) -> float:
    """CPU time as a part of wall time over `ok` rows; NaN for a file without CPU times."""
    known = rows[rows["cpu_ms"].notna()]
    return float(known["cpu_ms"].sum() / known["proc_ms"].sum()) if len(known) else math.nan


def was_resumed(record: dict) -> bool:
    """Whether the run was interrupted and went on later: a makespan may hold the pause."""
    return bool(record.get("resumed_at"))


def refused_events(counts: dict[str, int]) -> str:
    """What the function was called with and could not process, by reason."""
    parts = [f"{count:.0f} x {reason}" for reason, count in counts.items()]
    more = len(parts) - NAMED_AT_MOST
    text = "; ".join(map(printable, parts[:NAMED_AT_MOST])) + (f"; {more} more" if more > 0 else "")
    return f"the function refused {counted(int(sum(counts.values())), 'event')}: {text}"


def warnings_of_machine(record: dict) -> list[Finding]:
    """Warnings from what the run record saw of the machine and the cloud during the passes."""
    found = []
    if was_resumed(record):
        text = f"the run was interrupted and resumed on {record['resumed_at'][-1]}"
        advice = "drift over the pause counts in its round, and nothing is said of the whole job"
        found.append(Finding(text, advice=advice))
    ended = record.get("rounds_ended") or ""
    if ended and "and not within" in ended:
        found.append(Finding(f"--precision was not reached: {ended}", advice="allow more rounds"))
    if throttles := record.get("throttles"):
        text = f"the cloud: AWS throttled {counted(int(throttles), 'invocation')}"
        advice = "they ran later: raise the account's or the function's concurrency"
        found.append(Finding(text, advice=advice))
    refused = record.get("refused_events")
    if isinstance(refused, dict) and (refused := {why: n for why, n in refused.items() if n}):
        advice = "only the input bucket's own notification should call it"
        found.append(Finding(refused_events(refused), advice=advice))
    for step in record.get("steps", []):
        machine = step.get("machine") or {}
        name = name_of(step)
        if machine.get("steal_share", 0) > MAX_STEAL:
            text = f"{name}: other guests of the host took {machine['steal_share']:.0%} of the CPU"
            found.append(Finding(text, advice="use more rounds, or a machine of your own"))
        if machine.get("quota_throttled_ms", 0) > 0:
            text = f"{name}: the CPU quota stopped this container for "
            text += f"{machine['quota_throttled_ms']:.0f} ms"
            found.append(Finding(text, advice="raise the quota, or use fewer --workers"))
        if machine.get("thermal_throttles", 0) > 0:
            text = f"{name}: the CPU was slowed {machine['thermal_throttles']} times by its heat"
            found.append(Finding(text, advice="let it cool, and use more rounds"))
    return found
