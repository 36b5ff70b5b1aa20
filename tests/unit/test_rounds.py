"""Counter-balance: which arm leads, what cancels, and in which order pictures are taken."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics.analysis.rounds import first_arm_leads, split_passes
from onprem_images.dataset import LARGEST_FIRST, Picture, order_of_pass


def places(rounds: range) -> tuple[list[int], list[int]]:
    """When A's and when B's passes come, counted in passes from the first."""
    a, b = [], []
    for place, number in zip(range(0, 2 * len(rounds), 2), rounds, strict=True):
        first, second = (a, b) if first_arm_leads(number) else (b, a)
        first.append(place)
        second.append(place + 1)
    return a, b


def test_on_prem_leads_first_and_the_lead_is_a_b_b_a():
    assert "".join("AB" if first_arm_leads(n) else "BA" for n in range(1, 9)) == "ABBABAAB" * 2


@given(st.integers(1, 10**6))
def test_over_any_four_rounds_each_arm_leads_twice(start):
    assert sum(first_arm_leads(number) for number in range(start, start + 4)) == 2


@given(st.integers(0, 1000), st.floats(-9, 9), st.floats(-9, 9))
def test_a_steady_drift_cancels_over_two_rounds_and_a_curved_one_over_four(block, slope, bend):
    for length, drift in ((2, lambda t: slope * t), (4, lambda t: slope * t + bend * t**2)):
        a, b = places(range(block * length + 1, (block + 1) * length + 1))
        assert sum(map(drift, b)) - sum(map(drift, a)) == pytest.approx(0, abs=1e-9)


def test_a_curved_drift_does_not_cancel_over_two_rounds():
    a, b = places(range(1, 3))
    assert sum(t**2 for t in b) != sum(t**2 for t in a)


def test_a_round_is_as_often_followed_by_one_of_the_same_order_as_of_the_other():
    leads = [first_arm_leads(number) for number in range(1, 42)]
    same = [one == following for one, following in itertools.pairwise(leads)]
    assert sum(same) == len(same) / 2


# --- on-prem against itself ---------------------------------------------------------------------


def passes_of(*numbers: int) -> pd.DataFrame:
    lines = [(key, number, 100 * number) for number in numbers for key in "ab"]
    return pd.DataFrame(lines, columns=["image_key", "round", "proc_ms"])


def pass_pairs(rows: pd.DataFrame) -> list[tuple[int, int, int]]:
    """Round, A's pass and B's pass."""
    a, b = (side.groupby("round")["proc_ms"].first() // 100 for side in split_passes(rows))
    return [(number, a[number], b[number]) for number in a.index]


def test_neighbouring_passes_are_paired_and_take_turns_in_being_a():
    expected = [(1, 1, 2), (2, 4, 3), (3, 6, 5), (4, 7, 8)]
    assert pass_pairs(passes_of(*range(1, 9))) == expected
    assert pass_pairs(passes_of(*range(8, 0, -1))) == expected


@given(st.integers(1, 20))
def test_every_row_of_an_even_number_of_passes_is_in_exactly_one_side(pairs):
    rows = passes_of(*range(1, 2 * pairs + 1))
    a, b = split_passes(rows)
    assert sorted(a["round"]) == sorted(b["round"])
    assert sorted([*a["proc_ms"], *b["proc_ms"]]) == sorted(rows["proc_ms"])
    assert a.index.tolist() == list(range(2 * pairs))


def test_passes_become_rounds_by_the_lead_that_real_arms_have():
    a, b = split_passes(passes_of(*range(1, 17)))
    first_of_round = np.minimum(a["proc_ms"], b["proc_ms"])
    leads = a.loc[a["proc_ms"] == first_of_round, "round"]
    assert {number for number in range(1, 9) if first_arm_leads(number)} == set(leads)


def test_a_last_pass_without_its_partner_is_left_on_one_side_only():
    a, b = split_passes(passes_of(1, 2, 3))
    assert (sorted(set(a["round"])), sorted(set(b["round"]))) == ([1], [1, 2])


def test_no_pass_at_all_is_two_empty_sides():
    assert [len(side) for side in split_passes(passes_of())] == [0, 0]


# --- the order within a pass --------------------------------------------------------------------


def pictures_of(count: int) -> list[Picture]:
    return [Picture(f"{n}.jpg", Path(), 10_000 - n, "") for n in range(count)]


@given(st.integers(0, 60), st.integers(1, 50))
def test_an_order_is_a_permutation_that_begins_with_the_largest_tenth(count, number):
    pictures = pictures_of(count)
    order = order_of_pass(pictures, number)
    assert sorted(p.image_key for p in order) == sorted(p.image_key for p in pictures)
    head = -(-count // LARGEST_FIRST)
    assert order[:head] == pictures[:head]
    assert pictures == pictures_of(count)  # what was given is left as it was


@given(st.integers(1, 50))
def test_an_order_is_repeated_by_every_run_and_differs_from_one_two_rounds_later(number):
    pictures = pictures_of(40)
    assert order_of_pass(pictures, number) == order_of_pass(pictures_of(40), number)
    assert order_of_pass(pictures, number) != order_of_pass(pictures, number + 2)


def test_both_passes_of_a_comparison_of_on_prem_with_itself_have_the_same_order():
    pictures = pictures_of(40)
    for number in range(1, 20, 2):
        assert order_of_pass(pictures, number) == order_of_pass(pictures, number + 1)


def test_sizes_and_places_of_the_shuffled_rest_hang_together_by_chance_only():
    head = 100
    for number in range(1, 11):
        sizes = [picture.size for picture in order_of_pass(pictures_of(1000), number)][head:]
        assert abs(np.corrcoef(sizes, range(len(sizes)))[0, 1]) < 0.12
