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
import gc
import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from compare_cloud_onprem_metrics import add_judgement_arguments, fetch_cloud_rows
from lambda_function.cloud import Buckets, Cloud, add_cloud_arguments, cloud_of
from lambda_function.metrics_log import RowId
from metrics.assumptions import Assumptions, chosen_assumptions
from metrics.files import (
    CLOUD_CSV,
    IMAGES,
    INVOCATIONS_CSV,
    LOCAL_CSV,
    MANIFEST_JSON,
    RESULTS,
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
    from metrics.resume import Unfinished


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("--images", type=Path, default=IMAGES, help="folder of pictures")
    parser.add_argument("--run-id", type=run_id, default=None, help="default: a new one")
    parser.add_argument(
        "--rounds",
        type=positive_int,
        default=None,
        help="how often both arms take all pictures (1 without this flag); "
        "3 or more tell the machine's drift apart",
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
        help="refuse to start on AWS when more than this is to be expected",
    )
    add_judgement_arguments(parser)
    add_cloud_arguments(parser)
    args = parser.parse_args(argv)
    if args.aa and args.cloud == "aws":
        parser.error("--aa compares on-prem with itself, and uses no cloud")
    args.command_line = recorded_command(
        ["master_pipeline.py", *(sys.argv[1:] if argv is None else argv)]
    )
    return run_script(run, args)


def run(args: argparse.Namespace) -> int:
    from metrics.plan import check_cost, print_plan
    from onprem_images.dataset import describe_data_set, load_pictures

    pictures = load_pictures(args.images)
    cloud_name = "none" if args.aa else args.cloud
    before = unfinished_of(args, pictures, cloud_name) if args.resume else None
    args.rounds = args.rounds or 1
    if args.dry_run:
        print_plan(args, pictures)
        return DONE
    if args.max_cost and args.cloud == "aws":
        check_cost(args, pictures)
    if args.bundle or args.against:
        from metrics.judgement import check_files

        check_files(args.bundle, args.against)
    run_id = before.run_id if before else args.run_id or new_run_id()
    earlier = before.record if before else None
    record = RunRecord(run_id, args.command_line, cloud_name, describe_data_set(pictures), earlier)
    measure = compare_on_prem_with_itself if args.aa else compare_with_cloud
    exit_code = measure(args, run_id, pictures, record, before)
    record.conclude(exit_code)
    return exit_code


def unfinished_of(
    args: argparse.Namespace, pictures: list[Picture], cloud_name: str
) -> "Unfinished":
    """The run to go on with, whose number of rounds takes the place of --rounds."""
    from metrics.resume import unfinished_run

    before = unfinished_run(pictures, cloud_name)
    if cloud_name == "embedded" and not args.endpoint_url:
        raise UserError(
            "an embedded cloud ends with its run, and so do the rows in it: nothing to resume; "
            "a run on one that you start yourself (--endpoint-url) or on AWS can be"
        )
    if args.run_id not in (None, before.run_id):
        raise UserError(f"the interrupted run is {before.run_id!r}, and not {args.run_id!r}")
    rounds = before.passes // 2 if args.aa else before.passes
    if args.rounds not in (None, rounds):
        raise UserError(f"the interrupted run is one of {rounds} rounds, and not of {args.rounds}")
    args.rounds = rounds
    return before


def compare_with_cloud(
    args: argparse.Namespace,
    run_id: str,
    pictures: list[Picture],
    record: RunRecord,
    before: "Unfinished | None",
) -> int:
    """Both arms in counter-balanced rounds, and what follows; without what is done `before`."""
    from metrics.cloud_rows import default_timeout_s, download_outputs, wait_for_rows
    from metrics.rounds import first_arm_leads
    from onprem_images.local_image_proc import process_on_prem
    from upload_images_s3 import upload_images, uploaded_before

    def pass_on_prem(number: int) -> None:
        if before and number in before.done_on_prem:
            return
        with record.step("on-prem", number, args.rounds):
            process_on_prem(pictures, run_id, args.workers, number)

    def pass_in_cloud(number: int) -> None:
        s3, buckets = cloud().s3, cloud().buckets
        with record.step("upload", number, args.rounds):
            done = uploaded_before(s3, buckets, pictures, run_id, number) if before else frozenset()
            upload_images(s3, buckets, pictures, run_id, number, before=done)
        with record.step("wait", number, args.rounds):
            expected = {RowId(run_id, number, picture.image_key) for picture in pictures}
            timeout_s = args.timeout or default_timeout_s(len(pictures), args.cloud == "aws")
            settle = cloud().settle_failures
            wait_for_rows(s3, buckets.output, expected, timeout_s, args.allow_partial, settle)

    with contextlib.ExitStack() as stack:
        cloud = cache(lambda: stack.enter_context(cloud_in_use(args)))
        # A cloud of the run's own starts when it is first needed: starting would slow the pass that
        # is before it. Any other is asked before all work, so that what is wrong is said at once.
        given = None if has_own_cloud(args) else cloud()
        if not before:
            begin(args, run_id, pictures, record, args.rounds, given)
        for number in range(1, args.rounds + 1):
            passes = (pass_on_prem, pass_in_cloud)
            for run_pass in passes if first_arm_leads(number) else reversed(passes):
                run_pass(number)
        s3, buckets = cloud().s3, cloud().buckets
        fetch_cloud_rows(s3, buckets.output, run_id, CLOUD_CSV)
        if cloud().function:
            with record.step("logs"):
                record.note(**ask_lambda(cloud(), record.begun))
        with record.step("compare"):
            return judge_rows_here(args, partial(download_outputs, s3, buckets.output))


def begin(
    args: argparse.Namespace,
    run_id: str,
    pictures: list[Picture],
    record: RunRecord,
    passes: int,
    cloud: "CloudInUse | None",
) -> None:
    """Clean what earlier runs left, here and in the `cloud` if it may hold any, and write what this
    run is about."""
    from metrics.cleaning import clean_cloud, clean_local
    from upload_images_s3 import check_run_is_new

    if not args.no_clean:
        with record.step("clean"):
            clean_local()
            if cloud:
                clean_cloud(cloud.s3, cloud.buckets)
    if cloud:
        check_run_is_new(cloud.s3, cloud.buckets.output, run_id)
    write_manifest(run_id, passes, pictures)


def ask_lambda(cloud: "CloudInUse", begun: datetime) -> dict[str, int]:
    """Save what Lambda measured; returns what else is known of the run. A permission that is
    missing for this costs no answer."""
    from lambda_function.cloud import make_client
    from metrics.invocations import count_throttles, save_invocations
    from metrics.rows import read_rows

    services = ("logs", "lambda", "cloudwatch")
    logs, settings, metrics = (make_client(cloud.cloud, service) for service in services)
    rows = read_rows(CLOUD_CSV, "cloud")
    try:
        save_invocations(logs, settings, cloud.function, rows, INVOCATIONS_CSV)
        name, now = cloud.function["FunctionName"], datetime.now(UTC)
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
    from onprem_images.local_image_proc import process_on_prem

    passes = 2 * args.rounds
    if not before:
        begin(args, run_id, pictures, record, passes, None)
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

    choices = Choices(
        aa=args.aa,
        allow_partial=args.allow_partial,
        assumptions=Assumptions(**chosen_assumptions(args)),
    )
    evidence = evidence_here(LOCAL_CSV, CLOUD_CSV, MANIFEST_JSON, choices)
    return judge(evidence, RESULTS, args.bundle, args.against, fetch_outputs)


def has_own_cloud(args: argparse.Namespace) -> bool:
    """Whether the flags ask for an embedded cloud that starts and ends with the run. Variables such
    as AWS_ENDPOINT_URL alone do not count, since they may name anything."""
    own = args.cloud == "embedded" and not args.endpoint_url
    if own and (args.input_bucket or args.output_bucket):
        raise UserError(
            "an embedded cloud of its own has the buckets of its stack; "
            "use --endpoint-url or --cloud aws with buckets of yours"
        )
    return own


@dataclass(frozen=True)
class CloudInUse:
    """The cloud arm as a run works with it. `function` is empty when nothing is known of it."""

    cloud: Cloud
    s3: object
    buckets: Buckets
    function: dict[str, str]
    settle_failures: Callable[[set[RowId]], object]


@contextlib.contextmanager
def cloud_in_use(args: argparse.Namespace) -> Iterator[CloudInUse]:
    """The cloud of the flags, which is started here when it is the run's own, once its S3 is seen
    to be one that loses no row."""
    from lambda_function.cloud import find_buckets, find_function, make_client
    from metrics.failures import failure_settler
    from upload_images_s3 import check_conditional_writes

    with contextlib.ExitStack() as stack:
        with imported_meanwhile("metrics.judgement"):
            if has_own_cloud(args):
                from lambda_function.embedded_cloud import embedded_cloud

                cloud = stack.enter_context(embedded_cloud(args.concurrency, args.stack))
            else:
                cloud = cloud_of(args)
            s3, buckets, function = (
                make_client(cloud, "s3"),
                find_buckets(cloud),
                find_function(cloud),
            )
            settle = failure_settler(cloud, function, s3, buckets)
            check_conditional_writes(s3, buckets.output)
        yield CloudInUse(cloud, s3, buckets, function, settle)


@contextlib.contextmanager
def imported_meanwhile(module: str) -> Iterator[None]:
    """Import what takes a second and is needed later, while the caller waits for something else."""
    thread = threading.Thread(target=importlib.import_module, args=[module], daemon=True)
    thread.start()
    yield
    thread.join()
    gc.freeze()  # it stays to the end: the collector need not look through it again and again


if __name__ == "__main__":
    sys.exit(main())
