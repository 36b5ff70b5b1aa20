"""Fault campaigns by the thousand: does anything lose, double or change a row?

Each seed is one campaign of the model in tests/fault_model: the real handler, metrics_log and wait,
on an S3 in memory and a virtual clock, with faults. Prints the seeds that fail, and the steps of
the first of them; exits 1 when there is one. A seed replays exactly, on every machine.

With --end-to-end, also real runs of the cloud arm on embedded clouds with --faults.

    python tests/benchmarks/fault_campaigns.py --seeds 50000
    python tests/benchmarks/fault_campaigns.py --seeds 1 --end-to-end 50
    python tests/benchmarks/fault_campaigns.py --seed 1234
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the project and the tests are not on the path yet
    sys.path[:0] = [str(Path(__file__).resolve().parents[n]) for n in (2, 1)]

import argparse
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from end_to_end import problems_of_campaign
from fault_model.campaign import Result, run_campaign
from tqdm import tqdm

from metrics.common.cli import DONE, FAILED, positive_int, run_script, script_parser
from metrics.common.machine import available_cpus
from metrics.common.streams import start_script
from metrics.common.worker_pool import results as worker_pool_results
from metrics.common.worker_pool import worker_pool


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("--seeds", type=positive_int, default=2000, help="campaigns of the model")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seed", type=int, help="replay this one, and print its steps")
    parser.add_argument(
        "--end-to-end", type=int, default=0, metavar="N", help="campaigns on embedded clouds"
    )
    parser.add_argument(
        "--processes", type=positive_int, default=available_cpus(), help="campaigns at once"
    )
    return run_script(run, parser.parse_args(argv))


def run(args: argparse.Namespace) -> int:
    if args.seed is not None:
        return FAILED if replay(args.seed).failure else DONE
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    start = time.perf_counter()
    failed = run_model(tqdm(results(seeds, args.processes), total=len(seeds), disable=None))
    print(f"{len(seeds)} campaigns took {time.perf_counter() - start:.0f} s")
    for result in failed:
        print(f"seed {result.seed}: {result.failure}")
    if failed:
        replay(failed[0].seed)
    ends = range(args.first_seed, args.first_seed + args.end_to_end)
    has_problems = run_end_to_end(ends, args.processes)
    return FAILED if failed or has_problems else DONE


def run_end_to_end(seeds: range, at_once: int) -> bool:
    """Whether any of the campaigns on embedded clouds had a problem; each is printed."""
    found = False
    with ThreadPoolExecutor(at_once) as pool:
        for seed, problems in zip(seeds, pool.map(problems_of_campaign, seeds), strict=True):
            found |= bool(problems)
            print(f"end to end, seed {seed}: {'; '.join(problems) or 'all that must hold, holds'}")
    return found


def results(seeds: range, processes: int) -> Iterator[Result]:
    """In the order in which they are finished."""
    if processes == 1:
        yield from map(run_campaign, seeds)
        return
    with worker_pool(processes, partial(run_campaign, 0)) as pool:
        yield from worker_pool_results(pool, run_campaign, ((seed,) for seed in seeds))


def run_model(campaigns: Iterable[Result]) -> list[Result]:
    """Those that failed, after a word about all."""
    failed, faults, totals = [], Counter(), Counter()
    for result in campaigns:
        faults += result.struck
        totals += Counter(steps=result.steps, invocations=result.invocations, rows=result.rows)
        if result.failure:
            failed.append(result)
    failed.sort(key=lambda result: result.seed)
    print(", ".join(f"{count} {what}" for what, count in totals.items()))
    print("faults:", ", ".join(f"{count} {kind}" for kind, count in sorted(faults.items())))
    print(f"{len(failed)} campaigns failed")
    return failed


def replay(seed: int) -> Result:
    trace: list[str] = []
    result = run_campaign(seed, trace)
    print(f"\nseed {seed}, step by step: virtual seconds, who, what\n")
    print("\n".join(trace))
    print(f"\nseed {seed}: {result.failure or 'all that must hold, holds'}")
    return result


if __name__ == "__main__":
    sys.exit(start_script(main))
