"""Stability: each warning comes for data made to cause it, and quiet data causes none."""

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lambda_function.emulator.cpu_quota import FULL_VCPU_MB
from metrics.analysis.stability import (
    FEW_PICTURES,
    NEIGHBOURS,
    cpu_utilisation,
    place_in_pass,
    residuals,
    spread,
    warnings_of_arm,
    warnings_of_machine,
)
from metrics.common.paths import PROJECT
from onprem_images.dataset import Picture, order_of_pass

pytestmark = pytest.mark.filterwarnings("error")


def passes(
    pictures: int = 100,
    rounds: int = 1,
    *,
    noise: float = 0.02,
    sizes: float = 0.3,
    drift: float = 0.0,
    between: tuple[float, ...] = (),
    seed: int = 1,
    **columns: object,
) -> pd.DataFrame:
    """`ok` rows of an arm whose times are proportional to the pictures' sizes.

    `noise` and `sizes` are standard deviations of logarithms, `drift` is added to the logarithm
    from the first picture of a pass to the last, `between` are the rounds' own factors.
    """
    random = np.random.default_rng(seed)
    of_files = np.sort(random.lognormal(14, sizes, pictures).round())[::-1]
    listed = [Picture(f"{n:04}", Path(), int(size), "") for n, size in enumerate(of_files)]
    parts = []
    for number in range(1, rounds + 1):
        order = order_of_pass(listed, number)
        log_ms = random.normal(0, noise, pictures) + drift * np.linspace(0, 1, pictures)
        size = np.array([float(picture.size) for picture in order])
        ms = size / 1e4 * np.exp(log_ms) * (between[number - 1] if between else 1)
        keys = [picture.image_key for picture in order]
        part = {"image_key": keys, "round": number, "orig_size": size, "proc_ms": ms}
        parts.append(pd.DataFrame(part | {"begin_s": 1e9 + np.cumsum(ms) / 1000}))
    rows = pd.concat(parts, ignore_index=True)
    rows = rows.assign(cpu_ms=rows["proc_ms"], environment="local", memory_mb="4096")
    return rows.assign(**columns)


def slowed(rows: pd.DataFrame, factor: float, *keys: str, number: int = 1) -> pd.DataFrame:
    """`rows` with the times of some pictures of a round multiplied, on the processor, too."""
    chosen = rows["image_key"].isin(keys) & (rows["round"] == number)
    rows.loc[chosen, ["proc_ms", "cpu_ms"]] *= factor
    return rows


def said(rows: pd.DataFrame) -> list[str]:
    return [str(finding) for finding in warnings_of_arm("on-prem", rows)]


# --- quiet data ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [1, 2, 4])
@pytest.mark.parametrize(
    ("pictures", "sizes"), [(5, 0.3), (16, 0.3), (36, 0.3), (100, 0.3), (36, 1.0), (200, 1.0)]
)
def test_quiet_data_cause_next_to_no_warning(pictures, sizes, rounds):
    """Whatever the sizes: a picture that is large, and therefore slow, is nothing to warn about."""
    runs = [said(passes(pictures, rounds, sizes=sizes, seed=seed)) for seed in range(12)]
    warned = [lines for lines in runs if lines]
    assert len(warned) <= 1, warned[:3]


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("pictures", [1, 2, NEIGHBOURS, FEW_PICTURES, 50])
def test_equal_times_cause_no_warning(pictures, rounds):
    assert said(passes(pictures, rounds, noise=0, sizes=0)) == []


def test_no_row_causes_no_warning():
    assert said(passes().iloc[:0]) == []


# --- spread -------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.2, 0.3])
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_the_spread_is_that_of_the_noise_and_is_warned_of(noise, rounds):
    rows = passes(400, rounds, noise=noise)
    assert spread(residuals(rows)) == pytest.approx(noise, rel=0.2)
    (line,) = [line for line in said(rows) if "spread" in line]
    between = " from round to round" if rounds > 1 else ""
    which = "the same picture" if rounds > 1 else "like-sized pictures"
    assert re.match(rf"on-prem: times of {which} spread by \d\d%{between}; ", line)
    assert ("more rounds" if rounds > 1 else "--rounds 4") in line


def test_a_spread_of_less_than_a_tenth_is_not_warned_of():
    assert said(passes(400, noise=0.07)) == []


def test_a_few_outliers_do_not_make_a_spread():
    rows = slowed(passes(100), 9.0, "0040", "0060")
    assert spread(residuals(rows)) == pytest.approx(0.02, rel=0.3)
    assert spread(pd.Series([math.nan, 1.0])) == 0


