"""Is it better to process these pictures on this machine or on AWS Lambda? The whole experiment.

Steps: clean -> on-prem -> upload -> wait -> compare; with --rounds the three in the middle again
and again, the cloud first in every other pair of rounds. The cloud is an embedded one that starts
and ends with the run, unless --endpoint-url or --cloud aws is given. Exits 0 when the arms could
be compared, 1 when not, 130 when interrupted. The answer is in metrics/report.html; what ran, when
and with what is in metrics/run.json.

    python master_pipeline.py
    python master_pipeline.py --images ~/photos --rounds 4 --bundle photos.zip
    python master_pipeline.py --aa --rounds 4
"""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from compare_cloud_onprem_metrics import add_judgement_arguments, fetch_cloud_rows
from lambda_function.cloud import Cloud, add_cloud_arguments, cloud_of
from lambda_function.metrics_log import RowId
from metrics.files import (
    CLOUD_CSV,
    IMAGES,
    INVOCATIONS_CSV,
    LOCAL_CSV,
    MANIFEST_JSON,
    RESULTS,
    shown,
)
from metrics.machine import available_cpus, new_run_id
from metrics.run_record import RunRecord, recorded_command
from metrics.script import (
    DONE,
    UserError,
    cloud_problem,
    positive_int,
    positive_seconds,
    positive_usd,
    run_id,
    run_script,
    script_parser,
)
from onprem_images.dataset import Picture, write_manifest

if TYPE_CHECKING:
    from metrics.cost import Usage
    from metrics.resume import Unfinished

DEFAULT_MEMORY_MB = 1769  # the template's


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("--images", type=Path, default=IMAGES, help="folder of pictures")
    parser.add_argument("--run-id", type=run_id, default=None, help="default: a new one")
    parser.add_argument(
        "--rounds",
        type=positive_int,
        default=1,
        help="how often both arms take all pictures; 3 or more tell the machine's drift apart",
    )
    parser.add_argument(
        "--aa",
        action="store_true",
        help="no cloud: two on-prem passes a round are compared, which should find no difference",
    )
    parser.add_argument(
        "--workers", type=positive_int, default=available_cpus(), help="on-prem processes"
    )
    parser.add_argument(
        "--concurrency",
        type=positive_int,
        default=available_cpus(),
        help="environments of the embedded cloud at once",
    )
    parser.add_argument(
        "--timeout",
        type=positive_seconds,
        default=None,
        help="seconds to wait for the cloud's rows of a round; "
        "default: 120 (on AWS 500), and one a picture",
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
        help="refuse to start on AWS when more than this is to be expected",
    )
    add_judgement_arguments(parser)
    add_cloud_arguments(parser)
    args = parser.parse_args(argv)
    args.command_line = recorded_command(
        ["master_pipeline.py", *(sys.argv[1:] if argv is None else argv)]
    )
    return run_script(run, args)


def run(args: argparse.Namespace) -> int:
    from metrics.judgement import check_files
    from onprem_images.dataset import describe_data_set, load_pictures

    pictures = load_pictures(args.images)
    if args.dry_run or (args.max_cost and args.cloud == "aws"):
        usage = expected_usage_of(args, pictures)
        if args.dry_run:
            print_plan(args, pictures, usage)
            if not args.no_clean:
                print_leftovers(args)
            return DONE
        check_cost(usage, args.max_cost)
    check_files(args.bundle, args.against)
    cloud_name = "none" if args.aa else args.cloud
    before = unfinished_of(args, pictures, cloud_name) if args.resume else None
    run_id = before.run_id if before else args.run_id or new_run_id()
    steps = before.record.get("steps") if before else None
    record = RunRecord(run_id, args.command_line, cloud_name, describe_data_set(pictures), steps)
    measure = compare_on_prem_with_itself if args.aa else compare_with_cloud
    exit_code = measure(args, run_id, pictures, record, before)
    record.conclude(exit_code)
    return exit_code


