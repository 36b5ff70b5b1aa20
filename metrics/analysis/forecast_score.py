"""One line of the table of scores: what a forecast said of medians, and what was measured."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

FULL_MB = 1769
TWO_SIDED = 0.975
DRAWS = 4001  # where an interval has to be simulated


@dataclass(frozen=True)
class Score:
    """One line of the table. Arrays of n medians: forecast, the interval's ends, and measured."""

    part: str
    fitted_on: str
    scored_on: str
    date: str
    forecast: np.ndarray
    low: np.ndarray
    high: np.ndarray
    measured: np.ndarray

    @property
    def error(self) -> float:
        """Mean absolute error, by what was measured."""
        return float(np.mean(np.abs(self.forecast / self.measured - 1)))

    @property
    def inside(self) -> float:
        """Share of the medians inside their 95% interval."""
        return float(np.mean((self.low <= self.measured) & (self.measured <= self.high)))


# --- the interval of a score --------------------------------------------------------------------
# A score may use no spread that was found on what it scores. So, where the fitted data are of one
# author: another median is taken to differ from theirs as two single ones of theirs differ.


def spread_of_two(singles: pd.Series) -> float:
    """Standard deviation of the logarithm of the ratio of two of these."""
    low, high = np.log(singles).quantile([0.16, 0.84])
    return math.sqrt(2) * (high - low) / 2


def with_interval(
    forecast: np.ndarray, log_sd: float | np.ndarray, degrees: float = math.inf
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Forecast, low and high."""
    score = stats.norm.ppf(TWO_SIDED) if math.isinf(degrees) else stats.t.ppf(TWO_SIDED, degrees)
    width = np.exp(score * np.asarray(log_sd))
    return forecast, forecast / width, forecast * width


def by_rule(full_ms: np.ndarray, memory_mb: np.ndarray) -> np.ndarray:
    return full_ms * np.maximum(1, FULL_MB / memory_mb)


def table(found: list[Score]) -> list[str]:
    """In Markdown, so that a README can have it."""
    lines = [
        "| Part | Fitted on | Scored on | Date | n | Mean absolute error | Inside the interval |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for score in found:
        cells = (
            *(score.part, score.fitted_on, score.scored_on, score.date),
            f"{len(score.measured):,}",
            f"{score.error:.1%}" if score.error < 0.1 else f"{score.error:.0%}",
            f"{score.inside:.0%}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    medians = sum(len(score.measured) for score in found)
    inside = sum(score.inside * len(score.measured) for score in found) / medians
    return [*lines, f"| all | | | | {medians:,} | | {inside:.0%} |"]
