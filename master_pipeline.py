"""Is it better to process these pictures on this machine or on AWS Lambda? The whole experiment.

Steps: clean -> on-prem -> upload -> wait -> compare. The cloud is an embedded one that starts and
ends with the run, unless --endpoint-url or --cloud aws is given. Exits 0 when the arms could be
compared, 1 when not, 130 when interrupted. What ran, when and with what is in metrics/run.json.

    python master_pipeline.py
    python master_pipeline.py --images ~/photos --timeout 600
"""

import argparse
import contextlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from lambda_function.cloud import Cloud, add_cloud_arguments, cloud_of
from metrics.files import CLOUD_CSV, IMAGES, LOCAL_CSV
from metrics.machine import available_cpus, new_run_id
from metrics.run_record import RunRecord
from metrics.script import (
    UserError,
    positive_int,
    positive_seconds,
    run_id,
    run_script,
    script_parser,
)


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__)
    parser.add_argument("--images", type=Path, default=IMAGES, help="folder of pictures")
    parser.add_argument("--run-id", type=run_id, default=None, help="default: a new one")
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
        help="seconds to wait for the cloud's rows; default: 120 and one for each picture",
    )
    parser.add_argument("--no-clean", action="store_true", help="keep what earlier runs left")
    add_cloud_arguments(parser)
    args = parser.parse_args(argv)
    args.command_line = shlex.join(
        ["master_pipeline.py", *(sys.argv[1:] if argv is None else argv)]
    )
    return run_script(run, args)


def run(args: argparse.Namespace) -> int:
    from compare_cloud_onprem_metrics import fetch_cloud_rows, report
    from lambda_function.cloud import find_buckets, make_client
    from lambda_function.metrics_log import RowId
    from metrics.cleaning import clean_cloud, clean_local
    from metrics.cloud_rows import default_timeout_s, wait_for_rows
    from metrics.summary import read_rows
    from onprem_images.dataset import describe_data_set, load_pictures
    from onprem_images.local_image_proc import process_on_prem
    from upload_images_s3 import check_conditional_writes, check_run_is_new, upload_images

    run_id = args.run_id or new_run_id()
    pictures = load_pictures(args.images)
    with chosen_cloud(args) as cloud:
        s3, buckets = make_client(cloud, "s3"), find_buckets(cloud)
        check_conditional_writes(s3, buckets.output)
        record = RunRecord(run_id, args.command_line, cloud.name, describe_data_set(pictures))
        if not args.no_clean:
            with record.step("clean"):
                clean_local()
                clean_cloud(s3, buckets)
        check_run_is_new(s3, buckets.output, run_id)
        with record.step("on-prem"):
            process_on_prem(pictures, run_id, args.workers)
        with record.step("upload"):
            upload_images(s3, buckets, pictures, run_id)
        with record.step("wait"):
            expected = {RowId(run_id, 1, picture.image_key) for picture in pictures}
            timeout_s = args.timeout or default_timeout_s(len(pictures))
            wait_for_rows(s3, buckets.output, expected, timeout_s)
            fetch_cloud_rows(s3, buckets.output, run_id, CLOUD_CSV)
    with record.step("compare"):
        exit_code = report(read_rows(LOCAL_CSV, "on_prem"), read_rows(CLOUD_CSV, "cloud"))
    record.conclude(exit_code)
    return exit_code


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
