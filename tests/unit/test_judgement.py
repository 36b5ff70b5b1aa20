"""One judgement goes to terminal, summary.json, page and charts, which all state its numbers."""

import html
import json
import re
from dataclasses import FrozenInstanceError, replace

import pytest
from test_break_even import measured
from test_charts import CHART, said

from metrics.analysis.break_even import NO_REPORT
from metrics.analysis.cost import total_usd, usd_by_round, work_usd
from metrics.analysis.interval import RatioEstimate
from metrics.analysis.judgement import Judgement, judge_comparison
from metrics.analysis.sweep import MEMORY, Setting
from metrics.analysis.sweep_results import interval_text, point_of
from metrics.common.text import seconds
from metrics.report.judgement import print_judgement
from metrics.report.page import render_report
from metrics.report.summary_json import summary_bytes
from metrics.report.sweep_charts import chart_of

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def judgement(tmp_path_factory) -> Judgement:
    """16 pictures x 3 rounds with REPORT lines, after a run with another memory."""
    comparison, invocations = measured(tmp_path_factory.mktemp("rows"))
    less = {name: rows.copy() for name, rows in comparison.rows.items()}
    less["cloud"]["memory_mb"] = 1024.0
    before = point_of(
        Setting(MEMORY, 16, 3, 2, None, 1024), replace(comparison, rows=less), invocations
    )
    return judge_comparison(comparison, invocations, before=[before])


@pytest.fixture
def terminal(judgement, capsys) -> str:
    print_judgement(judgement)
    return capsys.readouterr().out


@pytest.fixture
def page(judgement) -> str:
    text = re.sub(r"<[^>]+>", " ", render_report(judgement, [], []).partition("</style>")[2])
    return " ".join(html.unescape(text).split())


@pytest.fixture
def summary(judgement) -> dict:
    return json.loads(summary_bytes(judgement))


def drawn(judgement: Judgement, name: str) -> str:
    return " ".join(said(CHART[name].draw(judgement)).split())


def numbers(estimate: RatioEstimate) -> tuple[float, ...]:
    return estimate.ratio, estimate.low, estimate.high


def told(text: str, pattern: str) -> list[tuple[float, ...]]:
    """The numbers of each place in `text` that looks like `pattern`, where # is a number."""
    found = re.findall(re.escape(pattern).replace(r"\#", r"([\d.,]*\d)"), text)
    return [tuple(float(n.replace(",", "")) for n in places) for places in found]


def test_all_state_the_same_ratio_and_interval(judgement, terminal, page, summary):
    truth = pytest.approx(numbers(judgement.comparison.per_picture), abs=0.005)
    of_summary = summary["per_picture"]
    assert tuple(of_summary[name] for name in ("ratio", "low", "high")) == truth
    assert told(terminal, "geometric mean #, 95% CI # to #") == [truth]
    # Of time per picture, CPU time per picture, and the makespan.
    ((ratio, _, whole, low, high, *_, whole_low, whole_high),) = told(
        page, "ratio # # # 95% CI # to # # to # # to #"
    )
    assert (ratio, low, high) == truth
    whole_job = numbers(judgement.comparison.whole_job)
    assert (whole, whole_low, whole_high) == pytest.approx(whole_job, abs=0.0005)
    for name, pattern in (
        ("avg_time", "#, 95% CI # to #"),
        ("paired_ratio", "geometric mean # its 95% CI # to #"),
    ):
        assert told(drawn(judgement, name), pattern) == [truth], name


def test_all_say_the_same_sentences(judgement, terminal, page, summary):
    sentences = [summary["verdict"]["per_picture"], summary["verdict"]["whole_job"]]
    sentences += [summary["break_even"]["sentence"], summary["sweeps"][0]["answer"]]
    for sentence in sentences:
        assert sentence
        assert sentence in terminal
        assert sentence in page
    assert sentences[2][1:] in drawn(judgement, "break_even")


def test_all_state_the_same_makespans(judgement, terminal, summary):
    for arm in (judgement.comparison.first, judgement.comparison.second):
        assert summary["arms"][arm.name]["makespan_s"] == pytest.approx(arm.makespan_s)
        assert f"{seconds(arm.makespan_s)} ({arm.workers} worker" in terminal
        assert seconds(arm.makespan_s) in drawn(judgement, "total_time")


def test_all_state_the_same_usd_a_picture(judgement, terminal, page, summary):
    usd = judgement.break_even.usd_a_picture
    assert summary["break_even"]["cloud_usd_a_picture"]["value"] == pytest.approx(usd.value)
    of_a_million = f"{1e6 * usd.value:,.2f} USD"
    assert f"a million pictures in the cloud {of_a_million}" in page
    assert f"a million pictures in the cloud: {of_a_million}" in drawn(judgement, "break_even")
    # The sweep's point of this very run has the same cost, from the same function.
    *_, itself = judgement.sweeps[0].points
    point = numbers(itself.cost_usd)
    assert point == pytest.approx([1000 * value for value in (usd.value, usd.low, usd.high)])
    *_, of_summary = summary["sweeps"][0]["points"]
    assert of_summary["cost_usd"]["ratio"] == pytest.approx(1000 * usd.value)
    assert interval_text(itself.cost_usd) in terminal
    assert interval_text(itself.cost_usd) in page
    axes = chart_of(judgement.sweeps[0]).draw(judgement).axes[1]
    assert axes.lines[0].get_ydata()[-1] == pytest.approx(1000 * usd.value)


def test_the_bill_is_the_same_and_its_rounds_are_the_costs_by_round(
    judgement, terminal, page, summary
):
    usage = judgement.bill.usage
    total, work = total_usd(usage), work_usd(usage)
    assert summary["lambda"]["cost_usd"]["in all"] == pytest.approx(total)
    assert summary["lambda"]["cost_usd"]["the work"] == pytest.approx(work)
    assert 0 < work < total
    for text in (terminal, page):
        assert f"in all {total:.6f} {1000 * total / usage.pictures:.6f}" in " ".join(text.split())
    by_round = usd_by_round(judgement.comparison.rows["cloud"], judgement.invocations)
    assert list(by_round) == [1, 2, 3]
    assert sum(by_round.values()) / 3 == pytest.approx(work / usage.pictures)


def test_stability_is_the_same_in_page_chart_and_summary(judgement, page, summary):
    for arm, measures in judgement.stability.items():
        value = measures["cv"].value
        assert summary["stability"][arm]["cv"]["value"] == pytest.approx(value)
        assert f"{100 * value:.2f}% (" in page
        assert f"{100 * value:.2f}% (" in drawn(judgement, "stability")


def test_without_report_lines_there_is_no_bill_no_cost_and_a_reason(judgement):
    bare = judge_comparison(judgement.comparison)
    assert (bare.bill, bare.break_even, list(bare.sweeps)) == (None, NO_REPORT, [])
    assert bare.stability["cloud"]["retries_per_1000"].note == "no log lines"


def test_a_judgement_is_not_patched(judgement):
    with pytest.raises(FrozenInstanceError):
        judgement.bill = None
    with pytest.raises(FrozenInstanceError):
        judgement.comparison.warnings = []
