"""The formulas of a forecast: pure functions of numbers and numpy arrays.

Vocabulary
    ratio     Lambda's time for a piece of work with a full vCPU, by this machine's processor time
    quota     a function of less than 1,769 MB has the processor for a part of the time only
    work      picture-seconds: what environments have to do, or can have done
"""

import numpy as np

from metrics.analysis.aws_profile import Profile
from metrics.analysis.cost import PRICES

MB = 1e6
# boto3's TransferConfig: a file of that size or more is uploaded in parts of that size, with one
# request to begin and one to end.
PART_BYTES = 8 * 1024 * 1024


def quota_factor(profile: Profile, memory_mb: float) -> float:
    """By how much less processor than a full vCPU makes work last longer."""
    return max(1.0, profile["full_vcpu_mb"] / memory_mb)


def ratio_to_lambda(profile: Profile, kernel_ms: float, architecture: str) -> float:
    """From the kernel's time here, on the generated picture, and on Lambda, on SeBS's."""
    here_ms = kernel_ms * profile["kernel_picture_factor"]
    return profile[f"kernel_ms_{architecture}"] / here_ms


def transform_ms(
    profile: Profile,
    full_ms: np.ndarray,
    memory_mb: float,
    escape: np.ndarray | float = 0.0,
    wait: np.ndarray | float = 1.0,
    waiting: np.ndarray | float = 1.0,
) -> np.ndarray:
    """Work of `full_ms` with a full vCPU, at a memory size: full_ms x max(1, 1769 / memory), but
    that small tasks escape part of the quota, and then some wait. All from 0 to 1: `escape`, how
    much of what they may escape; `waiting`, how much of the published share of them waits at all;
    `wait`, a task's own draw, which says whether it does, and how long."""
    factor = quota_factor(profile, memory_mb)
    if factor == 1:
        return full_ms * np.ones_like(escape)
    # Work of up to small_task_cpu_ms may escape all of it; of half as much again it escapes none:
    # SeBS's 46 ms follow the rule at every size.
    smallness = np.clip(3 - 2 * full_ms / profile["small_task_cpu_ms"], 0, 1)
    share = profile["small_task_waits_share"] * waiting
    low, high = profile["small_task_wait_low_ms"], profile["small_task_wait_high_ms"]
    how_long = low + (high - low) * wait / np.maximum(share, 1e-9)
    waits_ms = np.where(wait < share, how_long, 0)
    return full_ms * factor ** (1 - smallness * escape) + waits_ms * smallness * escape


def fetch_ms(profile: Profile, size: np.ndarray, memory_mb: float) -> np.ndarray:
    """GET of so many bytes from within the function, with a warm connection."""
    return _request_ms(profile, "fetch", size, memory_mb)


def store_ms(profile: Profile, size: np.ndarray, memory_mb: float) -> np.ndarray:
    """PUT of so many bytes from within the function, with a warm connection."""
    return _request_ms(profile, "store", size, memory_mb)


def _request_ms(profile: Profile, kind: str, size: np.ndarray, memory_mb: float) -> np.ndarray:
    waiting = profile[f"{kind}_net_ms"] + profile[f"{kind}_ms_per_mb"] * size / MB
    return waiting + profile[f"{kind}_cpu_ms"] * quota_factor(profile, memory_mb)


def first_call_ms(profile: Profile, memory_mb: float) -> float:
    """What a new environment's first picture takes longer."""
    factor = quota_factor(profile, memory_mb)
    return profile["first_call_net_ms"] + profile["first_call_cpu_ms"] * factor


def init_ms(profile: Profile, architecture: str) -> float:
    """INIT with the function's warm-up; it has a full vCPU whatever the memory."""
    warm_up = profile["init_warm_up_kernels"] * profile[f"kernel_ms_{architecture}"]
    return profile[f"init_ms_{architecture}"] + warm_up


def upload_s(
    profile: Profile, pictures: float, mean_bytes: float, mbit_s: float, at_once: int
) -> tuple[float, float]:
    """How long uploads of so many pictures take: by bytes on the line, and by requests."""
    by_bytes = pictures * mean_bytes * 8 / (mbit_s * 1e6)
    waves = np.ceil(pictures / at_once)
    return by_bytes, waves * profile["upload_request_ms"] / 1000


def seconds_for(work_s: np.ndarray, profile: Profile, limit: int) -> np.ndarray:
    """When environments have done `work_s` picture-seconds: scaling_start of them at once, and
    scaling_per_s more each second, up to the account's limit."""
    start, rate = min(profile["scaling_start"], limit), profile["scaling_per_s"]
    ramp_s = (limit - start) / rate
    in_ramp = start * ramp_s + rate * ramp_s**2 / 2
    ramping = (np.sqrt(start**2 + 2 * rate * np.minimum(work_s, in_ramp)) - start) / rate
    return ramping + np.maximum(work_s - in_ramp, 0) / limit


def upload_puts(sizes: np.ndarray) -> np.ndarray:
    """Requests of S3's dearer class that uploading each file takes."""
    return np.where(sizes < PART_BYTES, 1, np.ceil(sizes / PART_BYTES) + 2)


def usd_by_part(
    pictures: float, puts_of_uploads: float, gb_s: np.ndarray, init_gb_s: np.ndarray, arch: str
) -> dict[str, np.ndarray]:
    """Cost of the work: what AWS bills for doing so many pictures, and for no measuring."""
    same = np.ones_like(gb_s)
    return {
        "GET": pictures * PRICES["s3_get"] * same,
        "PUT of outputs": pictures * PRICES["s3_put"] * same,
        "PUT of uploads": puts_of_uploads * PRICES["s3_put"] * same,
        "requests": pictures * PRICES["lambda_request"] * same,
        "GB-seconds": gb_s * PRICES[f"lambda_gb_s_{arch}"],
        "GB-seconds of INIT": init_gb_s * PRICES[f"lambda_gb_s_{arch}"],
    }
