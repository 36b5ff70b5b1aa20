"""Passes during which a clock was set or the machine slept: their rows tell no makespan.

A makespan is the distance of timestamps that several processes or machines took, so by wall clocks.
Each step of the run record has its begin and end by the wall clock and its duration by the
monotonic one, which nobody sets. Where the two differ, or where the rows of a pass lie further
apart than its steps lasted, the timestamps are not to be trusted. (Times of single pictures are by
the monotonic clock.)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from metrics.analysis.rounds import place_of_pass
from metrics.common.findings import Finding

STEPS_OF_PASS = {"on_prem": ("on-prem",), "cloud": ("upload", "wait")}
TOLERANCE_S = 0.1  # services that keep clocks right set them by more, or let them run faster
TOLERANCE = 0.001  # of the duration: twice as fast as clocks are made to run, as a rule


@dataclass(frozen=True)
class Jump:
    """`arm` is its name in the comparison."""

    arm: str
    round: int
    text: str

    @property
    def finding(self) -> Finding:
        advice = "its whole-job time does not count; times per picture do"
        return Finding(self.text, advice=advice)


def clock_jumps(record: dict, spans: dict[str, pd.Series], is_aa: bool) -> list[Jump]:
    """What the record and the rows tell of clocks that jumped. `spans` are, by the arms' names, the
    rounds' makespans in seconds by the rows' timestamps."""
    jumps, names, passes = [], list(spans), {}
    for step in record.get("steps", []):
        for source, steps in STEPS_OF_PASS.items():
            if step["step"] in steps:
                passes.setdefault((source, step.get("round") or 1), []).append(step)
    for (source, number), steps in passes.items():
        place, number_of_round = place_of_pass(number) if is_aa else (source == "cloud", number)
        arm = names[place]
        texts = [text for step in steps for text in _jumps_of_step(step)]
        if not (texts or record.get("resumed_at")):  # rows may be of a part that was interrupted
            texts = _too_far_apart(steps, spans[arm].get(number_of_round))
        jumps += [Jump(arm, number_of_round, text) for text in texts]
    return jumps


def _jumps_of_step(step: dict) -> Iterator[str]:
    slept_s = step.get("suspended_s") or 0
    if slept_s > TOLERANCE_S:
        yield f"{name_of(step)}: the machine slept for {slept_s:,.1f} s"
    passed_s = _wall_s(step)
    if passed_s is None:
        return
    duration_s = step.get("duration_s")
    if duration_s is None:  # a record of an earlier version
        duration_s = max(0.0, passed_s)
    set_s = passed_s - duration_s - slept_s
    if abs(set_s) > _tolerance_s(duration_s):
        way = "forward" if set_s > 0 else "back"
        yield f"{name_of(step)}: the clock was set {way} by {abs(set_s):,.1f} s"


def _too_far_apart(steps: list[dict], span_s: float | None) -> list[str]:
    known = [_duration_s(step) for step in steps]
    if span_s is None or None in known:
        return []
    duration_s = sum(known)
    if not span_s > duration_s + _tolerance_s(duration_s):  # NaN where timestamps are unknown
        return []
    names = " and ".join(dict.fromkeys(step["step"] for step in steps))
    names = name_of(steps[0] | {"step": names})
    return [
        f"{names}: a clock was set, by which the rows are {span_s:,.1f} s apart where "
        f"{duration_s:,.1f} s passed"
    ]


def name_of(step: dict) -> str:
    """`wait (round 2)`."""
    return step["step"] + (f" (round {step['round']})" if step.get("round") else "")


def _tolerance_s(duration_s: float) -> float:
    return max(TOLERANCE_S, TOLERANCE * duration_s)


def _duration_s(step: dict) -> float | None:
    duration_s = step.get("duration_s")
    return _wall_s(step) if duration_s is None else duration_s + (step.get("suspended_s") or 0)


def _wall_s(step: dict) -> float | None:
    """From begin to end by the wall clock; None where that is not known."""
    try:
        end, start = (datetime.fromisoformat(step[name]) for name in ("end", "start"))
        return (end - start).total_seconds()
    except (KeyError, TypeError, ValueError):
        return None
