"""What could be true: worlds in which each part of the forecast has another value.

A world has one factor for each part (how far its median lies from the profile's) and noise for each
of a sample of pictures. The same draws serve every number of pictures, memory size and part that is
held fixed, so that what differs between two results is not chance.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from metrics.analysis.aws_profile import Profile
from metrics.analysis.calibration import Calibration
from metrics.analysis.forecast_inputs import OnPremJob, Pictures, Settings

WORLDS = 1000
SAMPLE = 128  # pictures drawn one by one; more are so many times these
NOISES = ("transform", "fetch", "store", "event", "init", "wait")

# What a forecast's uncertainty is made of, in the words of the report.
PROCESSOR = "the processor"
MEMORY = "the memory rule"
S3 = "S3"
EVENT = "the event"
COLD = "cold starts"
UPLOAD = "the upload"
THROTTLING = "throttling"
HERE = "this machine"
SLOWEST = "chance"  # how slow the slowest of many is: nothing that could be known before
PARTS = (PROCESSOR, MEMORY, S3, EVENT, COLD, UPLOAD, THROTTLING, HERE)


@dataclass(frozen=True)
class Spread:
    """Of one factor: a t distribution of the logarithm, or uniform from 0 to 1 without log_sd."""

    part: str
    log_sd: float | None
    degrees_of_freedom: float = math.inf


@dataclass(frozen=True)
class Worlds:
    """`factors`: by name, a column of one number a world. `noise`: by name, of worlds x SAMPLE
    pictures. `picks`: which picture of the set each of these is."""

    spreads: dict[str, Spread]
    factors: dict[str, np.ndarray]
    noise: dict[str, np.ndarray]
    picks: np.ndarray

    def __getitem__(self, name: str) -> np.ndarray:
        return self.factors[name]

    def with_fixed(self, part: str) -> "Worlds":
        """The same worlds, in which one part is what the profile says."""
        fixed = {
            name: np.full_like(values, 0.5 if self.spreads[name].log_sd is None else 1.0)
            if self.spreads[name].part == part
            else values
            for name, values in self.factors.items()
        }
        return Worlds(self.spreads, fixed, self.noise, self.picks)


def spreads_of(
    profile: Profile,
    calibration: Calibration,
    pictures: Pictures,
    on_prem: OnPremJob | None,
    settings: Settings,
) -> dict[str, Spread]:
    """All that a world has a value of its own for."""

    def of(part: str, fact: str, counts: bool = True) -> Spread:
        found = profile.facts[fact]
        return Spread(part, found.log_sd if counts else 0.0, found.degrees_of_freedom)

    arch = settings.architecture
    here = (on_prem.log_sd, on_prem.degrees_of_freedom) if on_prem else (0.0, math.inf)
    # What is odd about the kernel's picture cancels beside the machine of an own profile.
    is_own = profile.is_of(calibration.machine, pictures.transform)
    return {
        "local step": local_step(profile, pictures, is_own),
        "kernel": of(PROCESSOR, f"kernel_ms_{arch}"),
        "picture factor": of(PROCESSOR, "kernel_picture_factor", not is_own),
        "calibration": Spread(PROCESSOR, calibration.log_sd),
        "moment": of(PROCESSOR, f"moment_{arch}"),
        "memory rule": of(MEMORY, f"memory_rule_{arch}"),
        "escape": Spread(MEMORY, None),
        "waiting": Spread(MEMORY, None),
        "s3 by author": of(S3, "s3_by_author"),
        "s3 by memory": of(S3, "s3_by_memory"),
        "fetch": of(S3, "fetch_net_ms"),
        "store": of(S3, "store_net_ms"),
        "event": of(EVENT, "event_ms"),
        "init": of(COLD, f"init_ms_{arch}"),
        "first call": of(COLD, "first_call_net_ms"),
        "upload request": of(UPLOAD, "upload_request_ms"),
        "uplink": of(UPLOAD, "uplink"),
        "throttled": Spread(THROTTLING, None),
        "on-prem": Spread(HERE, *here),
        "slowest": Spread(SLOWEST, None),
    }


def local_step(profile: Profile, pictures: Pictures, is_own: bool) -> Spread:
    """Of this very job, where it was measured; else between a JPEG's and another format's, by their
    shares of the processor time."""
    if is_own and (own := profile.facts.get("local_step_own")):
        return Spread(PROCESSOR, own.log_sd, own.degrees_of_freedom)
    jpeg, other = (profile.facts[f"local_step_{kind}"] for kind in ("jpeg", "other"))
    share = pictures.jpeg_share
    log_sd = math.sqrt(share * jpeg.log_sd**2 + (1 - share) * other.log_sd**2)
    return Spread(PROCESSOR, log_sd, min(jpeg.degrees_of_freedom, other.degrees_of_freedom))


def sample_of(pictures: Pictures) -> Pictures:
    """At most SAMPLE pictures that stand for all: evenly taken in order of processor time, with
    the same mean time and sizes."""
    if len(pictures) <= SAMPLE:
        return pictures
    places = ((np.arange(SAMPLE) + 0.5) * len(pictures) / SAMPLE).astype(int)
    taken = np.argsort(pictures.cpu_ms, kind="stable")[places]
    numbers = {
        name: _with_mean(getattr(pictures, name)[taken], getattr(pictures, name).mean())
        for name in ("cpu_ms", "orig_size", "new_size")
    }
    return replace(pictures, is_jpeg=pictures.is_jpeg[taken], **numbers)


def _with_mean(values: np.ndarray, mean: float) -> np.ndarray:
    return values * (mean / values.mean()) if mean > 0 else values


def draw_worlds(
    spreads: dict[str, Spread], pictures: int, seed: int, worlds: int = WORLDS
) -> Worlds:
    rng = np.random.default_rng(seed)
    factors = {name: _factors(spread, worlds, rng) for name, spread in spreads.items()}
    noise = {
        name: rng.random((worlds, SAMPLE), np.float32)
        if name == "wait"
        else rng.standard_normal((worlds, SAMPLE), np.float32)
        for name in NOISES
    }
    # Each block of so many columns has every picture once, in an order of its world's own.
    blocks = [
        rng.permuted(np.tile(np.arange(pictures), (worlds, 1)), axis=1)
        for _ in range(-(-SAMPLE // pictures))
    ]
    return Worlds(spreads, factors, noise, np.hstack(blocks)[:, :SAMPLE])


def _factors(spread: Spread, worlds: int, rng: np.random.Generator) -> np.ndarray:
    """Evenly spread over the distribution, in random order (a Latin hypercube): quantiles then
    need fewer worlds."""
    even = (rng.permutation(worlds) + 0.5) / worlds
    if spread.log_sd is None:
        return even[:, None]
    if math.isinf(spread.degrees_of_freedom):
        scores = stats.norm.ppf(even)
    else:
        scores = stats.t.ppf(even, spread.degrees_of_freedom)
    return np.exp(spread.log_sd * scores)[:, None]
