"""Which runs a sweep consists of, what is kept of each, and what follows from them."""

import argparse
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import row
from test_rows import frame

from metrics.analysis import sweep
from metrics.analysis.comparison import compare
from metrics.analysis.interval import RatioEstimate, geometric_mean_ci
from metrics.analysis.ledger import parse_manifest
from metrics.analysis.sweep import (
    MAIN,
    MEMORY,
    PARALLELISM,
    SCALE,
    Setting,
    is_kept,
    is_kept_file,
    keep,
    kept_settings,
    leftovers,
    nested_subset,
    settings_of,
)
from metrics.analysis.sweep_results import (
    Point,
    crossings,
    memory_sentence,
    point_of,
    quotient,
    scale_sentence,
    speed_ups,
    sweeps_of,
)
from metrics.collect.invocations import Invocation, invocations_from_csv, invocations_to_csv
from metrics.common.cli import UserError, positive_ints
from metrics.common.findings import Finding
from onprem_images.dataset import Picture, manifest_bytes


def flags(**changed) -> argparse.Namespace:
    defaults = {
        "rounds": None,
        "precision": None,
        "workers": (2,),
        "concurrency": (2,),
        "scale": (),
        "memory": (),
    }
    return argparse.Namespace(**(defaults | changed))


# --- which runs ---------------------------------------------------------------------------------


def test_without_sweep_flags_there_is_the_comparison_itself_only():
    assert settings_of(flags(), 16) == [Setting(MAIN, 16, 1, 2)]
    assert settings_of(flags(rounds=4, memory=(512,)), 16) == [Setting(MAIN, 16, 4, 2, None, 512)]


def test_each_sweep_varies_one_thing_and_the_comparison_comes_last():
    found = settings_of(
        flags(scale=(4, 8), workers=(1, 2), concurrency=(1, 2, 4), memory=(512, 1769)), 16
    )
    itself = Setting(MAIN, 16, 3, 2, 4)
    assert found[-1] == itself
    assert found[:-1] == [
        replace(itself, kind=SCALE, pictures=4),
        replace(itself, kind=SCALE, pictures=8),
        replace(itself, kind=PARALLELISM, workers=1, concurrency=1),
        replace(itself, kind=PARALLELISM, workers=1, concurrency=2),
        replace(itself, kind=MEMORY, memory_mb=512),
        replace(itself, kind=MEMORY, memory_mb=1769),
    ]


def test_all_pictures_are_no_run_of_their_own_since_the_comparison_has_them():
    assert [s.pictures for s in settings_of(flags(scale=(8, 16)), 16)] == [8, 16]


def test_more_pictures_than_there_are_is_an_error_that_says_how_many_there_are():
    with pytest.raises(UserError, match="asks for 32 pictures, and there are 16"):
        settings_of(flags(scale=(8, 32)), 16)


def test_points_have_three_rounds_unless_told_otherwise():
    assert {s.rounds for s in settings_of(flags(scale=(4,)), 16)} == {3}
    assert {s.rounds for s in settings_of(flags(scale=(4,), rounds=5), 16)} == {5}


@pytest.mark.parametrize("text", ["", "1,", "2,1", "1,1", "0,1", "1;2", "1,x", "-1"])
def test_a_list_that_does_not_grow_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError):
        positive_ints(text)


@given(
    sizes=st.lists(st.integers(0, 10**7), min_size=1, max_size=60),
    counts=st.tuples(st.integers(1, 60), st.integers(1, 60)),
)
def test_subsets_are_nested_and_keep_the_order(sizes, counts):
    pictures = [Picture(f"{i}.jpg", None, size, "") for i, size in enumerate(sizes)]
    few, many = sorted(min(count, len(pictures)) for count in counts)
    small, large = nested_subset(pictures, few), nested_subset(pictures, many)
    assert len(small) == few
    assert set(small) <= set(large)
    assert [p for p in pictures if p in large] == large


