"""A clock that is set, or a machine that sleeps, during a pass: named, and no makespan is told."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from conftest import jpeg
from rows import row
from test_rows import frame, on_prem_row

from lambda_function.metrics_log import MetricRow
from metrics.analysis import clock_jumps, run_record
from metrics.analysis.comparison import ARMS_OF_SELF_CHECK, Comparison, compare
from metrics.analysis.rounds import split_passes
from metrics.analysis.run_record import RunRecord, record_of
from metrics.common import machine
from metrics.report.page import facts_of
from metrics.report.verdict import table, verdict_per_picture, verdict_whole_job
from onprem_images.dataset import load_pictures
from onprem_images.local_image_proc import process_picture

BEGIN = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
KEYS = "abcdef"


@pytest.fixture
def clocks(monkeypatch) -> SimpleNamespace:
    """The machine's clocks, which a test moves: `wall`, `monotonic` and `boot`."""
    now = SimpleNamespace(wall=BEGIN.timestamp(), monotonic=50.0, boot=70.0)
    own_time = SimpleNamespace(
        time=lambda: now.wall,
        monotonic=lambda: now.monotonic,
        clock_gettime=lambda _: now.boot,
        CLOCK_BOOTTIME=7,
    )
    monkeypatch.setattr(machine, "time", own_time)
    return now


def pass_time(clocks: SimpleNamespace, seconds: float, set_s: float = 0, slept_s: float = 0):
    clocks.wall += seconds + set_s + slept_s
    clocks.monotonic += seconds
    clocks.boot += seconds + slept_s


@pytest.fixture
def recorded(tmp_path, monkeypatch, clocks) -> Callable[..., dict]:
    """run.json of steps (name, round, {what happened to the clocks}) of 20 s each."""
    path = tmp_path / "run.json"
    monkeypatch.setattr(run_record, "RUN_JSON", path)

    def run(*steps: tuple[str, int, dict]) -> dict:
        record = RunRecord("run", "master_pipeline.py", "embedded", {})
        for name, number, happened in steps:
            with record.step(name, number, 3):
                pass_time(clocks, 20, **happened)
        return record_of(path.read_bytes(), "run")

    return run


def arms(seconds: float = 18, shift: Callable[[str, int, int], float] = lambda *_: 0):
    """Rows of three rounds, begun over so many seconds, with `shift` added to the timestamps."""
    both = []
    for make, source in ((on_prem_row, "on_prem"), (row, "cloud")):
        for number in (1, 2, 3):
            for place, key in enumerate(KEYS):
                since = 60 * number + seconds * place / (len(KEYS) - 1)
                moment = BEGIN + timedelta(seconds=since + shift(source, number, place))
                both.append(make(key, round=number, timestamp=moment.isoformat()))
    split = len(both) // 2
    return both[:split], both[split:]


def compared(rows: tuple[list[MetricRow], list[MetricRow]], record: dict) -> Comparison:
    return compare(*map(frame, rows), record=record)


def named(comparison: Comparison) -> list[str]:
    return [str(one) for one in comparison.warnings if "clock" in one.text or "slept" in one.text]


PASSES = [(name, number, {}) for number in (1, 2, 3) for name in ("on-prem", "upload", "wait")]
ADVICE = "; its whole-job time does not count; times per picture do"


def with_jump(place: int, **happened: float) -> list[tuple[str, int, dict]]:
    name, number, _ = PASSES[place]
    return [*PASSES[:place], (name, number, happened), *PASSES[place + 1 :]]


def test_steady_clocks_are_nothing_to_speak_of(recorded):
    comparison = compared(arms(), recorded(*PASSES))
    assert (named(comparison), comparison.clock_jumps) == ([], [])
    assert not any(map(math.isnan, (*comparison.first.makespans_s, *comparison.second.makespans_s)))


