"""What follows from the points of a sweep: each a run that was compared by itself, in rounds.

An interval is over the rounds of a point. Points were measured one after the other, so what differs
between them carries the drift of the machine in between, too; the two arms of one point do not.
"""

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from metrics.analysis.comparison import Comparison
from metrics.analysis.cost import usd_by_round
from metrics.analysis.interval import CONFIDENCE, RatioEstimate, geometric_mean_ci
from metrics.analysis.sweep import MEMORY, PARALLELISM, SCALE, Setting
from metrics.collect.invocations import duration_by_round
from metrics.common.text import counted, digits, percent

GRID = 2000  # places between two neighbouring points at which the crossing is looked for


@dataclass(frozen=True)
class Point:
    """A setting and what came of it. `times_ms` (of a picture) and `costs_usd` (of 1,000) are by
    round, and empty without REPORT lines."""

    setting: Setting
    comparison: Comparison
    times_ms: np.ndarray
    costs_usd: np.ndarray

    @property
    def is_complete(self) -> bool:
        """Whether every row is there, of the right memory, and the arms did the same: else it
        proves nothing."""
        return not self.why_incomplete

    @property
    def why_incomplete(self) -> str:
        if self.comparison.problems:
            return str(self.comparison.problems[0])
        if self.comparison.is_partial:
            return "rows are missing"
        rows = self.comparison.rows[self.comparison.second.name]
        had = set(pd.to_numeric(rows["memory_mb"], errors="coerce"))
        if self.setting.memory_mb and had != {self.setting.memory_mb}:
            return "rows of a function with another memory"
        return ""

    def makespan(self, arm: str) -> RatioEstimate | None:
        """In seconds."""
        spans = np.array(self.comparison.summaries[arm].makespans_s)
        return geometric_mean_ci(spans[~np.isnan(spans)], self.comparison.sequential)

    @property
    def ratio(self) -> RatioEstimate | None:
        """Of the makespans, cloud / on-prem, round by round: what drift both arms share cancels."""
        first, second = self.comparison.first.makespans_s, self.comparison.second.makespans_s
        if len(first) != len(second):
            return None
        ratios = np.array(second) / np.array(first)
        return geometric_mean_ci(ratios[~np.isnan(ratios)], self.comparison.sequential)

    @property
    def time_ms(self) -> RatioEstimate | None:
        """The function's duration for a picture, without cold starts."""
        return geometric_mean_ci(self.times_ms, self.comparison.sequential)

    @property
    def cost_usd(self) -> RatioEstimate | None:
        """Of 1,000 pictures, S3 requests and the rest of the bill included."""
        return geometric_mean_ci(self.costs_usd, self.comparison.sequential)

    @property
    def product(self) -> RatioEstimate | None:
        """Time x cost, round by round: both follow from the same durations."""
        return geometric_mean_ci(self.times_ms * self.costs_usd, self.comparison.sequential)


def point_of(setting: Setting, comparison: Comparison, invocations: pd.DataFrame | None) -> Point:
    """From a run, and what Lambda measured of it in every round."""
    rows = comparison.rows[comparison.second.name]
    times_ms = None if invocations is None else duration_by_round(rows, invocations)
    if times_ms is None:
        return Point(setting, comparison, np.array([]), np.array([]))
    usd = usd_by_round(rows, invocations)
    costs_usd = np.array([1000 * usd[number] for number in times_ms.index])
    return Point(setting, comparison, times_ms.to_numpy(), costs_usd)


@dataclass(frozen=True)
class Sweep:
    """One sweep as a reader meets it: the answer in a sentence or two, and a table of text."""

    kind: str
    question: str
    answer: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    points: tuple[Point, ...]

    @property
    def broken(self) -> list[str]:
        """Points that are not whole, and why."""
        return [
            f"{named(point.setting)}: {point.why_incomplete}"
            for point in self.points
            if not point.is_complete
        ]


ONE = RatioEstimate(1, 2, 0.0, 0.0, 0.0, 1.0)  # exactly: what something is to itself


