"""What a forecast is about: the pictures, the job on this machine, and the function on AWS."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from metrics.analysis.aws_profile import ARCHITECTURES
from metrics.analysis.interval import geometric_mean_ci
from metrics.common.machine import available_cpus

JPEG_SUFFIXES = (".jpg", ".jpeg")
ACCOUNT_LIMIT = 1000  # invocations at once; https://docs.aws.amazon.com/lambda/latest/dg/
NEW_ACCOUNT_LIMIT = 10  # until AWS has seen some use (gettingstarted-limits.html there)
UPLOADS_AT_ONCE = 8  # upload_images_s3.py --workers


@dataclass(frozen=True)
class Pictures:
    """One number a picture: processor time of the job on this machine (ms), the input's and the
    output's bytes, and whether the input is a JPEG. `transform`: the job's identity."""

    cpu_ms: np.ndarray
    orig_size: np.ndarray
    new_size: np.ndarray
    is_jpeg: np.ndarray
    transform: str = ""

    def __len__(self) -> int:
        return len(self.cpu_ms)

    @property
    def jpeg_share(self) -> float:
        """Of the processor time."""
        return float((self.cpu_ms * self.is_jpeg).sum() / self.cpu_ms.sum())


@dataclass(frozen=True)
class OnPremJob:
    """The whole job on this machine: time to start, and from then on pictures a second, with the
    logarithm's standard deviation. `workers` pictures are done at once."""

    workers: int
    start_s: float
    throughput_per_s: float
    log_sd: float = 0.0
    degrees_of_freedom: float = math.inf

    def seconds(self, pictures: np.ndarray) -> np.ndarray:
        """Of so many pictures; with fewer than workers, some have nothing to do."""
        busy = np.minimum(pictures, self.workers) / self.workers
        return self.start_s + pictures / (self.throughput_per_s * busy)


@dataclass(frozen=True)
class Settings:
    """`uplink_mbit_s` is None where pictures are only forecast as being in S3 already."""

    memory_mb: int = 1769
    architecture: str = "x86_64"
    uplink_mbit_s: float | None = None
    account_limit: int = ACCOUNT_LIMIT
    uploads_at_once: int = UPLOADS_AT_ONCE

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"unknown architecture {self.architecture!r}")


def pictures_of(rows: pd.DataFrame) -> Pictures | str:
    """From the on-prem rows (rows.read_rows), or why they tell nothing. The least processor time of
    a picture's rounds counts, as it does in the calibration."""
    done = rows[(rows["status"] == "ok") & (rows["source"] == "on_prem")]
    if done.empty:
        return "no forecast: no picture was done on this machine"
    if not (set(done["environment"].unique()) == {"local"} and (done["cpu_ms"] > 0).all()):
        return "no forecast: these rows have no processor times of this machine; make your own"
    one = done.groupby("image_key", sort=True).agg(
        cpu_ms=("cpu_ms", "min"), orig_size=("orig_size", "max"), new_size=("new_size", "max")
    )
    is_jpeg = one.index.str.lower().str.endswith(JPEG_SUFFIXES)
    numbers = (one[name].to_numpy(float) for name in one)
    return Pictures(*numbers, np.asarray(is_jpeg, bool), str(done["transform"].iloc[0]))


def on_prem_of(
    throughput_per_s: list[float], workers: int | None = None, start_s: float = 0.0
) -> OnPremJob | None:
    """From the pictures per second of each round (break_even.pictures_per_s_by_round); None when
    they are unknown. `start_s` is what each job pays once, and is in no round's time."""
    known = [rate for rate in throughput_per_s if 0 < rate < math.inf]
    if not known:
        return None
    estimate = geometric_mean_ci(known)
    log_sd, degrees = estimate.log_half_width / 1.96, math.inf
    if len(known) > 1:
        log_sd, degrees = math.sqrt(estimate.v_rounds), len(known) - 1
    return OnPremJob(workers or available_cpus(), start_s, estimate.ratio, log_sd, degrees)
