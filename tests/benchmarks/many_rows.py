"""How long judging, charting and reporting take for many rows, and how much memory.

Makes rows of two arms and their manifest in a temporary folder, runs
compare_cloud_onprem_metrics.py on them as a process of its own, and prints its wall time and
largest resident memory.

    python tests/benchmarks/many_rows.py
    python tests/benchmarks/many_rows.py --rows 1000000
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the project is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import argparse
import hashlib
import json
import resource
import subprocess
import tempfile
import time

import numpy as np
import pandas as pd

from lambda_function.metrics_log import COLUMNS
from metrics.common.cli import DONE, FAILED, positive_int, run_script, script_parser
from metrics.common.paths import PROJECT
from metrics.common.streams import start_script

SCRIPT = PROJECT / "compare_cloud_onprem_metrics.py"
LIMITS = {10_000: (10, 3.0), 1_000_000: (90, 3.0)}  # rows an arm: seconds, GB


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("--rows", type=positive_int, nargs="+", default=list(LIMITS))
    return run_script(run, parser.parse_args(argv))


def run(args: argparse.Namespace) -> int:
    code = DONE
    for rows in args.rows:
        with tempfile.TemporaryDirectory() as folder:
            make_files(Path(folder), rows)
            took_s, peak_gb = time_judgement(Path(folder))
        limit_s, limit_gb = LIMITS.get(rows, (float("inf"), float("inf")))
        within = took_s < limit_s and peak_gb < limit_gb
        code = code if within else FAILED
        print(
            f"{rows:,} rows an arm: {took_s:.1f} s, {peak_gb:.2f} GB"
            + ("" if within else f" (goal: {limit_s} s, {limit_gb} GB)"),
            flush=True,
        )
    return code


def time_judgement(folder: Path) -> tuple[float, float]:
    """Seconds, and the largest resident memory of any child so far in GB."""
    command = [
        *(sys.executable, str(SCRIPT), "--no-download"),
        *("--local-csv", str(folder / "on_prem.csv"), "--cloud-csv", str(folder / "cloud.csv")),
        *("--manifest", str(folder / "manifest.json"), "--output", str(folder / "results")),
    ]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    took_s = time.perf_counter() - start
    kilobytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return took_s, kilobytes / 2**20


def make_files(folder: Path, count: int) -> None:
    """Rows as the arms write them: log-normal times, two workers, every column filled."""
    rng = np.random.default_rng(1)
    keys = [f"holiday/{number // 1000:04}/picture {number:07}.jpg" for number in range(count)]
    hashes = [hashlib.sha256(key.encode()).hexdigest() for key in keys]
    sizes = rng.lognormal(14, 0.6, count).astype(int)
    size_effect = np.log(sizes / sizes.mean())
    pictures = [
        {"image_key": key, "size": int(size), "sha256": sha256}
        for key, size, sha256 in zip(keys, sizes, hashes, strict=True)
    ]
    manifest = {"run_id": "benchmark", "rounds": 1, "pictures": pictures}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    facts = {"image_key": keys, "orig_size": sizes, "output_sha256": hashes}
    for source, environment, factor in (("on_prem", "local", 1.0), ("cloud", "embedded", 1.4)):
        proc_ms = factor * np.exp(3.3 + size_effect + rng.normal(0, 0.1, count))
        begin_ms = np.cumsum(proc_ms + 4) / 2 + 1_767_225_600_000  # 2026-01-01
        rows = pd.DataFrame(facts).assign(
            timestamp=np.char.add(np.datetime_as_string(begin_ms.astype("M8[ms]")), "+00:00"),
            new_size=90_000,
            proc_ms=proc_ms.round(3),
            source=source,
            run_id="benchmark",
            round=1,
            status="ok",
            error="",
            cpu_ms=(proc_ms * 0.98).round(3),
            fetch_ms=1.234,
            store_ms=2.345,
            cold_start=["true" if n < 2 and source == "cloud" else "false" for n in range(count)],
            worker=np.where(np.arange(count) % 2, "worker-1", "worker-2"),
            memory_mb=1769,
            environment=environment,
            transform="v1 pillow-13.0.0 libjpeg-3.1.2",
            request_id=[hash_[:36] for hash_ in hashes] if source == "cloud" else "",
        )
        order = rng.permutation(count) if source == "cloud" else slice(None)
        rows[list(COLUMNS)].iloc[order].to_csv(folder / f"{source}.csv", index=False)


if __name__ == "__main__":
    sys.exit(start_script(main))
