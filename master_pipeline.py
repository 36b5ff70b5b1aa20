"""Is it better to process these pictures on this machine or on AWS Lambda?

Cleans, takes all pictures here and in the cloud, waits, compares: the answer is
in metrics/report.html. The cloud is an emulated one that starts and ends with
the run, unless told otherwise. Exits 0 when the arms could be compared, 1 when
not, 130 when interrupted.

    python master_pipeline.py
    python master_pipeline.py --images ~/photos --rounds 4 --bundle photos.zip
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # the project may not be on the path: python -P, PYTHONSAFEPATH
    sys.path.insert(0, str(Path(__file__).resolve().parent))

import argparse
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from lambda_function.cloud import add_cloud_arguments
from lambda_function.image_transform import output_name
from metrics.analysis.assumptions import (
    Assumptions,
    add_assumption_arguments,
    chosen_assumptions,
)
from metrics.analysis.run_record import recorded_command
from metrics.analysis.sweep import (
    MAX_RUN_ID,
    Setting,
    clean,
    is_kept,
    keep,
    nested_subset,
    settings_of,
)
from metrics.common.cli import (
    CLOUD,
    DONE,
    PICTURES,
    RARE,
    ROUNDS,
    SWEEPS,
    ScriptParser,
    positive_int,
    positive_ints,
    positive_seconds,
    positive_usd,
    precision,
    run_script,
    script_parser,
)
from metrics.common.flags import add_flag, add_flags, add_judgement_arguments
from metrics.common.machine import available_cpus, new_run_id
from metrics.common.paths import CLOUD_CSV, LOCAL_CSV, MANIFEST_JSON, RESULTS
from metrics.common.run_lock import checkout_lock
from metrics.common.streams import after_output, start_script
from onprem_images.outputs import check_outputs

if TYPE_CHECKING:
    from metrics.analysis.stopping import Limits
    from metrics.run.resume import Unfinished
    from metrics.run.round_runner import CloudInUse, Run
    from onprem_images.dataset import DataSet, Picture


MAX_ADDED_ROUNDS = 20  # of --precision


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__, PICTURES)
    add_flags(parser, "--images", "--all-files")
    add_run_arguments(parser)
    add_rounds_arguments(parser)
    add_cloud_arguments(parser)
    add_sweep_arguments(parser)
    add_judgement_arguments(parser)
    add_assumption_arguments(parser)
    args = parser.parse_args(argv)
    check_flags(parser, args)
    args.command_line = recorded_command(
        ["master_pipeline.py", *(sys.argv[1:] if argv is None else argv)]
    )
    return run_script(run, args)


def add_run_arguments(parser: ScriptParser) -> None:
    add_flag(parser, "--dry-run", help="say what would be done and cost, and stop")
    add_flag(parser, "--resume", help="go on with the interrupted run; same flags again")
    add_flags(parser, "--self-check", "--run-id")
    parser.group(RARE).add_argument(
        "--no-clean", action="store_true", help="keep what earlier runs left"
    )
    add_flag(parser, "--timeout", help="for rows; default: 200 (on AWS 500), and 1 a picture")
    parser.group(CLOUD).add_argument(
        "--max-cost",
        type=positive_usd,
        metavar="USD",
        help="do not start on AWS, or stop, if more is to be paid",
    )


def add_rounds_arguments(parser: ScriptParser) -> None:
    group = parser.group(ROUNDS)
    add_flag(parser, "--rounds", help="passes over all pictures; default: 1, in a sweep 3")
    group.add_argument(
        "--precision",
        type=precision,
        metavar="PERCENT",
        help="rounds until the interval is so narrow to each side",
    )
    group.add_argument(
        "--max-rounds",
        type=positive_int,
        metavar="N",
        help=f"of --precision; default: {MAX_ADDED_ROUNDS}",
    )
    group.add_argument(
        "--max-time",
        type=positive_seconds,
        metavar="SECONDS",
        help="of --precision: no round that would end later",
    )


def add_sweep_arguments(parser: ScriptParser) -> None:
    """What is given several values is varied, one thing at a time."""
    sweep, cpus = parser.group(SWEEPS), str(available_cpus())
    sweep.add_argument(
        "--scale",
        type=positive_ints,
        default=(),
        metavar="N,N,...",
        help="so many pictures: who is first from how many on?",
    )
    sweep.add_argument(
        "--memory",
        type=positive_ints,
        default=(),
        metavar="MB,MB,...",
        help="of the function: fastest, cheapest, balanced?",
    )
    for name, text in (
        ("--workers", "on-prem processes; several: a sweep"),
        ("--concurrency", "cloud environments; several: a sweep"),
    ):
        several = {"type": positive_ints, "default": cpus, "metavar": "N,N,..."}
        add_flag(parser, name, group=SWEEPS, help=text, **several)


def check_flags(parser: ScriptParser, args: argparse.Namespace) -> None:
    """Exit 2 for flags that contradict each other."""
    sweeps = args.scale or args.memory or len(args.concurrency) > 1 or len(args.workers) > 1
    limits_precision = args.max_rounds or args.max_time
    in_range = all(128 <= memory <= 10240 for memory in args.memory)
    long_id = len(args.run_id or "") > MAX_RUN_ID
    for is_wrong, message in (
        (
            args.self_check and args.cloud == "aws",
            "--self-check compares on-prem with itself, and uses no cloud",
        ),
        (
            args.self_check and sweeps,
            "--self-check compares on-prem with itself: without sweeps",
        ),
        (
            limits_precision and not args.precision,
            "--max-rounds and --max-time limit --precision, which is not there",
        ),
        (
            args.precision and args.rounds,
            "--precision adds rounds by itself: without --rounds (see --max-rounds)",
        ),
        (not in_range, "--memory: a function has 128 to 10240 MB"),
        (sweeps and long_id, f"--run-id: in a sweep {MAX_RUN_ID} characters at most"),
    ):
        if is_wrong:
            parser.error(message)
    args.max_rounds = args.max_rounds or MAX_ADDED_ROUNDS


@dataclass(frozen=True)
class Job:
    """What a run of this script is about: the runs to do, by their settings, the main one last, and
    where it goes on with an interrupted one, that one's id and what is done of it."""

    data_set: "DataSet"
    settings: list[Setting]
    interrupted_id: str | None
    unfinished: "Unfinished | None"


