"""The score of the local step: from this machine to a function on Lambda that was never measured.

SeBS's kernel says how much slower Lambda is than this machine; the operations of
aarontburn/Java-vs-Python-Image-Processing, done here, are scored with that. Between two pictures of
one operation, what does not depend on the picture cancels; whole invocations have the requests and
boto3's work in them, too.
"""

import io
import math
import sys
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
from PIL import Image, ImageEnhance
from scipy import stats

from metrics.analysis import forecast_model as model
from metrics.analysis.aws_profile import Profile
from metrics.analysis.calibration import MAX_CHANGE, run_kernel
from metrics.analysis.forecast_score import DRAWS, TWO_SIDED, Score, by_rule

AARONTBURN_MB = 1024
# aarontburn's functions of commit 030d6ab, as MeasureFunctions/index.js calls them. Its `transform`
# and `batch` encode PNG; `details` does no work.
OPERATIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "rotate": lambda image: image.rotate(-90, expand=True),
    "resize": lambda image: image.resize((250, 500)),
    "grayscale": lambda image: image.convert("L"),
    "brightness": lambda image: ImageEnhance.Brightness(image).enhance(90),
}
REPEATS = 15


def local_step(
    profile: Profile,
    sebs_picture: bytes,
    data: dict[str, bytes],
    rows: pd.DataFrame,
    ratios: pd.Series,
) -> list[Score]:
    """`data`: aarontburn's pictures by name, `rows`: its invocations, `ratios`: of other groups of
    measurements, Lambda by one local core."""
    warm = rows[rows["cold"] == 0].groupby(["operation", "picture"])["runtime_ms"].median()
    is_done = [key[0] in OPERATIONS and key[1] in data for key in warm.index]
    measured = warm[is_done]
    before_ms = least_ms(lambda: run_kernel(sebs_picture))
    done = {key: do_operation(data[key[1]], OPERATIONS[key[0]]) for key in measured.index}
    after_ms = least_ms(lambda: run_kernel(sebs_picture))
    ratio = profile["kernel_ms_x86_64"] / min(before_ms, after_ms)
    if (changed := max(before_ms, after_ms) / min(before_ms, after_ms)) > MAX_CHANGE:
        print(
            f"warning: the kernel's time here changed by {changed - 1:.0%}: other work disturbs "
            "the lines of the local step; end it, and run this again",
            file=sys.stderr,
        )
    step = profile.facts["local_step_jpeg"]
    spreads = {
        "spread of SeBS and cebert": other_groups(ratios),
        "the profile's spread, pooled with these": (step.log_sd, step.degrees_of_freedom),
    }
    found = []
    for name, spread in spreads.items():
        drawn = Invocations(profile, ratio, spread)
        found.append(_differences(drawn, measured, done, data, name))
        found.append(_whole(drawn, measured, done, data, name))
    details = warm["details"] if "details" in warm.index.unique(0) else warm[:0]
    return [*found, _first_bytes(Invocations(profile, ratio, spreads.popitem()[1]), details)]


def other_groups(ratios: pd.Series) -> tuple[float, float]:
    """Log-sd and degrees of freedom of a new function's ratio by the kernel's."""
    logs = np.log(ratios)
    return float(logs.std(ddof=1)) * math.sqrt(1 + 1 / len(logs)), len(logs) - 1


def do_operation(data: bytes, operation: Callable) -> tuple[float, int]:
    """Processor ms on this machine, and the output's bytes."""
    output = io.BytesIO()

    def once() -> None:
        output.seek(0)
        output.truncate()
        operation(Image.open(io.BytesIO(data))).save(output, "JPEG")

    return least_ms(once), len(output.getvalue())


def least_ms(work: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return 1000 * min(times)


class Invocations:
    """aarontburn's invocations in many worlds: arrays of DRAWS times in ms. Each of its requests
    makes a client of its own, which is done here without a request, and opens a connection, as the
    first of a new environment does."""

    def __init__(self, profile: Profile, ratio: float, spread: tuple[float, float]):
        self._profile, self._ratio = profile, ratio
        self._rng = np.random.default_rng(0)
        self._step = self._factor(*spread)
        facts = (profile.facts[name] for name in ("s3_by_author", "first_call_net_ms"))
        self._s3, self._first = (
            self._factor(fact.log_sd, fact.degrees_of_freedom) for fact in facts
        )
        self._client_ms = least_ms(make_client)

    def _factor(self, log_sd: float, degrees: float) -> np.ndarray:
        return np.exp(log_sd * stats.t.rvs(degrees, size=DRAWS, random_state=self._rng))

    def compute(self, cpu_ms: float) -> np.ndarray:
        return by_rule(cpu_ms * self._ratio * self._step, AARONTBURN_MB)

    def get(self, size: int) -> np.ndarray:
        """With its client and connection."""
        took_ms = model.fetch_ms(self._profile, size, AARONTBURN_MB) * self._s3
        return took_ms + self._new_connection()

    def put(self, size: int) -> np.ndarray:
        took_ms = model.store_ms(self._profile, size, AARONTBURN_MB) * self._s3
        return took_ms + self._new_connection()

    def _new_connection(self) -> np.ndarray:
        first_ms = model.first_call_ms(self._profile, AARONTBURN_MB) * self._first
        return self.compute(self._client_ms) + first_ms

    def whole(self, cpu_ms: float, size_in: int, size_out: int) -> np.ndarray:
        return self.get(size_in) + self.compute(cpu_ms) + self.put(size_out)


def make_client() -> None:
    import boto3

    none = dict.fromkeys(("aws_access_key_id", "aws_secret_access_key"), "none")
    boto3.resource("s3", "us-east-1", **none).Bucket("b").Object("o")


def _differences(drawn: Invocations, measured: pd.Series, done: dict, data: dict, name: str):
    """Each larger picture minus the smallest, operation by operation."""
    forecast, took = [], []
    for operation in measured.index.unique(0):
        names = sorted(measured[operation].index, key=lambda picture: len(data[picture]))
        for picture in names[1:]:
            ends = [
                drawn.whole(done[operation, one][0], len(data[one]), done[operation, one][1])
                for one in (picture, names[0])
            ]
            forecast.append(ends[0] - ends[1])
            took.append(measured[operation, picture] - measured[operation, names[0]])
    return _local_score("local step: larger minus smallest picture", name, forecast, took)


def _whole(drawn: Invocations, measured: pd.Series, done: dict, data: dict, name: str) -> Score:
    forecast = [
        drawn.whole(done[key][0], len(data[key[1]]), done[key][1]) for key in measured.index
    ]
    return _local_score("local step: whole invocation", name, forecast, list(measured))


def _local_score(part: str, name: str, forecast: list[np.ndarray], measured: list) -> Score:
    quantiles = np.quantile(np.array(forecast), (0.5, 1 - TWO_SIDED, TWO_SIDED), axis=1)
    fitted = f"SeBS and this machine; {name}"
    scored = "aarontburn, JPEG operations, 1,024 MB"
    return Score(part, fitted, scored, "2024-12", *quantiles, np.array(measured, float))


def _first_bytes(drawn: Invocations, measured: pd.Series) -> Score:
    """aarontburn's `details`: a new client, its first bytes of a picture, and nothing else."""
    quantiles = np.quantile(drawn.get(0), (0.5, 1 - TWO_SIDED, TWO_SIDED))
    return Score(
        "S3 by author: first bytes of a GET",
        "SeBS; the profile's spread",
        "aarontburn details, 1,024 MB",
        "2024-12",
        *(np.full(len(measured), end) for end in quantiles),
        measured.to_numpy(float),
    )
