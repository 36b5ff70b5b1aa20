"""How far off the forecast's parts are, on published measurements that they were not fitted on.

FOLDER holds what others published, as files named in FILES below, and the pictures that their
functions worked on. Each part of the forecast is fitted on one data set and scored on another; the
local step is measured on this machine while this runs (10 s). Prints a table.

    python metrics/analysis/forecast_scores.py FOLDER
    python metrics/analysis/forecast_scores.py FOLDER --picture-factor
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the project is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import argparse
import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image, ImageEnhance
from scipy import stats
from scipy.optimize import least_squares

from metrics.analysis import calibration as kernel
from metrics.analysis import forecast_model as model
from metrics.analysis.aws_profile import Profile, load_profile
from metrics.common.cli import DONE, UserError, run_script, script_parser
from metrics.common.paths import shown

SEBS = "sebs_aws_thumbnailer_invocations.csv"
CEBERT = "cebert_2025_lambda_arm_x86.csv"
CEBERT_INIT = "cebert_2025_init.csv"
LAMBDA_PERF = "lambdaperf_python_cold_summary_2026.csv"
AARONTBURN = "aarontburn_rows.csv"
FACTS = "aws_profile_facts.csv"
PICTURE = "pictures/sebs_6.jpg"
FILES = {  # and where they are from
    SEBS: "repository spcl/serverless-benchmarks-artifact, data/performance/aws_perf_cost",
    CEBERT: "repository cebert/aws-lambda-performance-benchmarks, published-results",
    CEBERT_INIT: "repository cebert/aws-lambda-performance-benchmarks, published-results",
    LAMBDA_PERF: "repository maxday/lambda-perf",
    AARONTBURN: "repository aarontburn/Java-vs-Python-Image-Processing, MeasureFunctions",
    FACTS: "the sources in metrics/analysis/aws_profile.toml",
    PICTURE: "repository spcl/serverless-benchmarks-data",
}
FULL_MB = 1769
TWO_SIDED = 0.975
FITTED_SIZES = (128, 512, 2048)  # MB, of GET and PUT by memory; the others are scored
AARONTBURN_MB = 1024
# aarontburn's functions of commit 030d6ab, as MeasureFunctions/index.js calls them. Its `transform`
# and `batch` encode PNG; `details` does no work.
OPERATIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "rotate": lambda image: image.rotate(-90, expand=True),
    "resize": lambda image: image.resize((250, 500)),
    "grayscale": lambda image: image.convert("L"),
    "brightness": lambda image: ImageEnhance.Brightness(image).enhance(90),
}
REPEATS = 9
DRAWS = 4001


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


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of the published measurements")
    parser.add_argument(
        "--picture-factor",
        action="store_true",
        help="time the kernel on SeBS's picture and on generated ones, for the profile",
    )
    return run_script(run, parser.parse_args(argv))


def run(args: argparse.Namespace) -> int:
    check_files(args.folder)
    if args.picture_factor:
        print("\n".join(picture_factor_lines(args.folder)))
        return DONE
    print("\n".join(table(scores(args.folder))))
    return DONE


def check_files(folder: Path) -> None:
    """Raises UserError that names the first file that is missing, and where to get it."""
    for name, source in FILES.items():
        if not (folder / name).is_file():
            raise UserError(f"{shown(folder / name)} does not exist; it is from {source}")


def scores(folder: Path) -> list[Score]:
    profile = load_profile()
    sebs = pd.read_csv(folder / SEBS).query("benchmark == '210_python'")
    cebert = pd.read_csv(folder / CEBERT)
    facts = pd.read_csv(folder / FACTS).set_index("fact")
    return [
        memory_rule_on_sebs(sebs),
        *memory_rule_on_cebert(sebs, cebert, "x86"),
        memory_rule_on_arm64(cebert),
        small_tasks(profile, sebs, cebert),
        *local_step(profile, folder, pd.read_csv(folder / AARONTBURN), facts["value"]),
        requests_by_memory(sebs),
        put_by_size(profile, facts["value"]),
        event(facts),
        *init(pd.read_csv(folder / CEBERT_INIT), pd.read_csv(folder / LAMBDA_PERF)),
    ]


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


# --- the memory rule ----------------------------------------------------------------------------


def sebs_compute(sebs: pd.DataFrame) -> tuple[pd.Series, float]:
    """Medians by memory, and the spread at the size that is fitted."""
    warm = sebs[sebs["kind"] == "warm"]
    fitted = warm.loc[warm["memory_mb"] == 2048, "compute_us"]
    return warm.groupby("memory_mb")["compute_us"].median() / 1000, spread_of_two(fitted)


def memory_rule_on_sebs(sebs: pd.DataFrame) -> Score:
    medians, log_sd = sebs_compute(sebs)
    scored = medians.drop(2048)
    forecast = by_rule(medians[2048], scored.index.to_numpy(float))
    return Score(
        "memory rule, x86",
        "SeBS thumbnailer at 2,048 MB",
        "SeBS at its other sizes",
        "2020-11",
        *with_interval(forecast, log_sd),
        scored.to_numpy(),
    )


def anchored(cebert: pd.DataFrame, column: str, workloads: tuple[str, ...]) -> pd.DataFrame:
    """Warm medians at all sizes but 2,048 MB, each with the function's own at 2,048 (`full`)."""
    warm = cebert[(cebert["kind"] == "warm") & cebert["workload"].isin(workloads)]
    warm = warm.dropna(subset=[column])
    key = ["month", "workload", "runtime"]
    full = warm[warm["memory_mb"] == 2048].set_index(key)[column].rename("full")
    return warm[warm["memory_mb"] != 2048].join(full, on=key, how="inner")


