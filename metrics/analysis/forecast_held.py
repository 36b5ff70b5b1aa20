"""A forecast held against what a run on AWS measured, part by part."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from metrics.analysis.forecast import Forecast, Interval
from metrics.analysis.forecast_job import FROM_HERE


@dataclass(frozen=True)
class HeldPart:
    """`measured` in the unit that `name` ends in; NaN where the run does not tell."""

    name: str
    forecast: Interval
    measured: float

    @property
    def error(self) -> float:
        """Of the forecast, as a part of what was measured."""
        return self.forecast.value / self.measured - 1

    @property
    def is_inside(self) -> bool:
        return self.forecast.low <= self.measured <= self.forecast.high


def held_against(
    found: Forecast,
    rows: pd.DataFrame,
    makespans_s: list[float],
    event_ms: np.ndarray,
    init_ms: np.ndarray,
    usd: float = math.nan,
) -> list[HeldPart]:
    """`rows`: the cloud arm's, of the forecast's memory size. `makespans_s`: of rounds that began
    without environments (the first), from the first upload on. `usd`: cost of the work, of one
    round. What is not known is left out."""
    done = rows[rows["status"] == "ok"]
    warm = done[~done["cold_start"]]
    stages = {name: _mean(warm[f"{name}_ms"]) for name in ("fetch", "store")}
    stages |= {"transform": _mean(done["proc_ms"]), "event": _mean(event_ms)}
    parts = [
        HeldPart(f"{name}, ms", found.stages_ms[name], measured)
        for name, measured in stages.items()
    ]
    cold_ms = _mean(init_ms) + _mean(done.loc[done["cold_start"], "fetch_ms"]) - stages["fetch"]
    parts.append(HeldPart("cold start, ms", found.stages_ms["cold start"], cold_ms))
    if FROM_HERE in found.job_s:
        parts.append(HeldPart("whole job, s", found.job_s[FROM_HERE], _mean(makespans_s)))
        parts.append(HeldPart("cost of the work, USD", found.cost_usd[FROM_HERE], usd))
    return [part for part in parts if math.isfinite(part.measured) and part.measured > 0]


def _mean(values: object) -> float:
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) else math.nan


def held_lines(parts: list[HeldPart]) -> list[str]:
    """A table: each part as forecast, as measured, and the error."""
    if not parts:
        return ["the forecast cannot be held against this run: it has no times of AWS"]
    width = max(len(part.name) for part in parts)
    lines = [f"{'held against AWS':<{width}}{'forecast':>12}{'95% interval':>22}{'measured':>12}"]
    lines[0] += f"{'error':>8}"
    for part in parts:
        ends = f"{part.forecast.low:.4g} to {part.forecast.high:.4g}"
        outside = "" if part.is_inside else "  outside"
        lines.append(
            f"{part.name:<{width}}{part.forecast.value:>12.4g}{ends:>22}{part.measured:>12.4g}"
            f"{part.error:>+8.0%}{outside}"
        )
    return lines
