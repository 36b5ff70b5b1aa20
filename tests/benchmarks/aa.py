"""On-prem against itself, again and again: how often is a difference seen where there is none?

Runs `master_pipeline.py --self-check` and counts its verdicts. A method that can be relied on says
"cannot tell" in all but about 5% of the runs. Replaces the results of the run before in this
checkout, like any run.

    python tests/benchmarks/aa.py --repeat 20 --rounds 3
"""

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: the project is not on the path yet
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import argparse
import contextlib
import io
import json

import master_pipeline
from metrics.common.cli import DONE, UserError, positive_int, run_script, script_parser
from metrics.common.flags import add_flag, add_flags
from metrics.common.paths import SUMMARY_JSON
from metrics.common.streams import start_script

QUESTIONS = ("per_picture", "whole_job")  # the keys of summary.json


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("--repeat", type=positive_int, default=20, help="runs")
    add_flag(parser, "--rounds", default=3, help="of each run")
    add_flags(parser, "--images", "--all-files")
    return run_script(run, parser.parse_args(argv))


def run(args: argparse.Namespace) -> int:
    told = dict.fromkeys(QUESTIONS, 0)
    for number in range(1, args.repeat + 1):
        summary = run_once(args)
        ends = []
        for question in QUESTIONS:
            estimate, verdict = summary[question], summary["verdict"][question]
            could_tell = not verdict.startswith("cannot tell")
            told[question] += could_tell
            interval = f"{estimate['ratio']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"
            ends.append(f"{question} {interval} {'TOLD' if could_tell else ''}")
        print(f"{number:3}  {'  '.join(ends)}", flush=True)
    for question, count in told.items():
        print(f"{question}: {args.repeat - count} of {args.repeat} runs could not tell")
    return DONE


def run_once(args: argparse.Namespace) -> dict:
    """The summary of one run."""
    flags = ["--self-check", "--rounds", str(args.rounds), "--images", str(args.images)]
    flags += ["--all-files"] if args.all_files else []
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as e:
        if master_pipeline.main(flags) != DONE:
            raise UserError(f"a run failed: {e.getvalue().strip()}")
    return json.loads(SUMMARY_JSON.read_bytes())


if __name__ == "__main__":
    sys.exit(start_script(main))
