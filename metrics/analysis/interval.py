"""How many times slower one arm is per picture, and how sure that is.

The data are log ratios d[i, r]: picture i, round r, log(time in B / time in A). A picture has an
effect of its own on the ratio, and so has a round: the machine's speed drifts between the two
passes. Both are drawn from what could have been (other pictures, other moments), so the mean's
uncertainty has two parts:

    v_rounds    mean square between rounds / (n R): drift between the passes, and noise
    v_pictures  (mean square between pictures - residual mean square) / (n R), at least 0

(the two-way crossed design without replication, Searle, Casella and McCulloch, Variance
Components, 1992, ch. 4). Two critical values are in use for a mean with such a sum of variances:
Student's t of Satterthwaite's degrees of freedom (1946), which makes the interval somewhat too
narrow here, and the weighted mean of the parts' own t (Cochran and Cox, Experimental Designs, 1957,
4.14), which makes it somewhat too wide. Half way between them the interval covers the truth in 95%
of simulated experiments over a wide range of noise, see tests/benchmarks/interval_coverage.py. With
two rounds Satterthwaite's is far too narrow, so Cochran's alone counts.

One round says nothing about drift, so its interval is widened by an allowance for it.

Who looks after each round, and stops once the interval is narrow, stops at rounds that happen to
resemble each other: the intervals would then cover the truth in 88 to 95% only. So nobody looks
before MIN_ROUNDS (rounds.py), and such an interval is wider by LOOKING, which makes it 94 to 96%
(simulated: tests/benchmarks/interval_coverage.py --precision). The stop depends on the width
alone, not on where the interval lies.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import optimize, stats

from metrics.common.text import rounded_alike

CONFIDENCE = 0.95
POWER = 0.80
MIN_PICTURES = 3  # of fewer, the bad luck of one picture decides the mean
# Two passes one after the other over the same pictures on the same machine differed by up to 24%
# (24 A/A trials on a shared 2-core machine): less than that, one round cannot tell from drift.
DRIFT_MARGIN = 1.25
# In the same trials they differed by 2.5% on average: the standard deviation, if that is normal.
TYPICAL_DRIFT = 0.025 * math.sqrt(math.pi / 2)
LOOKING = 1.1  # of the standard error
MAX_LOG = 709.0  # a larger one has no float for its number
MIN_P = 1e-16  # smaller ones are not told apart


@dataclass(frozen=True)
class RatioEstimate:
    """The geometric mean of B / A; `log_` fields are natural logarithms.

    `drift_margin` is the factor that the interval was widened by for drift; 1 where the rounds' own
    spread tells. `pictures` are different ones: their `copies` add no sample.
    """

    pictures: int
    rounds: int
    log_ratio: float
    v_rounds: float
    v_pictures: float
    drift_margin: float
    copies: int = 0

    @property
    def ratio(self) -> float:
        return _exp(self.log_ratio)

    @property
    def low(self) -> float:
        return _exp(self.log_ratio - self.log_half_width)

    @property
    def high(self) -> float:
        return _exp(self.log_ratio + self.log_half_width)

    @property
    def log_half_width(self) -> float:
        return self.critical_value(1 - CONFIDENCE) * self.standard_error + math.log(
            self.drift_margin
        )

    @property
    def includes_1(self) -> bool:
        return abs(self.log_ratio) <= self.log_half_width

    @property
    def standard_error(self) -> float:
        """Of the log ratio; drift between the passes of a single round is not in it."""
        return math.sqrt(self.v_rounds + self.v_pictures)

    @property
    def p_value(self) -> float:
        """Of the paired test that the arms differ by no more than the drift margin (none: not at
        all). Below 1 - CONFIDENCE exactly when the interval excludes 1."""
        beyond = abs(self.log_ratio) - math.log(self.drift_margin)
        if beyond <= 0:
            return 1.0
        if beyond >= self.critical_value(MIN_P) * self.standard_error:
            return MIN_P
        return optimize.brentq(
            lambda p: self.critical_value(p) * self.standard_error - beyond, MIN_P, 1
        )

    def critical_value(self, p: float) -> float:
        """What the distance from the truth, in standard errors, exceeds with probability `p`."""
        if not self._parts:
            return 0.0
        weighted = sum(variance * stats.t.isf(p / 2, df) for variance, df in self._parts)
        cochran = weighted / (self.v_rounds + self.v_pictures)
        if self.rounds == 2:
            return cochran
        return (cochran + stats.t.isf(p / 2, self._degrees_of_freedom)) / 2

    def power(self, log_difference: float) -> float:
        """Probability that such an experiment finds a true difference of that size."""
        beyond = (abs(log_difference) - self.log_half_width) / self._spread
        return float(stats.t.cdf(beyond, self._degrees_of_freedom))

    @property
    def detectable_difference(self) -> float:
        """The difference, as a part of 1, that such an experiment finds with probability POWER."""
        spare = stats.t.ppf(POWER, self._degrees_of_freedom) * self._spread
        return math.expm1(min(self.log_half_width + spare, MAX_LOG))

    @property
    def _spread(self) -> float:
        """Standard deviation of the log ratio over repeated experiments."""
        drift = TYPICAL_DRIFT if self.rounds == 1 else 0
        return math.hypot(self.standard_error, drift) or math.ulp(1)

    @property
    def _parts(self) -> list[tuple[float, int]]:
        """The variances that are not 0, with their degrees of freedom."""
        both = (self.v_rounds, self.rounds - 1), (self.v_pictures, self.pictures - 1)
        return [(variance, df) for variance, df in both if variance > 0]

    @property
    def _degrees_of_freedom(self) -> float:
        """Satterthwaite's."""
        squares = sum(variance**2 / df for variance, df in self._parts)
        return (self.v_rounds + self.v_pictures) ** 2 / squares if squares else math.inf

    def with_rounds(self, rounds: int) -> "RatioEstimate":
        """What to expect of an experiment like this one with so many rounds."""
        of_one = TYPICAL_DRIFT**2 if self.rounds == 1 else self.v_rounds * self.rounds
        return replace(self, rounds=rounds, v_rounds=of_one / rounds, drift_margin=1.0)

    def with_pictures(self, pictures: int) -> "RatioEstimate":
        """What to expect of an experiment like this one with so many pictures. That their noise
        averages out better is left aside: most of what rounds differ by is drift."""
        v_pictures = self.v_pictures * self.pictures / pictures
        return replace(self, pictures=pictures, v_pictures=v_pictures, copies=0)


