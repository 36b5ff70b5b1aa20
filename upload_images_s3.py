"""Upload the pictures of images_to_upload/ to the input bucket, which triggers the cloud arm.

Each object is input/<image_key> with run id and round as metadata; a manifest of the run is put
into the output bucket first. Exits 1 and names the picture when an upload fails.

    AWS_ENDPOINT_URL=http://127.0.0.1:... python upload_images_s3.py
    python upload_images_s3.py --cloud aws --dry-run
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # the project may not be on the path: python -P, PYTHONSAFEPATH
    sys.path.insert(0, str(Path(__file__).resolve().parent))

import argparse
import csv

from lambda_function.cloud import add_cloud_arguments, cloud_of, find_buckets, make_client
from lambda_function.metrics_log import INPUT_PREFIX
from metrics.common.cli import (
    DONE,
    PICTURES,
    ROUNDS,
    positive_int,
    run_script,
    script_parser,
)
from metrics.common.flags import add_flag, add_flags
from metrics.common.machine import new_run_id
from metrics.common.paths import LOCAL_CSV
from metrics.common.run_lock import checkout_lock
from metrics.common.streams import start_script
from metrics.run.uploads import (
    UPLOADS_AT_ONCE,
    check_conditional_writes,
    object_key,
    upload_images,
    uploaded_before,
)
from onprem_images.dataset import load_data_set, print_left_out


def main(argv: list[str] | None = None) -> int:
    parser = script_parser(__doc__, PICTURES)
    add_flags(parser, "--images", "--dry-run", "--all-files")
    add_flag(parser, "--run-id", help="default: that of the on-prem rows here, or a new one")
    add_flag(parser, "--resume", help="leave out what this run and round have in the cloud")
    add_flag(parser, "--workers", default=UPLOADS_AT_ONCE, help="uploads at once")
    parser.group(ROUNDS).add_argument(
        "--round",
        type=positive_int,
        default=1,
        metavar="N",
        help="which pass over the pictures this is",
    )
    add_cloud_arguments(parser)
    return run_script(run, parser.parse_args(argv))


def run(args: argparse.Namespace) -> int:
    if args.dry_run:
        return print_what_would_be_uploaded(args)
    with checkout_lock(args.run_id, writes=False) as lock:  # else the rows may be of another run
        run_id = args.run_id or run_id_of_local_rows() or new_run_id()
        lock.name(run_id)
        return upload(args, run_id)


def print_what_would_be_uploaded(args: argparse.Namespace) -> int:
    data_set, buckets = load_data_set(args.images, args.all_files), find_buckets(cloud_of(args))
    for picture in data_set.pictures:
        print(f"{picture.size:>12,} bytes  s3://{buckets.input}/{object_key(picture)}")
    total = sum(picture.size for picture in data_set.pictures)
    print(f"would upload {len(data_set.pictures)} pictures, {total:,} bytes")
    print_left_out(data_set.left_out)
    return DONE


def upload(args: argparse.Namespace, run_id: str) -> int:
    pictures = load_data_set(args.images, args.all_files).pictures
    cloud = cloud_of(args)
    buckets = find_buckets(cloud)
    s3, before = make_client(cloud, "s3"), frozenset()
    check_conditional_writes(s3, buckets.output)
    if args.resume:
        before = uploaded_before(s3, buckets, pictures, run_id, args.round)
    upload_images(s3, buckets, pictures, run_id, args.round, args.workers, before)
    count = len(pictures) - len(before)
    print(f"uploaded {count} pictures to s3://{buckets.input}/{INPUT_PREFIX}, run {run_id}")
    return DONE


def run_id_of_local_rows() -> str | None:
    """So that scripts run one after the other by hand make one run."""
    try:
        with LOCAL_CSV.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            return next(csv.DictReader(file), {}).get("run_id")
    except FileNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(start_script(main))
