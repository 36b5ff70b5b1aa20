"""What a run would do, cost and delete, before it does."""

import argparse
from typing import TYPE_CHECKING

from lambda_function.cloud import cloud_of, find_buckets, find_function, make_client
from metrics.cleaning import cloud_leftovers, local_leftovers
from metrics.cost import PRICES_OF, Usage, cost_table, expected_usage, total_usd
from metrics.files import shown
from metrics.findings import counted, printable
from metrics.script import UserError

if TYPE_CHECKING:
    from onprem_images.dataset import Picture

DEFAULT_MEMORY_MB = 1769  # the template's


def expected_usage_of(args: argparse.Namespace, pictures: "list[Picture]") -> Usage:
    """What the cloud arm will use, with the memory that the function has, if there is one yet."""
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


def print_plan(args: argparse.Namespace, pictures: "list[Picture]") -> None:
    """What a run with these flags would do, cost and delete."""
    total = sum(picture.size for picture in pictures)
    rounds = f"{args.rounds} round{'' if args.rounds == 1 else 's'}"
    if args.resume:
        print("would go on with the interrupted run, without what is done already")
    print(f"would process {len(pictures)} pictures, {total:,} bytes, in {rounds}")
    if args.aa:
        print(f"on this machine only, {2 * args.rounds} times, with {args.workers} workers")
    else:
        print(f"on this machine with {args.workers} workers, and in the cloud: {args.cloud}")
        whose = "expected cost on AWS" if args.cloud == "aws" else "no cost here; on AWS about"
        print(f"\n{cost_table(expected_usage_of(args, pictures), whose)}\nprices: {PRICES_OF}")
    if not (args.no_clean or args.resume):
        print_leftovers(args)


def print_leftovers(args: argparse.Namespace) -> None:
    """What the clean step would delete. An embedded cloud of the run's own starts empty."""
    found = [shown(path) for path in local_leftovers()]
    if not args.aa and (args.cloud == "aws" or args.endpoint_url):
        cloud = cloud_of(args)
        stored = cloud_leftovers(make_client(cloud, "s3"), find_buckets(cloud))
        found += [f"s3://{bucket}/{key}" for bucket, key in stored]
    print(f"\nwould delete {counted(len(found), 'leftover')} of earlier runs")
    for name in found:
        print(f"  {printable(name)}")


def check_cost(args: argparse.Namespace, pictures: "list[Picture]") -> None:
    """Raises UserError when the run is expected to cost more than --max-cost."""
    if (usd := total_usd(expected_usage_of(args, pictures))) > args.max_cost:
        raise UserError(
            f"the run is expected to cost {usd:.4f} USD, more than --max-cost {args.max_cost:g}; "
            "--dry-run shows the parts"
        )
