"""What is said: one sentence on each question, word for word, and never more than is known."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from rows import row
from test_rows import frame, on_prem_row

from metrics.analysis.comparison import Comparison, compare
from metrics.analysis.interval import DRIFT_MARGIN, RatioEstimate
from metrics.analysis.run_diff import speed_text
from metrics.common.findings import Finding
from metrics.common.text import counted, difference, p_value, rounded_alike
from metrics.report.verdict import (
    equivalence_line,
    ledger_line,
    ratio_line,
    table,
    verdict_per_picture,
    verdict_whole_job,
)

pytestmark = pytest.mark.filterwarnings("error")

# Cloud / on-prem by picture (lines) and round (columns): about 2, with a spread of 2%.
TWICE = [[2.00, 2.04], [1.98, 2.02], [2.02, 2.06], [1.96, 2.02]]
ALIKE = [[1.00, 1.04], [0.98, 1.02], [1.02, 0.97], [0.96, 1.02]]


def judged(
    ratios: list,
    *,
    cpu_utilisation: float = 1.0,
    cpu_ratio: float | None = None,
    lost: int = 0,
    on_prem_ms: float = 10.0,
    record: dict | None = None,
    **fields: object,
) -> Comparison:
    """The comparison where each picture takes the cloud `ratios` times as long.

    `cpu_utilisation` is the cloud's; `cpu_ratio` sets the ratio in processor time; `lost` cloud
    rows are missing; `fields` are of the cloud rows.
    """
    on_prem, cloud = [], []
    for (picture, place), ratio in np.ndenumerate(np.atleast_2d(ratios)):
        ms = on_prem_ms * float(ratio)
        cpu_ms = on_prem_ms * cpu_ratio if cpu_ratio else ms * cpu_utilisation
        same = {"round": place + 1, "fetch_ms": 0.0, "store_ms": 0.0}
        on_prem.append(on_prem_row(f"{picture}", proc_ms=on_prem_ms, cpu_ms=on_prem_ms, **same))
        cloud.append(row(f"{picture}", **({"proc_ms": ms, "cpu_ms": cpu_ms} | same | fields)))
    kept = cloud[: len(cloud) - lost]
    return compare(frame(on_prem), frame(kept), allow_partial=lost > 0, record=record)


def column(*ratios: float) -> list[list[float]]:
    """One round."""
    return [[ratio] for ratio in ratios]


def inverse(ratios: list) -> list:
    return (1 / np.array(ratios)).tolist()


# --- per picture, word for word -----------------------------------------------------------------


def test_the_faster_arm_is_named_with_the_factor_its_interval_and_what_it_is_based_on():
    assert verdict_per_picture(judged(TWICE)) == (
        "on-prem is 2.01x faster per picture "
        "(95% CI 1.76 to 2.30, 4 pictures x 2 rounds, embedded cloud, not AWS)"
    )


def test_a_faster_cloud_is_said_with_the_inverse_factor_and_interval():
    assert verdict_per_picture(judged(inverse(TWICE))) == (
        "the cloud is 2.01x faster per picture "
        "(95% CI 1.76 to 2.30, 4 pictures x 2 rounds, embedded cloud, not AWS)"
    )


def test_one_round_is_widened_by_the_allowance_and_the_verdict_says_so():
    assert verdict_per_picture(judged(column(2.0, 2.02, 1.98))) == (
        "on-prem is 2.00x faster per picture (95% CI 1.56 to 2.56, "
        "3 pictures x 1 round widened by 25% for drift between the passes, embedded cloud, not AWS)"
    )


def test_no_difference_found_is_said_with_what_could_have_been_found_and_how_to_find_more():
    said = verdict_per_picture(judged(ALIKE))
    assert said.startswith(
        "cannot tell which is faster per picture: the interval includes 1 (ratio 1.00, 95% CI "
    )
    shape = (
        r".*, 4 pictures x 2 rounds, embedded cloud, not AWS\); this run could have seen a "
        r"difference of (\d+)% or more; --rounds 4 would see (\d+)%"
    )
    found = re.fullmatch(shape, said)
    assert int(found[2]) < int(found[1])
    estimate = judged(ALIKE).per_picture
    assert found[1] == f"{estimate.detectable_difference:.0%}"[:-1]
    assert found[2] == f"{estimate.with_rounds(4).detectable_difference:.0%}"[:-1]


def test_of_equal_arms_in_one_round_the_whole_sentence_is():
    assert verdict_per_picture(judged(column(1, 1, 1))) == (
        "cannot tell which is faster per picture: the interval includes 1 (ratio 1.00, "
        "95% CI 0.80 to 1.25, 3 pictures x 1 round widened by 25% for drift between the passes, "
        "embedded cloud, not AWS); this run could have seen a difference of 28% or more; "
        "--rounds 4 would see 7%"
    )


@pytest.mark.parametrize(("rounds", "suggested"), [(1, 4), (2, 4), (3, 6), (5, 10)])
def test_the_suggested_rounds_are_four_or_twice_as_many(rounds, suggested):
    ratios = np.exp(np.random.default_rng(1).normal(0, 0.05, (5, rounds)))
    assert f"--rounds {suggested} would see " in verdict_per_picture(judged(ratios))


@pytest.mark.parametrize("pictures", [1, 2])
def test_fewer_than_3_pictures_make_no_arm_faster(pictures):
    said = verdict_per_picture(judged(column(*[99.0] * pictures)))
    noun = "1 picture" if pictures == 1 else "2 pictures"
    assert said == (
        "cannot tell which is faster per picture: fewer than 3 pictures (ratio 99.00, 95% CI 79.20 "
        f"to 123.75, {noun} x 1 round widened by 25% for drift between the passes, "
        "embedded cloud, not AWS)"
    )


def test_cold_starts_are_said_to_be_included():
    said = verdict_per_picture(judged(TWICE, cold_start=True))
    assert "2 rounds, 8 cold starts included, embedded cloud" in said


def test_a_partial_run_says_of_how_many_rows_it_speaks():
    said = verdict_per_picture(judged([*TWICE, *TWICE], lost=1))
    assert re.match(r"on-prem is \S+x faster per picture \(95% CI \S+ to ", said)
    assert said.endswith(
        "7 pictures x 2 rounds, partial: 96.9% of the rows, embedded cloud, not AWS)"
    )


def test_reasons_against_a_comparison_are_all_said_and_no_arm_is_faster():
    comparison = judged(column(2, 2, 2), transform="v2", output_sha256="other")
    assert verdict_per_picture(comparison) == (
        "not comparable: other transform versions for 3 pictures; the output differs for 3 pictures"
    )
    assert verdict_whole_job(comparison) == ""


@pytest.mark.parametrize(
    ("environment", "where"),
    [
        ("aws", "AWS)"),
        ("embedded", "embedded cloud, not AWS)"),
        ("", "cloud environment unknown)"),
        ("elsewhere", "cloud environment elsewhere)"),
    ],
)
def test_only_rows_from_aws_are_called_aws(environment, where):
    said = verdict_per_picture(judged(TWICE, environment=environment))
    assert said.endswith(f", {where}")
    assert ("AWS" in said) == ("AWS" in where)


# --- when an arm may be called faster -----------------------------------------------------------


@given(st.floats(-3, 3).map(lambda power: 10**power))
@example(1.2499)
@example(1.2501)
@settings(deadline=None, max_examples=20)
def test_of_one_round_an_arm_is_called_faster_only_beyond_the_drift_allowance(ratio):
    assume(abs(abs(math.log(ratio)) - math.log(DRIFT_MARGIN)) > 1e-5)
    said = verdict_per_picture(judged(column(ratio, ratio, ratio)))
    if abs(math.log(ratio)) < math.log(DRIFT_MARGIN):
        assert said.startswith("cannot tell")
    else:
        assert said.startswith("on-prem is" if ratio > 1 else "the cloud is")


@given(st.lists(st.floats(-0.5, 0.5), min_size=6, max_size=12), st.sampled_from([1, 2, 3]))
@settings(deadline=None, max_examples=20)
def test_an_arm_is_called_faster_exactly_when_the_interval_excludes_1(logs, rounds):
    ratios = np.exp(np.array(logs[: len(logs) // rounds * rounds]).reshape(-1, rounds))
    comparison = judged(ratios)
    faster = "x faster" in verdict_per_picture(comparison)
    few = comparison.per_picture.pictures < 3
    assert faster == (not comparison.per_picture.includes_1 and not few)


def test_a_shared_processor_makes_no_arm_faster_when_processor_times_do_not_show_it():
    said = verdict_per_picture(judged(TWICE, cpu_ratio=1.0))
    assert said == (
        "cannot tell which is faster per picture: the cloud had the processor for less than 90% of "
        "the time, and processor time does not show the difference (ratio of processor times "
        "1.00, 95% CI 1.00 to 1.00; of wall times 2.01, "
        "95% CI 1.76 to 2.30, 4 pictures x 2 rounds, embedded cloud, not AWS)"
    )


@pytest.mark.parametrize(
    ("cpu", "faster"),
    [
        ({"cpu_ratio": 1.7}, True),  # less than in wall time, but there
        ({"cpu_ratio": 0.5}, False),  # the other way round
        ({"cpu_utilisation": 0.85}, True),
        ({"cpu_ratio": 1.0, "environment": "aws"}, True),  # what was bought counts as it is
        ({"cpu_ratio": 1.0, "memory_mb": 512}, True),  # held to its share by its memory
        ({"cpu_ms": 0.0}, True),  # no processor times at all
    ],
    ids=["there", "the other way", "shared a little", "on AWS", "a small function", "unknown"],
)
def test_a_shared_processor_voids_only_what_processor_times_do_not_show(cpu, faster):
    said = verdict_per_picture(judged(TWICE, **cpu))
    assert said.startswith("on-prem is 2.01x faster") == faster
    assert ("had the processor for less than" in said) == (not faster)


def test_a_file_without_cpu_times_still_gets_a_verdict():
    frames = (
        frame([on_prem_row(k, proc_ms=10.0) for k in "abc"]),
        frame([row(k, proc_ms=50.0) for k in "abc"]),
    )
    for rows in frames:
        rows["cpu_ms"] = np.nan
    assert verdict_per_picture(compare(*frames)).startswith("on-prem is 5.00x faster")


# --- the whole job ------------------------------------------------------------------------------


def test_the_whole_job_is_said_with_both_makespans_workers_and_interval():
    said = verdict_whole_job(judged([[2.0, 2.02, 1.98]] * 3))
    assert said == (
        "on-prem finishes the whole job 2.00x sooner: 0.01 s (1 worker, on-prem) against "
        "0.02 s (1 worker, the cloud) (95% CI 1.95 to 2.05, 3 rounds, "
        "embedded cloud, not AWS)"
    )


def test_a_cloud_that_finishes_sooner_is_said_with_the_inverse():
    said = verdict_whole_job(judged([[0.5, 0.5]] * 3, on_prem_ms=2e6))
    assert said == (
        "the cloud finishes the whole job 2.00x sooner: 2,000 s (1 worker, on-prem) against "
        "1,000 s (1 worker, the cloud) (95% CI 2.00 to 2.00, 2 rounds, embedded cloud, not AWS)"
    )


def test_one_round_tells_nothing_of_the_whole_job_whatever_the_makespans():
    assert verdict_whole_job(judged(column(9, 9, 9))) == (
        "cannot tell which finishes the whole job sooner: one round, makespans 0.01 s (on-prem) "
        "against 0.09 s (the cloud), does not tell chance from difference; use --rounds 3 or more"
    )


def test_no_difference_of_makespans_is_said_with_what_could_have_been_found():
    said = verdict_whole_job(judged([[1.0, 1.1, 0.9]] * 3))
    assert said.startswith(
        "cannot tell which finishes the whole job sooner: makespan 0.01 s (1 worker, on-prem) "
        "against 0.01 s (1 worker, the cloud); the interval includes 1 (ratio "
    )
    assert "3 rounds, embedded cloud, not AWS); this run could have seen a difference of" in said


def test_the_two_questions_have_their_own_answers():
    """More workers finish sooner, though each takes longer per picture."""
    per_picture = judged(TWICE)
    comparison = replace(per_picture, whole_job=judged(inverse([[2.0, 2.02, 1.98]])).whole_job)
    assert verdict_per_picture(comparison).startswith("on-prem is 2.01x faster per picture")
    assert verdict_whole_job(comparison).startswith("the cloud finishes the whole job")


def test_a_pause_in_a_pass_leaves_nothing_to_say_of_the_whole_job():
    record = {"resumed_at": ["2026-11-24T12:00:00+00:00"]}
    resumed = judged([[2.0, 2.02, 1.98]] * 3, record=record)
    said = verdict_whole_job(resumed)
    assert said.endswith("the run was interrupted and resumed, and a makespan may hold the pause")
    assert verdict_per_picture(resumed).startswith("on-prem is 2.0")


def test_without_timestamps_nobody_can_tell_of_the_whole_job():
    assert verdict_whole_job(judged(TWICE, timestamp="")) == (
        "cannot tell which finishes the whole job sooner: timestamps are unknown"
    )


# --- numbers in words ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "text"),
    [(0.06, "6%"), (0.28, "28%"), (0.0094, "0.9%"), (0.0095, "1%"), (1.5, "2.5x"), (99, "100x")],
)
def test_a_difference_is_in_percent_and_from_twice_on_a_factor(part, text):
    assert difference(part) == text


@given(st.floats(0.5, 3), st.floats(0.0002, 0.5), st.floats(0, 1))
def test_ends_that_differ_are_told_apart_and_from_a_1_that_is_outside(low, width, share):
    high = low * (1 + width)
    assume(abs(low - 1) > 1e-4)
    assume(abs(high - 1) > 1e-4)
    ratio, first, last = map(float, rounded_alike(low + share * (high - low), low, high))
    assert first < last
    assert first <= ratio <= last
    assert (first <= 1 <= last) == (low <= 1 <= high)


@pytest.mark.parametrize(
    ("numbers", "texts"),
    [
        ((1.834, 1.79, 1.88), ("1.83", "1.79", "1.88")),
        ((1.0021, 1.0012, 1.0031), ("1.002", "1.001", "1.003")),
        ((1, 1, 1), ("1.00", "1.00", "1.00")),
        ((1 + 1e-9, 1 + 1e-9, 1 + 1e-9), ("1.00000", "1.00000", "1.00000")),
        ((123.4567, 99, 150), ("123.46", "99.00", "150.00")),
    ],
)
def test_a_ratio_and_its_interval_are_rounded_alike(numbers, texts):
    assert rounded_alike(*numbers) == texts


@pytest.mark.parametrize(
    ("log", "text"),
    [
        (math.log(2), "2.00x slower than before (95% CI 1.60 to 2.50, "),
        (-math.log(2), "2.00x faster than before (95% CI 1.60 to 2.50, "),
        (
            0.1,
            "cannot tell whether it is faster or slower than before (ratio 1.11, 95% CI 0.88 to ",
        ),
    ],
)
def test_a_ratio_alone_is_put_in_words(log, text):
    estimate = RatioEstimate(3, 1, log, 0.0, 0.0, DRIFT_MARGIN)
    said = speed_text(estimate)
    assert said.startswith(text)
    assert said.endswith("3 pictures widened by 25% for drift between the passes)")


@pytest.mark.parametrize(
    ("p", "text"),
    [(1, "p = 1.000"), (0.0311, "p = 0.031"), (0.001, "p = 0.001"), (1e-9, "p < 0.001")],
)
def test_a_probability_is_written_as_statisticians_do(p, text):
    assert p_value(p) == text


# --- tables and lines ---------------------------------------------------------------------------


def test_the_table_has_a_line_for_each_arm():
    header, on_prem, cloud = table(judged(column(2.0), cold_start=True)).splitlines()
    assert header.split()[:3] == ["arm", "runs", "on"]
    assert on_prem.split()[:8] == ["on_prem", "local", "1", "0", "0", "10.0", "10.0", "10.0"]
    assert cloud.split()[:8] == ["cloud", "embedded", "1", "0", "1", "20.0", "20.0", "20.0"]


def test_the_ledger_line_counts_every_state_that_there_is():
    on_prem = [on_prem_row(k) for k in "abca"] + [on_prem_row("d", status="error")]
    cloud = [row(k) for k in "ab"] + [row("a", run_id="old")]
    assert ledger_line(compare(frame(on_prem), frame(cloud))) == (
        "completeness 75.0%: 6 of 8 rows, 5 done, 1 failed, 2 missing, 1 duplicate, 1 late "
        "(no manifest: what either arm has is expected)"
    )


def test_the_same_work_line_counts_every_state():
    hashes = ["ab" * 32, "other", "", ""]
    on_prem = [on_prem_row(k, output_sha256="ab" * 32) for k in "abc"]
    on_prem.append(on_prem_row("d", output_sha256=""))
    cloud = [row(k, output_sha256=h) for k, h in zip("abcd", hashes, strict=True)]
    assert equivalence_line(compare(frame(on_prem), frame(cloud))) == (
        "same work: of 4 pairs, 1 identical, 0 equivalent, 2 different, "
        "1 without hashes, compared by size only"
    )


def test_the_ratio_line_gives_mean_test_and_range():
    assert ratio_line(judged(TWICE)) == (
        "cloud/on_prem time per picture: geometric mean 2.01, 95% CI 1.76 to 2.30, "
        f"paired test {p_value(judged(TWICE).per_picture.p_value)}; "
        "ratios from 1.960 to 2.060, median 2.020"
    )
    assert ratio_line(compare(frame([on_prem_row("a")]), frame([row("b")]))) == ""


# --- findings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("finding", "text"),
    [
        (Finding("it is so"), "it is so"),
        (Finding("it is so", ["a"]), "it is so: 'a'"),
        (Finding("it is so", [], "go on"), "it is so; go on"),
        (
            Finding("it is so", list("abcde"), "go on"),
            f"it is so: {str(list('abcde'))[1:-1]}; go on",
        ),
        (Finding("it is so", list("abcdefg")), f"it is so: {str(list('abcde'))[1:-1]} and 2 more"),
        (Finding("it is so", ["new\nline"]), r"it is so: 'new\nline'"),
    ],
)
def test_a_finding_is_one_line_of_statement_names_and_advice(finding, text):
    assert str(finding) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 rows"), (1, "1 row"), (2000, "2,000 rows")])
def test_nouns_are_counted(count, text):
    assert counted(count, "row") == text
