"""Is it better to process these pictures on this machine or on AWS Lambda? The whole experiment.

Steps: clean -> on-prem -> upload -> wait -> compare; with --rounds or --precision the three in the
middle again and again, the cloud first in every other pair of rounds. The cloud is an embedded one
that starts and ends with the run, unless --endpoint-url or --cloud aws is given. Exits 0 when the
arms could be compared, 1 when not, 130 when interrupted. The answer is in metrics/report.html; what
ran, when and with what is in metrics/run.json.

    python master_pipeline.py
    python master_pipeline.py --images ~/photos --rounds 4 --bundle photos.zip
    python master_pipeline.py --precision 5% --scale 8,32,128 --workers 1,2 --concurrency 1,2
    python master_pipeline.py --rounds 4 --memory 512,1024,1769,3008
    python master_pipeline.py --self-check --rounds 4
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # the project may not be on the path: python -P, PYTHONSAFEPATH
    sys.path.insert(0, str(Path(__file__).resolve().parent))

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from compare_cloud_onprem_metrics import add_judgement_arguments
from lambda_function.cloud import add_cloud_arguments
from lambda_function.image_transform import output_name
from metrics.analysis.assumptions import Assumptions, chosen_assumptions
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
    DONE,
    UserError,
    add_images_arguments,
    percentage,
    positive_int,
    positive_ints,
    positive_seconds,
    positive_usd,
    run_id,
    run_script,
    script_parser,
)
from metrics.common.machine import available_cpus, new_run_id
from metrics.common.paths import CLOUD_CSV, LOCAL_CSV, MANIFEST_JSON, RESULTS
from metrics.common.run_lock import checkout_lock
from metrics.common.streams import after_output, start_script
from onprem_images.outputs import check_outputs

if TYPE_CHECKING:
    from metrics.analysis.stopping import Limits
    from metrics.run.resume import Unfinished
    from onprem_images.dataset import DataSet, Picture


MAX_ADDED_ROUNDS = 20  # of --precision


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    add_run_arguments(parser)
    add_until_arguments(parser)
    add_sweep_arguments(parser)
    add_judgement_arguments(parser)
    add_cloud_arguments(parser)
    args = parser.parse_args(argv)
    check_flags(parser, args)
    args.command_line = recorded_command(
        ["master_pipeline.py", *(sys.argv[1:] if argv is None else argv)]
    )
    return run_script(run, args)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    add_images_arguments(parser)
    parser.add_argument("--run-id", type=run_id, default=None, help="default: a new one")
    parser.add_argument(
        "--rounds",
        type=positive_int,
        default=None,
        help="how often both arms take all pictures (1 without this flag, in a sweep 3); "
        "3 or more tell the machine's drift apart",
    )
    parser.add_argument(
        "--self-check",
        action="store_true",
        help="no cloud: two on-prem passes a round are compared, which should find no difference",
    )
    parser.add_argument(
        "--workers",
        type=positive_ints,
        default=str(available_cpus()),
        help="on-prem processes; several, such as 1,2,4: a sweep, and the last one is compared",
    )
    parser.add_argument(
        "--concurrency",
        type=positive_ints,
        default=str(available_cpus()),
        help="environments of the embedded cloud at once; several: a sweep, on AWS by the "
        "function's reserved concurrency, which is restored",
    )
    parser.add_argument(
        "--timeout",
        type=positive_seconds,
        default=None,
        help="seconds to wait for the cloud's rows of a round; "
        "default: 200 (on AWS 500), and one a picture",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the interrupted run: its id and rounds, without what is done already",
    )
    parser.add_argument("--no-clean", action="store_true", help="keep what earlier runs left")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done and cost, and stop"
    )
    parser.add_argument(
        "--max-cost",
        type=positive_usd,
        default=None,
        metavar="USD",
        help="refuse to start on AWS when more than this is to be expected; with --precision, stop",
    )


def add_until_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("adding rounds until the answer is sharp enough")
    group.add_argument(
        "--precision",
        type=percentage,
        default=None,
        metavar="PERCENT",
        help="in place of --rounds: until the interval is so narrow to either side (4 at least)",
    )
    group.add_argument(
        "--max-rounds", type=positive_int, default=None, help="of --precision; default: 20"
    )
    group.add_argument(
        "--max-time",
        type=positive_seconds,
        default=None,
        metavar="SECONDS",
        help="of --precision: no round that would end later",
    )


def add_sweep_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sweeps: the comparison again and again, one thing varied")
    group.add_argument(
        "--scale",
        type=positive_ints,
        default=(),
        metavar="N,N,...",
        help="with so many of the pictures, of the same mix of sizes: from how many on is which "
        "arm done first?",
    )
    group.add_argument(
        "--memory",
        type=positive_ints,
        default=(),
        metavar="MB,MB,...",
        help="with so much memory of the function, which is restored: what is fastest, cheapest, "
        "balanced?",
    )


def check_flags(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Exit 2 for flags that contradict each other."""
    if args.self_check and args.cloud == "aws":
        parser.error("--self-check compares on-prem with itself, and uses no cloud")
    sweeps = args.scale or args.memory or len(args.concurrency) > 1 or len(args.workers) > 1
    if args.self_check and sweeps:
        parser.error("--self-check compares on-prem with itself: without sweeps")
    if not args.precision and (args.max_rounds or args.max_time):
        parser.error("--max-rounds and --max-time limit --precision, which is not there")
    args.max_rounds = args.max_rounds or MAX_ADDED_ROUNDS
    if args.precision and args.rounds:
        parser.error("--precision adds rounds by itself: without --rounds (see --max-rounds)")
    if not all(128 <= memory <= 10240 for memory in args.memory):
        parser.error("--memory: a function has 128 to 10240 MB")
    if sweeps and args.run_id and len(args.run_id) > MAX_RUN_ID:
        parser.error(f"--run-id: in a sweep {MAX_RUN_ID} characters at most")