def unfinished_of(
    args: argparse.Namespace, pictures: list[Picture], cloud_name: str
) -> "Unfinished":
    """The run to go on with, whose number of rounds takes the place of --rounds."""
    from metrics.resume import unfinished_run

    if cloud_name == "embedded" and not args.endpoint_url:
        raise UserError(
            "an embedded cloud ends with its run, and so do the rows in it: nothing to resume; "
            "a run on one that you start yourself (--endpoint-url) or on AWS can be"
        )
    before = unfinished_run(pictures, cloud_name)
    if args.run_id not in (None, before.run_id):
        raise UserError(f"the interrupted run is {before.run_id!r}, and not {args.run_id!r}")
    args.rounds = before.passes // 2 if args.aa else before.passes
    return before


def expected_usage_of(args: argparse.Namespace, pictures: list[Picture]) -> "Usage":
    """What the cloud arm will use, with the memory that the function has, if there is one yet."""
    from lambda_function.cloud import find_function, make_client
    from metrics.cost import expected_usage

    settings = {}
    if args.cloud == "aws" and (function := find_function(cloud_of(args))):
        settings = make_client(cloud_of(args), "lambda").get_function_configuration(
            FunctionName=function["FunctionName"]
        )
    return expected_usage(
        [picture.size for picture in pictures],
        args.rounds,
        settings.get("MemorySize", DEFAULT_MEMORY_MB),
        settings.get("Architectures", ["x86_64"])[0],
    )


def print_plan(args: argparse.Namespace, pictures: list[Picture], usage: "Usage") -> None:
    from metrics.cost import PRICES_OF, cost_table

    total = sum(picture.size for picture in pictures)
    rounds = f"{args.rounds} round{'' if args.rounds == 1 else 's'}"
    print(f"would process {len(pictures)} pictures, {total:,} bytes, in {rounds}")
    if args.aa:
        print(f"on this machine only, {2 * args.rounds} times, with {args.workers} workers")
        return
    print(f"on this machine with {args.workers} workers, and in the cloud: {args.cloud}")
    whose = "expected cost on AWS" if args.cloud == "aws" else "no cost here; on AWS about"
    print(f"\n{cost_table(usage, whose)}\nprices: {PRICES_OF}")


def print_leftovers(args: argparse.Namespace) -> None:
    """What the clean step would delete. An embedded cloud of the run's own starts empty."""
    from lambda_function.cloud import find_buckets, make_client
    from metrics.cleaning import cloud_leftovers, local_leftovers
    from metrics.findings import counted, printable

    found = [shown(path) for path in local_leftovers()]
    if not args.aa and (args.cloud == "aws" or args.endpoint_url):
        cloud = cloud_of(args)
        stored = cloud_leftovers(make_client(cloud, "s3"), find_buckets(cloud))
        found += [f"s3://{bucket}/{key}" for bucket, key in stored]
    print(f"\nwould delete {counted(len(found), 'leftover')} of earlier runs")
    for name in found:
        print(f"  {printable(name)}")


def check_cost(usage: "Usage", most_usd: float) -> None:
    from metrics.cost import total_usd

    if (usd := total_usd(usage)) > most_usd:
        raise UserError(
            f"the run is expected to cost {usd:.4f} USD, more than --max-cost {most_usd:g}; "
            "--dry-run shows the parts"
        )


def compare_with_cloud(
    args: argparse.Namespace,
    run_id: str,
    pictures: list[Picture],
    record: RunRecord,
    before: "Unfinished | None",
) -> int:
    """Both arms in counter-balanced rounds, and what follows; without what is done `before`."""
    from lambda_function.cloud import find_buckets, find_function, make_client
    from metrics.cleaning import clean_cloud, clean_local
    from metrics.cloud_rows import default_timeout_s, download_outputs, wait_for_rows
    from metrics.failures import failure_settler
    from metrics.rounds import first_arm_leads
    from onprem_images.local_image_proc import process_on_prem
    from upload_images_s3 import (
        check_conditional_writes,
        check_run_is_new,
        upload_images,
        uploaded_before,
    )

    def pass_on_prem(number: int) -> None:
        if before and number in before.done_on_prem:
            return
        with record.step("on-prem", number, args.rounds):
            process_on_prem(pictures, run_id, args.workers, number)

    def pass_in_cloud(number: int) -> None:
        with record.step("upload", number, args.rounds) as step:
            done = uploaded_before(s3, buckets, pictures, run_id, number) if before else frozenset()
            if 0 < len(done) < len(pictures):  # else the pass went on by itself, or is new
                step["resumed"] = len(done)
            upload_images(s3, buckets, pictures, run_id, number, before=done)
        with record.step("wait", number, args.rounds):
            expected = {RowId(run_id, number, picture.image_key) for picture in pictures}
            timeout_s = args.timeout or default_timeout_s(len(pictures), args.cloud == "aws")
            wait_for_rows(s3, buckets.output, expected, timeout_s, args.allow_partial, settle)

    with chosen_cloud(args) as cloud:
        s3, buckets, function = make_client(cloud, "s3"), find_buckets(cloud), find_function(cloud)
        settle = failure_settler(cloud, function, s3, buckets)
        check_conditional_writes(s3, buckets.output)
        if not before:
            if not args.no_clean:
                with record.step("clean"):
                    clean_local()
                    clean_cloud(s3, buckets)
            check_run_is_new(s3, buckets.output, run_id)
            write_manifest(run_id, args.rounds, pictures)
        for number in range(1, args.rounds + 1):
            passes = (pass_on_prem, pass_in_cloud)
            for run_pass in passes if first_arm_leads(number) else reversed(passes):
                run_pass(number)
        fetch_cloud_rows(s3, buckets.output, run_id, CLOUD_CSV)
        if function:
            with record.step("logs"):
                record.note(**ask_lambda(cloud, function, record.begun))
        with record.step("compare"):
            return judge_rows_here(args, partial(download_outputs, s3, buckets.output))