def _exp(log: float) -> float:
    return math.exp(min(log, MAX_LOG))


def geometric_mean_ci(values: Sequence[float], sequential: bool = False) -> RatioEstimate | None:
    """The geometric mean of a value for each round, and its interval; None where one is unknown."""
    values = np.asarray(values, float)
    if len(values) == 0 or not np.all(np.isfinite(values) & (values > 0)):
        return None
    return estimate_ratio(np.log(values)[None, :], sequential=sequential)


def mean_of_copies(log_ratios: np.ndarray, contents: Sequence[str]) -> np.ndarray:
    """A line for each content, in place of one for each picture: however often the same picture is
    there, it is one sample of what pictures do."""
    content, different = pd.factorize(np.asarray(contents, object))
    if len(different) == len(log_ratios):
        return log_ratios
    sums = np.zeros((len(different), log_ratios.shape[1]))
    np.add.at(sums, content, log_ratios)
    return sums / np.bincount(content)[:, None]


def estimate_ratio(
    log_ratios: np.ndarray,
    drift_margin: float | None = None,
    sequential: bool = False,
    contents: Sequence[str] | None = None,
) -> RatioEstimate:
    """From log ratios of n pictures (lines) in R rounds (columns), at least one each, none missing.

    `drift_margin` for drift defaults to none with several rounds, to DRIFT_MARGIN with one.
    `sequential`: how many rounds there are was decided by looking at them. `contents` of the
    pictures: copies count as one.
    """
    files = len(log_ratios)
    if contents is not None:
        log_ratios = mean_of_copies(log_ratios, contents)
    n, rounds = log_ratios.shape
    mean = log_ratios.mean()
    of_pictures, of_rounds = log_ratios.mean(axis=1), log_ratios.mean(axis=0)
    residual_ms = 0.0
    if n > 1 and rounds > 1:
        residuals = log_ratios - of_pictures[:, None] - of_rounds + mean
        residual_ms = (residuals**2).sum() / ((n - 1) * (rounds - 1))
    v_rounds = of_rounds.var(ddof=1) / rounds if rounds > 1 else 0.0
    v_pictures = of_pictures.var(ddof=1) / n - residual_ms / (n * rounds) if n > 1 else 0.0
    if drift_margin is None:
        drift_margin = 1.0 if rounds > 1 else DRIFT_MARGIN
    wider = LOOKING**2 if sequential else 1.0
    v_rounds, v_pictures = wider * v_rounds, wider * max(v_pictures, 0.0)
    return RatioEstimate(n, rounds, float(mean), v_rounds, v_pictures, drift_margin, files - n)


# --- in words -----------------------------------------------------------------------------------


def ci_text(low: str, high: str) -> str:
    return f"{CONFIDENCE:.0%} CI {low} to {high}"


def ratio_text(estimate: RatioEstimate) -> str:
    """`2.01, 95% CI 1.76 to 2.30`."""
    ratio, low, high = rounded_alike(estimate.ratio, estimate.low, estimate.high)
    return f"{ratio}, {ci_text(low, high)}"


def times_text(estimate: RatioEstimate, of_what: str, basis: str) -> str:
    """`2.01x faster (95% CI 1.76 to 2.30, ...)`, by the ratio or its inverse, which is above 1."""
    numbers = estimate.ratio, estimate.low, estimate.high
    if estimate.ratio <= 1:
        numbers = 1 / estimate.ratio, 1 / estimate.high, 1 / estimate.low
    times, low, high = rounded_alike(*numbers)
    return f"{times}x {of_what} ({ci_text(low, high)}{basis})"


def drift_margin_text(estimate: RatioEstimate) -> str:
    if estimate.drift_margin == 1:
        return ""
    return f" widened by {estimate.drift_margin - 1:.0%} for drift between the passes"
