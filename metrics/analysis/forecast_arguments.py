"""The flags of a forecast, the same in every script that has them."""

import argparse
import math
from pathlib import Path

from metrics.analysis.aws_profile import PUBLISHED, Profile, load_profile
from metrics.analysis.forecast_inputs import ACCOUNT_LIMIT, NEW_ACCOUNT_LIMIT, Settings
from metrics.common.cli import positive_int
from metrics.common.paths import shown

MAX_MBIT_S = 1e6  # a terabit a second: what is beyond is a slip of the finger


def add_forecast_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the forecast of AWS")
    group.add_argument(
        "--uplink",
        type=mbit_s,
        default=None,
        metavar="MBIT/S",
        help="forecast the upload from here, too; default: only pictures that are in S3 already",
    )
    group.add_argument(
        "--account-limit",
        type=positive_int,
        default=ACCOUNT_LIMIT,
        metavar="N",
        help=f"pictures at once that the account allows; new accounts have {NEW_ACCOUNT_LIMIT}",
    )
    group.add_argument(
        "--aws-profile-file",
        type=Path,
        default=None,
        metavar="FILE",
        help=f"facts about AWS, of --fit-profile or your own; default: {shown(PUBLISHED)}",
    )


def settings_of(args: argparse.Namespace, memory_mb: int, architecture: str) -> Settings:
    """Of a function of that memory."""
    return Settings(memory_mb, architecture, args.uplink, args.account_limit)


def profile_of(args: argparse.Namespace) -> Profile:
    """Raises UserError that names file and key of what is wrong."""
    return load_profile(args.aws_profile_file or PUBLISHED)


def mbit_s(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number <= MAX_MBIT_S:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of Mbit/s above 0")
    return number
