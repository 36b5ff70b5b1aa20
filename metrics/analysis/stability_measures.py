"""Stability of an arm in numbers with intervals; stability.py has the warnings.

All but the shares are about residuals (see stability.py): what a picture's time was beyond what was
to be expected of it, so that a mix of large and small pictures does not look like instability.
Each round gives a value; the measure is their geometric mean, and its interval is Student's t over
the rounds. Shares have an exact binomial interval (Clopper and Pearson, 1934), as if each row were
independent of the others: pictures that fail in every round make it too narrow.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from metrics.analysis.cost import Bill
from metrics.analysis.interval import CONFIDENCE, MAX_LOG, estimate_ratio
from metrics.analysis.stability import MIN_PLACE_SD, beyond_expected, place_in_pass, residuals
from metrics.common.text import digits

MIN_VALUES = 5  # of fewer times, a round's spread or slope says nothing
MIN_ROUNDS_FOR_SPREAD = 3
PER_1000 = 1000
TOO_LARGE = 10_000  # to be worth a number


@dataclass(frozen=True)
class Measure:
    """A number and the ends of its interval; NaN where unknown, and then `note` says why."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    note: str = ""


@dataclass(frozen=True)
class Kind:
    """How a measure is shown: `value * scale` and the unit behind it."""

    label: str
    unit: str
    scale: float = 1.0
    signed: bool = False


KINDS = {
    "cv": Kind("coefficient of variation", "%", 100),
    "drift_in_round": Kind("drift, first to last of a round", "%", 100, signed=True),
    "drift_over_run": Kind("drift, first to last round", "%", 100, signed=True),
    "tail_ratio": Kind("tail ratio, p99/p50", "x"),
    "cold_start_share": Kind("cold starts", "%", 100),
    "failures_per_1000": Kind("failures per 1,000 rows", ""),
    "retries_per_1000": Kind("retries per 1,000 tries", ""),
}


def measures_of(
    rows: pd.DataFrame,
    source: str,
    contents: pd.Series | None = None,
    bill: Bill | None = None,
) -> dict[str, Measure]:
    """Measures of an arm by the names in KINDS, from the rows that count (with `begin_s`).
    `contents` by image key: copies of a picture that fail in a round are one failure.

    `cv` is the spread of a picture's times over the rounds, `tail_ratio` how much longer beyond
    their expectation the slowest hundredth took than the middle one (of under 70 pictures or so,
    the slowest one); both within a round. Drifts are parts of 1, above 0 where the arm became
    slower. Retries of the cloud are known from its `bill`.
    """
    done = rows[rows["status"] == "ok"]
    place = beyond_expected(place_in_pass(done), done)
    known = done[["image_key", "round", "proc_ms"]].assign(residual=residuals(done), place=place)
    return {
        "cv": _over_rounds(known, _log_cv),
        "drift_in_round": _minus_1(_over_rounds(known, _slope, unknown="the order tells nothing")),
        "drift_over_run": _minus_1(_drift_over_run(known)),
        "tail_ratio": _at_least_1(_over_rounds(known, _log_tail)),
        "cold_start_share": _cold_starts(rows),
        "failures_per_1000": _failures(rows, contents),
        "retries_per_1000": _retries(source, bill),
    }


def _retries(source: str, bill: Bill | None) -> Measure:
    """Tries that were not a request's first, per 1,000 tries with a REPORT line."""
    if source != "cloud":
        return Measure(note="never retries")
    if bill is None:
        return Measure(note="no log lines")
    return share(bill.retries, bill.reported + bill.retries, PER_1000)


def share(count: int, of: int, scale: float = 1.0) -> Measure:
    """`count` of so many, times `scale`."""
    if of == 0:
        return Measure(note="no row")
    ends = stats.binomtest(int(count), int(of)).proportion_ci(CONFIDENCE, method="exact")
    return Measure(*(scale * float(part) for part in (count / of, ends.low, ends.high)))


def _failures(rows: pd.DataFrame, contents: pd.Series | None) -> Measure:
    failed = rows["status"] != "ok"
    if contents is not None and contents.nunique() < len(contents):
        failed = failed.groupby([rows["image_key"].map(contents), rows["round"]]).any()
    return share(failed.sum(), len(failed), PER_1000)


def _cold_starts(rows: pd.DataFrame) -> Measure:
    told = rows[rows["environment"] != ""]  # a file from elsewhere has no such column
    if len(rows) and told.empty:
        return Measure(note="not in the file")
    return share(told["cold_start"].sum(), len(told))


