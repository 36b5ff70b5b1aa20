"""What AWS Lambda would show for these pictures: a forecast, never a measurement.

It starts from each picture's processor time on this machine, and goes on with the facts of a
profile (aws_profile.toml): how much slower a Lambda vCPU is (calibration.py), S3, events, cold
starts, scaling, prices (cost.py). forecast_model.py has the formulas, forecast_worlds.py what is
uncertain about them, forecast_job.py the job made of both. All is computed in WORLDS simulated
worlds; an interval is what 95% of them say, a value is their median.
"""

from dataclasses import dataclass

import numpy as np

from metrics.analysis.aws_profile import Profile
from metrics.analysis.calibration import Calibration
from metrics.analysis.forecast_inputs import OnPremJob, Pictures, Settings
from metrics.analysis.forecast_job import FROM_HERE, IN_S3, JobOnLambda
from metrics.analysis.forecast_notes import notes_of
from metrics.analysis.forecast_worlds import (
    PARTS,
    WORLDS,
    Worlds,
    draw_worlds,
    sample_of,
    spreads_of,
)
from metrics.analysis.interval import CONFIDENCE

SEED = 20251125
NUMBERS = np.unique(np.geomspace(1, 1e6, 25).round())  # of pictures, for the curves
MEMORY_SIZES = (512, 768, 1024, 1280, 1536, 1769, 2048, 3008)  # MB; the template allows no less
ALWAYS, NEVER, FROM, UNSURE = "always", "never", "from", "cannot tell"


@dataclass(frozen=True)
class Interval:
    """A median and the ends of the 95% prediction interval: numbers, or arrays of them."""

    value: float | np.ndarray
    low: float | np.ndarray
    high: float | np.ndarray


@dataclass(frozen=True)
class Crossing:
    """The number of pictures from which on AWS is done first; inf where it never is, up to the
    largest of NUMBERS. `kind` says what can be relied on."""

    kind: str
    pictures: Interval


@dataclass(frozen=True)
class Curve:
    """Whole-job seconds by number of pictures; AWS's by case."""

    pictures: np.ndarray
    on_prem: Interval | None
    aws: dict[str, Interval]


@dataclass(frozen=True)
class MemoryPoint:
    """One memory size: a picture's time in the function, this set's whole job with pictures in S3
    already, and cost of the work."""

    memory_mb: int
    handler_ms: Interval
    job_s: Interval
    cost_usd: Interval


@dataclass(frozen=True)
class MemoryChoice:
    """`fastest` is the least size whose time in the function is within 2% of the shortest;
    `balanced` has the least product of that time and the cost."""

    points: tuple[MemoryPoint, ...]
    fastest: int
    cheapest: int
    balanced: int


@dataclass(frozen=True)
class Forecast:
    """`is_published`: from published facts, not from a run of one's own. By case (IN_S3, and with
    an uplink FROM_HERE): `job_s` of this set, `cost_usd` of the work, `million_usd` for a million
    pictures of this mix in one job, and `crossings`, which need to know the job on this machine.
    `stages_ms`: one picture's. `shares`: of the uncertainty of the logarithm of handler_ms and of
    job_s (by case), by part."""

    profile_name: str
    profile_date: str
    profile_region: str
    is_published: bool
    settings: Settings
    pictures: int
    transform_ms: Interval
    handler_ms: Interval
    stages_ms: dict[str, Interval]
    job_s: dict[str, Interval]
    on_prem_s: Interval | None
    cost_usd: dict[str, Interval]
    cost_parts_usd: dict[str, dict[str, Interval]]
    million_usd: dict[str, Interval]
    curve: Curve
    crossings: dict[str, Crossing]
    memory: MemoryChoice
    shares: dict[str, dict[str, float]]
    notes: tuple[str, ...]


def forecast(
    profile: Profile,
    calibration: Calibration,
    pictures: Pictures,
    on_prem: OnPremJob | None = None,
    settings: Settings | None = None,
    seed: int = SEED,
    worlds: int = WORLDS,
) -> Forecast:
    """Deterministic: the same inputs and seed give the same numbers."""
    settings = settings or Settings()
    spreads = spreads_of(profile, calibration, pictures, on_prem, settings)
    n, sample, cases = len(pictures), sample_of(pictures), cases_of(settings)
    drawn = draw_worlds(spreads, len(sample), seed, worlds)
    function = JobOnLambda(profile, calibration, sample, n, settings, drawn)
    costs = {case: function.usd_by_part(n, case) for case in cases}
    curve, crossings = curve_of(function, on_prem, cases)
    return Forecast(
        profile_name=profile.about.name,
        profile_date=profile.about.date,
        profile_region=profile.about.region,
        is_published=profile.is_published,
        settings=settings,
        pictures=n,
        transform_ms=interval_of(function.mean_ms(function.transform_ms)),
        handler_ms=interval_of(function.mean_ms(function.handler_ms)),
        stages_ms={name: interval_of(one) for name, one in function.stages_ms().items()},
        job_s={case: interval_of(function.job_s(n, case)) for case in cases},
        on_prem_s=interval_of(on_prem_s(on_prem, drawn, n)) if on_prem else None,
        cost_usd={case: interval_of(sum(parts.values())) for case, parts in costs.items()},
        cost_parts_usd={
            case: {name: interval_of(one) for name, one in parts.items()}
            for case, parts in costs.items()
        },
        million_usd={
            case: interval_of(sum(function.usd_by_part(1e6, case).values())) for case in cases
        },
        curve=curve,
        crossings=crossings,
        memory=memory_choice(function),
        shares=shares_of(function, cases),
        notes=tuple(notes_of(profile, calibration, pictures, settings)),
    )


