"""What does a user wait for beside the work: --help, the first picture, the rest of a run?

Runs each script's --help, then master_pipeline.py on the sample set, in a copy of the project, and
prints medians and extremes. "The arms' own time" is that of the steps on-prem, upload and wait. A
cold start is what Lambda reports as the init phase. The sample set is generated before.

    python tests/benchmarks/start_up.py --repeat 5
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the project and the tests are not on the path yet
    sys.path[:0] = [str(Path(__file__).resolve().parents[n]) for n in (2, 1)]

import argparse
import csv
import json
import statistics
import subprocess
import tempfile
import time
from datetime import UTC, datetime

from conftest import copy_project

from metrics.common.cli import DONE, positive_int, run_script, script_parser
from metrics.common.streams import start_script
from onprem_images.sample_images import generate_sample_images

SCRIPTS = (
    *("master_pipeline.py", "upload_images_s3.py", "compare_cloud_onprem_metrics.py"),
    "onprem_images/local_image_proc.py",
    *("lambda_function/deploy.py", "lambda_function/embedded_cloud.py"),
)
ARMS = ("on-prem", "upload", "wait")


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("--repeat", type=positive_int, default=5)
    return run_script(run, parser.parse_args(argv))


def run(args: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        project = copy_project(Path(folder) / "project")
        for script in SCRIPTS:
            times = [wall_s(project, script, "--help") for _ in range(args.repeat)]
            print(f"{script} --help: {spread(times)}")
        generate_sample_images(project / "images_to_upload")
        first, rest, cold = [], [], []
        for _ in range(args.repeat):
            begun = datetime.now(UTC)
            took_s = wall_s(project, "master_pipeline.py")
            first.append(first_picture_s(project) - begun.timestamp())
            rest.append(took_s - 1.25 * arms_s(project))
            cold += cold_starts(project)
    print(f"from the command to the first picture done: {spread(first)}")
    print(f"sample run, less 1.25 times the arms' own time: {spread(rest)}")
    print(f"cold start: {spread(cold)}")
    return DONE


def wall_s(project: Path, *command: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=project, check=True, capture_output=True)
    return time.perf_counter() - start


def first_picture_s(project: Path) -> float:
    """When the first picture was stored, in seconds since 1970."""
    with (project / "onprem_images/metrics/local_metrics.csv").open(newline="") as file:
        return min(
            datetime.fromisoformat(row["timestamp"]).timestamp()
            + sum(float(row[phase]) for phase in ("fetch_ms", "proc_ms", "store_ms")) / 1000
            for row in csv.DictReader(file)
        )


def arms_s(project: Path) -> float:
    steps = json.loads((project / "metrics/run.json").read_bytes())["steps"]
    return sum(
        (datetime.fromisoformat(s["end"]) - datetime.fromisoformat(s["start"])).total_seconds()
        for s in steps
        if s["step"] in ARMS
    )


def cold_starts(project: Path) -> list[float]:
    with (project / "metrics/invocations.csv").open(newline="") as file:
        init = [float(row["init_ms"]) / 1000 for row in csv.DictReader(file)]
    return [seconds for seconds in init if seconds > 0]


def spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"


if __name__ == "__main__":
    sys.exit(start_script(main))
