"""The forecast: its formulas by hand, what moves it, its intervals, words and chart."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import row
from test_charts import assert_readable

from metrics.analysis import forecast_model as model
from metrics.analysis.aws_profile import Profile, load_profile
from metrics.analysis.calibration import Calibration
from metrics.analysis.cost import PRICES
from metrics.analysis.forecast import (
    ALWAYS,
    FROM,
    NEVER,
    NUMBERS,
    UNSURE,
    crossing_of,
    forecast,
)
from metrics.analysis.forecast_inputs import (
    OnPremJob,
    Pictures,
    Settings,
    on_prem_of,
    pictures_of,
)
from metrics.analysis.forecast_job import FROM_HERE, IN_S3
from metrics.analysis.forecast_words import (
    forecast_content,
    forecast_lines,
    forecast_sentence,
    seconds_text,
)
from metrics.analysis.forecast_worlds import PARTS, draw_worlds, sample_of, spreads_of
from metrics.report.chart_style import DARK, LIGHT
from metrics.report.forecast_chart import draw_forecast

PROFILE = load_profile()
HERE = Calibration(31.0, 0.02, "a machine")
OWN = OnPremJob(workers=2, start_s=0.2, throughput_per_s=50.0, log_sd=0.03, degrees_of_freedom=3)


def some(count: int = 16, cpu_ms: float = 40.0, size: float = 6e5, jpeg: bool = True) -> Pictures:
    spread = np.linspace(0.5, 1.5, count) if count > 1 else np.ones(1)
    is_jpeg = np.full(count, jpeg)
    return Pictures(cpu_ms * spread, size * spread, np.full(count, 9e4), is_jpeg, "v1")


def certain(profile: Profile = PROFILE) -> Profile:
    """In which every median is known and no picture, request or event differs from another."""
    facts = {k: replace(f, log_sd=0.0, each_log_sd=0.0) for k, f in profile.facts.items()}
    return Profile(profile.about, facts)


CERTAIN = certain()
SURE = Calibration(31.0, 0.0, "a machine")


def of(pictures=None, profile=PROFILE, on_prem=OWN, here=HERE, worlds=400, **settings):
    return forecast(profile, here, pictures or some(), on_prem, Settings(**settings), worlds=worlds)


# --- formulas -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("memory", "factor"), [(1769, 1), (3008, 1), (884.5, 2), (512, 1769 / 512)]
)
def test_less_memory_than_a_full_vcpu_is_less_processor(memory, factor):
    assert model.quota_factor(PROFILE, memory) == pytest.approx(factor)
    assert model.transform_ms(PROFILE, 100.0, memory, 0.7) == pytest.approx(100 * factor)


def test_the_ratio_is_the_kernel_s_time_there_by_its_time_here():
    here_ms = PROFILE["kernel_ms_x86_64"] / PROFILE["kernel_picture_factor"] / 2
    assert model.ratio_to_lambda(PROFILE, here_ms, "x86_64") == pytest.approx(2)


@given(st.floats(0.5, 29), st.sampled_from([128, 256, 512, 1024]), st.floats(0, 1))
def test_small_tasks_lie_between_none_of_the_quota_and_all_of_it(full_ms, memory, escape):
    took = model.transform_ms(PROFILE, full_ms, memory, escape, 0.99)  # and none waits
    assert full_ms - 1e-9 <= took <= full_ms * 1769 / memory + 1e-9
    assert model.transform_ms(PROFILE, full_ms, memory, 0.0) == pytest.approx(
        full_ms * 1769 / memory
    )


def test_29_percent_of_small_tasks_wait_5_to_60_ms():
    wait = np.linspace(0, 1, 10_000, endpoint=False)
    more = model.transform_ms(PROFILE, 3.0, 512, 1.0, wait) - 3.0
    assert (more > 1).mean() == pytest.approx(0.29, abs=0.001)
    assert more[more > 1].min() == pytest.approx(5, abs=0.01)
    assert more.max() == pytest.approx(60, abs=0.1)


def test_get_and_put_are_what_sebs_measured_at_the_fitted_sizes():
    """55, 74 and 252 ms for 2.19 MB at 2,048, 512 and 128 MB; 39, 56 and 118 for 3.5 kB."""
    for memory, get_ms, put_ms in ((2048, 55, 39), (512, 74, 56), (128, 252, 118)):
        assert model.fetch_ms(PROFILE, 2.19e6, memory) == pytest.approx(get_ms, rel=0.18)
        assert model.store_ms(PROFILE, 3.5e3, memory) == pytest.approx(put_ms, rel=0.03)


@given(st.floats(0.1, 1e7), st.sampled_from([10, 500, 1000, 1500, 3000]))
def test_environments_do_their_work_in_the_time_that_is_said(work_s, limit):
    end = float(model.seconds_for(np.array(work_s), PROFILE, limit))
    steps = np.linspace(0, end, 200_001)
    middle = (steps[1:] + steps[:-1]) / 2
    environments = np.minimum(limit, min(limit, 1000) + 100 * middle)
    assert environments.sum() * end / 200_000 == pytest.approx(work_s, rel=1e-4)


def test_an_upload_of_8_mib_and_more_goes_in_parts():
    sizes = np.array([1, 8 * 2**20 - 1, 8 * 2**20, 8 * 2**20 + 1, 24 * 2**20])
    assert list(model.upload_puts(sizes)) == [1, 1, 3, 4, 5]


def test_cost_is_what_a_hand_computes():
    pictures = some(count=10, size=6e5)
    found = of(pictures, CERTAIN, here=SURE, uplink_mbit_s=100, memory_mb=1769)
    parts = {name: one.value for name, one in found.cost_parts_usd[FROM_HERE].items()}
    assert parts["GET"] == pytest.approx(10 * PRICES["s3_get"])
    assert parts["PUT of outputs"] == pytest.approx(10 * PRICES["s3_put"])
    assert parts["PUT of uploads"] == pytest.approx(10 * PRICES["s3_put"])
    assert parts["requests"] == pytest.approx(10 * PRICES["lambda_request"])
    in_s3 = {name: one.value for name, one in found.cost_parts_usd[IN_S3].items()}
    assert in_s3["PUT of uploads"] == 0
    first_ms = model.first_call_ms(PROFILE, 1769)
    gb_s = 10 * (found.handler_ms.value + first_ms) / 1000 * 1769 / 1024
    assert in_s3["GB-seconds"] == pytest.approx(gb_s * PRICES["lambda_gb_s_x86_64"])
    init_s = model.init_ms(PROFILE, "x86_64") / 1000
    assert in_s3["GB-seconds of INIT"] == pytest.approx(
        10 * init_s * 1769 / 1024 * PRICES["lambda_gb_s_x86_64"]
    )
    assert found.cost_usd[IN_S3].value == pytest.approx(sum(in_s3.values()))


def test_without_any_spread_a_job_is_event_cold_start_and_slowest_picture():
    found = of(some(), CERTAIN, here=SURE)
    slowest_cpu, largest = 60.0, 9e5
    ratio = model.ratio_to_lambda(PROFILE, 31.0, "x86_64")
    took_ms = (
        PROFILE["event_ms"]
        + model.init_ms(PROFILE, "x86_64")
        + model.first_call_ms(PROFILE, 1769)
        + float(model.fetch_ms(PROFILE, largest, 1769))
        + slowest_cpu * ratio
        + float(model.store_ms(PROFILE, 9e4, 1769))
    )
    assert found.job_s[IN_S3].value == pytest.approx(took_ms / 1000, rel=1e-3)
    assert found.job_s[IN_S3].low == pytest.approx(found.job_s[IN_S3].high)


# --- what moves it ------------------------------------------------------------------------------


def test_the_same_inputs_give_the_same_forecast():
    assert forecast_content(of()) == forecast_content(of())


def test_a_new_function_s_interval_is_a_factor_of_2_1_for_jpeg_and_2_4_for_other_formats():
    for jpeg, factor in ((True, 2.1), (False, 2.45)):
        found = of(some(jpeg=jpeg), worlds=2000).transform_ms
        assert found.high / found.value == pytest.approx(factor, rel=0.05)
        assert found.value / found.low == pytest.approx(factor, rel=0.05)


def test_arm64_is_wider():
    x86, arm = (of(architecture=a, worlds=4000).transform_ms for a in ("x86_64", "arm64"))
    assert arm.high / arm.low > 1.1 * x86.high / x86.low


@pytest.mark.parametrize("cpu_ms", [2.0, 5.0, 15.0, 20.0])
def test_tiny_pictures_at_small_memory_are_wider(cpu_ms):
    small, full = (
        of(some(cpu_ms=cpu_ms), memory_mb=size, worlds=2000).transform_ms for size in (512, 1769)
    )
    assert small.high / small.low > 1.05 * full.high / full.low


@pytest.mark.parametrize("factor", [1.05, 3, 20])
def test_a_slower_machine_here_makes_lambda_faster_by_comparison(factor):
    fast, slow = (of(here=replace(HERE, kernel_ms=31 * f), worlds=50) for f in (1, factor))
    assert slow.transform_ms.value == pytest.approx(fast.transform_ms.value / factor)


def test_jobs_only_grow_with_the_number_of_pictures():
    for case, seconds in of(uplink_mbit_s=50).curve.aws.items():
        assert (np.diff(seconds.value) > -0.02 * seconds.value[:-1]).all(), case


def test_an_uplink_of_half_the_speed_makes_a_large_job_twice_as_long():
    slow, fast = (of(uplink_mbit_s=mbit).curve.aws[FROM_HERE].value[-1] for mbit in (5, 10))
    assert slow / fast == pytest.approx(2, rel=0.01)


def test_a_job_from_here_takes_at_least_as_long_as_its_bytes_on_the_line():
    found = of(some(), CERTAIN, here=SURE, uplink_mbit_s=8)
    assert found.job_s[FROM_HERE].value > 16 * 6e5 / 1e6  # 1 MB/s


def test_a_new_account_s_limit_makes_many_pictures_wait():
    """16 of 128 ms at 10 at once: 2 to 2.5 times what is beyond the first ten."""
    free, new = (of(some(1000), CERTAIN, account_limit=n) for n in (1000, 10))
    each_s = free.handler_ms.value / 1000
    waited = new.job_s[IN_S3].value - free.job_s[IN_S3].value
    assert 2.0 <= waited / (1000 / 10 * each_s - each_s) <= 2.5


def test_without_an_uplink_only_pictures_in_s3_are_forecast():
    assert list(of().job_s) == [IN_S3]
    assert list(of(uplink_mbit_s=50).job_s) == [IN_S3, FROM_HERE]


def test_one_picture_and_ten_thousand_are_forecast_too():
    for count in (1, 3, 200, 10_000):
        found = of(some(count), worlds=50)
        ends = (found.job_s[IN_S3].low, found.job_s[IN_S3].high, found.cost_usd[IN_S3].value)
        assert all(0 < end < math.inf for end in ends)


def test_memory_choices_are_what_their_names_say():
    memory = of().memory
    usd = {p.memory_mb: p.cost_usd.value for p in memory.points}
    ms = {p.memory_mb: p.handler_ms.value for p in memory.points}
    assert usd[memory.cheapest] == min(usd.values())
    assert memory.fastest == 1769  # more does not help one thread
    assert ms[memory.fastest] <= 1.02 * min(ms.values())
    products = {size: ms[size] * usd[size] for size in ms}
    assert products[memory.balanced] == min(products.values())
    assert 1000 in {p.memory_mb for p in of(memory_mb=1000, worlds=50).memory.points}


def test_a_sample_stands_for_all_pictures():
    rng = np.random.default_rng(1)
    every = Pictures(*rng.lognormal(3, 1, (3, 5000)), rng.random(5000) < 0.3)
    sample = sample_of(every)
    assert len(sample) == 128
    for name in ("cpu_ms", "orig_size", "new_size"):
        assert getattr(sample, name).mean() == pytest.approx(getattr(every, name).mean())
    assert np.median(sample.cpu_ms) == pytest.approx(np.median(every.cpu_ms), rel=0.05)
    assert sample_of(some(16)).cpu_ms is not None
    assert len(sample_of(some(16))) == 16


# --- uncertainty --------------------------------------------------------------------------------


def test_shares_of_the_uncertainty_add_up_and_name_what_is_least_known():
    shares = of().shares
    for by_part in shares.values():
        assert set(by_part) == set(PARTS)
        assert sum(by_part.values()) == pytest.approx(1)
    assert max(shares[IN_S3], key=shares[IN_S3].get) == "the event"
    heavy = of(some(cpu_ms=2000)).shares["handler_ms"]
    assert max(heavy, key=heavy.get) == "the processor"


def test_a_part_without_spread_has_no_share():
    facts = PROFILE.facts | {"event_ms": replace(PROFILE.facts["event_ms"], log_sd=0.0)}
    assert of(profile=Profile(PROFILE.about, facts)).shares[IN_S3]["the event"] == 0


def test_draws_have_the_spread_that_their_fact_has():
    spreads = spreads_of(PROFILE, HERE, some(), OWN, Settings())
    drawn = draw_worlds(spreads, 16, 1, worlds=4000)
    assert np.log(drawn["moment"]).std() == pytest.approx(0.039, rel=0.01)
    quantile = np.quantile(np.log(drawn["local step"]), 0.975)
    assert quantile == pytest.approx(2.776 * 0.26, rel=0.02)
    assert (drawn["throttled"].min() >= 0) & (drawn["throttled"].max() <= 1)


def test_each_world_has_every_picture_once_before_any_twice():
    drawn = draw_worlds(spreads_of(PROFILE, HERE, some(), OWN, Settings()), 16, 1, worlds=50)
    for block in range(0, 128, 16):
        assert (np.sort(drawn.picks[:, block : block + 16]) == np.arange(16)).all()


def seconds_that_cross_at(pictures: float, worlds: int = 5) -> tuple[np.ndarray, np.ndarray]:
    here = np.tile(NUMBERS / 10, (worlds, 1))
    return here, np.full_like(here, pictures / 10)


def test_the_crossing_is_where_the_lines_meet():
    for pictures in (2.5, 140.0, 99_000.0):
        found = crossing_of(*seconds_that_cross_at(pictures))
        assert found.kind == FROM
        assert found.pictures.value == pytest.approx(pictures, rel=0.01)


def test_always_never_and_cannot_tell_are_told_apart():
    here, _ = seconds_that_cross_at(1)
    assert crossing_of(here, here / 2).kind == ALWAYS
    assert crossing_of(here, here * 2).kind == NEVER
    assert crossing_of(here, here * 2).pictures.low == math.inf
    assert crossing_of(here[:2], here[:2] * np.array([[0.5], [2.0]])).kind == UNSURE


def test_where_aws_falls_behind_again_the_last_crossing_counts():
    here = np.ones((1, len(NUMBERS)))
    aws = np.where((NUMBERS > 50) & (NUMBERS < 500), 2.0, 0.5)[None, :]
    assert 300 < crossing_of(here, aws).pictures.value < 600


def test_fewer_pictures_than_workers_leave_workers_idle():
    job = OnPremJob(workers=4, start_s=1.0, throughput_per_s=8.0)
    assert list(job.seconds(np.array([1.0, 4.0, 80.0]))) == [1.5, 1.5, 11.0]


# --- inputs -------------------------------------------------------------------------------------


def rows_of(**fields: object) -> pd.DataFrame:
    same = {"source": "on_prem", "environment": "local"} | fields
    return pd.DataFrame(
        [
            row(key, round=n, cpu_ms=ms, **same)
            for key, n, ms in (("a.jpg", 1, 9.0), ("a.jpg", 2, 8.0))
        ]
        + [
            row("b.png", cpu_ms=30.0, **same),
            row("c.jpg", cpu_ms=5.0, **same | {"status": "error"}),
        ]
    )


def test_pictures_are_those_done_here_with_their_least_time():
    found = pictures_of(rows_of())
    assert list(found.cpu_ms) == [8.0, 30.0]
    assert list(found.is_jpeg) == [True, False]
    assert found.transform == "v1"
    assert found.jpeg_share == pytest.approx(8 / 38)


@pytest.mark.parametrize(
    "foreign",
    [{"environment": "unknown"}, {"source": "cloud"}, {"status": "error"}, {"cpu_ms": math.nan}],
)
def test_foreign_rows_give_no_forecast_and_why(foreign):
    rows = rows_of()
    for column, value in foreign.items():
        rows[column] = value
    said = pictures_of(rows)
    assert said.startswith("no forecast: ")
    assert forecast_sentence(said) == said
    assert forecast_lines(said) == [said]
    assert forecast_content(said) == {"sentence": said}


def test_the_job_here_comes_from_its_rounds():
    found = on_prem_of([50.0, 55.0, 45.0], workers=2)
    assert found.throughput_per_s == pytest.approx((50 * 55 * 45) ** (1 / 3))
    assert found.degrees_of_freedom == 2
    assert 0.03 < found.log_sd < 0.08
    assert on_prem_of([50.0]).log_sd > 0.1  # one round: drift is allowed for
    assert on_prem_of([]) is None
    assert on_prem_of([math.nan]) is None


# --- words and chart ----------------------------------------------------------------------------


@pytest.mark.parametrize("uplink", [None, 5, 1000])
@pytest.mark.parametrize("speed", [1e-3, 2.0, 50.0, 1e6])
def test_the_first_words_say_that_it_is_a_forecast(uplink, speed):
    found = of(on_prem=replace(OWN, throughput_per_s=speed), uplink_mbit_s=uplink, worlds=100)
    lines = forecast_lines(found)
    assert lines[0].startswith("forecast from published facts, not measured: on AWS Lambda (1769")
    assert all(line.startswith("forecast") for line in lines)
    assert not any("nan" in line or "inf" in line.split() for line in lines)
    json.dumps(forecast_content(found), allow_nan=False)


def test_the_sentence_is_the_one_that_was_promised():
    said = forecast_sentence(of())
    assert "a picture would take about" in said
    assert "these 16 pictures" in said
    assert "against 0.52 s here" in said
    assert "AWS would be done first if they are in S3 already" in said
    assert "One run on AWS (about 0.00" in said


def test_beyond_what_was_measured_is_said():
    notes = " ".join(of(some(size=5e7), memory_mb=4096, worlds=50).notes)
    assert "4,096 MB of memory is beyond" in notes
    assert "pictures of 16 are smaller or larger" in notes
    calm = " ".join(of(worlds=50).notes)
    assert "beyond" not in calm
    assert "smaller or larger" not in calm


def test_limits_formats_architecture_and_a_busy_machine_are_said():
    busy = replace(HERE, warnings=("the calibration was disturbed",))
    told = of(some(jpeg=False), here=busy, architecture="arm64", account_limit=10, worlds=50).notes
    for part in ("at most 10 pictures", "other than JPEG", "arm64", "was disturbed"):
        assert any(part in note for note in told), part
    assert any("new accounts have 10" in note for note in of(worlds=50).notes)


def test_a_profile_of_one_s_own_is_said_to_be_one():
    own = replace(
        PROFILE.about, state="own run", name="run of 2026-11-25", machine="x", transform="v1"
    )
    said = forecast_sentence(of(profile=Profile(own, PROFILE.facts), worlds=50))
    assert said.startswith("forecast from your run of 2026-11-25")
    assert ", not measured" in said


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.123, "0.12 s"), (3.21, "3.2 s"), (270, "4.5 min"), (7560, "2.1 h"), (1e6, "12 days")],
)
def test_times_are_said_in_the_unit_that_fits(seconds, text):
    assert seconds_text(seconds) == text


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
@pytest.mark.parametrize(("uplink", "speed"), [(None, 50.0), (5, 2.0), (1000, 50.0), (1000, 1e6)])
def test_no_text_of_the_chart_leaves_it_or_lies_on_another(theme, uplink, speed):
    found = of(on_prem=replace(OWN, throughput_per_s=speed), uplink_mbit_s=uplink, worlds=50)
    figure = draw_forecast(found, theme)
    figure.canvas.draw()
    assert_readable(figure)


def test_the_chart_shows_what_the_forecast_says():
    found = of(uplink_mbit_s=1000, worlds=100)
    (axes,) = draw_forecast(found).axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert list(lines["this machine"].get_ydata()) == list(found.curve.on_prem.value)
    shown = lines["AWS, in S3 already (forecast)"].get_ydata()
    assert list(shown) == list(found.curve.aws[IN_S3].value)
    texts = " ".join(text.get_text() for text in axes.figure.texts)
    assert "Forecast from published facts, not measured" in texts


def test_the_chart_says_why_there_is_none():
    (axes,) = draw_forecast("no forecast: foreign rows").axes
    assert "no forecast: foreign rows" in [text.get_text() for text in axes.texts]
