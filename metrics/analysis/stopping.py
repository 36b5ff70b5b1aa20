"""When to stop adding rounds, and how many an experiment needs."""

import math
from dataclasses import dataclass

from metrics.analysis.interval import POWER, RatioEstimate
from metrics.analysis.rounds import MIN_ROUNDS
from metrics.common.text import counted, counted_pictures, difference

MAX_PLANNED_ROUNDS = 200  # that a plan looks at
MORE_PICTURES = (1, 2, 4)  # times as many as the pilot had


@dataclass(frozen=True)
class Limits:
    """What ends a run that adds rounds: the interval's half-width as a part of the ratio, or
    rounds, seconds and expected USD, whichever comes first. None: no such limit."""

    half_width: float
    max_rounds: int
    max_time_s: float | None = None
    max_usd: float | None = None


def half_width(estimate: RatioEstimate) -> float:
    """From the ratio to the interval's upper end, as a part of the ratio: 0.05 is 5%."""
    return math.expm1(estimate.log_half_width)


def reason_to_stop(
    limits: Limits, rounds: int, estimate: RatioEstimate | None, time_s: float, usd: float
) -> str:
    """Why no round is to follow the `rounds` done; empty when one is. `time_s` and `usd` are what
    it would have come to after that one."""
    width = half_width(estimate) if estimate else math.inf
    if rounds >= MIN_ROUNDS and width <= limits.half_width:
        return f"the interval is ±{width:.1%}, within ±{limits.half_width:.1%}"
    if rounds >= limits.max_rounds:
        return f"--max-rounds {limits.max_rounds} is reached; {_still(width, limits)}"
    if limits.max_time_s is not None and time_s > limits.max_time_s:
        return (
            f"another round would exceed --max-time {limits.max_time_s:g}; {_still(width, limits)}"
        )
    if limits.max_usd is not None and usd > limits.max_usd:
        return f"another round would exceed --max-cost {limits.max_usd:g}; {_still(width, limits)}"
    return ""


def _still(width: float, limits: Limits) -> str:
    if not math.isfinite(width):
        return "there is no interval"
    return f"the interval is ±{width:.1%}, and not within ±{limits.half_width:.1%}"


def plan_lines(pilot: RatioEstimate, wanted: float) -> list[str]:
    """How many pictures and rounds find a difference of `wanted` (0.05 is 5%) with probability
    POWER, if the spread stays what it was in the pilot run."""
    of = f"{counted_pictures(pilot.pictures, pilot.copies)} x {counted(pilot.rounds, 'round')}"
    noun = "different picture" if pilot.copies else "picture"
    lines = [
        f"to find a difference of {difference(wanted)} in {POWER:.0%} of such experiments, "
        f"by the spread of this one ({of}):"
    ]
    for times in MORE_PICTURES:
        rounds = rounds_needed(pilot.with_pictures(times * pilot.pictures), wanted)
        enough = (
            counted(rounds, "round") if rounds else f"not with {MAX_PLANNED_ROUNDS} rounds either"
        )
        lines.append(f"  {counted(times * pilot.pictures, noun)}: {enough}")
    if pilot.rounds == 1:
        lines.append("  (one round says nothing about drift: a typical one is assumed)")
    return lines


def rounds_needed(pilot: RatioEstimate, wanted: float) -> int | None:
    """The fewest rounds, 2 at least, that find such a difference; None if none is enough."""
    for rounds in range(2, MAX_PLANNED_ROUNDS + 1):
        if pilot.with_rounds(rounds).detectable_difference <= wanted:
            return rounds
    return None
