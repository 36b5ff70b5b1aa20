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
import math
import time

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import least_squares

from metrics.analysis import calibration as kernel
from metrics.analysis import forecast_model as model
from metrics.analysis.aws_profile import Profile, load_profile
from metrics.analysis.forecast_local_step import REPEATS, local_step
from metrics.analysis.forecast_score import (
    DRAWS,
    TWO_SIDED,
    Score,
    by_rule,
    spread_of_two,
    table,
    with_interval,
)
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
FITTED_SIZES = (128, 512, 2048)  # MB, of GET and PUT by memory; the others are scored


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
        *local_step_scores(profile, folder, facts["value"]),
        requests_by_memory(sebs),
        put_by_size(profile, facts["value"]),
        event(facts),
        *init(pd.read_csv(folder / CEBERT_INIT), pd.read_csv(folder / LAMBDA_PERF)),
    ]


def local_step_scores(profile: Profile, folder: Path, facts: pd.Series) -> list[Score]:
    data = {
        path.stem.removeprefix("aarontburn_"): path.read_bytes()
        for path in sorted((folder / "pictures").glob("aarontburn_*.jpg"))
    }
    ratios = facts[facts.index.str.startswith("ratio_lambda_x86_vs_EPYC_Genoa_")].astype(float)
    rows = pd.read_csv(folder / AARONTBURN)
    return local_step(profile, (folder / PICTURE).read_bytes(), data, rows, ratios)


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
    spread = profile.facts["s3_by_author"]
    return Score(
        "S3 by size: PUT",
        "SeBS 3.5 kB and 7.03 MB; the profile's spread",
        "SeBS 9.32 MB",
        "2020-11",
        *with_interval(forecast, spread.log_sd, spread.degrees_of_freedom),
        np.array([scored]),
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