def cases_of(settings: Settings) -> tuple[str, ...]:
    return (IN_S3,) if settings.uplink_mbit_s is None else (IN_S3, FROM_HERE)


def interval_of(values: np.ndarray) -> Interval:
    """Over worlds, along the first axis."""
    tail = (1 - CONFIDENCE) / 2
    low, value, high = np.quantile(values, (tail, 0.5, 1 - tail), axis=0, method="nearest")
    if values.ndim == 1:
        low, value, high = float(low), float(value), float(high)
    return Interval(value, low, high)


# --- what follows from it -----------------------------------------------------------------------


def on_prem_s(on_prem: OnPremJob, worlds: Worlds, n: float) -> np.ndarray:
    """The whole job on this machine, by world."""
    work_s = on_prem.seconds(np.array(n, float)) - on_prem.start_s
    return on_prem.start_s + work_s / worlds["on-prem"][:, 0]


def curve_of(
    function: JobOnLambda, on_prem: OnPremJob | None, cases: tuple[str, ...]
) -> tuple[Curve, dict[str, Crossing]]:
    aws = {case: np.column_stack([function.job_s(n, case) for n in NUMBERS]) for case in cases}
    intervals = {case: interval_of(values) for case, values in aws.items()}
    if on_prem is None:
        return Curve(NUMBERS, None, intervals), {}
    own = np.column_stack([on_prem_s(on_prem, function.worlds, n) for n in NUMBERS])
    crossings = {case: crossing_of(own, values) for case, values in aws.items()}
    return Curve(NUMBERS, interval_of(own), intervals), crossings


def crossing_of(on_prem: np.ndarray, aws: np.ndarray) -> Crossing:
    """From seconds by world and number: the first number from which on AWS stays ahead, between
    two of NUMBERS on a straight line in logarithms."""
    lead = np.log(on_prem) - np.log(aws)
    behind = lead <= 0
    last = np.where(behind.any(axis=1), lead.shape[1] - 1 - behind[:, ::-1].argmax(axis=1), -1)
    at, logs, rows = np.clip(last, 0, lead.shape[1] - 2), np.log(NUMBERS), np.arange(len(lead))
    before, after = lead[rows, at], lead[rows, at + 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.clip(before / (before - after), 0, 1)
    pictures = np.exp(logs[at] + part * (logs[at + 1] - logs[at]))
    pictures[last < 0] = NUMBERS[0]
    pictures[last == lead.shape[1] - 1] = np.inf
    found = interval_of(pictures)
    return Crossing(_kind(found), found)


def _kind(pictures: Interval) -> str:
    if pictures.high <= NUMBERS[0]:
        return ALWAYS
    if pictures.low == np.inf:
        return NEVER
    if pictures.low <= NUMBERS[0] and pictures.high == np.inf:
        return UNSURE
    return FROM


def memory_choice(function: JobOnLambda) -> MemoryChoice:
    """Among MEMORY_SIZES and the one in use, for this set with pictures in S3 already."""
    sizes = sorted({*MEMORY_SIZES, function.settings.memory_mb})
    points = tuple(_memory_point(function.at_memory(size)) for size in sizes)
    ms = {point.memory_mb: point.handler_ms.value for point in points}
    usd = {point.memory_mb: point.cost_usd.value for point in points}
    product = {size: ms[size] * usd[size] for size in sizes}
    return MemoryChoice(
        points=points,
        fastest=next(size for size in sizes if ms[size] <= 1.02 * min(ms.values())),
        cheapest=min(usd, key=usd.get),
        balanced=min(product, key=product.get),
    )


def _memory_point(function: JobOnLambda) -> MemoryPoint:
    n = function.count
    return MemoryPoint(
        function.settings.memory_mb,
        interval_of(function.mean_ms(function.handler_ms)),
        interval_of(function.job_s(n, IN_S3)),
        interval_of(sum(function.usd_by_part(n, IN_S3).values())),
    )


def shares_of(function: JobOnLambda, cases: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """By how much the variance of the logarithm falls when one part is held fixed, made to add up
    to 1: what to measure next is the part with the largest share."""

    def variances(one: JobOnLambda) -> dict[str, float]:
        n = one.count
        found = {"handler_ms": one.mean_ms(one.handler_ms)}
        found |= {case: one.job_s(n, case) for case in cases}
        return {name: float(np.log(values).var()) for name, values in found.items()}

    whole = variances(function)
    fixed = {part: variances(function.with_fixed(part)) for part in PARTS}
    falls = {
        name: {part: max(whole[name] - fixed[part][name], 0.0) for part in PARTS} for name in whole
    }
    return {
        name: {part: fall / (sum(by_part.values()) or 1.0) for part, fall in by_part.items()}
        for name, by_part in falls.items()
    }