@pytest.mark.parametrize("count", [8, 32, 128, 200])
def test_subsets_have_the_same_mix_of_sizes(count):
    sizes = np.random.default_rng(2).lognormal(13, 1, 512).astype(int)
    pictures = [Picture(f"{i}.jpg", None, int(size), "") for i, size in enumerate(sizes)]
    chosen = nested_subset(pictures, count)
    ranks = np.argsort(np.argsort(sizes))
    places = np.sort([ranks[pictures.index(p)] for p in chosen]) / len(sizes)
    even = (np.arange(count) + 0.5) / count
    assert np.abs(places - even).max() < 1.5 / count


# --- what is kept -------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Files of a run just done, in a folder of the test's own."""
    for path in sweep.KEPT:
        (tmp_path / path.name).write_bytes(f"content of {path.name}".encode())
    monkeypatch.setattr(sweep, "KEPT", tuple(tmp_path / path.name for path in sweep.KEPT))
    return tmp_path


SETTING = Setting(SCALE, 8, 3, 2)


def manifest_of(folder, run_id: str) -> None:
    picture = Picture("a.jpg", None, 1, "ab")
    (folder / "manifest.json").write_bytes(manifest_bytes(run_id, 3, [picture]))


def test_a_run_is_kept_with_its_setting_and_found_again(here):
    manifest_of(here, "run.scale-8")
    keep(SETTING, here / "sweep")
    assert kept_settings("run", here / "sweep") == [(SETTING, here / "sweep" / "scale-8")]
    assert is_kept(SETTING, "run", here / "sweep")
    assert not is_kept(replace(SETTING, rounds=4), "run", here / "sweep")
    assert (here / "sweep/scale-8/lambda_metrics.csv").read_text() == (
        "content of lambda_metrics.csv"
    )


def test_runs_of_another_sweep_do_not_count(here):
    manifest_of(here, "other.scale-8")
    keep(SETTING, here / "sweep")
    assert kept_settings("run", here / "sweep") == []


@pytest.mark.parametrize("setting", ["{", "[]", '{"kind": "scale"}', '{"kind": 1, "x": 2}'])
def test_a_folder_that_is_none_of_ours_is_left_out(here, setting):
    manifest_of(here, "run.scale-8")
    keep(SETTING, here / "sweep")
    (here / "sweep/scale-8/setting.json").write_text(setting)
    assert kept_settings("run", here / "sweep") == []


def test_cleaning_takes_what_was_kept_and_nothing_else(here, tmp_path):
    manifest_of(here, "run.scale-8")
    keep(SETTING, here / "sweep")
    mine = here / "sweep" / "mine"
    mine.mkdir()
    (mine / "setting.json").write_text("{}")
    (mine / "thesis.txt").write_text("do not delete")
    (here / "sweep" / "link").symlink_to(tmp_path)
    assert [path.name for path in leftovers(here / "sweep")] == ["scale-8"]
    sweep.clean(here / "sweep")
    assert sorted(path.name for path in (here / "sweep").iterdir()) == ["link", "mine"]


def test_a_sweep_folder_that_is_a_link_is_nobodys(here):
    manifest_of(here, "run.scale-8")
    keep(SETTING, here / "sweep")
    (here / "linked").symlink_to(here / "sweep")
    assert list(leftovers(here / "linked")) == []