def quotient(upper: RatioEstimate, lower: RatioEstimate) -> RatioEstimate:
    """Of two estimates from different moments."""
    return RatioEstimate(
        pictures=1,
        rounds=_rounds_of_both(upper, lower),
        log_ratio=upper.log_ratio - lower.log_ratio,
        v_rounds=upper.v_rounds + lower.v_rounds,
        v_pictures=0.0,
        drift_margin=max(upper.drift_margin, lower.drift_margin),
    )


def _rounds_of_both(upper: RatioEstimate, lower: RatioEstimate) -> int:
    """The fewer, whose spread is the less certain; one round has no spread, but an drift_margin."""
    fewer, more = sorted((upper.rounds, lower.rounds))
    return fewer if fewer > 1 else more


def sweeps_of(points: list[Point]) -> list[Sweep]:
    """The comparison itself, which is the last point, belongs to each of them, unless one has just
    what it has."""
    *kept, itself = points
    found = []
    for kind, describe in ((SCALE, scale), (PARALLELISM, parallelism), (MEMORY, memory)):
        own = {place(kind, point): point for point in kept if point.setting.kind == kind}
        if own:
            own.setdefault(place(kind, itself), itself)
            found.append(describe([point for _, point in sorted(own.items())]))
    return found


def place(kind: str, point: Point) -> float:
    """Where a point stands in its sweep."""
    if kind == SCALE:
        return point.setting.pictures
    if kind == MEMORY:
        return memory_mb(point)
    return point.setting.workers + (point.setting.concurrency or 0) / 1e6


def memory_mb(point: Point) -> float:
    rows = point.comparison.rows[point.comparison.second.name]
    return point.setting.memory_mb or float(pd.to_numeric(rows["memory_mb"]).max())


def named(setting: Setting) -> str:
    if setting.kind == MEMORY:
        return f"{setting.memory_mb:,} MB"
    if setting.kind == PARALLELISM:
        return f"{setting.workers} workers, {setting.concurrency or 'as many as come'} environments"
    return counted(setting.pictures, "picture")


# --- scale --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Crossing:
    """From how many pictures on the cloud is done first (`then_cloud`) or on-prem; below `low` and
    above `high` it is told which."""

    pictures: float
    low: float
    high: float
    then_cloud: bool


def crossings(points: list[Point]) -> list[Crossing]:
    """Where the ratio of the makespans passes 1, between points in a straight line of its logarithm
    against that of the number of pictures. The interval holds the places where 1 cannot be told
    from the ratio there (a test at each, turned around). Only between places where it can be told,
    to either side: else noise alone would cross."""
    known = [(p.setting.pictures, p.ratio) for p in points if p.is_complete and p.ratio]
    if len(known) < 2:
        return []
    logs = np.log([n for n, _ in known])
    spans = itertools.pairwise(logs)
    at = np.unique(np.concatenate([np.linspace(*span, GRID) for span in spans]))
    middle = np.interp(at, logs, [ratio.log_ratio for _, ratio in known])
    told = np.flatnonzero(np.abs(middle) > half_widths(at, logs, [ratio for _, ratio in known]))
    found = []
    for low, high in itertools.pairwise(told):
        if middle[low] * middle[high] < 0:
            passes = np.flatnonzero(middle[low:high] * middle[low + 1 : high + 1] <= 0) + low
            between = math.exp(at[passes].mean())
            then_cloud = bool(middle[high] < 0)
            found.append(Crossing(between, math.exp(at[low]), math.exp(at[high]), then_cloud))
    return found