def run(args: argparse.Namespace) -> int:
    """A run for each point of the sweeps, whose rows are kept, and then the main one, which is
    judged."""
    if args.dry_run:
        return show_plan(args)
    new_id = args.run_id or (None if args.resume else new_run_id())
    with checkout_lock(new_id) as lock:
        job = prepare(args)
        sweep_id = job.interrupted_id or new_id or new_run_id()
        lock.name(sweep_id)
        return run_all(args, job, sweep_id)


def show_plan(args: argparse.Namespace) -> int:
    from metrics.run.dry_run import print_plan
    from onprem_images.dataset import print_left_out

    job = prepare(args)
    print_plan(args, job.data_set.pictures, job.settings)
    print_left_out(job.data_set.left_out)
    return DONE


def prepare(args: argparse.Namespace) -> Job:
    """Nothing is changed, and nothing is begun, before it is clear that no file of the user's would
    be lost."""
    from onprem_images.dataset import load_data_set

    data_set = load_data_set(args.images, args.all_files)
    pictures = data_set.pictures
    check_outputs([output_name(picture.image_key) for picture in pictures])
    if args.bundle:
        from metrics.analysis.bundle import check_bundle

        check_bundle(args.bundle, [args.images / "any", *(picture.path for picture in pictures)])
    interrupted_id, unfinished = None, None
    if args.resume:
        from metrics.run.resume import interrupted_run

        interrupted_id, unfinished = interrupted_run(args, pictures)
    return Job(data_set, settings_of(args, len(pictures)), interrupted_id, unfinished)


