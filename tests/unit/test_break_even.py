"""Break-even: the arithmetic, that costs meet where it says, its flags, and where they are kept."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape
from test_charts import assert_readable, both, compared, foot, said

import compare_cloud_onprem_metrics as compare_script
import master_pipeline
from metrics.analysis.assumptions import Assumptions, checked
from metrics.analysis.break_even import (
    MONTH_S,
    BreakEven,
    assumption_lines,
    break_even_of,
    measure_of_rounds,
    sentence,
)
from metrics.analysis.comparison import ARMS_OF_SELF_CHECK
from metrics.analysis.cost import bill_of, work_usd
from metrics.analysis.judgement import Judgement, judge_comparison
from metrics.analysis.stability_measures import Measure
from metrics.collect.invocations import Invocation, invocations_from_csv, invocations_to_csv
from metrics.common.text import rounded_count
from metrics.report.break_even_chart import pictures_drawn
from metrics.report.chart_style import DARK, LIGHT
from metrics.report.charts import CHARTS
from metrics.report.page import render_report

# A machine of 1,200 USD over 5 years: 20 USD a month; 100 W: 73.05 kWh at 0.2 USD: 14.61 USD.
WORKED = Assumptions(1200.0, 5.0, 100.0, 0.2, 0.5)
SOME = st.floats(1e-3, 1e4)


def found_of(
    usd: float = 34.61e-6, per_s: float = 2.0, spread: float = 1.1, **facts: object
) -> BreakEven:
    """With intervals of `spread` to either side; the costs meet at a million pictures a month."""
    measures = [Measure(value, value / spread, value * spread) for value in (usd, per_s)]
    return replace(BreakEven(WORKED, *measures, on_aws=True), **facts)


# --- arithmetic ---------------------------------------------------------------------------------


def test_a_machine_s_month_is_what_a_hand_computes():
    assert pytest.approx(34.61) == WORKED.month_usd


def test_costs_capacity_and_crossing_are_what_a_hand_computes():
    found = found_of()
    assert found.costs_meet.value == pytest.approx(1e6)
    assert (found.costs_meet.low, found.costs_meet.high) == pytest.approx((1e6 / 1.1, 1.1e6))
    assert found.capacity.value == pytest.approx(2 * 730.5 * 3600 * 0.5)  # 2,629,800
    pictures = np.array([1, 2_629_800, 2_629_801, 5_259_600, 5_259_601])
    assert found.on_prem_usd(pictures) == pytest.approx(34.61 * np.array([1, 1, 2, 2, 3]))
    assert found.cloud_usd(pictures) == pytest.approx(34.61e-6 * pictures)


@given(SOME, SOME, SOME, SOME, st.floats(0.01, 1), st.floats(1e-8, 1e-2), st.floats(1e-2, 1e4))
def test_the_costs_meet_at_the_crossing_and_the_machine_is_cheaper_from_there(
    price, years, power, kwh, utilisation, usd, per_s
):
    assumptions = Assumptions(price, years, power, kwh, utilisation)
    found = BreakEven(assumptions, Measure(usd, usd, usd), Measure(per_s, per_s, per_s), True)
    meet, capacity = found.costs_meet.value, found.capacity.value
    if found.crosses:
        at = np.array([meet * (1 - 1e-6), meet * (1 - 1e-12), min(meet * (1 + 1e-6), capacity)])
        below, here, above = found.cloud_usd(at) - found.on_prem_usd(at)
        assert here == pytest.approx(0, abs=1e-9 * assumptions.month_usd)
        assert below < 0 <= above + 1e-9 * assumptions.month_usd
    else:
        machines = np.arange(1, 50)
        full = found.cloud_usd(machines * capacity)
        assert (full <= machines * assumptions.month_usd * (1 + 1e-9)).all()


@given(SOME, SOME, st.floats(1.001, 100))
def test_a_dearer_machine_or_kwh_moves_the_crossing_up_and_a_dearer_cloud_down(price, kwh, factor):
    base = found_of(assumptions=Assumptions(price, 5.0, 100.0, kwh, 0.5))
    for name, value in (("machine_price", price), ("kwh_price", kwh)):
        dearer = replace(base.assumptions, **{name: value * factor})
        assert replace(base, assumptions=dearer).costs_meet.value > base.costs_meet.value
    cloud = Measure(base.usd_a_picture.value * factor)
    assert replace(base, usd_a_picture=cloud).costs_meet.value < base.costs_meet.value


def test_rounds_are_averaged_geometrically_and_one_has_no_interval():
    assert measure_of_rounds([1.0, 4.0]).value == pytest.approx(2)
    several = measure_of_rounds([1.0, 1.1, 1.2])
    assert several.low < several.value < several.high
    one = measure_of_rounds([3.0])
    assert one.value == pytest.approx(3)
    assert one.note == "one round: no interval, 25% are allowed for drift"
    assert (one.low, one.high) == (pytest.approx(3 / 1.25), pytest.approx(3 * 1.25))
    assert math.isnan(measure_of_rounds([math.nan, 0.0, math.inf]).value)


# --- in words -----------------------------------------------------------------------------------


def test_the_crossing_is_said_with_its_interval():
    assert sentence(found_of(per_s=20.0)) == (
        "from 1 million pictures a month on (95% CI 909,000 to 1.1 million) this machine costs "
        "less than the cloud; it can do 26.3 million"
    )
    assert "(95% CI 1.82 to 2.2 million)" in sentence(found_of(17.305e-6, per_s=20.0))


def test_a_second_machine_that_is_dearer_at_first_is_said_so():
    assert sentence(found_of(per_s=1.0)).endswith(
        "; it can do 1.31 million, and a second one pays off from 2 million on"
    )
    found = found_of(per_s=1.0)
    between = np.array([1.4e6, 1.99e6, 2.01e6])
    assert list(found.on_prem_usd(between) > found.cloud_usd(between)) == [True, True, False]


def test_where_even_a_full_machine_costs_more_there_is_no_crossing_and_the_reason():
    text = sentence(found_of(per_s=0.2))
    assert text == (
        "at no number of pictures does this machine cost less than the cloud: kept busy it costs "
        "131.61 USD for a million pictures, the cloud 34.61"
    )


def test_intervals_that_leave_doubt_are_said_to():
    assert "cannot tell whether this machine ever costs less" in sentence(found_of(per_s=0.8))
    assert "though within the intervals it might" in sentence(found_of(per_s=0.72))


def test_in_the_embedded_cloud_the_durations_are_said_to_be_this_machine_s():
    for per_s in (0.2, 0.8, 2.0):
        text = sentence(found_of(per_s=per_s, on_aws=False))
        assert "at AWS's prices with this machine's durations" in text
        assert "this machine's durations" not in sentence(found_of(per_s=per_s))


def test_one_round_gives_a_crossing_and_no_interval():
    one = Measure(34.61e-6, note="one round: no interval")
    found = found_of(usd_a_picture=one, throughput_per_s=replace(one, value=2.0))
    assert "on (one round: no interval) this machine costs less" in sentence(found)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        *((1, "1"), (0.0123, "0.0123"), (748_123, "748,000"), (999_999, "1 million")),
        *((2.346e6, "2.35 million"), (4.57e10, "45.7 billion")),
    ],
)
def test_counts_are_written_with_three_digits(count, text):
    assert rounded_count(count) == text


# --- from rows ----------------------------------------------------------------------------------


def measured(folder: Path, pictures: int = 16, rounds: int = 3, **options: object):
    """A comparison, and a REPORT line for each cloud row, dearer from round to round."""
    first, second = both(pictures, rounds)
    second = [replace(r, request_id=f"id {n}") for n, r in enumerate(second)]
    comparison = compared(folder, first, second, **options)
    ones = [
        Invocation(r.request_id, 50, 50 + 5 * r.round, 0, 1769, 80, False, "x86_64", 4, 2)
        for r in second
    ]
    return comparison, invocations_from_csv(invocations_to_csv(ones))


def test_cost_and_speed_come_from_bills_and_makespans_of_the_rounds(tmp_path):
    comparison, invocations = measured(tmp_path)
    found = break_even_of(comparison, invocations, WORKED)
    rows = comparison.rows["cloud"]
    costs = [
        work_usd(bill_of(part, invocations).usage) / len(part)
        for part in (rows[rows["round"] == number] for number in (1, 2, 3))
    ]
    assert costs == sorted(set(costs))
    assert found.usd_a_picture.value == pytest.approx(math.prod(costs) ** (1 / 3))
    speeds = [16 / span for span in comparison.first.makespans_s]
    assert found.throughput_per_s.value == pytest.approx(math.prod(speeds) ** (1 / 3))
    assert found.usd_a_picture.low < found.usd_a_picture.value < found.usd_a_picture.high
    assert not found.on_aws
    assert found.capacity.value == pytest.approx(found.throughput_per_s.value * MONTH_S / 2)


def test_requests_to_s3_are_in_the_price(tmp_path):
    comparison, invocations = measured(tmp_path)
    dear = break_even_of(comparison, invocations.assign(s3_puts=40), WORKED)
    cheap = break_even_of(comparison, invocations, WORKED)
    assert dear.usd_a_picture.value - cheap.usd_a_picture.value == pytest.approx(
        36 * 0.005 / 1000, rel=0.01
    )


def test_without_what_it_rests_on_there_is_none_and_one_line_says_why(tmp_path):
    comparison, invocations = measured(tmp_path)
    assert "REPORT" in break_even_of(comparison, None, WORKED)
    assert "REPORT" in break_even_of(comparison, invocations.iloc[:0], WORKED)
    resumed = replace(comparison, record={"resumed_at": ["2026-01-02"]})
    assert "resumed" in break_even_of(resumed, invocations, WORKED)
    unknown, _ = measured(tmp_path, arms=ARMS_OF_SELF_CHECK)
    assert "both arms are on-prem" in break_even_of(unknown, invocations, WORKED)
    lost = compared(tmp_path, *[rows[n:] for n, rows in enumerate(both(16))])
    assert "not comparable" in break_even_of(lost, invocations, WORKED)
    no_times = compared(tmp_path, *both(16, timestamp="yesterday"))
    assert "REPORT" in break_even_of(no_times, invocations, WORKED)


def test_unknown_makespans_are_the_reason_where_the_cost_is_known(tmp_path):
    comparison, invocations = measured(tmp_path)
    rows = comparison.rows["on_prem"].assign(begin_s=math.nan)
    comparison = replace(comparison, rows=comparison.rows | {"on_prem": rows})
    assert "per second are unknown" in break_even_of(comparison, invocations, WORKED)


# --- chart and report ---------------------------------------------------------------------------

(CHART,) = (chart for chart in CHARTS if chart.name == "break_even")
STATES = {
    "crossing": {},
    "crossing far below": {"per_s": 5e4},
    "none": {"per_s": 1e-4},
    "doubt": {"per_s": 0.8},
    "one round": {
        "usd_a_picture": Measure(34.61e-6, note="one round: no interval"),
        "throughput_per_s": Measure(2.0, note="one round: no interval"),
    },
    "the longest texts": {"assumptions": Assumptions(1e7, 1e-6, 1e7, 1e7, 1e-6), "on_aws": False},
}


@pytest.fixture(scope="module")
def judgement(tmp_path_factory) -> Judgement:
    return judge_comparison(compared(tmp_path_factory.mktemp("rows"), *both(16, 3)))


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("state", STATES)
def test_the_chart_can_be_read_and_has_every_assumption_beside_it(judgement, state, theme):
    found = found_of(**STATES[state])
    figure = CHART.draw(replace(judgement, break_even=found), theme)
    figure.canvas.draw()
    assert_readable(figure)
    text = said(figure)
    assert not re.search(r"\bnan\b|\binf\b", text)
    for name, value, source in assumption_lines(found):
        assert f"{name}: {value}\n" in text
        assert f"{source}\n" in text
    assert sentence(found)[1:] in foot(figure)


def test_the_chart_s_lines_are_the_costs_and_the_dot_is_where_they_meet(judgement):
    found = found_of()
    axes = CHART.draw(replace(judgement, break_even=found)).axes[0]
    steps, cloud, across, dot = axes.lines
    pictures = pictures_drawn(found)
    assert list(steps.get_ydata()) == pytest.approx(list(found.on_prem_usd(pictures)))
    assert list(cloud.get_ydata()) == pytest.approx(list(found.cloud_usd(pictures)))
    assert across.get_xdata()[0] == dot.get_xdata()[0] == pytest.approx(1e6)
    assert dot.get_ydata()[0] == pytest.approx(34.61)
    assert set(np.round(steps.get_ydata() / 34.61).astype(int)) == {1, 2, 3, 4}


def test_where_there_is_none_the_chart_says_why_and_the_report_goes_without_it(judgement):
    assert not CHART.is_about(judgement)
    assert CHART.is_about(replace(judgement, break_even=found_of()))
    assert "no REPORT lines" in said(CHART.draw(judgement))
    page = render_report(judgement, [], [])
    assert "No break-even" in page or "no break-even: no REPORT lines" in page
    assert "Assumed" not in page


def test_the_report_has_the_sentence_and_each_assumption_with_its_source(judgement):
    found = found_of(assumptions=replace(Assumptions(), power=42.0))
    page = render_report(replace(judgement, break_even=found), [], [])
    assert escape(sentence(found)) in page
    for texts in assumption_lines(found):
        assert all(escape(text) in page for text in texts)
    sources = {name: source for name, _, source in assumption_lines(found)}
    assert sources["its average power, day and night"] == "your choice"
    assert "EIA" in sources["price of a kWh"]


# --- flags, and where they are kept -------------------------------------------------------------


@pytest.mark.parametrize("main", [compare_script.main, master_pipeline.main])
@pytest.mark.parametrize(
    ("flag", "value"),
    [
        *((flag, value) for flag in ("--machine-price", "--power") for value in ("0", "-1", "nan")),
        *(("--machine-years", value) for value in ("inf", "1e10", "five", "")),
        *(("--utilisation", value) for value in ("0", "101%", "1.01", "50", "-5%", "nan%", "%")),
        ("--kwh-price", "0"),
    ],
)
def test_an_assumption_that_cannot_be_exits_2_with_one_line(main, flag, value, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([f"{flag}={value}"])
    assert stopped.value.code == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert f"argument {flag}: {value!r} is not a " in line


def test_help_names_each_default_and_each_source_has_a_date(capsys):
    for main in (compare_script.main, master_pipeline.main):
        with pytest.raises(SystemExit):
            main(["--help"])
        text = " ".join(capsys.readouterr().out.split())
        for meaning, value, source in Assumptions().lines():
            assert f"{meaning} (default: {value.split()[0]})" in text
            assert re.search(r"20\d\d", source)


@pytest.mark.parametrize(
    "content",
    [
        *({"power": -1}, {"power": "1"}, {"power": True}, {"utilisation": 2}, {"x": 1}),
        *({"kwh_price": math.nan}, [1], None, 3),
    ],
)
def test_assumptions_of_a_bundle_that_no_flag_lets_through_are_refused(content):
    with pytest.raises((TypeError, ValueError)):
        checked(content)
