"""How do the steps of a run grow with the number of pictures, and how much memory does it take?

Runs master_pipeline.py on the embedded cloud with growing sets of tiny pictures, in a copy of the
project, and prints the wall time of each step and the exponent of its growth between the sizes:
1 is in proportion. Draws a chart when --output names a PNG file. The embedded cloud runs beside it,
so that the memory is that of the orchestrator, the on-prem workers and what draws the charts.

    python tests/benchmarks/growth.py --pictures 100 1000 10000 --output growth.png
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the project is not on the path yet
    sys.path[:0] = [str(Path(__file__).resolve().parents[n]) for n in (2, 1)]

import argparse
import io
import itertools
import json
import math
import subprocess
import tempfile
from datetime import datetime

from conftest import copy_project
from PIL import Image
from processes import peak_memory_mb

from lambda_function.embedded_cloud import embedded_cloud
from metrics.analysis.run_record import record_of
from metrics.common.cli import DONE, UserError, positive_int, run_script, script_parser, some_path
from metrics.common.machine import available_cpus
from metrics.common.originals import check_target, is_chart
from metrics.common.paths import whole_file
from metrics.common.streams import start_script

STEPS = ("on-prem", "upload", "wait", "logs", "compare")
SIZE = (64, 48)


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("--pictures", type=positive_int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--output", type=some_path, help="PNG file of the chart")
    return run_script(run, parser.parse_args(argv))


def run(args: argparse.Namespace) -> int:
    if args.output:
        check_target(args.output, "--output", is_chart)
    counts, measured = sorted(args.pictures), []
    for count in counts:
        seconds, peak_mb = steps_of_run(count)
        measured.append(seconds)
        print(f"{count} pictures:", *(f"{s} {seconds[s]:.1f} s," for s in STEPS), end=" ")
        print(f"largest process {peak_mb:.0f} MB", flush=True)
    for (n, before), (m, after) in itertools.pairwise(zip(counts, measured, strict=True)):
        growth = {s: math.log(after[s] / before[s]) / math.log(m / n) for s in STEPS}
        print(f"{n} to {m}: n to the power of", *(f"{s} {growth[s]:.2f}," for s in STEPS))
    if args.output:
        with whole_file(args.output) as file:
            draw(counts, measured).savefig(file, format="png")
        print(args.output)
    return DONE


def steps_of_run(count: int) -> tuple[dict[str, float], float]:
    """Seconds by step, and the peak memory of the run's largest process."""
    with tempfile.TemporaryDirectory() as folder:
        project = copy_project(Path(folder) / "project")
        for number in range(count):
            (project / "images_to_upload" / f"{number}.png").write_bytes(tiny_picture(number))
        with embedded_cloud(available_cpus()) as cloud:
            command = [sys.executable, "master_pipeline.py", "--run-id", "growth"]
            command += ["--endpoint-url", cloud.endpoint_url]
            code, peak_mb = peak_memory_mb(command, cwd=project, stdout=subprocess.DEVNULL)
        if code != DONE:
            raise UserError(f"the run with {count} pictures failed; its message stands above")
        record = record_of((project / "metrics/run.json").read_bytes(), "growth")
        ledger = json.loads((project / "metrics/summary.json").read_bytes())["ledger"]
    if (completeness := ledger["completeness"]) != 1:
        raise UserError(f"the run with {count} pictures lacks rows: completeness {completeness}")
    seconds = {
        step["step"]: (
            datetime.fromisoformat(step["end"]) - datetime.fromisoformat(step["start"])
        ).total_seconds()
        for step in record["steps"]
    }
    return seconds, peak_mb


def tiny_picture(number: int) -> bytes:
    """Different for each number."""
    file = io.BytesIO()
    colour = (number % 256, number // 256 % 256, number // 65536)
    Image.new("RGB", SIZE, colour).save(file, "PNG")
    return file.getvalue()


def draw(counts: list[int], measured: list[dict[str, float]]):
    from matplotlib.figure import Figure

    figure = Figure((8, 5), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for step in STEPS:
        axes.plot(counts, [seconds[step] for seconds in measured], marker="o", label=step)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="pictures",
        ylabel="wall time (s)",
        title="Growth of each step with the number of pictures (embedded cloud)",
    )
    first = measured[0]["wait"]
    axes.plot(
        counts, [first * n / counts[0] for n in counts], "--", color="grey", label="in proportion"
    )
    axes.legend()
    return figure


if __name__ == "__main__":
    sys.exit(start_script(main))
