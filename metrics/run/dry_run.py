"""What a run would do, cost and delete, before it does."""

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from lambda_function.cloud import cloud_of, find_buckets, find_function, make_client
from lambda_function.emulator.cpu_quota import FULL_VCPU_MB
from metrics.analysis.cost import PRICES_OF, Usage, cost_table, expected_usage, sum_of, total_usd
from metrics.analysis.rounds import MIN_ROUNDS
from metrics.analysis.sweep import Setting, nested_subset
from metrics.analysis.sweep import leftovers as sweep_leftovers
from metrics.common.cli import UserError
from metrics.common.paths import shown
from metrics.common.text import counted, printable
from metrics.run.cleaning import cloud_leftovers, local_leftovers
from onprem_images.dataset import different_pictures

if TYPE_CHECKING:
    from onprem_images.dataset import Picture


def expected_usage_of(
    args: argparse.Namespace, pictures: "list[Picture]", settings: list[Setting]
) -> Usage:
    """What the cloud arm will use in all these runs: with the memory that the function has, if
    there is one yet, where a setting names none. With --precision, its fewest rounds."""
    function = function_on_aws(args)
    usages = [
        expected_usage(
            [picture.size for picture in nested_subset(pictures, setting.pictures)],
            setting.rounds or MIN_ROUNDS,
            setting.memory_mb or function.get("MemorySize", FULL_VCPU_MB),
            function.get("Architectures", ["x86_64"])[0],
        )
        for setting in settings
    ]
    return sum_of(usages)


def function_on_aws(args: argparse.Namespace) -> dict:
    """Its configuration; empty when there is none yet, or no AWS."""
    if args.cloud == "aws" and (function := find_function(cloud_of(args))):
        client = make_client(cloud_of(args), "lambda")
        return client.get_function_configuration(FunctionName=function["FunctionName"])
    return {}


def expected_usd(
    args: argparse.Namespace, pictures: "list[Picture]", settings: list[Setting]
) -> float:
    return total_usd(expected_usage_of(args, pictures, settings)) if settings else 0.0


def usd_a_round(args: argparse.Namespace, pictures: "list[Picture]", setting: Setting) -> float:
    """What one round with this setting is expected to cost."""
    return total_usd(expected_usage_of(args, pictures, [replace(setting, rounds=1)]))


def print_plan(
    args: argparse.Namespace, pictures: "list[Picture]", settings: list[Setting]
) -> None:
    """What a run with these flags would do, cost and delete."""
    total = sum(picture.size for picture in pictures)
    *points, itself = settings
    rounds = counted(itself.rounds, "round")
    if args.precision:
        rounds = f"{MIN_ROUNDS} to {args.max_rounds} rounds, until ±{100 * args.precision:.3g}%"
    if args.resume:
        print("would go on with the interrupted run, without what is done already")
    for point in points:
        print(f"would run before: {point}")
    print(f"would process {len(pictures)} pictures, {total:,} bytes, in {rounds}")
    if (different := different_pictures(pictures)) < len(pictures):
        print(f"only {counted(different, 'different picture')} among {len(pictures):,}")
    if args.self_check:
        print(f"on this machine only, 2 passes a round, with {itself.workers} workers")
    else:
        print(f"on this machine with {itself.workers} workers, and in the cloud: {args.cloud}")
        whose = "expected cost on AWS" if args.cloud == "aws" else "no cost here; on AWS about"
        usage = expected_usage_of(args, pictures, settings)
        print(f"\n{cost_table(usage, whose)}\nprices: {PRICES_OF}")
    if not (args.no_clean or args.resume):
        print_leftovers(args)


def print_leftovers(args: argparse.Namespace) -> None:
    """What the clean step would delete. An embedded cloud of the run's own starts empty."""
    found = [shown(path) for path in (*local_leftovers(), *sweep_leftovers())]
    if not args.self_check and (args.cloud == "aws" or args.endpoint_url):
        cloud = cloud_of(args)
        stored = cloud_leftovers(make_client(cloud, "s3"), find_buckets(cloud))
        found += [f"s3://{bucket}/{key}" for bucket, key in stored]
    print(f"\nwould delete {counted(len(found), 'leftover')} of earlier runs")
    for name in found:
        print(f"  {printable(name)}")


def check_cost(
    args: argparse.Namespace, pictures: "list[Picture]", settings: list[Setting]
) -> None:
    """Raises UserError when the run is expected to cost more than --max-cost."""
    if (usd := expected_usd(args, pictures, settings)) > args.max_cost:
        raise UserError(
            f"the run is expected to cost {usd:.4f} USD, more than --max-cost {args.max_cost:g}; "
            "--dry-run shows the parts"
        )