def test_half_a_copy_is_no_run_and_is_cleaned_away(here, monkeypatch):
    manifest_of(here, "run.scale-8")
    real = shutil.copyfile

    def fails_at_the_third(source, target):
        if source.name == "manifest.json":
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(sweep.shutil, "copyfile", fails_at_the_third)
    with pytest.raises(OSError, match="No space"):
        keep(SETTING, here / "sweep")
    assert kept_settings("run", here / "sweep") == []
    sweep.clean(here / "sweep")
    assert list((here / "sweep").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "is_ours"),
    [
        ("scale-8/manifest.json", True),
        ("parallelism-1-None/run.json", True),
        ("memory-512/setting.json", True),
        ("../manifest.json", False),
        ("scale-8/../../x.json", False),
        ("/etc/manifest.json", False),
        ("scale-8/other.txt", False),
        ("scale-8\n/manifest.json", False),
        ("other-8/manifest.json", False),
    ],
)
def test_only_names_that_keep_gives_are_unpacked(name, is_ours):
    assert is_kept_file(name) is is_ours


# --- what follows -------------------------------------------------------------------------------


def point(
    setting: Setting,
    on_prem_s: list[float],
    cloud_s: list[float],
    ms: list[float] | None = None,
    lost: bool = False,
) -> Point:
    """A point whose arms took so long in each round: its one picture did."""
    memory_mb = setting.memory_mb or 1769
    arms = {"on_prem": on_prem_s, "cloud": cloud_s}
    rows = {
        source: frame(
            [
                row(
                    source=source,
                    round=number,
                    proc_ms=1000 * s,
                    cpu_ms=1000 * s,
                    fetch_ms=0.0,
                    store_ms=0.0,
                    memory_mb=memory_mb,
                    request_id=f"id {number}" if source == "cloud" else "",
                )
                for number, s in enumerate(spans, 1)
                if not (lost and source == "cloud" and number == 1)
            ]
        )
        for source, spans in arms.items()
    }
    picture = Picture("a.jpg", None, 1000, "ab")
    manifest = parse_manifest(manifest_bytes("run", len(cloud_s), [picture]))
    comparison = compare(rows["on_prem"], rows["cloud"], manifest=manifest)
    reports = [
        Invocation(f"id {number}", one_ms, one_ms, 0, memory_mb, 80, False, "x86_64", 3, 2)
        for number, one_ms in enumerate(ms or [], 1)
    ]
    invocations = invocations_from_csv(invocations_to_csv(reports)) if ms else None
    return point_of(setting, comparison, invocations)


def at_scale(n: int, on_prem_s: list[float], cloud_s: list[float], **more) -> Point:
    return point(Setting(SCALE, n, len(on_prem_s), 2), on_prem_s, cloud_s, **more)


def test_the_crossing_is_where_the_makespans_are_equal():
    points = [
        at_scale(100, [1.00, 1.02, 0.98], [2.00, 2.05, 1.96]),
        at_scale(400, [4.00, 4.08, 3.95], [2.00, 2.01, 2.02]),
    ]
    (found,) = crossings(points)
    assert found.then_cloud
    assert found.pictures == pytest.approx(200, rel=0.02)  # half way between, on a log scale
    assert 100 < found.low < found.pictures < found.high < 400
    assert "finishes first" in scale_sentence(points)
    assert "from 20" in scale_sentence(points)


def test_without_a_crossing_the_sentence_says_who_leads_and_where_that_is_open():
    points = [
        at_scale(10, [1.0, 1.3, 0.8], [1.1, 1.2, 1.0]),
        at_scale(20, [1.0, 1.01, 0.99], [3.0, 3.1, 2.9]),
    ]
    assert crossings(points) == []
    assert scale_sentence(points) == (
        "no crossing is seen between 10 and 20 pictures: on-prem is done first with 20, which it "
        "is with 10 cannot be told"
    )
    certain = at_scale(10, [1.0, 1.01, 0.99], [3.0, 3.1, 2.9])
    assert scale_sentence([certain, points[1]]) == (
        "no crossing between 10 and 20 pictures: on-prem is done first throughout"
    )


def test_several_crossings_are_not_called_one():
    points = [
        at_scale(10, [1.0, 1.01], [2.0, 2.01]),
        at_scale(20, [2.0, 2.01], [1.0, 1.01]),
        at_scale(40, [1.0, 1.01], [2.0, 2.01]),
    ]
    assert len(crossings(points)) == 2
    assert "change places 2 times" in scale_sentence(points)


