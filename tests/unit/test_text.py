"""Numbers and texts: each kind is written in one way, and never wrongly."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics.common.text import (
    DASH,
    byte_size,
    counted,
    counted_pictures,
    digits,
    percent,
    plain,
    printable,
    seconds,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0, "0.00"), (0.000123, "0.000123"), (0.0000123, "0.0000123"), (0.5, "0.500")),
        *((0.9996, "1.00"), (9.994, "9.99"), (9.996, "10.0"), (99.94, "99.9"), (99.95, "100")),
        *((1234.5, "1,234"), (1e6, "1,000,000"), (-2.5, "-2.50"), (1e-300, "0.000000000000000")),
        *((math.nan, DASH), (math.inf, DASH), (-math.inf, DASH)),
    ],
)
def test_three_digits_or_all_before_the_point_and_no_exponent(value, text):
    assert digits(value) == text


@given(st.floats(1e-9, 1e15), st.integers(1, 6))
def test_digits_are_off_by_half_of_the_last_one_at_most(value, significant):
    read = float(digits(value, significant).replace(",", ""))
    last = 10 ** (math.floor(math.log10(value)) + 1 - significant)
    assert abs(read - value) <= 0.5001 * last


def test_digits_can_be_told_how_many_decimals_are_worth_it():
    assert [digits(x, max_decimals=2) for x in (0.0512, 5.12, 51.2)] == ["0.05", "5.12", "51.2"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01, "0.01 s"), (0.5, "0.5 s"), (20, "20 s"), (2000.4, "2,000 s"), (math.nan, "unknown")],
)
def test_seconds_have_no_zeros_at_their_end(value, text):
    assert seconds(value) == text


def test_bytes_counts_and_parts():
    sizes = [byte_size(n) for n in (512, 13_472_331, 1.2e9, None, math.nan)]
    assert sizes == ["512 B", "13.5 MB", "1.20 GB", DASH, DASH]
    assert [counted(n, "row") for n in (0, 1, 2000)] == ["0 rows", "1 row", "2,000 rows"]
    assert counted_pictures(16) == "16 pictures"
    assert counted_pictures(14, 2) == "14 different pictures (16 with copies)"
    assert [percent(part) for part in (0.975, 1, math.nan)] == ["97.5%", "100.0%", DASH]
    assert [plain(x) for x in (1500.0, 0.13, 1e7)] == ["1,500", "0.13", "10,000,000"]


def test_what_a_terminal_would_act_on_is_written_as_its_escape():
    assert printable("é/日本.jpg") == "é/日本.jpg"
    assert "\x1b" not in printable("a\x1b[31m")
