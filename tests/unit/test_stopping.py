"""Rounds are added until the interval is narrow enough, and looking does not spoil it."""

import math
from dataclasses import replace

import numpy as np
import pytest

from metrics.analysis.interval import POWER, RatioEstimate, estimate_ratio
from metrics.analysis.ledger import parse_manifest
from metrics.analysis.stopping import Limits, half_width, plan_lines, reason_to_stop, rounds_needed
from metrics.common.cli import percentage
from onprem_images.dataset import Picture, manifest_bytes
from tests.benchmarks.interval_coverage import coverage_until

WIDE = RatioEstimate(20, 4, 0.1, 0.02**2, 0.01**2, 1.0)
NARROW = replace(WIDE, v_rounds=0.002**2, v_pictures=0.002**2)
LIMITS = Limits(0.05, max_rounds=10)


def test_a_narrow_interval_ends_the_run_and_a_wide_one_does_not():
    assert half_width(NARROW) < 0.05 < half_width(WIDE)
    assert "within ±5.0%" in reason_to_stop(LIMITS, 4, NARROW, 0, 0)
    assert reason_to_stop(LIMITS, 4, WIDE, 0, 0) == ""


@pytest.mark.parametrize("rounds", [2, 3])
def test_nobody_stops_on_a_narrow_interval_before_the_fourth_round(rounds):
    assert reason_to_stop(LIMITS, rounds, replace(NARROW, rounds=rounds), 0, 0) == ""


def test_where_the_interval_lies_does_not_matter_only_how_wide_it_is():
    for log_ratio in (-1.0, 0.0, 0.03, 2.0):
        assert reason_to_stop(LIMITS, 4, replace(NARROW, log_ratio=log_ratio), 0, 0)
        assert not reason_to_stop(LIMITS, 4, replace(WIDE, log_ratio=log_ratio), 0, 0)


@pytest.mark.parametrize(
    ("limits", "rounds", "said"),
    [
        (LIMITS, 10, "--max-rounds 10 is reached"),
        (replace(LIMITS, max_rounds=2), 2, "--max-rounds 2"),  # also before the first look
        (replace(LIMITS, max_time_s=149), 5, "--max-time 149"),  # 5 rounds took 125 s
        (replace(LIMITS, max_usd=0.29), 5, "--max-cost 0.29"),  # and 0.25 USD
    ],
)
def test_a_limit_ends_the_run_and_says_how_wide_the_interval_still_is(limits, rounds, said):
    reason = reason_to_stop(limits, rounds, WIDE, 150, 0.30)
    assert said in reason
    assert "and not within ±5.0%" in reason


def test_a_round_that_still_fits_the_limits_is_done():
    limits = replace(LIMITS, max_time_s=151, max_usd=0.31)
    assert reason_to_stop(limits, 5, WIDE, 150, 0.30) == ""


def test_without_an_interval_a_limit_ends_the_run():
    assert "there is no interval" in reason_to_stop(LIMITS, 10, None, 0, 0)
    assert reason_to_stop(LIMITS, 9, None, 0, 0) == ""


def test_an_interval_that_was_looked_at_is_wider_by_a_tenth():
    logs = np.random.default_rng(1).normal(0.1, 0.05, (20, 6))
    plain, sequential = estimate_ratio(logs), estimate_ratio(logs, sequential=True)
    assert sequential.log_half_width == pytest.approx(1.1 * plain.log_half_width)
    assert sequential.log_ratio == plain.log_ratio
    assert sequential.p_value > plain.p_value


@pytest.mark.slow
@pytest.mark.parametrize(("pictures", "precision"), [(20, 0.05), (100, 0.03)])
def test_intervals_cover_the_truth_although_each_round_was_looked_at(pictures, precision):
    rng = np.random.default_rng(11)
    covered, rounds = coverage_until(rng, 400, pictures, Limits(precision, 12))
    assert covered >= 0.915  # 95%, less what 400 experiments scatter by
    assert 4 < rounds < 12


# --- the manifest -------------------------------------------------------------------------------

PICTURE = Picture("a.jpg", None, 1, "ab")


def test_the_manifest_says_that_rounds_were_added_and_for_what():
    assert parse_manifest(manifest_bytes("run", 5, [PICTURE], 0.05)).precision == 0.05
    assert parse_manifest(manifest_bytes("run", 5, [PICTURE])).precision is None


@pytest.mark.parametrize("precision", ["5", True, 0.0, -0.1, math.inf, math.nan, [0.1]])
def test_a_manifest_that_was_changed_to_nonsense_is_refused(precision):
    with pytest.raises((ValueError, TypeError)):
        parse_manifest(manifest_bytes("run", 5, [PICTURE], precision))


# --- planning -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "part"), [("5%", 0.05), ("5", 0.05), ("0.5%", 0.005)])
def test_percent_may_have_its_sign(text, part):
    assert percentage(text) == pytest.approx(part)


def test_the_plan_is_the_fewest_rounds_with_the_power():
    rounds = rounds_needed(WIDE, 0.05)
    log = math.log1p(0.05)
    assert WIDE.with_rounds(rounds).power(log) >= POWER
    assert WIDE.with_rounds(rounds - 1).power(log) < POWER


def test_more_pictures_never_need_more_rounds_and_a_finer_difference_never_fewer():
    needs = [rounds_needed(WIDE.with_pictures(n), 0.04) for n in (20, 40, 80)]
    assert needs == sorted(needs, reverse=True)
    assert rounds_needed(WIDE, 0.05) > rounds_needed(WIDE, 0.10)


def test_a_plan_that_no_number_of_rounds_fulfils_says_so():
    hopeless = replace(WIDE, v_pictures=0.2**2)
    assert rounds_needed(hopeless, 0.02) is None
    assert "not with 200 rounds either" in "\n".join(plan_lines(hopeless, 0.02))


def test_a_plan_from_one_round_says_what_it_assumes():
    one = replace(WIDE, rounds=1, v_rounds=0.0, drift_margin=1.25)
    assert "a typical one is assumed" in plan_lines(one, 0.05)[-1]
    assert "1 round" in plan_lines(one, 0.05)[0]