def run(args: argparse.Namespace) -> int:
    """A run for each point of the sweeps, whose rows are kept, and then the one that is judged."""
    if args.dry_run:
        from metrics.run.dry_run import print_plan
        from onprem_images.dataset import print_left_out

        data_set, _, _, settings = prepare(args)
        print_plan(args, data_set.pictures, settings)
        print_left_out(data_set.left_out)
        return DONE
    new_id = args.run_id or (None if args.resume else new_run_id())
    with checkout_lock(new_id) as lock:
        data_set, interrupted_id, unfinished, settings = prepare(args)
        sweep_id = interrupted_id or new_id or new_run_id()
        lock.name(sweep_id)
        return run_all(args, data_set, settings, sweep_id, unfinished)


def prepare(
    args: argparse.Namespace,
) -> "tuple[DataSet, str | None, Unfinished | None, list[Setting]]":
    """The pictures, what of an interrupted run there is, and the settings. Nothing is changed, and
    nothing is begun, before it is clear that no file of the user's would be lost."""
    from onprem_images.dataset import load_data_set

    data_set = load_data_set(args.images, args.all_files)
    pictures = data_set.pictures
    check_outputs([output_name(picture.image_key) for picture in pictures])
    if args.bundle:
        from metrics.analysis.bundle import check_bundle

        check_bundle(args.bundle, [args.images / "any", *(picture.path for picture in pictures)])
    sweep_id, unfinished = interrupted_run(args, pictures) if args.resume else (None, None)
    return data_set, sweep_id, unfinished, settings_of(args, len(pictures))


def run_all(
    args: argparse.Namespace,
    data_set: "DataSet",
    settings: list[Setting],
    sweep_id: str,
    unfinished: "Unfinished | None",
) -> int:
    from metrics.collect.cloud_rows import download_outputs
    from metrics.run.dry_run import check_cost
    from metrics.run.round_runner import CloudInUse, Run, has_own_cloud

    pictures = data_set.pictures
    if args.max_cost and args.cloud == "aws":
        check_cost(args, pictures, settings)
    if args.bundle or args.baseline:
        from metrics.report.judgement import check_files

        check_files(args.bundle, args.baseline)
    with CloudInUse(args) as cloud:
        if not (args.self_check or has_own_cloud(args)):
            cloud.open()  # before anything is deleted
        if not (args.resume or args.no_clean):
            clean()
        for setting in settings:
            if args.resume and setting.kind and is_kept(setting, sweep_id):
                print(f"done before: {setting}", file=sys.stderr)
                continue
            if len(settings) > 1:
                print(setting, file=sys.stderr)
            own_id = setting.run_id(sweep_id)
            own_data = replace(data_set, pictures=nested_subset(pictures, setting.pictures))
            before = unfinished if unfinished and unfinished.run_id == own_id else None
            one = Run(args, setting, own_data, own_id, cloud, before)
            with cloud.function_with(setting):
                one.measure(*limits_of(args, pictures, settings, setting))
            if setting.kind:
                keep(setting)
                one.record.conclude(DONE)
        fetch = (
            None if args.self_check else partial(download_outputs, cloud.s3, cloud.buckets.output)
        )
        with one.record.step("compare"):
            exit_code = after_output(judge_rows_here(args, one.run_id, fetch))
    one.record.conclude(exit_code)
    return exit_code


