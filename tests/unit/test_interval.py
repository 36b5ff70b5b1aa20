"""The interval: scipy's where there is one, symmetric, scale-free, and honest about rounds."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from metrics.analysis.interval import (
    CONFIDENCE,
    DRIFT_MARGIN,
    POWER,
    RatioEstimate,
    estimate_ratio,
)

pytestmark = pytest.mark.filterwarnings("error")

logs = st.floats(-3, 3).map(lambda value: round(value, 4))
allowances = st.floats(1, 3)


def tables(pictures: tuple[int, int] = (1, 8), rounds: tuple[int, int] = (1, 6)):
    shapes = st.tuples(st.integers(*pictures), st.integers(*rounds))
    return shapes.flatmap(lambda shape: arrays(float, shape, elements=logs))


def ends(estimate: RatioEstimate) -> tuple[float, float, float]:
    return estimate.low, estimate.ratio, estimate.high


# --- what a book says ---------------------------------------------------------------------------


@given(arrays(float, st.integers(2, 30), elements=logs))
def test_of_one_round_it_is_the_paired_t_interval_over_pictures(values):
    same_as_scipy(estimate_ratio(values[:, None], drift_margin=1), values)


@given(arrays(float, st.integers(2, 30), elements=logs))
def test_of_one_picture_it_is_the_t_interval_over_rounds(values):
    same_as_scipy(estimate_ratio(values[None, :]), values)


def same_as_scipy(estimate: RatioEstimate, values: np.ndarray) -> None:
    assume(np.std(values) > 1e-3)
    test = stats.ttest_1samp(values, 0)
    interval = test.confidence_interval(CONFIDENCE)
    assert np.log(ends(estimate)) == pytest.approx([interval.low, values.mean(), interval.high])
    assert estimate.p_value == pytest.approx(test.pvalue, rel=1e-3, abs=1e-11)


TABLE = np.array([[0.0, 2.0], [2.0, 8.0], [1.0, 2.0]])
# Means of pictures 1, 5, 1.5; of rounds 1, 4; of all 2.5. Mean squares: rounds 13.5, pictures
# 2 x 4.75, residual 7 / 2.


def test_its_parts_are_what_a_hand_computes():
    estimate = estimate_ratio(TABLE)
    assert estimate.log_ratio == pytest.approx(2.5)
    assert estimate.v_rounds == pytest.approx(13.5 / 6)
    assert estimate.v_pictures == pytest.approx((9.5 - 3.5) / 6)
    assert estimate.standard_error == pytest.approx(math.sqrt(2.25 + 1))


def test_of_two_rounds_the_critical_value_is_cochrans():
    weighted = 2.25 * stats.t.isf(0.025, 1) + 1 * stats.t.isf(0.025, 2)
    assert estimate_ratio(TABLE).critical_value(0.05) == pytest.approx(weighted / 3.25)


def test_of_more_rounds_it_is_half_way_from_cochrans_to_satterthwaites():
    estimate = estimate_ratio(TABLE.T)  # which swaps pictures and rounds, and so the mean squares
    v_rounds, v_pictures = 9.5 / 6, (13.5 - 3.5) / 6
    weighted = v_rounds * stats.t.isf(0.025, 2) + v_pictures * stats.t.isf(0.025, 1)
    df = (v_rounds + v_pictures) ** 2 / (v_rounds**2 / 2 + v_pictures**2)
    both = weighted / (v_rounds + v_pictures), stats.t.isf(0.025, df)
    assert estimate.critical_value(0.05) == pytest.approx(sum(both) / 2)


@given(tables())
def test_no_part_of_the_variance_is_negative(table):
    estimate = estimate_ratio(table)
    assert estimate.v_rounds >= 0
    assert estimate.v_pictures >= 0
    assert estimate.low <= estimate.ratio <= estimate.high


# --- symmetry and scale -------------------------------------------------------------------------


@given(tables(), allowances)
def test_swapping_the_arms_inverts_the_ratio_and_both_ends(table, drift_margin):
    forth, back = estimate_ratio(table, drift_margin), estimate_ratio(-table, drift_margin)
    assert ends(back) == pytest.approx([1 / end for end in reversed(ends(forth))])
    assert back.p_value == pytest.approx(forth.p_value)


@given(tables(), st.floats(0.1, 10), allowances)
def test_a_constant_factor_multiplies_the_ratio_and_both_ends(table, factor, drift_margin):
    scaled = estimate_ratio(table + math.log(factor), drift_margin)
    expected = [factor * end for end in ends(estimate_ratio(table, drift_margin))]
    assert ends(scaled) == pytest.approx(expected)


@given(tables(), st.randoms(use_true_random=False))
def test_the_order_of_pictures_and_of_rounds_makes_no_difference(table, random):
    lines, columns = (random.sample(range(size), size) for size in table.shape)
    shuffled = estimate_ratio(table[lines][:, columns])
    assert ends(shuffled) == pytest.approx(ends(estimate_ratio(table)))


# --- the test and the interval say the same -----------------------------------------------------


@given(tables(), st.floats(-2, 2), allowances)
def test_p_is_below_5_percent_exactly_when_the_interval_excludes_1(table, shift, drift_margin):
    estimate = estimate_ratio(table / 10 + shift, drift_margin)
    assume(abs(abs(estimate.log_ratio) - estimate.log_half_width) > 1e-9)
    assert (estimate.p_value < 1 - CONFIDENCE) == (not estimate.includes_1)
    assert 0 < estimate.p_value <= 1


@pytest.mark.parametrize("log", [0.0, 1e-17, -1e-17])
def test_without_any_spread_p_and_interval_agree_to_the_last_bit(log):
    estimate = RatioEstimate(3, 2, log, 0.0, 0.0, 1.0)
    assert (estimate.p_value < 1 - CONFIDENCE) == (not estimate.includes_1)


# --- little data, equal data, extreme data ------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (5, 1), (5, 4)])
@pytest.mark.parametrize("log", [0.0, 0.7, -0.7])
def test_of_equal_ratios_the_interval_is_the_allowance_alone(shape, log):
    estimate = estimate_ratio(np.full(shape, log), drift_margin=1.1)
    assert estimate.log_half_width == pytest.approx(math.log(1.1))
    assert estimate.includes_1 == (log == 0)
    assert estimate.p_value == (1 if log == 0 else pytest.approx(0, abs=1e-9))


def test_without_spread_and_allowance_the_interval_is_the_ratio_and_all_is_still_defined():
    estimate = estimate_ratio(np.zeros((5, 4)))
    assert ends(estimate) == (1, 1, 1)
    assert (estimate.p_value, estimate.includes_1) == (1, True)
    assert estimate.detectable_difference == pytest.approx(0, abs=1e-9)
    assert estimate.power(0.01) == pytest.approx(1, abs=1e-3)


def test_one_round_is_widened_by_the_stated_allowance_and_more_by_none():
    assert estimate_ratio(np.zeros((9, 1))).high == pytest.approx(DRIFT_MARGIN)
    assert estimate_ratio(np.zeros((9, 1))).drift_margin == DRIFT_MARGIN
    assert estimate_ratio(np.zeros((9, 2))).drift_margin == 1
    assert estimate_ratio(np.zeros((9, 1)), drift_margin=1.02).drift_margin == 1.02


@given(tables(), allowances, allowances)
def test_a_larger_allowance_gives_a_wider_interval_and_a_larger_p(table, one, other):
    small, large = (estimate_ratio(table, a) for a in sorted((one, other)))
    assert large.low <= small.low <= small.high <= large.high
    assert large.p_value >= small.p_value - 1e-9
    assert large.detectable_difference >= small.detectable_difference


@pytest.mark.parametrize(
    "table", [[[690.0], [0.0]], [[690.0, -7.0], [0.0, 0.0]], [[-690.0, 690.0]]]
)
def test_ratios_at_the_ends_of_what_a_float_holds_do_not_fail(table):
    estimate = estimate_ratio(np.array(table, dtype=float))
    assert 0 <= estimate.low <= estimate.ratio <= estimate.high
    assert estimate.detectable_difference > 1
    assert estimate.includes_1


# --- power --------------------------------------------------------------------------------------


def realistic(pictures: int, rounds: int, seed: int = 1) -> np.ndarray:
    """Log ratios of equal arms on a drifting machine."""
    random = np.random.default_rng(seed)
    of_pictures = random.normal(0, 0.05, (pictures, 1))
    of_rounds = random.normal(0, 0.03, (1, rounds))
    return of_pictures + of_rounds + random.normal(0, 0.02, (pictures, rounds))


@given(tables((2, 8)), allowances)
def test_power_grows_with_the_size_of_the_difference_to_certainty(table, drift_margin):
    estimate = estimate_ratio(table, drift_margin)
    powers = [estimate.power(difference) for difference in (0, 0.01, 0.1, 1, 10, 1e6)]
    assert powers == sorted(powers)
    assert powers[-1] > 0.999
    assert estimate.power(-0.1) == estimate.power(0.1)


@given(tables((2, 8)))
def test_a_difference_of_none_is_found_in_fewer_than_5_percent(table):
    estimate = estimate_ratio(table)
    assume(estimate.rounds == 1 or estimate.standard_error > 1e-6)
    assert estimate.power(0) < 1 - CONFIDENCE


@given(tables(), allowances)
def test_power_at_the_detectable_difference_is_what_is_promised(table, drift_margin):
    estimate = estimate_ratio(table, drift_margin)
    assume(estimate.standard_error > 1e-6)
    difference = math.log1p(estimate.detectable_difference)
    assert estimate.power(difference) == pytest.approx(POWER, abs=1e-6)


@given(tables((10, 14)), st.integers(2, 20), st.integers(1, 20))
def test_more_rounds_promise_a_narrower_interval_and_a_smaller_difference(table, rounds, more):
    few = estimate_ratio(table).with_rounds(rounds)
    many = few.with_rounds(rounds + more)
    assert (few.rounds, many.rounds, many.pictures) == (rounds, rounds + more, len(table))
    assert many.standard_error <= few.standard_error
    as_wide = 1.001  # the quantile may rise a little where the pictures' spread is nearly all
    assert many.log_half_width <= few.log_half_width * as_wide
    assert many.detectable_difference <= few.detectable_difference * as_wide + 1e-12


def test_several_rounds_promise_more_than_one_that_drift_is_allowed_for():
    one = estimate_ratio(realistic(30, 1))
    four = one.with_rounds(4)
    assert four.drift_margin == 1
    assert four.log_half_width < one.log_half_width
    assert four.v_rounds > 0  # one round says nothing of drift, so a typical one is assumed


def test_as_many_rounds_as_there_are_promise_what_there_is():
    estimate = estimate_ratio(realistic(30, 3))
    assert ends(estimate.with_rounds(3)) == pytest.approx(ends(estimate))


@pytest.mark.parametrize(("pictures", "rounds"), [(20, 3), (20, 6), (100, 4)])
def test_simulated_experiments_cover_the_truth_and_find_what_is_promised(pictures, rounds):
    experiments = [estimate_ratio(realistic(pictures, rounds, seed)) for seed in range(1000)]
    missed = np.mean([not estimate.includes_1 for estimate in experiments])
    assert missed == pytest.approx(0.05, abs=0.02)
    parts = [
        np.mean([getattr(e, part) for e in experiments]) for part in ("v_rounds", "v_pictures")
    ]
    usual = RatioEstimate(pictures, rounds, 0.0, *parts, drift_margin=1.0)
    true = math.log1p(usual.detectable_difference)
    found = np.mean([abs(e.log_ratio + true) > e.log_half_width for e in experiments])
    assert found == pytest.approx(POWER, abs=0.06)