@pytest.mark.parametrize(
    ("happened", "text"),
    [
        ({"set_s": -3600}, "the clock was set back by 3,600.0 s"),
        ({"set_s": 3600}, "the clock was set forward by 3,600.0 s"),
        ({"set_s": 0.4}, "the clock was set forward by 0.4 s"),
        ({"slept_s": 35}, "the machine slept for 35.0 s"),
    ],
)
@pytest.mark.parametrize("place", [3, 4, 5])
def test_a_jump_is_named_with_step_and_round_and_voids_the_makespan_of_that_round_alone(
    recorded, place, happened, text
):
    steady, comparison = (
        compared(arms(), recorded(*steps)) for steps in (PASSES, with_jump(place, **happened))
    )
    assert named(comparison) == [f"{PASSES[place][0]} (round 2): {text}{ADVICE}"]
    hit, other = (comparison.first, comparison.second)[:: 1 if place == 3 else -1]
    assert [math.isnan(span) for span in hit.makespans_s] == [False, True, False]
    assert not any(map(math.isnan, other.makespans_s))
    assert hit.makespan_s == pytest.approx(18, abs=0.1)
    assert comparison.whole_job.rounds == 2
    assert comparison.per_picture == steady.per_picture
    assert verdict_per_picture(comparison) == verdict_per_picture(steady)
    assert ", 2 rounds, " in verdict_whole_job(comparison)


def test_clocks_that_are_made_to_run_faster_are_nothing_to_speak_of(recorded):
    comparison = compared(arms(), recorded(*with_jump(4, set_s=0.09)))
    assert named(comparison) == []
    step = {"step": "wait", "start": BEGIN.isoformat(), "duration_s": 3600.0}
    step["end"] = (BEGIN + timedelta(seconds=3602)).isoformat()  # 500 ppm are 1.8 s
    spans = {"on_prem": pd.Series({1: 1.0}), "cloud": pd.Series({1: 1.0})}
    assert clock_jumps.clock_jumps({"steps": [step]}, spans, is_aa=False) == []


def test_a_clock_that_is_set_and_set_right_within_a_pass_is_found_by_its_rows(recorded):
    """By its begin and end nothing is to be seen of it."""
    rows = arms(shift=lambda source, number, place: -3600 * (source == "cloud" and place == 3))
    comparison = compared(rows, recorded(*PASSES))
    assert all(math.isnan(span) for span in comparison.second.makespans_s)
    assert comparison.whole_job is None
    first, *_ = named(comparison)
    assert first == (
        "upload and wait (round 1): a clock was set, by which the rows are 3,607.2 s apart where "
        f"40.0 s passed{ADVICE}"
    )
    assert verdict_whole_job(comparison).startswith(
        "cannot tell which finishes the whole job sooner: upload and wait (round 1): a clock was"
    )


def test_no_table_chart_or_page_tells_a_makespan_by_a_clock_that_was_set(recorded):
    rows = arms(shift=lambda source, number, place: -3600 * (source == "cloud" and place > 3))
    comparison = compared(rows, recorded(*PASSES))
    assert math.isnan(comparison.second.makespan_s)
    assert "36" not in table(comparison).splitlines()[2]
    assert all(math.isnan(second) for _, _, second in facts_of(comparison)["rounds"])
    assert comparison.rows["cloud"]["begin_s"].isna().all()  # which is what charts draw


def test_one_round_with_a_jump_says_why_there_is_no_whole_job(recorded):
    rows = arms(shift=lambda source, number, place: -3600 * (source == "on_prem" and place > 3))
    one_round = [[it for it in part if it.round == 1] for part in rows]
    comparison = compared(one_round, recorded(("on-prem", 1, {"set_s": -3600}), *PASSES[1:3]))
    assert verdict_whole_job(comparison) == (
        "cannot tell which finishes the whole job sooner: "
        "on-prem (round 1): the clock was set back by 3,600.0 s"
    )
    assert "faster per picture" in verdict_per_picture(comparison)