# --- drift --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [1, 3, 4])
@pytest.mark.parametrize(("change", "word"), [(0.22, "slower"), (-0.18, "faster")])
def test_drift_within_a_pass_is_warned_of_with_its_size(rounds, change, word):
    (line,) = said(passes(300, rounds, drift=math.log1p(change)))
    found = re.match(r"on-prem: pictures became (\d+)% (\w+) from the first to the last", line)
    assert found[2] == word
    assert int(found[1]) == pytest.approx(abs(100 * change), abs=4)


def test_two_rounds_take_the_pictures_in_one_order_and_tell_nothing_of_drift_in_a_pass():
    assert said(passes(300, 2, drift=math.log1p(0.22))) == []


def test_a_drift_that_is_small_or_could_be_chance_is_not_warned_of():
    assert said(passes(300, drift=math.log1p(0.02))) == []
    assert said(passes(FEW_PICTURES, noise=0.09, drift=math.log1p(0.06), sizes=0)) == []
    assert said(passes(FEW_PICTURES - 1, drift=math.log1p(0.3), sizes=0)) == []


@pytest.mark.parametrize("between", [(1, 1.2), (1.2, 1), (1.05, 1, 1.2), (1.3, 1.3, 1.2)])
def test_drift_between_rounds_is_warned_of_with_both_rounds(between):
    rows = passes(300, len(between), between=between, noise=0.01)
    slow, fast = np.argmax(between) + 1, np.argmin(between) + 1
    longer = max(between) / min(between) - 1
    (line,) = [line for line in said(rows) if "longer" in line]
    found = re.match(r"on-prem: round (\d) took (\d+)% longer per picture than round (\d);", line)
    assert int(found[2]) == pytest.approx(100 * longer, abs=1)
    if len(set(between)) == len(between):
        assert (int(found[1]), int(found[3])) == (slow, fast)


def test_rounds_of_other_pictures_are_not_held_against_each_other():
    rows = passes(60, 2)
    largest = rows["image_key"].isin(["0000", "0001"]) & (rows["round"] == 2)
    assert [line for line in said(rows[~largest]) if "longer" in line] == []
    assert said(passes(60, 2, between=(1, 1.03))) == []


# --- outliers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [1, 4])
def test_outliers_are_counted_and_named_and_kept(rounds):
    rows = slowed(slowed(passes(100, rounds), 6.0, "0033"), 9.0, "0066")
    (line,) = [line for line in said(rows) if "as long" in line]
    found = re.match(
        r"on-prem: 2 times at least (\d+\.\d)x as long as expected \(kept\): (.*);", line
    )
    assert found[2] == "'0066', '0033'"
    assert float(found[1]) == pytest.approx(6, rel=0.25)


@pytest.mark.parametrize("factor", [1.3, 1 / 3])
def test_a_picture_that_is_a_little_slow_or_fast_is_no_outlier(factor):
    assert said(slowed(passes(100), factor, "0050")) == []


def test_where_all_times_scatter_a_slow_one_is_no_outlier():
    rows = slowed(passes(100, noise=0.4, seed=3), 2.0, "0050")
    assert [line for line in said(rows) if "as long" in line] == []


# --- residuals and places -----------------------------------------------------------------------


def test_with_few_pictures_of_one_round_nothing_tells_what_was_to_be_expected():
    assert residuals(passes(NEIGHBOURS - 1)).isna().all()
    assert residuals(passes(NEIGHBOURS)).notna().all()
    assert residuals(passes(2, 2)).notna().all()


def test_a_picture_of_one_round_out_of_several_has_no_residual():
    rows = passes(30, 3)
    alone = (rows["image_key"] == "0003") & (rows["round"] > 1)
    rows = rows[~alone]
    residual = residuals(rows)
    assert residual[rows["image_key"] == "0003"].isna().all()
    assert residual[rows["image_key"] != "0003"].notna().all()


def test_places_go_from_0_to_1_by_when_pictures_were_begun():
    rows = passes(3, 2)
    rows["begin_s"] = [30.0, 10.0, 20.0, 5.0, 6.0, math.nan]
    assert place_in_pass(rows).tolist()[:5] == [1, 0, 0.5, 0, 1]
    assert math.isnan(place_in_pass(rows).iloc[5])
    assert place_in_pass(passes(1)).tolist() == [0]


def test_times_that_began_nobody_knows_when_have_no_drift_within():
    rows = passes(300, drift=0.3, begin_s=math.nan)
    assert [line for line in said(rows) if "became" in line] == []


