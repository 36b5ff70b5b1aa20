"""On-prem against itself, again and again: how often is a difference seen where there is none?

Runs `master_pipeline.py --aa` and counts what its verdicts say. A method that can be relied on says
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
from metrics.files import IMAGES, SUMMARY_JSON
from metrics.script import DONE, UserError, positive_int, run_script, script_parser


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("--repeat", type=positive_int, default=20, help="runs")
    parser.add_argument("--rounds", type=positive_int, default=3, help="of each run")
    parser.add_argument("--images", type=Path, default=IMAGES, help="folder of pictures")
    return run_script(run, parser.parse_args(argv))


def run(args: argparse.Namespace) -> int:
    told = {"per picture": 0, "whole job": 0}
    for number in range(1, args.repeat + 1):
        estimate = run_once(args)
        for question, answer in estimate.items():
            told[question] += not answer["low"] <= 1 <= answer["high"]
        ends = "  ".join(
            f"{question} {answer['ratio']:.3f} ({answer['low']:.3f} to {answer['high']:.3f})"
            for question, answer in estimate.items()
        )
        print(f"{number:3}  {ends}", flush=True)
    for question, count in told.items():
        print(f"{question}: {args.repeat - count} of {args.repeat} runs could not tell")
    return DONE


def run_once(args: argparse.Namespace) -> dict[str, dict]:
    """The estimates of one run by question."""
    flags = ["--aa", "--rounds", str(args.rounds), "--images", str(args.images)]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as e:
        if master_pipeline.main(flags) != DONE:
            raise UserError(f"a run failed: {e.getvalue().strip()}")
    summary = json.loads(SUMMARY_JSON.read_bytes())
    return {"per picture": summary["per_picture"], "whole job": summary["whole_job"]}


if __name__ == "__main__":
    sys.exit(main())