def test_a_record_of_an_earlier_version_tells_of_a_clock_that_was_set_back():
    begin, end = (BEGIN + timedelta(hours=hours) for hours in (1, 0.5))
    step = {"step": "on-prem", "start": begin.isoformat(), "end": end.isoformat(), "round": 2}
    comparison = compared(arms(), {"steps": [step]})
    text = "on-prem (round 2): the clock was set back by 1,800.0 s"
    assert [jump.text for jump in comparison.clock_jumps] == [text]


def test_a_pass_that_was_resumed_is_not_held_against_the_time_of_its_second_half(recorded):
    record = recorded(*PASSES) | {"resumed_at": [BEGIN.isoformat()]}
    assert compared(arms(seconds=900), record).clock_jumps == []


def test_steps_that_are_not_timed_by_rows_and_unknown_ends_are_passed_over(recorded):
    record = recorded(("compare", 1, {"set_s": -3600}), *PASSES)
    record["steps"].append({"step": "wait", "start": "soon", "end": None, "status": "failed"})
    assert compared(arms(), record).clock_jumps == []


@pytest.mark.parametrize("number", range(1, 9))
def test_of_passes_that_are_compared_with_each_other_the_arm_and_round_are_found(number):
    rows = frame([on_prem_row("a", round=of_pass) for of_pass in range(1, 9)])
    split = split_passes(rows.assign(of_pass=rows["round"]))
    step = {"step": "on-prem", "round": number, "start": BEGIN.isoformat()}
    step["end"] = (BEGIN - timedelta(hours=1)).isoformat()
    spans = {arm.name: pd.Series(dtype=float) for arm in ARMS_OF_SELF_CHECK}
    (jump,) = clock_jumps.clock_jumps({"steps": [step]}, spans, is_aa=True)
    part = split[[arm.name for arm in ARMS_OF_SELF_CHECK].index(jump.arm)]
    assert list(part.loc[part["round"] == jump.round, "of_pass"]) == [number]


def test_a_step_is_as_long_as_the_monotonic_clock_says(recorded, capsys):
    record = recorded(("on-prem", 1, {"set_s": -3600, "slept_s": 5}))
    (step,) = record["steps"]
    assert (step["duration_s"], step["suspended_s"]) == (20, 5)
    assert capsys.readouterr().err == "on-prem (1 of 3): 20.0 s\n"
    (shown,) = facts_of(compared(arms(), record))["steps"]
    assert shown["seconds"] == "20.00"


def test_a_system_without_a_clock_that_counts_sleep_sees_that_the_clocks_differ(clocks):
    del machine.time.CLOCK_BOOTTIME
    before = machine.Clocks.now()
    pass_time(clocks, 20, slept_s=30)
    assert machine.Clocks.now().since(before) == {"duration_s": 20, "suspended_s": 0}


def test_the_clocks_are_read_in_one_moment_also_on_a_busy_machine(clocks):
    reads = iter([0.0, 9.0, 10.0, 10.0])  # the first time the process was held up in between

    def monotonic() -> float:
        clocks.wall = clocks.monotonic = next(reads)
        return clocks.monotonic

    machine.time.monotonic = monotonic
    now = machine.Clocks.now()
    assert (now.wall_s, now.monotonic_s) == (10, 10)


def test_timestamps_of_an_on_prem_pass_follow_the_monotonic_clock(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    (picture,) = load_pictures(tmp_path)
    picture = replace(picture, path=Path("/nowhere/a.jpg"))  # it is about the timestamp alone
    epoch_s = BEGIN.timestamp() - time.monotonic()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    begun = datetime.fromisoformat(process_picture(picture, "run", 1, epoch_s).timestamp)
    assert timedelta(0) <= begun - BEGIN < timedelta(hours=1)


def test_run_json_with_clocks_is_a_record(recorded):
    record = recorded(*PASSES)
    assert run_record.is_record(json.loads(json.dumps(record)))