def limits_of(
    args: argparse.Namespace,
    pictures: "list[Picture]",
    settings: list[Setting],
    setting: Setting,
) -> "tuple[Limits | None, float]":
    """What ends a run that adds rounds, and the USD that each is expected to cost: only on AWS, and
    only what the runs before it leave of --max-cost."""
    if args.precision is None or setting.kind:
        return None, 0.0
    from metrics.analysis.stopping import Limits
    from metrics.run.dry_run import expected_usd, usd_a_round

    max_usd, usd = None, 0.0
    if args.max_cost and args.cloud == "aws":
        usd = usd_a_round(args, pictures, setting)
        max_usd = args.max_cost - expected_usd(args, pictures, settings[:-1])
    return Limits(args.precision, args.max_rounds, args.max_time, max_usd), usd


def interrupted_run(
    args: argparse.Namespace, pictures: "list[Picture]"
) -> "tuple[str, Unfinished | None]":
    """The id of the sweep or run to go on with, and what is done of its run that was under way, if
    the cloud still has that. The interrupted run's number of rounds takes the place of --rounds."""
    from metrics.run.resume import sweep_of_manifest, unfinished_run
    from metrics.run.round_runner import has_own_cloud

    settings = settings_of(args, len(pictures))
    sweep_id, setting = sweep_of_manifest(settings)
    if args.run_id not in (None, sweep_id):
        raise UserError(f"the interrupted run is {sweep_id!r}, and not {args.run_id!r}")
    if setting.kind and is_kept(setting, sweep_id):
        return sweep_id, None
    precision = None if setting.kind else args.precision
    cloud_name = "none" if args.self_check else args.cloud
    before = unfinished_run(nested_subset(pictures, setting.pictures), cloud_name, precision)
    rounds = before.passes // 2 if args.self_check else before.passes
    if len(settings) > 1 and not precision and rounds != setting.rounds:
        raise UserError(
            f"the interrupted sweep is one of {rounds} rounds, and not of {setting.rounds}; "
            "repeat its flags with --resume"
        )
    if has_own_cloud(args) and not args.self_check:
        if len(settings) > 1:
            return sweep_id, None  # that run begins anew; those that are kept are not done again
        raise UserError(
            "an embedded cloud ends with its run, and so do the rows in it: nothing to resume; "
            "a run on one that you start yourself (--endpoint-url) or on AWS can be"
        )
    if len(settings) == 1 and not args.precision:
        if args.rounds not in (None, rounds):
            raise UserError(
                f"the interrupted run is one of {rounds} rounds, and not of {args.rounds}"
            )
        args.rounds = rounds
    return sweep_id, before


def judge_rows_here(
    args: argparse.Namespace, run_id: str, fetch_outputs: Callable | None = None
) -> int:
    from metrics.analysis.bundle import Choices
    from metrics.report.judgement import Extras, judge, run_files_here

    choices = Choices(
        run_id=run_id,  # nothing of another run is judged, whatever lies here
        self_check=args.self_check,
        allow_partial=args.allow_partial,
        assumptions=Assumptions(**chosen_assumptions(args)),
    )
    run_files = run_files_here(LOCAL_CSV, CLOUD_CSV, MANIFEST_JSON, choices)
    extras = Extras(args.bundle, args.baseline, args.plan)
    return judge(run_files, RESULTS, extras, fetch_outputs)


if __name__ == "__main__":
    sys.exit(start_script(main))