def half_widths(at: np.ndarray, logs: np.ndarray, ratios: list[RatioEstimate]) -> np.ndarray:
    """Half the interval of the ratio's logarithm at places between the points: the variances of
    the neighbours by their weights, with Satterthwaite's degrees of freedom."""
    right = np.clip(np.searchsorted(logs, at), 1, len(logs) - 1)
    weight = (at - logs[right - 1]) / (logs[right] - logs[right - 1])
    variances = np.array([ratio.v_rounds for ratio in ratios])
    df = np.array([max(ratio.rounds - 1, 1) for ratio in ratios])
    drift_margin = np.array([math.log(ratio.drift_margin) for ratio in ratios])
    parts = np.array([(1 - weight) ** 2 * variances[right - 1], weight**2 * variances[right]])
    total = parts.sum(axis=0)
    squares = (parts**2 / np.array([df[right - 1], df[right]])).sum(axis=0)
    freedom = np.where(squares > 0, total**2 / np.where(squares > 0, squares, 1), 1)
    critical = stats.t.isf((1 - CONFIDENCE) / 2, freedom)
    drift = np.maximum(drift_margin[right - 1], drift_margin[right])
    return critical * np.sqrt(total) + drift


def scale(points: list[Point]) -> Sweep:
    first, second = points[-1].comparison.first, points[-1].comparison.second
    lines = []
    for point in points:
        n, spans = point.setting.pictures, [point.makespan(arm.name) for arm in (first, second)]
        per_s = [None if span is None else rate(n, span) for span in spans]
        lines.append(
            (
                f"{n:,}",
                *(interval_text(span) for span in spans),
                *map(interval_text, per_s),
                interval_text(point.ratio),
                state(point),
            )
        )
    return Sweep(
        kind=SCALE,
        question="Scale: how do the arms grow with the number of pictures?",
        answer=scale_sentence(points),
        columns=(
            "pictures",
            f"makespan s, {first.label}",
            f"makespan s, {second.label}",
            f"pictures/s, {first.label}",
            f"pictures/s, {second.label}",
            "ratio of makespans",
            "rows",
        ),
        lines=tuple(lines),
        points=tuple(points),
    )


def rate(pictures: int, makespan_s: RatioEstimate) -> RatioEstimate:
    """Pictures a second."""
    return replace(makespan_s, log_ratio=math.log(pictures) - makespan_s.log_ratio)


def scale_sentence(points: list[Point]) -> str:
    whole = [p for p in points if p.is_complete and p.ratio]
    if len(whole) < 2:
        return "cannot tell how the arms grow: fewer than two points are whole"
    first, second = whole[-1].comparison.first.label, whole[-1].comparison.second.label
    low, high = whole[0].setting.pictures, whole[-1].setting.pictures
    found = crossings(points)
    if not found:
        return _no_crossing(whole)
    if len(found) > 1:
        numbers = ", ".join(f"{crossing.pictures:,.0f}" for crossing in found)
        return (
            f"the arms change places {len(found)} times between {low:,} and {high:,} pictures "
            f"(near {numbers}): which is done first does not depend on their number alone"
        )
    (only,) = found
    return (
        f"from {only.pictures:,.0f} pictures on ({CONFIDENCE:.0%} CI {only.low:,.0f} to "
        f"{only.high:,.0f}) {second if only.then_cloud else first} finishes first"
    )


def _no_crossing(whole: list[Point]) -> str:
    """Who leads where that can be told, and where it cannot."""
    first, second = whole[-1].comparison.first.label, whole[-1].comparison.second.label
    told = [p for p in whole if not p.ratio.includes_1]
    unknown = [p for p in whole if p.ratio.includes_1]
    span = f"between {whole[0].setting.pictures:,} and {whole[-1].setting.pictures:,} pictures"
    if not told:
        return f"cannot tell which is done first {span}"
    leader = second if told[-1].ratio.ratio < 1 else first
    if not unknown:
        return f"no crossing {span}: {leader} is done first throughout"
    return (
        f"no crossing is seen {span}: {leader} is done first with {_numbers(told)}, which it is "
        f"with {_numbers(unknown)} cannot be told"
    )


def _numbers(points: list[Point]) -> str:
    return ", ".join(f"{point.setting.pictures:,}" for point in points)


# --- parallelism --------------------------------------------------------------------------------