def memory_rule_on_cebert(sebs: pd.DataFrame, cebert: pd.DataFrame, arch: str) -> list[Score]:
    _, log_sd = sebs_compute(sebs)
    found = []
    for workload in ("cpu-intensive", "memory-intensive"):
        rows = anchored(cebert, f"{arch}_ms", (workload,))
        forecast = by_rule(rows["full"].to_numpy(), rows["memory_mb"].to_numpy())
        found.append(
            Score(
                f"memory rule, {arch}",
                "SeBS thumbnailer at 2,048 MB",
                f"cebert {workload}, from each function's own at 2,048 MB",
                "2025-11, 12",
                *with_interval(forecast, log_sd),
                rows[f"{arch}_ms"].to_numpy(),
            )
        )
    return found


def memory_rule_on_arm64(cebert: pd.DataFrame) -> Score:
    """The rule has nothing to fit; its spread is that of November."""
    rows = anchored(cebert, "arm64_ms", ("cpu-intensive", "memory-intensive"))
    rows = rows.assign(forecast=by_rule(rows["full"], rows["memory_mb"]))
    is_first = rows["month"] == "november-2025"
    errors = np.log(rows["arm64_ms"] / rows["forecast"])[is_first]
    log_sd = math.sqrt(float((errors**2).mean()))
    scored = rows[~is_first]
    return Score(
        "memory rule, arm64",
        "spread: cebert 2025-11",
        "cebert cpu- and memory-intensive",
        "2025-12",
        *with_interval(scored["forecast"].to_numpy(), log_sd),
        scored["arm64_ms"].to_numpy(),
    )


def small_tasks(profile: Profile, sebs: pd.DataFrame, cebert: pd.DataFrame) -> Score:
    """Some ms of a database's requests, of which the rule would make up to 14 times as many."""
    parts = [
        anchored(cebert, f"{arch}_ms", ("light",)).rename(columns={f"{arch}_ms": "measured"})
        for arch in ("x86", "arm64")
    ]
    rows = pd.concat(parts)
    rng = np.random.default_rng(0)
    escape, wait, waiting = rng.random((3, DRAWS))
    rule = np.exp(sebs_compute(sebs)[1] * rng.standard_normal(DRAWS))
    took_ms = [
        model.transform_ms(profile, full, memory, escape, wait, waiting) * rule
        for full, memory in zip(rows["full"], rows["memory_mb"], strict=True)
    ]
    return Score(
        "memory rule, small tasks",
        "SeBS and profile (small_task_*)",
        "cebert light, from each function's own at 2,048 MB",
        "2025-11, 12",
        *np.quantile(took_ms, (0.5, 1 - TWO_SIDED, TWO_SIDED), axis=1),
        rows["measured"].to_numpy(),
    )


# --- the local step -----------------------------------------------------------------------------


