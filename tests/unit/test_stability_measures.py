"""How steady an arm was: what is simulated is found, its interval covers it, nothing crashes."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_charts import both, compared, rows_of
from test_stability import passes

from metrics.analysis.cost import Bill, Usage
from metrics.analysis.interval import CONFIDENCE
from metrics.analysis.judgement import judge_comparison
from metrics.analysis.rows import REFERENCE_COLUMNS
from metrics.analysis.stability_measures import (
    KINDS,
    Measure,
    measure_text,
    measures_of,
    share,
)

pytestmark = pytest.mark.filterwarnings("error")
BY_ROUND = ("cv", "drift_in_round", "drift_over_run", "tail_ratio")


def measured(rows: pd.DataFrame, source: str = "on_prem") -> dict[str, Measure]:
    return measures_of(rows.assign(status="ok", cold_start=False), source)


def simulated(seed: int, pictures: int = 100, rounds: int = 4) -> dict[str, Measure]:
    """Of a machine whose noise and drift differ from round to round."""
    random = np.random.default_rng(seed)
    rows = passes(
        pictures, rounds, noise=0.0, seed=seed, between=tuple(random.lognormal(0, 0.03, rounds))
    )
    noise = 0.1 * random.lognormal(0, 0.3, rounds)
    drift = random.normal(math.log(1.05), 0.03, rounds)
    parts = []
    for of_round, (_, part) in enumerate(rows.groupby("round")):
        log_ms = random.normal(0, noise[of_round], pictures)
        log_ms += drift[of_round] * np.linspace(0, 1, pictures)
        parts.append(part.assign(proc_ms=part["proc_ms"] * np.exp(log_ms)))
    return measured(pd.concat(parts))


TRUTH = {
    "cv": math.sqrt(math.expm1(0.1**2)),
    "drift_in_round": 0.05,
    "drift_over_run": 0.0,
    # Of the mean noise; that of "cv" is the geometric one.
    "tail_ratio": math.exp(0.1 * math.exp(0.3**2 / 2) * stats.norm.ppf(0.99)),
}


def test_the_intervals_cover_what_was_simulated():
    experiments = [simulated(seed) for seed in range(100)]
    for name, truth in TRUTH.items():
        covered = sum(one[name].low <= truth <= one[name].high for one in experiments)
        assert covered >= 88, name  # 95 of 100 and less than this in one of 500 such tests
        middle = np.median([one[name].value for one in experiments])
        assert middle == pytest.approx(truth, abs=0.015), name


def test_intervals_narrow_with_rounds_and_hold_their_value():
    few, many = simulated(1, rounds=3), simulated(1, rounds=12)
    for name in BY_ROUND:
        assert few[name].low < few[name].value < few[name].high
        assert many[name].high - many[name].low < few[name].high - few[name].low


def test_drift_over_the_run_is_a_line_through_the_rounds():
    between = tuple(1.1 ** (number / 4) for number in range(5))
    drift = measured(passes(50, 5, noise=0.0, between=between))["drift_over_run"]
    assert drift.value == pytest.approx(0.1)
    assert (drift.low, drift.high) == pytest.approx((0.1, 0.1), abs=1e-6)


@pytest.mark.parametrize(("rounds", "note"), [(1, "one round"), (2, "two rounds")])
def test_fewer_than_three_rounds_give_numbers_and_no_interval_and_say_so(rounds, note):
    found = measured(passes(100, rounds))
    for name in ("cv", "tail_ratio"):
        assert found[name].value > 0
        assert math.isnan(found[name].low)
        assert math.isnan(found[name].high)
        assert found[name].note == note
    assert found["drift_over_run"].note == note
    assert "two rounds)" in measure_text(measured(passes(100, 2))["cv"], KINDS["cv"])


def test_two_rounds_in_one_order_tell_nothing_of_drift_in_a_round():
    drift = measured(passes(100, 2, drift=0.2))["drift_in_round"]
    assert math.isnan(drift.value)
    assert drift.note == "the order tells nothing"


def test_a_mix_of_sizes_is_no_instability():
    alike, mixed = (measured(passes(100, 4, noise=0.03, sizes=sizes)) for sizes in (0.0, 1.0))
    for name in ("cv", "tail_ratio"):
        assert mixed[name].value == pytest.approx(alike[name].value, rel=0.02)


@pytest.mark.parametrize(("count", "of"), [(0, 64), (3, 64), (64, 64)])
def test_shares_have_clopper_and_pearson_s_interval(count, of):
    measure = share(count, of, 1000)
    rest = (1 - CONFIDENCE) / 2
    low = stats.beta.ppf(rest, count, of - count + 1) if count else 0.0
    high = stats.beta.isf(rest, count + 1, of - count) if count < of else 1.0
    assert measure.value == 1000 * count / of
    assert (measure.low, measure.high) == pytest.approx((1000 * low, 1000 * high))


def test_failures_and_cold_starts_are_counted_over_all_rows():
    rows = passes(10, 4).assign(status="ok", cold_start=False)
    rows.loc[rows.index[:2], "status"] = "error"
    rows.loc[rows.index[:3], "cold_start"] = True
    found = measures_of(rows, "cloud")
    assert found["failures_per_1000"].value == pytest.approx(50)
    assert found["cold_start_share"].value == pytest.approx(3 / 40)


def test_retries_are_of_the_tries_that_lambda_reported():
    usage = Usage(10, 12, 1, 1, 1, 1, 1, 1)
    bill = Bill(usage, 100, 90, 10, 0, 0, 1769, 80, False)
    found = measures_of(passes(10, 3).assign(status="ok", cold_start=False), "cloud", bill=bill)
    assert found["retries_per_1000"] == share(10, 100, 1000)


def test_without_log_lines_and_on_prem_there_are_no_retries_and_a_reason():
    rows = passes(10, 3)
    for source, note in (("cloud", "no log lines"), ("on_prem", "never retries")):
        assert measured(rows, source)["retries_per_1000"].note == note
        assert math.isnan(measured(rows, source)["retries_per_1000"].value)


# --- hostile input ------------------------------------------------------------------------------


def assert_whole(found: dict[str, Measure]) -> None:
    """Every number that is not known has a reason, and every one can be written."""
    assert list(found) == list(KINDS)
    for name, measure in found.items():
        assert (measure.note != "") == math.isnan(measure.low), name
        text = measure_text(measure, KINDS[name])
        assert text
        assert "nan" not in text
        assert "inf" not in text


HOSTILE = {
    "no row": passes(3).iloc[:0],
    "one row": passes(1),
    "one picture, many rounds": passes(1, 30),
    "unknown times of begin": passes(30, 4).assign(begin_s=math.nan),
    "unknown sizes": passes(30, 1).assign(orig_size=0.0),
    "equal times": passes(30, 4).assign(proc_ms=25.0),
    "a time beyond all": passes(30, 4).assign(proc_ms=lambda rows: rows["proc_ms"] * 0 + 1e16),
    "times from 1e-6 to 1e16": passes(30, 4).assign(
        proc_ms=lambda rows: np.where(rows.index % 2 == 0, 1e-6, 1e16)
    ),
    "no picture twice": passes(30, 4).assign(image_key=lambda rows: rows.index.astype(str)),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_odd_rows_give_a_number_or_a_reason(case):
    assert_whole(measured(HOSTILE[case]))


def test_rows_that_all_failed_have_no_times_but_a_failure_rate():
    found = measures_of(passes(30, 4).assign(status="error", cold_start=False), "cloud")
    assert_whole(found)
    assert found["failures_per_1000"].value == 1000


def test_a_file_of_five_columns_does_not_tell_cold_starts(tmp_path):
    comparison = compared(tmp_path, *both(30), columns=len(REFERENCE_COLUMNS))
    for found in judge_comparison(comparison).stability.values():
        assert_whole(found)
        assert found["cold_start_share"].note == "not in the file"


def test_a_comparison_has_the_measures_of_both_arms(tmp_path):
    first, second = rows_of("on_prem", 30, 4), rows_of("cloud", 30, 4)
    found = judge_comparison(compared(tmp_path, first, second)).stability
    assert list(found) == ["on_prem", "cloud"]
    assert found["cloud"]["cold_start_share"].value == pytest.approx(2 / 120)
    assert found["on_prem"]["cold_start_share"].value == 0
