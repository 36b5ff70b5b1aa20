"""Many small pictures through the whole pipeline on the embedded cloud, and how long it takes.

Generates the pictures in a temporary folder, runs master_pipeline.py on them, and checks the
claims: a row per picture in each arm, equal output hashes, no error. Replaces the results of the
run before in this checkout, like any run.

    python tests/benchmarks/many_pictures.py --pictures 500 --concurrency 4
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the project is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import argparse
import tempfile
import time
from dataclasses import replace
from functools import partial

import master_pipeline
from metrics.common.cli import positive_int, run_script, script_parser
from metrics.common.machine import available_cpus
from metrics.common.paths import CLOUD_CSV, LOCAL_CSV
from metrics.common.streams import start_script
from metrics.common.worker_pool import worker_pool
from onprem_images.sample_images import PICTURES, SAMPLE_SEED, render_picture

WIDTH, HEIGHT = 387, 258  # 0.1 megapixel, 3:2


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("--pictures", type=positive_int, default=500)
    parser.add_argument("--concurrency", type=positive_int, default=4)
    return run_script(run, parser.parse_args(argv))


def run(args: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), args.pictures)
        start = time.perf_counter()
        code = master_pipeline.main(["--images", folder, "--concurrency", str(args.concurrency)])
        took_s = time.perf_counter() - start
    check(args.pictures)
    print(f"{args.pictures} pictures at concurrency {args.concurrency}: {took_s:.1f} s")
    return code


def generate(folder: Path, count: int) -> None:
    """`count` different pictures of 0.1 megapixel, in the scenes of the sample set."""
    scenes = [p for p in PICTURES if p.kind == "rgb"]
    specs = [replace(scenes[i % len(scenes)], width=WIDTH, height=HEIGHT) for i in range(count)]
    with worker_pool(available_cpus(), partial(int, 0)) as pool:
        seeds = [(SAMPLE_SEED, i) for i in range(count)]
        for i, data in enumerate(pool.map(render_picture, specs, seeds, chunksize=8)):
            (folder / f"{i:05}.jpg").write_bytes(data)


def check(count: int) -> None:
    from metrics.analysis.comparison import compare
    from metrics.analysis.rows import read_rows

    comparison = compare(read_rows(LOCAL_CSV, "on_prem"), read_rows(CLOUD_CSV, "cloud"))
    pairs = comparison.pairs
    assert comparison.first.rows == comparison.second.rows == count, "rows are missing"
    assert comparison.first.failed == comparison.second.failed == 0, "pictures failed"
    equal = (pairs["output_sha256_on_prem"] == pairs["output_sha256_cloud"]).sum()
    assert equal == count, f"only {equal} of {count} outputs are equal"
    print(f"{count} rows in each arm, {equal} equal output hashes, no error")


if __name__ == "__main__":
    sys.exit(start_script(main))