def run_all(args: argparse.Namespace, job: Job, sweep_id: str) -> int:
    from metrics.run.round_runner import CloudInUse, has_own_cloud

    check_cost_and_files(args, job)
    *points, main_setting = job.settings
    with CloudInUse(args) as cloud:
        if not (args.self_check or has_own_cloud(args)):
            cloud.open()  # before anything is deleted
        if not (args.resume or args.no_clean):
            clean()
        for point in points:
            if args.resume and is_kept(point, sweep_id):
                print(f"done before: {point}", file=sys.stderr)
                continue
            measured = measure(args, job, point, sweep_id, cloud)
            keep(point)
            measured.record.conclude(DONE)
        main_run = measure(args, job, main_setting, sweep_id, cloud)
        with main_run.record.step("compare"):
            exit_code = after_output(judge_main_run(args, main_run.run_id, cloud))
    main_run.record.conclude(exit_code)
    return exit_code


def check_cost_and_files(args: argparse.Namespace, job: Job) -> None:
    """Before anything is begun."""
    if args.max_cost and args.cloud == "aws":
        from metrics.run.dry_run import check_cost

        check_cost(args, job.data_set.pictures, job.settings)
    if args.bundle or args.baseline:
        from metrics.report.judgement import check_files

        check_files(args.bundle, args.baseline)


def measure(
    args: argparse.Namespace, job: Job, setting: Setting, sweep_id: str, cloud: "CloudInUse"
) -> "Run":
    """One of the runs, once both arms have taken all its pictures."""
    from metrics.run.round_runner import Run

    if len(job.settings) > 1:
        print(setting, file=sys.stderr)
    run_id, pictures = setting.run_id(sweep_id), job.data_set.pictures
    own_data = replace(job.data_set, pictures=nested_subset(pictures, setting.pictures))
    is_resumed = job.unfinished is not None and job.unfinished.run_id == run_id
    one = Run(args, setting, own_data, run_id, cloud, job.unfinished if is_resumed else None)
    with cloud.function_with(setting):
        one.measure(*limits_of(args, pictures, job.settings, setting))
    return one


def limits_of(
    args: argparse.Namespace,
    pictures: "list[Picture]",
    settings: list[Setting],
    setting: Setting,
) -> "tuple[Limits | None, float]":
    """What ends a run that adds rounds, and the USD that each is expected to cost: only on AWS, and
    only what the runs before it leave of --max-cost."""
    if args.precision is None or not setting.is_main:
        return None, 0.0
    from metrics.analysis.stopping import Limits
    from metrics.run.dry_run import expected_usd, usd_a_round

    max_usd, usd = None, 0.0
    if args.max_cost and args.cloud == "aws":
        usd = usd_a_round(args, pictures, setting)
        max_usd = args.max_cost - expected_usd(args, pictures, settings[:-1])
    return Limits(args.precision, args.max_rounds, args.max_time, max_usd), usd


def judge_main_run(args: argparse.Namespace, run_id: str, cloud: "CloudInUse") -> int:
    from metrics.analysis.bundle import Choices
    from metrics.collect.cloud_rows import download_outputs
    from metrics.report.judgement import Extras, judge, run_files_here

    fetch = None if args.self_check else partial(download_outputs, cloud.s3, cloud.buckets.output)
    choices = Choices(
        run_id=run_id,  # nothing of another run is judged, whatever lies here
        self_check=args.self_check,
        allow_partial=args.allow_partial,
        assumptions=Assumptions(**chosen_assumptions(args)),
    )
    run_files = run_files_here(LOCAL_CSV, CLOUD_CSV, MANIFEST_JSON, choices)
    extras = Extras(args.bundle, args.baseline, args.plan)
    return judge(run_files, RESULTS, extras, fetch)


if __name__ == "__main__":
    sys.exit(start_script(main))