def measure_text(measure: Measure, kind: Kind) -> str:
    """The number and its interval, or why there is none."""
    if math.isnan(measure.value):
        return measure.note
    ends = f"{_written(measure.low, kind)} to {_written(measure.high, kind)}"
    return f"{_written(measure.value, kind)}{kind.unit} ({measure.note or ends})"


def _written(number: float, kind: Kind) -> str:
    scaled = kind.scale * number
    if abs(scaled) >= TOO_LARGE:
        return f"over {TOO_LARGE:,}"
    text = digits(scaled, max_decimals=2)
    return f"+{text}" if kind.signed and not text.startswith("-") else text


# --- values by round ----------------------------------------------------------------------------


def _over_rounds(known: pd.DataFrame, log_value, unknown: str = "too few times") -> Measure:
    """Geometric mean over the rounds of what `log_value` finds in each.

    A residual holds a part 1/R of each round, its own among them, which makes R rounds look alike:
    their differences are (R - 2) / (R - 1) of what they would be, and are stretched to that again.
    """
    rounds = known["round"].nunique()
    known = known[known["residual"].notna()]
    logs = np.array([log_value(part) for _, part in known.groupby("round")], dtype=float)
    logs = logs[~np.isnan(logs)]
    if len(logs) == 0:
        return Measure(note=unknown if len(known) else "too few times")
    value = _exp(logs.mean())
    if (why := _too_few(rounds)) or len(logs) < MIN_ROUNDS_FOR_SPREAD:
        return Measure(value, note=why or "rounds with gaps")
    if np.isinf(logs).any():
        return Measure(value, note="no spread at all")
    estimate = estimate_ratio(logs[None, :])
    stretch = (rounds - 1) / (rounds - 2)
    estimate = replace(estimate, v_rounds=estimate.v_rounds * stretch**2)
    return Measure(estimate.ratio, estimate.low, estimate.high)


def _too_few(rounds: int) -> str:
    """Why there is no interval, when it is for want of rounds."""
    return {0: "no picture", 1: "one round", 2: "two rounds"}.get(rounds, "")


def _log_cv(part: pd.DataFrame) -> float:
    """Of times whose logarithms are normal."""
    if len(part) < MIN_VALUES:
        return math.nan
    variance = min(part["residual"].var(), MAX_LOG)
    return math.log(math.expm1(variance)) / 2 if variance > 0 else -math.inf


def _log_tail(part: pd.DataFrame) -> float:
    if len(part) < MIN_VALUES:
        return math.nan
    # The usual estimator's p99 is too small for some hundred times: about their second largest.
    middle, slowest = np.quantile(part["residual"], [0.50, 0.99], method="median_unbiased")
    return slowest - middle


def _slope(part: pd.DataFrame) -> float:
    """Change of the residual over a pass; unknown where every round had about the same order."""
    part = part[part["place"].notna()]
    if len(part) < MIN_VALUES or part["place"].std() < MIN_PLACE_SD:
        return math.nan
    return stats.linregress(part["place"], part["residual"]).slope


def _drift_over_run(known: pd.DataFrame) -> Measure:
    """A line through the rounds' geometric means of the pictures that are in all of them."""
    rounds = known["round"].nunique()
    if rounds < 2:
        return Measure(note=_too_few(rounds))
    in_all = known.groupby("image_key")["round"].transform("nunique") == rounds
    means = np.log(known["proc_ms"][in_all]).groupby(known["round"][in_all]).mean()
    if means.empty:
        return Measure(note="rounds with gaps")
    step = np.arange(rounds) / (rounds - 1)
    line = stats.linregress(step, means)
    if why := _too_few(rounds):
        return Measure(_exp(line.slope), note=why)
    stderr = np.nan_to_num(line.stderr)  # of equal means it is NaN
    half = stats.t.isf((1 - CONFIDENCE) / 2, rounds - 2) * stderr
    return Measure(*map(_exp, (line.slope, line.slope - half, line.slope + half)))


def _exp(log: float) -> float:
    return math.exp(min(log, MAX_LOG))


def _at_least_1(tail: Measure) -> Measure:
    """No hundredth is faster than the middle, though the interval knows nothing of that."""
    return replace(tail, low=1.0) if tail.low < 1 else tail


def _minus_1(ratio: Measure) -> Measure:
    return Measure(ratio.value - 1, ratio.low - 1, ratio.high - 1, ratio.note)
