"""How much longer does the on-prem arm take than its pictures' transforms must?

Runs local_image_proc.py, as a command, on small and on large pictures, and prints its wall time
beside what the transforms' processor time gives when all processors share it evenly. Also the peak
memory of its largest process, for one round and for several: a worker must not grow.

    python tests/benchmarks/onprem_pass.py --repeat 5
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the project and the tests are not on the path yet
    sys.path[:0] = [str(Path(__file__).resolve().parents[n]) for n in (2, 1)]

import argparse
import statistics
import subprocess
import tempfile
import time

from conftest import copy_project
from processes import peak_memory_mb

from metrics.analysis.rows import read_rows
from metrics.common.cli import DONE, positive_int, run_script, script_parser
from metrics.common.machine import available_cpus
from metrics.common.streams import start_script
from metrics.common.worker_pool import worker_pool
from onprem_images.sample_images import SAMPLE_SEED, SamplePicture, render_picture

SETS = {"0.1 megapixel": (500, (387, 258)), "12 megapixels": (60, (4240, 2832))}
SCENES = ("harbour", "forest", "beach", "town")
DIFFERENT = 8  # pictures of a set; the others repeat them under other names


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("--repeat", type=positive_int, default=3)
    return run_script(run, parser.parse_args(argv))


def run(args: argparse.Namespace) -> int:
    for name, (count, size) in SETS.items():
        with tempfile.TemporaryDirectory() as folder:
            project = copy_project(Path(folder) / "project")
            generate(project / "images_to_upload", count, size)
            measured = [one_pass(project, rounds=1) for _ in range(args.repeat)]
            walls, ideals, peaks = zip(*measured, strict=True)
            over = [wall - ideal for wall, ideal in zip(walls, ideals, strict=True)]
            ratio = [wall / ideal for wall, ideal in zip(walls, ideals, strict=True)]
            print(f"{count} pictures of {name}: {statistics.median(walls):.2f} s;", end=" ")
            print(f"transforms {statistics.median(ideals):.2f} s a processor;", end=" ")
            print(f"{statistics.median(over):.2f} s more ({min(over):.2f} to {max(over):.2f}),")
            print(f"  {statistics.median(ratio):.3f} times;", end=" ")
            within = all(w <= 1.05 * i + 1 for w, i in zip(walls, ideals, strict=True))
            print(f"at most 1.05 times and 1 s: {'yes' if within else 'NO'};", end=" ")
            *_, several = one_pass(project, rounds=4)
            print(f"largest process {max(peaks):.0f} MB, after 4 rounds {several:.0f} MB")
    return DONE


def generate(folder: Path, count: int, size: tuple[int, int]) -> None:
    specs = [SamplePicture("", *size, SCENES[i % len(SCENES)]) for i in range(DIFFERENT)]
    seeds = [(SAMPLE_SEED, i) for i in range(DIFFERENT)]
    with worker_pool(available_cpus(), no_warm_up) as pool:
        different = list(pool.map(render_picture, specs, seeds))
    for number in range(count):
        (folder / f"{number:04}.jpg").write_bytes(different[number % DIFFERENT])


def no_warm_up() -> None:
    """Rendering pictures is not measured."""


def one_pass(project: Path, rounds: int) -> tuple[float, float, float]:
    """Wall seconds of the command, seconds of the transforms a processor, peak MB of a process."""
    command = [sys.executable, "onprem_images/local_image_proc.py", "--rounds", str(rounds)]
    start = time.perf_counter()
    code, peak_mb = peak_memory_mb(command, cwd=project, stdout=subprocess.DEVNULL)
    wall_s = time.perf_counter() - start
    assert code == DONE
    rows = read_rows(project / "onprem_images/metrics/local_metrics.csv", "on_prem")
    return wall_s, rows["cpu_ms"].sum() / 1000 / available_cpus(), peak_mb


if __name__ == "__main__":
    sys.exit(start_script(main))