def local_step(profile: Profile, folder: Path, rows: pd.DataFrame, facts: pd.Series) -> list[Score]:
    """SeBS's kernel says how much slower Lambda is than this machine; aarontburn's operations,
    done here, are scored with that. Between two pictures of one operation, what does not depend on
    the picture cancels; whole invocations have the requests and boto3's work in them, too."""
    data = {
        path.stem.removeprefix("aarontburn_"): path.read_bytes()
        for path in sorted((folder / "pictures").glob("aarontburn_*.jpg"))
    }
    warm = rows[rows["cold"] == 0].groupby(["operation", "picture"])["runtime_ms"].median()
    is_done = [key[0] in OPERATIONS and key[1] in data for key in warm.index]
    measured = warm[is_done]
    done = {key: do_operation(data[key[1]], OPERATIONS[key[0]]) for key in measured.index}
    ratio = profile["kernel_ms_x86_64"] / sebs_kernel_ms(folder)
    step = profile.facts["local_step_jpeg"]
    spreads = {
        "spread of SeBS and cebert": other_groups(facts),
        "the profile's spread, pooled with these": (step.log_sd, step.degrees_of_freedom),
    }
    found = []
    for name, spread in spreads.items():
        drawn = Invocations(profile, ratio, spread)
        found.append(_differences(drawn, measured, done, data, name))
        found.append(_whole(drawn, measured, done, data, name))
    details = warm["details"] if "details" in warm.index.unique(0) else warm[:0]
    return [*found, _first_bytes(Invocations(profile, ratio, spreads.popitem()[1]), details)]


def sebs_kernel_ms(folder: Path) -> float:
    data = (folder / PICTURE).read_bytes()
    return least_ms(lambda: kernel.run_kernel(data))


def other_groups(facts: pd.Series) -> tuple[float, float]:
    """Log-sd and degrees of freedom of a new function's ratio by the kernel's, from those of SeBS
    and cebert: Lambda by one EPYC Genoa core."""
    ratios = facts[facts.index.str.startswith("ratio_lambda_x86_vs_EPYC_Genoa_")].astype(float)
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
        names = ("fetch_net_ms", "store_net_ms", "first_call_net_ms")
        facts = [profile.facts[name] for name in names]
        self._fetch, self._store, self._first = (
            self._factor(fact.log_sd, fact.degrees_of_freedom) for fact in facts
        )
        self._client_ms = least_ms(make_client)

    def _factor(self, log_sd: float, degrees: float) -> np.ndarray:
        return np.exp(log_sd * stats.t.rvs(degrees, size=DRAWS, random_state=self._rng))

    def compute(self, cpu_ms: float) -> np.ndarray:
        return by_rule(cpu_ms * self._ratio * self._step, AARONTBURN_MB)

    def get(self, size: int) -> np.ndarray:
        """With its client and connection."""
        took_ms = model.fetch_ms(self._profile, size, AARONTBURN_MB) * self._fetch
        return took_ms + self._new_connection()

    def put(self, size: int) -> np.ndarray:
        took_ms = model.store_ms(self._profile, size, AARONTBURN_MB) * self._store
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


# --- S3, events, INIT ---------------------------------------------------------------------------


def requests_by_memory(sebs: pd.DataFrame) -> Score:
    """GET, PUT, and what the first GET takes longer: net + cpu x max(1, 1769 / memory)."""
    warm, cold = (
        sebs[sebs["kind"] == kind].groupby("memory_mb")[["download_us", "upload_us"]].median() / 1e3
        for kind in ("warm", "cold")
    )
    series = [warm["download_us"], warm["upload_us"], cold["download_us"] - warm["download_us"]]
    forecasts, residuals, measured = [], [], []
    for medians in series:
        memory = medians.index.to_numpy(float)
        is_fitted = np.isin(memory, FITTED_SIZES)
        net, cpu = fit_by_memory(memory[is_fitted], medians[is_fitted].to_numpy())
        forecast = net + by_rule(cpu, memory)
        residuals += list(np.log(forecast / medians)[is_fitted])
        forecasts += list(forecast[~is_fitted])
        measured += list(medians[~is_fitted])
    degrees = len(residuals) - 2 * len(series)
    log_sd = math.sqrt(sum(r * r for r in residuals) / degrees)
    return Score(
        "S3 by memory: GET, PUT, first GET",
        "SeBS at 128, 512, 2,048 MB",
        "SeBS at its other sizes",
        "2020-11",
        *with_interval(np.array(forecasts), log_sd, degrees),
        np.array(measured),
    )


def fit_by_memory(memory_mb: np.ndarray, took_ms: np.ndarray) -> tuple[float, float]:
    """net and cpu, least squares of logarithms."""

    def errors(logs: np.ndarray) -> np.ndarray:
        return np.log((np.exp(logs[0]) + by_rule(np.exp(logs[1]), memory_mb)) / took_ms)

    net, cpu = np.exp(least_squares(errors, np.log([took_ms.min() / 2, took_ms.min() / 4])).x)
    return float(net), float(cpu)