def test_ratios_that_cannot_be_told_from_1_cross_nothing():
    points = [
        at_scale(10, [1.0, 1.5, 0.7], [1.1, 1.3, 1.0]),
        at_scale(20, [1.0, 1.4, 0.8], [0.9, 1.2, 0.9]),
    ]
    assert crossings(points) == []
    assert scale_sentence(points) == "cannot tell which is done first between 10 and 20 pictures"


def test_noise_alone_is_seldom_taken_for_a_crossing():
    rng, seen = np.random.default_rng(5), 0
    for _ in range(400):
        logs = rng.normal(0, 0.1, (4, 3))
        points = [
            Fake(n, geometric_mean_ci(np.exp(own)))
            for n, own in zip((50, 100, 400, 800), logs, strict=True)
        ]
        seen += bool(crossings(points))
    assert seen / 400 < 0.05


def test_a_point_with_missing_rows_is_left_out_and_named():
    whole = [at_scale(n, [1.0, 1.1], [2.0, 2.1]) for n in (10, 40)]
    broken = at_scale(20, [1.0, 1.1], [0.1, 0.1], lost=True)
    itself = replace(whole[-1], setting=replace(whole[-1].setting, kind=MAIN))
    (found,) = sweeps_of([whole[0], broken, itself])
    assert "no crossing" in found.answer
    assert len(found.broken) == 1
    assert found.broken[0].startswith("20 pictures: 1 of 2 cloud rows")


def test_intervals_of_the_crossing_cover_the_truth():
    """Makespans of 3 rounds with a truth of 200 pictures, straight on a log scale."""
    rng, covered, trials = np.random.default_rng(4), 0, 400
    sizes = [25, 100, 200 * math.sqrt(2), 1600]
    for _ in range(trials):
        points = []
        for n in sizes:
            logs = math.log(200 / n) + rng.normal(0, 0.1, 3)
            points.append(Fake(int(n), geometric_mean_ci(np.exp(logs))))
        found = crossings(points)
        covered += any(c.low <= 200 <= c.high for c in found)
    assert covered / trials >= 0.91


class Fake:
    """A point of which only the ratio is known."""

    is_complete = True

    def __init__(self, pictures: int, ratio: RatioEstimate):
        self.setting = Setting(SCALE, pictures, 3, 1)
        self.ratio = ratio


def test_speed_up_is_against_the_least_parallelism_and_efficiency_by_its_increase():
    points = [
        point(Setting(PARALLELISM, 1, 3, 2, 2), [4.0, 4.1, 3.9], [6.0, 6.1, 6.0]),
        point(Setting(PARALLELISM, 1, 3, 4, 4), [2.0, 2.1, 1.9], [2.0, 2.1, 2.0]),
    ]
    (_, base, _), (number, gain, efficiency) = speed_ups(points, "on_prem")
    assert (base.low, base.ratio, base.high) == (1, 1, 1)
    assert number == 4
    assert gain.ratio == pytest.approx(2, rel=0.01)
    assert efficiency.ratio == pytest.approx(1, rel=0.01)
    assert efficiency.low < 1 < efficiency.high
    assert gain.low < 2 < gain.high
    ((_, _, _), (_, cloud, of_cloud)) = speed_ups(points, "cloud")
    assert cloud.ratio == pytest.approx(3, rel=0.02)
    assert of_cloud.ratio == pytest.approx(1.5, rel=0.02)


def at_memory(mb: int, ms: list[float], **more) -> Point:
    return point(
        Setting(MEMORY, 1, len(ms), 2, None, mb), [1.0] * len(ms), [1.0] * len(ms), ms, **more
    )


