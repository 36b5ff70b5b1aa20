"""A profile of one's own, from one run on AWS: what later forecasts are narrow with.

What the run tells takes the place of the published fact, with the spread that it was measured with:
the ratio of Lambda's times to this machine's, GET and PUT by size, events, INIT and the first call.
What it cannot tell (other memory sizes, scaling, retries) stays as published. A spread here is that
of a mean over the run's pictures; that another day differs is the published `moment_*` facts.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from metrics.analysis import forecast_model as model
from metrics.analysis.aws_profile import About, Fact, Profile
from metrics.analysis.calibration import Calibration
from metrics.common.cli import UserError

MIN_PICTURES = 8
MIN_OF_A_PART = 4  # measurements without which a part stays as published
ANOTHER_DAY_LOG_SD = 0.10  # of events, GET, PUT and INIT: a guess, since one run has one day
MIN_SHARE = 0.05  # of a published part: no fit makes one vanish


@dataclass(frozen=True)
class CloudRun:
    """What a run on AWS left. `rows`: the cloud arm's, of one memory size. `invocations`: Lambda's
    REPORT lines (invocations.py). `event_ms`: of each picture, upload ended to handler begun, by
    one clock and without the cold start. `upload_ms`: of each upload."""

    rows: pd.DataFrame
    invocations: pd.DataFrame | None
    event_ms: np.ndarray
    upload_ms: np.ndarray
    architecture: str
    region: str
    date: str


def fit_profile(
    published: Profile,
    calibration: Calibration,
    on_prem: pd.DataFrame,
    run: CloudRun,
) -> Profile:
    """`on_prem`: rows of the same pictures from this machine, with the calibration of that run.
    Raises UserError where the run is too small, or of several memory sizes."""
    pairs = _pairs(on_prem, run.rows)
    memory_mb = _only_memory(pairs)
    facts = dict(published.facts)
    source = f"this project: a run with --fit-profile, {run.region}, {memory_mb:,.0f} MB"
    told = Told(run.date, run.region, source)
    facts |= _processor(published, calibration, pairs, run.architecture, memory_mb, told)
    fitted = Profile(published.about, facts)
    facts |= _requests(published, pairs, memory_mb, told)
    fitted = Profile(published.about, facts)
    facts |= _cold_starts(fitted, pairs, run, memory_mb, told)
    facts |= told.fact(published, "event_ms", run.event_ms, "from upload ended to handler begun")
    facts |= told.fact(published, "upload_request_ms", run.upload_ms, "each upload, with its bytes")
    about = About(
        format=published.about.format,
        name=f"own run of {run.date}",
        state="own run",
        date=run.date,
        region=run.region,
        memory_mb=[memory_mb, memory_mb],
        picture_bytes=[float(pairs["orig_size"].min()), float(pairs["orig_size"].max())],
        machine=calibration.machine,
        transform=str(pairs["transform"].iloc[0]),
    )
    return Profile(about, facts)


@dataclass(frozen=True)
class Told:
    """How facts of the run are written."""

    date: str
    region: str
    source: str

    def replaced(self, fact: Fact, value: float, logs: np.ndarray, note: str, day: float) -> Fact:
        """`logs`: deviations of single measurements; their spread, and that of their mean."""
        each = float(np.std(logs, ddof=1))
        return replace(
            fact,
            value=float(value),
            log_sd=math.hypot(each / math.sqrt(len(logs)), day),
            degrees_of_freedom=len(logs) - 1,
            each_log_sd=each,
            n=len(logs),
            date=self.date,
            region=self.region,
            source=self.source,
            note=note,
        )

    def fact(self, base: Profile, name: str, values: np.ndarray, note: str) -> dict[str, Fact]:
        """A fact whose value is the geometric mean of these, or none when there are too few."""
        values = np.asarray(values, float)
        logs = np.log(values[np.isfinite(values) & (values > 0)])
        if len(logs) < MIN_OF_A_PART:
            return {}
        mean = logs.mean()
        one = self.replaced(base.facts[name], math.exp(mean), logs - mean, note, ANOTHER_DAY_LOG_SD)
        return {name: one}


def _pairs(on_prem: pd.DataFrame, cloud: pd.DataFrame) -> pd.DataFrame:
    """The cloud's rows that succeeded, each with `here_ms`: its picture's least processor time on
    this machine."""
    done = on_prem[(on_prem["status"] == "ok") & (on_prem["cpu_ms"] > 0)]
    here_ms = done.groupby("image_key")["cpu_ms"].min().rename("here_ms")
    pairs = cloud[cloud["status"] == "ok"].join(here_ms, on="image_key", how="inner")
    if (found := pairs["image_key"].nunique()) < MIN_PICTURES:
        raise UserError(
            f"--fit-profile: {found} pictures were done in both arms; it takes {MIN_PICTURES}"
        )
    return pairs


def _only_memory(pairs: pd.DataFrame) -> float:
    sizes = sorted(pairs["memory_mb"].dropna().unique())
    if len(sizes) != 1:
        raise UserError(
            f"--fit-profile: rows of {len(sizes)} memory sizes; use a run of one, without --memory"
        )
    return float(sizes[0])


def _processor(
    base: Profile,
    calibration: Calibration,
    pairs: pd.DataFrame,
    architecture: str,
    memory_mb: float,
    told: Told,
) -> dict[str, Fact]:
    """The kernel's time on Lambda such that this job's times come out; and how sure that is."""
    expected_ms = pairs["here_ms"] * model.quota_factor(base, memory_mb)
    logs = np.log(pairs["proc_ms"] / expected_ms)
    of_pictures = logs.groupby(pairs["image_key"]).mean()
    ratio = math.exp(of_pictures.mean())
    name = f"kernel_ms_{architecture}"
    kernel_ms = ratio * calibration.kernel_ms * base["kernel_picture_factor"]
    note = f"Lambda took {ratio:.3f} times this machine's processor time"
    each = float((logs - logs.mean()).std(ddof=1))
    kernel = told.replaced(base.facts[name], kernel_ms, of_pictures - of_pictures.mean(), note, 0)
    step = told.replaced(
        base.facts["local_step_jpeg"], 1.0, of_pictures - of_pictures.mean(), note, 0
    )
    return {
        name: replace(kernel, log_sd=0.0, each_log_sd=each),
        "local_step_own": replace(step, each_log_sd=0.0),
    }


def _requests(base: Profile, pairs: pd.DataFrame, memory_mb: float, told: Told) -> dict[str, Fact]:
    """GET and PUT of warm environments: how many times as long as published the part is that every
    request has, and the part that grows with the bytes."""
    facts = {}
    warm = pairs[~pairs["cold_start"]]
    for kind, size in (("fetch", "orig_size"), ("store", "new_size")):
        known = warm[(warm[f"{kind}_ms"] > 0) & (warm[size] > 0)]
        if kind == "store":  # a cold environment's PUT is no slower: its connection is open by then
            known = pairs[(pairs["store_ms"] > 0) & (pairs[size] > 0)]
        if len(known) < MIN_OF_A_PART:
            continue
        took_ms, sizes = known[f"{kind}_ms"].to_numpy(), known[size].to_numpy()
        by_bytes = base[f"{kind}_ms_per_mb"] * sizes / model.MB
        same = base[f"{kind}_net_ms"] + base[f"{kind}_cpu_ms"] * model.quota_factor(base, memory_mb)
        scales = _two_scales(took_ms, np.full_like(by_bytes, same), by_bytes)
        logs = np.log(took_ms / (scales[0] * same + scales[1] * by_bytes))
        scales = scales * math.exp(logs.mean())
        note = f"{scales[0]:.2f} of the published time a request, {scales[1]:.2f} of that a byte"
        for part, scale in (("net_ms", scales[0]), ("cpu_ms", scales[0]), ("ms_per_mb", scales[1])):
            fact = base.facts[f"{kind}_{part}"]
            day = ANOTHER_DAY_LOG_SD
            one = told.replaced(fact, fact.value * scale, logs - logs.mean(), note, day)
            facts[f"{kind}_{part}"] = one if part == "net_ms" else replace(one, log_sd=0.0)
    if "fetch_net_ms" in facts and "store_net_ms" in facts:
        note = "none: GET and PUT were measured"
        same = replace(base.facts["s3_by_author"], log_sd=0.0, source=told.source, note=note)
        facts["s3_by_author"] = replace(same, date=told.date, region=told.region)
    return facts


def _two_scales(took_ms: np.ndarray, same: np.ndarray, by_bytes: np.ndarray) -> np.ndarray:
    """Least squares of relative errors, each scale at least MIN_SHARE; one scale for both where the
    sizes hardly differ."""
    from scipy.optimize import lsq_linear

    if by_bytes.max() < 1.5 * by_bytes.min() or len(took_ms) < MIN_PICTURES:
        return np.full(2, np.exp(np.mean(np.log(took_ms / (same + by_bytes)))))
    parts = np.column_stack([same, by_bytes]) / took_ms[:, None]
    return lsq_linear(parts, np.ones(len(took_ms)), (MIN_SHARE, np.inf)).x


def _cold_starts(
    base: Profile, pairs: pd.DataFrame, run: CloudRun, memory_mb: float, told: Told
) -> dict[str, Fact]:
    facts, name = {}, f"init_ms_{run.architecture}"
    if run.invocations is not None:
        init_ms = run.invocations["init_ms"].to_numpy(float)
        warm_up_ms = base["init_warm_up_kernels"] * base[f"kernel_ms_{run.architecture}"]
        own_ms = np.maximum(init_ms[init_ms > 0] - warm_up_ms, MIN_SHARE * base[name])
        facts |= told.fact(base, name, own_ms, "INIT of REPORT lines, without the warm-up")
    cold = pairs[pairs["cold_start"] & (pairs["fetch_ms"] > 0)]
    if len(cold) >= MIN_OF_A_PART:
        warm_ms = model.fetch_ms(base, cold["orig_size"].to_numpy(), memory_mb)
        # A mean, since a difference of two times may be negative.
        more_ms = cold["fetch_ms"].to_numpy() - warm_ms
        published_ms = model.first_call_ms(base, memory_mb)
        scale = max(more_ms.mean() / published_ms, MIN_SHARE)
        relative = (more_ms - more_ms.mean()) / (scale * published_ms)
        note = f"cold GET minus warm GET: {scale:.2f} of the published"
        for part in ("first_call_net_ms", "first_call_cpu_ms"):
            fact = base.facts[part]
            one = told.replaced(fact, fact.value * scale, relative, note, ANOTHER_DAY_LOG_SD)
            facts[part] = one if part == "first_call_net_ms" else replace(one, log_sd=0.0)
    return facts