def put_by_size(profile: Profile, facts: pd.Series) -> Score:
    small, large, scored = (
        float(facts[f"s3_put_{size}_2048MB"]) for size in ("3.5kB", "7.03MB", "9.32MB")
    )
    forecast = np.array([small + (large - small) / 7.03 * 9.32])
    spread = profile.facts["store_net_ms"]
    return Score(
        "S3 by size: PUT",
        "SeBS 3.5 kB and 7.03 MB; the profile's spread",
        "SeBS 9.32 MB",
        "2020-11",
        *with_interval(forecast, spread.log_sd, spread.degrees_of_freedom),
        np.array([scored]),
    )


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


def event(facts: pd.DataFrame) -> Score:
    """trigger-bench tells p50 and p99, of which the spread of single events follows."""
    numbers = facts.loc["s3_event_delay", ["value", "high"]].astype(float)
    log_sd = math.sqrt(2) * math.log(numbers["high"] / numbers["value"]) / stats.norm.ppf(0.99)
    busy = float(facts.loc["s3_event_delay_busy_stream", "value"])
    isolated = 1300.0  # which its note says
    return Score(
        "event of S3",
        "trigger-bench 2022-04",
        "shinobitiger310: isolated; busy stream",
        "2025-12",
        *with_interval(np.full(2, numbers["value"]), log_sd),
        np.array([isolated, busy]),
    )


def init(cebert: pd.DataFrame, lambda_perf: pd.DataFrame) -> list[Score]:
    """INIT depends on runtime, architecture and package, and not on memory."""
    python = cebert[cebert["runtime"].str.startswith("python")]
    parts = [
        python.rename(columns={f"{arch}_init_ms": "ms", f"{arch}_init_p99": "p99"}).assign(
            arch=arch
        )
        for arch in ("x86", "arm64")
    ]
    rows = pd.concat(parts)[["month", "workload", "runtime", "memory_mb", "arch", "ms", "p99"]]
    rows = rows.dropna()
    key = ["workload", "runtime", "arch"]
    fitted = rows[(rows["month"] == "november-2025") & (rows["memory_mb"] == 2048)].set_index(key)
    log_sd = math.sqrt(2) * np.log(fitted["p99"] / fitted["ms"]) / stats.norm.ppf(0.99)
    known = pd.DataFrame({"forecast": fitted["ms"], "log_sd": log_sd})
    is_fitted = (rows["month"] == "november-2025") & (rows["memory_mb"] == 2048)
    own = rows[~is_fitted].join(known, on=key, how="inner")
    hello = known.loc["cpu-intensive"]  # it imports nothing, as the other's does
    other = lambda_perf.assign(arch=lambda_perf["arch"].replace("x86_64", "x86"))
    other = other.join(hello, on=["runtime", "arch"], how="inner")
    return [
        Score(
            "INIT by memory and month",
            "cebert 2025-11 at 2,048 MB, by function",
            "cebert at other sizes, and a month later",
            "2025-11, 12",
            *with_interval(own["forecast"].to_numpy(), own["log_sd"].to_numpy()),
            own["ms"].to_numpy(),
        ),
        Score(
            "INIT by author",
            "cebert 2025-11 at 2,048 MB, without imports",
            "lambda-perf, hello-world zip",
            "2026-01..08",
            *with_interval(other["forecast"].to_numpy(), other["log_sd"].to_numpy()),
            other["p50"].to_numpy(),
        ),
    ]


# --- output -------------------------------------------------------------------------------------


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


def picture_factor_lines(folder: Path) -> list[str]:
    """What kernel_picture_factor of the profile says, for this machine."""
    scenes = ("harbour", "forest", "snow", "market", "night", "fruit")
    pictures = {"SeBS": (folder / PICTURE).read_bytes()}
    pictures |= {scene: kernel.kernel_picture(scene) for scene in scenes}
    times = {name: [] for name in pictures}
    for _ in range(REPEATS):  # in turn, so that a disturbance hits all alike
        for name, data in pictures.items():
            begin = time.process_time()
            kernel.run_kernel(data)
            times[name].append(1000 * (time.process_time() - begin))
    least = {name: min(values) for name, values in times.items()}
    factors = {name: least["SeBS"] / least[name] for name in scenes}
    log_sd = float(np.std(np.log(list(factors.values())), ddof=1))
    lines = [f"kernel on SeBS's picture: {least['SeBS']:.2f} ms"]
    lines += [
        f"{name}: {least[name]:.2f} ms, factor {factor:.3f}" for name, factor in factors.items()
    ]
    return [*lines, f"log-sd over generated pictures: {log_sd:.3f}; the kernel's is 'harbour'"]


if __name__ == "__main__":
    sys.exit(main())