def test_memory_names_the_fastest_the_cheapest_and_the_balanced():
    points = [
        at_memory(512, [400.0, 404.0, 398.0]),
        at_memory(1769, [100.0, 101.0, 99.0]),
        at_memory(3008, [98.9, 101.3, 98.4]),
    ]
    sentence = memory_sentence(points)
    assert "fastest: 3,008 MB, not told from 1,769 MB" in sentence
    assert sentence.count("MB") >= 3


def test_a_memory_sweep_without_reports_says_that_it_cannot_tell():
    points = [
        point(Setting(MEMORY, 1, 2, 2, None, mb), [1.0, 1.1], [1.0, 1.1]) for mb in (512, 1024)
    ]
    assert memory_sentence(points).startswith("cannot tell which memory is best")


def test_the_comparison_itself_is_a_point_unless_one_has_its_very_setting():
    kept = [at_memory(512, [4.0, 4.1]), at_memory(1769, [1.0, 1.1])]
    itself = replace(at_memory(1769, [1.0, 1.2]), setting=Setting(MAIN, 1, 2, 2))
    (found,) = sweeps_of([*kept, itself])
    assert len(found.points) == 2
    other = replace(at_memory(1024, [1.0, 1.2]), setting=Setting(MAIN, 1, 2, 2))
    (found,) = sweeps_of([*kept, other])
    assert [line[0] for line in found.lines] == ["512 MB", "1,024 MB", "1,769 MB"]


def test_a_quotient_is_as_uncertain_as_both_together():
    a, b = geometric_mean_ci([2.0, 2.2, 1.8]), geometric_mean_ci([1.0, 1.1, 0.9])
    both = quotient(a, b)
    assert both.ratio == pytest.approx(2, rel=0.02)
    assert both.v_rounds == a.v_rounds + b.v_rounds
    assert both.log_half_width > max(a.log_half_width, b.log_half_width)


def test_a_quotient_with_a_point_of_one_round_has_its_allowance_and_the_others_spread():
    one, more = geometric_mean_ci([2.0]), geometric_mean_ci([1.0, 1.1, 0.9])
    both = quotient(one, more)
    assert (both.rounds, both.drift_margin) == (3, 1.25)
    assert both.log_half_width > more.log_half_width + math.log(1.2)


def test_time_and_cost_are_multiplied_round_by_round():
    """They follow from the same durations, so that their errors add up."""
    found = at_memory(512, [100.0, 150.0, 80.0])
    product = [t * c for t, c in zip(found.times_ms, found.costs_usd, strict=True)]
    assert found.product == geometric_mean_ci(product)


def test_a_point_of_another_memory_than_was_set_is_not_whole():
    strange = at_memory(512, [1.0, 1.1])
    strange = replace(strange, setting=replace(strange.setting, memory_mb=1024))
    assert strange.why_incomplete == "rows of a function with another memory"


def test_more_at_once_that_may_be_no_faster_is_not_called_faster():
    points = [
        point(Setting(PARALLELISM, 1, 3, 1), [4.0, 5.0, 3.0], [6.0, 6.1, 6.0]),
        point(Setting(MAIN, 1, 3, 2), [3.8, 4.9, 3.1], [2.0, 2.1, 2.0]),
    ]
    (found,) = sweeps_of(points)
    assert "on-prem: cannot tell whether 2 at once are faster than 1" in found.answer


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [1.0, 0.0], [-1.0], [math.inf]])
def test_over_rounds_says_nothing_where_a_value_is_unknown(values):
    assert geometric_mean_ci(values) is None


def test_problems_of_a_point_are_shown_in_its_line():
    broken = at_scale(20, [1.0, 1.1], [1.0, 1.1])
    broken = replace(broken, comparison=replace(broken.comparison, problems=[Finding("other")]))
    (found,) = sweeps_of([broken, at_scale(40, [1.0, 1.1], [1.0, 1.1])])
    assert found.lines[0][-1] == "not comparable"
    assert json.dumps(found.broken) == '["20 pictures: other"]'