# --- the processor ------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "warned"), [(0.5, True), (0.89, True), (0.91, False)])
def test_a_shared_processor_is_warned_of(share, warned):
    rows = passes()
    rows["cpu_ms"] = rows["proc_ms"] * share
    assert cpu_utilisation(rows) == pytest.approx(share)
    lines = [f"on-prem: CPU time is {share:.0%} of wall time: the processor was shared; "]
    assert [line[: len(lines[0])] for line in said(rows)] == lines * warned


def test_unknown_cpu_times_are_not_warned_of_and_do_not_count():
    rows = passes(cpu_ms=math.nan)
    assert math.isnan(cpu_utilisation(rows))
    assert said(rows) == []
    rows["cpu_ms"] = rows["proc_ms"].where(rows.index > 50)
    assert cpu_utilisation(rows) == pytest.approx(1)


@pytest.mark.parametrize(
    ("environment", "memory_mb", "warned"),
    [
        ("aws", "512", True),
        ("aws", str(FULL_VCPU_MB), False),
        ("aws", "3008", False),
        ("aws", "", False),
        ("embedded", "512", True),
        ("embedded", str(FULL_VCPU_MB), False),
        ("local", "512", False),
    ],
)
def test_a_small_function_is_warned_of_with_its_share(environment, memory_mb, warned):
    rows = passes(environment=environment, memory_mb=memory_mb)
    text = "on-prem: a function of 512 MB has 29% of a processor, and is throttled to it (CPU time "
    lines = [f"{text}is 100% of wall time); {FULL_VCPU_MB} MB give a whole one"]
    assert said(rows) == lines * warned


# --- what the run record saw --------------------------------------------------------------------

SEEN = {
    "steal": (
        {"steal_share": 0.071},
        "other guests of the host took 7% of the CPU; use more rounds, or a machine of your own",
    ),
    "quota": (
        {"quota_throttled_ms": 1234.4},
        "the CPU quota stopped this container for 1234 ms; raise the quota, or use fewer --workers",
    ),
    "heat": (
        {"thermal_throttles": 3},
        "the CPU was slowed 3 times by its heat; let it cool, and use more rounds",
    ),
}


def test_throttled_invocations_are_warned_of():
    (found,) = warnings_of_machine({"throttles": 12})
    assert str(found).startswith("the cloud: AWS throttled 12 invocations; they ran later")
    assert warnings_of_machine({"throttles": 0}) == []


def test_events_that_the_function_refused_are_a_warning_that_names_them():
    (found,) = warnings_of_machine({"refused_events": {"an SQS message": 3, "an empty event": 1}})
    assert str(found) == (
        "the function refused 4 events: 3 x an SQS message; 1 x an empty event; "
        "only the input bucket's own notification should call it"
    )
    for nothing in ({}, None, 3, {"x": None}):
        assert warnings_of_machine({"refused_events": nothing}) == []


def test_a_run_that_was_resumed_is_warned_of():
    (found,) = warnings_of_machine({"resumed_at": ["2026-11-24T12:00:00+00:00"]})
    assert str(found).startswith("the run was interrupted and resumed on 2026-11-24T12:00:00")


@pytest.mark.parametrize(("machine", "text"), SEEN.values(), ids=SEEN)
def test_what_slowed_the_machine_is_warned_of_by_step_and_round(machine, text):
    quiet = {"step": "cloud", "machine": {"steal_share": 0.02, "quota_throttled_ms": 0}}
    steps = [quiet, {"step": "on-prem", "machine": machine}]
    steps += [{"step": "on-prem", "round": 2, "machine": machine}]
    found = [str(finding) for finding in warnings_of_machine({"steps": steps})]
    assert found == [f"on-prem: {text}", f"on-prem (round 2): {text}"]


def test_all_that_slowed_one_step_is_warned_of():
    machine = {name: value for seen, _ in SEEN.values() for name, value in seen.items()}
    assert len(warnings_of_machine({"steps": [{"step": "on-prem", "machine": machine}]})) == 3


@pytest.mark.parametrize(
    "record",
    [{}, {"steps": []}, {"steps": [{"step": "a"}]}, {"steps": [{"step": "a", "machine": None}]}],
)
def test_a_record_that_saw_nothing_causes_no_warning(record):
    assert warnings_of_machine(record) == []


def test_the_template_s_memory_is_what_gives_one_vcpu():
    text = (PROJECT / "lambda_function" / "stack" / "template.yaml").read_text()
    assert f"  MemorySize:\n    Type: Number\n    Default: {FULL_VCPU_MB}\n" in text
