"""What a reader of a forecast must know beside its numbers: a sentence each."""

from collections.abc import Iterator

import numpy as np

from metrics.analysis.aws_profile import Profile
from metrics.analysis.calibration import Calibration
from metrics.analysis.forecast_inputs import NEW_ACCOUNT_LIMIT, Pictures, Settings
from metrics.analysis.forecast_model import quota_factor, ratio_to_lambda
from metrics.common.text import counted


def notes_of(
    profile: Profile, calibration: Calibration, pictures: Pictures, settings: Settings
) -> Iterator[str]:
    yield from _beyond_the_profile(profile, pictures, settings)
    yield from _what_was_never_measured(profile, calibration, pictures, settings)
    yield from calibration.warnings
    limit = settings.account_limit
    yield (
        f"at most {limit:,} pictures are done at once, the account's limit; new accounts have "
        f"{NEW_ACCOUNT_LIMIT}: say so with --account-limit {NEW_ACCOUNT_LIMIT}"
        if limit > NEW_ACCOUNT_LIMIT
        else f"at most {counted(limit, 'picture')} at once: the limit that --account-limit names"
    )
    yield (
        "the job is one without failures: Lambda repeats a failed picture after "
        f"{profile['retry_wait_s']:.0f} s only"
    )


def _beyond_the_profile(profile: Profile, pictures: Pictures, settings: Settings) -> Iterator[str]:
    if not profile.was_measured_with(settings.memory_mb):
        ends = _range(*profile.about.memory_mb, "MB")
        rule = "" if profile.is_published else ", by the published rule"
        yield (
            f"{settings.memory_mb:,} MB of memory is beyond what the profile was measured with "
            f"({ends}): extrapolated{rule}"
        )
    low, high = profile.about.picture_bytes
    beyond = int(((pictures.orig_size < low) | (pictures.orig_size > high)).sum())
    if beyond:
        ends = _range(low / 1e6, high / 1e6, "MB")
        yield (
            f"{counted(beyond, 'picture')} of {len(pictures):,} are smaller or larger than what "
            f"the profile was measured with ({ends}): S3's times are extrapolated"
        )


def _what_was_never_measured(
    profile: Profile, calibration: Calibration, pictures: Pictures, settings: Settings
) -> Iterator[str]:
    other = 1 - pictures.jpeg_share
    if profile.is_published and other > 0.05:
        yield (
            f"{other:.0%} of the processor time is for pictures other than JPEG, of which little "
            "is published: the interval is wider"
        )
    if profile.is_published and settings.architecture == "arm64":
        yield "no published measurement is of pictures on arm64: the interval is wider"
    ratio = ratio_to_lambda(profile, calibration.kernel_ms, settings.architecture)
    least_ms = float(np.median(pictures.cpu_ms)) * ratio
    if quota_factor(profile, settings.memory_mb) > 1 and least_ms < profile["small_task_cpu_ms"]:
        yield (
            f"work of less than {profile['small_task_cpu_ms']:.0f} ms escapes part of the quota "
            f"at {settings.memory_mb:,} MB: the interval is wider"
        )
    if not profile.is_published and not profile.is_of(calibration.machine, pictures.transform):
        yield (
            "the profile was made beside another machine, or with another job "
            f"({profile.about.machine}): the interval is as wide as from published facts"
        )


def _range(low: float, high: float, unit: str) -> str:
    return f"{low:,.4g} {unit}" if low == high else f"{low:,.4g} to {high:,.4g} {unit}"