def speed_ups(points: list[Point], arm: str) -> list[tuple[int, RatioEstimate, RatioEstimate]]:
    """Parallelism of an arm, how many times sooner it is done than with the least, and efficiency:
    the speed-up over the increase in parallelism. Only whole points, each parallelism once."""
    by_number: dict[int, Point] = {}
    for point in points:
        number = point.setting.workers if arm == "on_prem" else point.setting.concurrency
        if number and point.is_complete and point.makespan(arm):
            by_number.setdefault(number, point)
    if not by_number:
        return []
    least = min(by_number)
    base = by_number[least].makespan(arm)
    found = []
    for number, point in sorted(by_number.items()):
        own = point.makespan(arm)
        gain = ONE if number == least else quotient(base, own)
        efficiency = replace(gain, log_ratio=gain.log_ratio - math.log(number / least))
        found.append((number, gain, efficiency))
    return found


def parallelism(points: list[Point]) -> Sweep:
    arms = points[-1].comparison.arms
    lines, said = [], []
    for arm in arms:
        gains = speed_ups(points, arm.name)
        for number, gain, efficiency in gains:
            texts = interval_text(gain), interval_text(efficiency)
            lines.append((arm.label, f"{number:,}", *texts))
        if len(gains) > 1:
            number, gain, efficiency = gains[-1]
            if gain.includes_1:
                said.append(
                    f"{arm.label}: cannot tell whether {number} at once are faster than "
                    f"{gains[0][0]} ({interval_text(gain)} times)"
                )
            else:
                said.append(
                    f"{arm.label}: {number} at once are {interval_text(gain)} times as fast as "
                    f"{gains[0][0]}, an efficiency of {efficiency.ratio:.0%}"
                )
    return Sweep(
        kind=PARALLELISM,
        question="Parallelism: what do more at once bring?",
        answer="; ".join(said) or "cannot tell what more at once bring: no two points are whole",
        columns=("arm", "at once", "speed-up", "efficiency"),
        lines=tuple(lines),
        points=tuple(points),
    )


# --- memory -------------------------------------------------------------------------------------


def memory(points: list[Point]) -> Sweep:
    lines = [
        (
            f"{memory_mb(point):,.0f} MB",
            interval_text(point.time_ms),
            interval_text(point.cost_usd),
            interval_text(point.product),
            interval_text(point.makespan(point.comparison.second.name)),
            state(point),
        )
        for point in points
    ]
    return Sweep(
        kind=MEMORY,
        question="Memory: which size of the function is fastest, cheapest, balanced?",
        answer=memory_sentence(points),
        columns=(
            "memory",
            "ms a picture",
            "USD per 1,000 pictures",
            "time x cost",
            "makespan s",
            "rows",
        ),
        lines=tuple(lines),
        points=tuple(points),
    )


def memory_sentence(points: list[Point]) -> str:
    whole = [p for p in points if p.is_complete and p.time_ms and p.cost_usd]
    if len(whole) < 2:
        return "cannot tell which memory is best: fewer than two points are whole and reported"
    said = []
    for word, measure in (
        ("fastest", lambda p: p.time_ms),
        ("cheapest", lambda p: p.cost_usd),
        ("balanced (least time x cost)", lambda p: p.product),
    ):
        best, *others = sorted(whole, key=lambda p: measure(p).log_ratio)
        alike = [p for p in others if quotient(measure(p), measure(best)).includes_1]
        tied = f", not told from {_sizes(alike)}" if alike else ""
        said.append(f"{word}: {memory_mb(best):,.0f} MB{tied}")
    return "; ".join(said)


def _sizes(points: list[Point]) -> str:
    return " and ".join(f"{memory_mb(point):,.0f} MB" for point in points)


# --- text ---------------------------------------------------------------------------------------


def interval_text(estimate: RatioEstimate | None) -> str:
    """`1.23 (1.20 to 1.26)`."""
    if estimate is None:
        return "unknown"
    if estimate == ONE:
        return "1"
    return f"{digits(estimate.ratio)} ({digits(estimate.low)} to {digits(estimate.high)})"


def state(point: Point) -> str:
    if point.comparison.problems:
        return "not comparable"
    return "all" if point.is_complete else percent(point.comparison.ledger.completeness)