def ask_lambda(cloud: Cloud, function: dict[str, str], begun: datetime) -> dict[str, int]:
    """Save what Lambda measured; returns what else is known of the run. A permission that is
    missing for this costs no answer."""
    from lambda_function.cloud import make_client
    from metrics.invocations import count_throttles, save_invocations
    from metrics.rows import read_rows

    logs, settings, metrics = (make_client(cloud, s) for s in ("logs", "lambda", "cloudwatch"))
    rows = read_rows(CLOUD_CSV, "cloud")
    try:
        save_invocations(logs, settings, function, rows, INVOCATIONS_CSV)
        name, now = function["FunctionName"], datetime.now(UTC)
        return {"throttles": count_throttles(metrics, name, begun, now)}
    except Exception as error:
        if (line := cloud_problem(error)) is None:
            raise
        print(f"going on without all of Lambda's own measurements: {line}", file=sys.stderr)
        return {}


def compare_on_prem_with_itself(
    args: argparse.Namespace,
    run_id: str,
    pictures: list[Picture],
    record: RunRecord,
    before: "Unfinished | None",
) -> int:
    """Two on-prem passes for each round, judged as two arms: a difference would be an error."""
    from metrics.cleaning import clean_local
    from onprem_images.local_image_proc import process_on_prem

    passes = 2 * args.rounds
    if not before:
        if not args.no_clean:
            with record.step("clean"):
                clean_local()
        write_manifest(run_id, passes, pictures)
    for number in range(1, passes + 1):
        if before and number in before.done_on_prem:
            continue
        with record.step("on-prem", number, passes):
            process_on_prem(pictures, run_id, args.workers, number)
    with record.step("compare"):
        return judge_rows_here(args)


def judge_rows_here(args: argparse.Namespace, fetch_outputs: Callable | None = None) -> int:
    from metrics.bundle import Choices
    from metrics.judgement import evidence_here, judge

    choices = Choices(aa=args.aa, allow_partial=args.allow_partial)
    evidence = evidence_here(LOCAL_CSV, CLOUD_CSV, MANIFEST_JSON, choices)
    return judge(evidence, RESULTS, args.bundle, args.against, fetch_outputs)


@contextlib.contextmanager
def chosen_cloud(args: argparse.Namespace) -> Iterator[Cloud]:
    """The cloud of the flags. An embedded one is started here unless --endpoint-url names one;
    AWS_ENDPOINT_URL and the other variables alone do not count, since they may name anything."""
    if args.cloud == "embedded" and not args.endpoint_url:
        if args.input_bucket or args.output_bucket:
            raise UserError(
                "an embedded cloud of its own has the buckets of its stack; "
                "use --endpoint-url or --cloud aws with buckets of yours"
            )
        from lambda_function.embedded_cloud import embedded_cloud

        with embedded_cloud(args.concurrency, args.stack) as cloud:
            yield cloud
    else:
        yield cloud_of(args)


if __name__ == "__main__":
    sys.exit(main())
