"""Joining both arms' rows: what voids a comparison, what is only warned of, and the numbers."""

import dataclasses
import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rows import row
from test_rows import HOSTILE_KEYS, REFERENCE_HEADER, file_of, frame, on_prem_row

from lambda_function.metrics_log import MetricRow
from metrics.analysis.comparison import (
    ARMS,
    ARMS_OF_SELF_CHECK,
    ArmSummary,
    Comparison,
    begin_s,
    compare,
    summarise,
)
from metrics.analysis.interval import estimate_ratio
from metrics.analysis.judgement import judge_comparison
from metrics.analysis.ledger import Manifest, parse_manifest
from metrics.analysis.output_equivalence import PixelDifference
from metrics.analysis.rounds import split_passes
from metrics.analysis.rows import read_rows
from metrics.analysis.stability_measures import Measure
from metrics.common.cli import UserError
from metrics.report.verdict import (
    equivalence_line,
    ledger_line,
    ratio_line,
    table,
    verdict_per_picture,
    verdict_whole_job,
)
from onprem_images.dataset import manifest_bytes

pytestmark = pytest.mark.filterwarnings("error")

FAILED = {"status": "error", "new_size": 0, "output_sha256": ""}


def compared(on_prem: list[MetricRow], cloud: list[MetricRow], **options: object) -> Comparison:
    return compare(frame(on_prem), frame(cloud), **options)


def problems(comparison: Comparison) -> list[str]:
    return [str(problem) for problem in comparison.problems]


def warnings(comparison: Comparison) -> list[str]:
    """All but the one on few pictures, which these few rows nearly always cause."""
    return [str(warning) for warning in comparison.warnings if "only" not in warning.text]


def both_arms(*keys: str, rounds: int = 1) -> tuple[list[MetricRow], list[MetricRow]]:
    """Rows of equal work, each arm's in an order of its own."""
    done = list(itertools.product(keys or "abc", range(1, rounds + 1)))
    on_prem = [on_prem_row(key, round=number) for key, number in done]
    return on_prem, [row(key, round=number) for key, number in reversed(done)]


def manifest_of(keys: str, rounds: int = 1, size: int = 1000) -> Manifest:
    pictures = [MANIFEST_LINE(key, size, f"of {key}") for key in keys]
    return parse_manifest(manifest_bytes("run", rounds, pictures))


MANIFEST_LINE = dataclasses.make_dataclass("Line", ["image_key", "size", "sha256"])

# --- joining ------------------------------------------------------------------------------------


def test_equal_work_on_equal_pictures_has_no_problem():
    comparison = compared(*both_arms("a", "b", "c"))
    assert (problems(comparison), warnings(comparison)) == ([], [])
    assert list(comparison.pairs["image_key"]) == ["a", "b", "c"]
    assert set(comparison.merged["arms"]) == {"both"}
    assert comparison.equivalence_counts == {"identical": 3, "equivalent": 0, "different": 0, "": 0}


def test_hostile_keys_are_joined_as_they_are():
    comparison = compared(*both_arms(*HOSTILE_KEYS))
    assert problems(comparison) == []
    assert sorted(comparison.pairs["image_key"]) == sorted(HOSTILE_KEYS)


def test_pictures_missing_in_either_arm_are_counted_and_named():
    comparison = compared([on_prem_row(k) for k in "abc"], [row(k) for k in "cd"])
    assert problems(comparison) == [
        "1 of 4 pictures have no on_prem row: 'd'",
        "2 of 4 pictures have no cloud row: 'a', 'b'",
    ]
    assert comparison.is_partial
    arms = dict(zip(comparison.merged["image_key"], comparison.merged["arms"], strict=True))
    assert arms == {"a": "on_prem", "b": "on_prem", "c": "both", "d": "cloud"}
    assert list(comparison.pairs["image_key"]) == ["c"]


def test_of_many_missing_pictures_five_are_named_and_all_are_counted():
    on_prem = [on_prem_row(f"{n:02}") for n in range(12)]
    (problem,) = compared(on_prem, [row("00")]).problems
    assert problem.text == "11 of 12 pictures have no cloud row"
    assert str(problem).startswith("11 of 12 pictures have no cloud row: '01', '02'")
    assert str(problem).endswith("'05' and 6 more")


def test_missing_rows_of_rounds_are_counted_over_all_of_them():
    on_prem, cloud = both_arms("a", "b", rounds=3)
    (problem,) = problems(compared(on_prem, cloud[2:]))
    assert problem == "2 of 6 cloud rows (3 rounds) are missing: 'b'"


@pytest.mark.parametrize("arm", ["on_prem", "cloud"])
def test_a_second_row_of_a_picture_is_a_problem_and_makes_no_second_pair(arm):
    rows = dict(zip(("on_prem", "cloud"), both_arms("a", "b"), strict=True))
    rows[arm].append(dataclasses.replace(rows[arm][0], proc_ms=99.0))
    comparison = compared(**rows)
    assert problems(comparison) == [
        f"more than one {arm} row for a picture: {rows[arm][0].image_key!r}"
    ]
    assert len(comparison.pairs) == 2
    assert comparison.ratios.tolist() == [1, 1]


@pytest.mark.parametrize("numbers", [(1, 2), (1, 3)])
def test_rounds_of_a_picture_are_joined_round_by_round_also_where_one_is_left_out(numbers):
    first, second = numbers
    on_prem = [on_prem_row(round=first, proc_ms=1.0), on_prem_row(round=second, proc_ms=2.0)]
    cloud = [row(round=second, proc_ms=6.0), row(round=first, proc_ms=5.0)]
    comparison = compared(on_prem, cloud)
    assert problems(comparison) == []
    assert comparison.ratios.tolist() == [5.0, 3.0]


@pytest.mark.parametrize("arm", ["on_prem", "cloud"])
def test_rows_of_another_run_are_warned_of_and_do_not_count(arm):
    rows = dict(zip(("on_prem", "cloud"), both_arms("a", "b"), strict=True))
    late = [dataclasses.replace(r, run_id="old", proc_ms=99.0) for r in rows[arm]]
    rows[arm] = [late[0], *rows[arm], late[1], dataclasses.replace(late[0], image_key="z")]
    comparison = compared(**rows, run_id="run")
    label = {"on_prem": "on-prem", "cloud": "the cloud"}[arm]
    assert problems(comparison) == []
    assert warnings(comparison) == [f"{label}: 3 rows of other runs ('old') do not count"]
    assert comparison.ratios.tolist() == [1, 1]
    assert comparison.first.rows == comparison.second.rows == 2


def test_where_all_cloud_rows_are_of_another_run_every_picture_is_missing():
    on_prem, cloud = both_arms("a", "b")
    comparison = compared(on_prem, [dataclasses.replace(r, run_id="old") for r in cloud])
    assert problems(comparison) == [
        "2 of 2 pictures have no cloud row: 'a', 'b'",
        "no picture was processed in both arms",
    ]


def test_the_run_is_the_one_named_or_the_manifests_or_the_only_one_on_prem():
    on_prem, cloud = both_arms("a", "b")
    old = [dataclasses.replace(r, run_id="old") for r in on_prem]
    assert compared(on_prem, cloud).ledger.run_id == "run"
    assert compared(on_prem + old, cloud, run_id="run").ledger.run_id == "run"
    assert compared(on_prem + old, cloud, manifest=manifest_of("ab")).ledger.run_id == "run"
    with pytest.raises(UserError, match=r"2 runs \['old', 'run'\]; choose with --run-id"):
        compared(on_prem + old, cloud)


# --- the manifest -------------------------------------------------------------------------------


def test_a_picture_that_neither_arm_has_is_missing_in_both():
    comparison = compared(*both_arms("a"), manifest=manifest_of("ab"))
    assert problems(comparison) == [
        "1 of 2 pictures have no on_prem row: 'b'",
        "1 of 2 pictures have no cloud row: 'b'",
    ]


def test_rows_that_the_manifest_does_not_know_are_a_problem_and_make_no_pair():
    comparison = compared(*both_arms("a", "b", rounds=2), manifest=manifest_of("a"))
    assert problems(comparison) == [
        "on_prem rows of pictures or rounds unknown to the manifest: 'a', 'b'",
        "cloud rows of pictures or rounds unknown to the manifest: 'b', 'a'",
    ]
    assert len(comparison.pairs) == 1


def test_a_picture_of_another_size_than_the_manifests_is_a_problem():
    assert problems(compared(*both_arms("a"), manifest=manifest_of("a"))) == []
    (problem,) = problems(compared(*both_arms("a"), manifest=manifest_of("a", size=999)))
    assert problem == "the input is not the manifest's for 1 picture: 'a'"


# --- what is other work -------------------------------------------------------------------------

OTHER_WORK = {
    "output": ({"output_sha256": "cd" * 32}, "the output differs for 1 picture: 'b'"),
    "hash in one arm": (
        {"output_sha256": ""},
        "only one arm has the output's hash for 1 picture: 'b'",
    ),
    "input size": ({"orig_size": 7}, "the input differs in size for 1 picture: 'b'"),
    "transform": ({"transform": "v2"}, "other transform versions for 1 picture: 'b'"),
    "failure": (
        FAILED | {"error": "OSError: broken"},
        "the arms differ in success or error for 1 picture ({}): 'b'",
    ),
}


@pytest.mark.parametrize(("fields", "reason"), OTHER_WORK.values(), ids=OTHER_WORK)
@pytest.mark.parametrize("arm", [0, 1])
@pytest.mark.parametrize("allow_partial", [False, True])
def test_other_work_on_a_picture_is_a_problem_that_names_it(fields, reason, arm, allow_partial):
    rows = both_arms("a", "b", "c", rounds=2)
    rows[arm][2] = dataclasses.replace(rows[arm][2], image_key="b", **fields)
    outcomes = ("on_prem: OSError: broken; cloud: ok", "on_prem: ok; cloud: OSError: broken")[arm]
    assert problems(compared(*rows, allow_partial=allow_partial)) == [reason.format(outcomes)]


def test_outputs_that_differ_by_rounding_are_equivalent_and_no_problem():
    cloud = [row("a"), row("b", output_sha256="cd" * 32), row("c")]
    on_prem = [on_prem_row(key) for key in "abc"]
    both = (on_prem[1].output_sha256, "cd" * 32)
    rounding, other = PixelDifference(50.0, 2), PixelDifference(40.0, 2)
    comparison = compared(on_prem, cloud, pixels={both: rounding})
    assert problems(comparison) == []
    assert comparison.pairs["output_equivalence"].tolist() == [
        "identical",
        "equivalent",
        "identical",
    ]
    comparison = compared(on_prem, cloud, pixels={both: other})
    assert problems(comparison) == ["the output differs for 1 picture: 'b'"]


def test_failing_alike_is_no_problem_though_the_wording_differs_but_another_class_is():
    def errors(on_prem: str, cloud: str) -> Comparison:
        failed = on_prem_row("b", error=on_prem, **FAILED)
        return compared([on_prem_row("a"), failed], [row("a"), row("b", error=cloud, **FAILED)])

    alike = errors("OSError: broken", "OSError: truncated: 7 bytes")
    assert problems(alike) == []
    assert warnings(alike) == [
        "on-prem: 1 picture failed (OSError: broken): 'b'",
        "the cloud: 1 picture failed (OSError: truncated: 7 bytes): 'b'",
    ]
    assert problems(errors("OSError: broken", "MemoryError: broken")) == [
        "the arms differ in success or error for 1 picture "
        "(on_prem: OSError: broken; cloud: MemoryError: broken): 'b'"
    ]


MAP_FAILED = (
    "LambdaFailure: RetriesExhausted after 3 tries: Runtime.ImportModuleError: Unable to import "
    "module 'lambda_function.handler': /tmp/{}/task/PIL/_imaging.so: failed to map segment from "
    "shared object"
)


def test_arms_that_differ_say_the_reason_of_each_once_for_all_pictures_that_have_it():
    on_prem, cloud = both_arms("a", "b", "c", "d")
    failed = [
        dataclasses.replace(r, **FAILED, error=MAP_FAILED.format(f"w-{r.image_key}-{n}"))
        for n, r in enumerate(cloud[:3])
    ]
    comparison = compared(on_prem, failed + cloud[3:])
    (problem,) = problems(comparison)
    assert problem.startswith(
        "the arms differ in success or error for 3 pictures "
        "(on_prem: ok; cloud: LambdaFailure: RetriesExhausted after 3 tries: Runtime.ImportModule"
    )
    assert problem.endswith("failed to map segment from shared object (and alike)): 'b', 'c', 'd'")
    assert "failed to map segment" in verdict_per_picture(comparison)


def test_every_pair_of_outcomes_has_its_own_line_the_commonest_first():
    on_prem, cloud = both_arms(*"abcde")
    by_key = {"a": "OSError: x", "b": "MemoryError: y", "c": "MemoryError: y"}
    cloud = [
        dataclasses.replace(r, **FAILED, error=by_key[r.image_key]) if r.image_key in by_key else r
        for r in cloud
    ]
    differ = "the arms differ in success or error for"
    assert problems(compared(on_prem, cloud)) == [
        f"{differ} 2 pictures (on_prem: ok; cloud: MemoryError: y): 'b', 'c'",
        f"{differ} 1 picture (on_prem: ok; cloud: OSError: x): 'a'",
    ]


def test_of_very_many_pairs_of_outcomes_the_rest_is_counted_and_named_together():
    keys = [f"{n}.jpg" for n in range(12)]
    on_prem, cloud = both_arms(*keys, "good.jpg")
    cloud = [
        dataclasses.replace(r, **FAILED, error="x" * (int(r.image_key[:-4]) + 1))
        if r.image_key in keys
        else r
        for r in cloud
    ]
    found = compared(on_prem, cloud).problems
    assert sum(len(one.names) for one in found) == len(keys)
    (rest,) = [one for one in found if "other pairs of outcomes" in one.text]
    assert "for 4 pictures (4 other pairs of outcomes)" in rest.text


@pytest.mark.parametrize("arm", ["on_prem", "cloud"])
def test_an_arm_that_changed_no_picture_is_a_problem(arm):
    rows = dict(zip(("on_prem", "cloud"), both_arms("a", "b"), strict=True))
    rows[arm] = [dataclasses.replace(r, new_size=r.orig_size) for r in rows[arm]]
    problem = f"no picture was changed in the {arm} arm: new_size equals orig_size"
    assert problems(compared(**rows)) == [problem]  # hashes are equal: made from one template
    rows[arm][0] = dataclasses.replace(rows[arm][0], new_size=500)
    assert problems(compared(**rows)) == []


def test_without_any_hash_other_sizes_are_other_work():
    arms = [on_prem_row(output_sha256="")], [row(output_sha256="", new_size=7)]
    assert problems(compared(*arms)) == ["the output differs in size for 1 picture: 'a.jpg'"]
    comparison = compared([on_prem_row(output_sha256="")], [row(output_sha256="")])
    assert problems(comparison) == []
    assert comparison.equivalence_counts[""] == 1


def test_the_rows_of_one_arm_taken_for_both_are_no_comparison():
    rows = frame([on_prem_row()])
    assert problems(compare(rows, rows)) == ["rows of source 'on_prem' among the cloud rows"]


def test_rows_of_different_clouds_are_not_mixed():
    cloud = [row("a", environment="aws"), row("b", environment="embedded")]
    assert problems(compared([on_prem_row("a"), on_prem_row("b")], cloud)) == [
        "cloud rows of different environments: 'aws', 'embedded'"
    ]


def test_arms_without_a_common_picture_are_not_comparable():
    comparison = compared([on_prem_row("a")], [row("b")])
    assert "no picture was processed in both arms" in problems(comparison)
    assert comparison.per_picture is None


def test_arms_in_which_every_picture_failed_are_not_comparable():
    error = FAILED | {"error": "OSError: broken"}
    comparison = compared([on_prem_row(**error)], [row(**error)])
    assert problems(comparison) == [
        "no picture was processed in both arms (on_prem: OSError: broken; cloud: OSError: broken)"
    ]
    assert comparison.ledger.completeness == 1
    assert math.isnan(comparison.first.mean_ms)


@pytest.mark.parametrize("arm", [0, 1])
def test_an_arm_in_which_every_picture_failed_is_not_comparable(arm):
    rows = list(both_arms("a", "b"))
    rows[arm] = [dataclasses.replace(r, **FAILED) for r in rows[arm]]
    outcomes = ["on_prem: ok", "cloud: ok"]
    outcomes[arm] = outcomes[arm].replace("ok", "no reason in its row")
    why = "; ".join(outcomes)
    assert problems(compared(*rows)) == [
        f"the arms differ in success or error for 2 pictures ({why}): {named('ab')}",
        "no picture was processed in both arms",
    ]


def named(keys: str) -> str:
    return ", ".join(map(repr, keys))


def test_where_no_picture_is_a_pair_in_every_round_the_fullest_round_counts():
    """Each picture fails in one of the rounds, alike in both arms."""
    rows = both_arms("a", "b", rounds=2)
    for arm in rows:
        for place in (0, 3):  # a in the first round, b in the second, and the other way round
            arm[place] = dataclasses.replace(arm[place], **FAILED)
    comparison = compared(*rows)
    assert len(comparison.pairs) == 2
    assert (comparison.per_picture.pictures, comparison.per_picture.rounds) == (1, 1)
    assert verdict_per_picture(comparison).startswith("cannot tell")


def test_a_stray_row_of_a_round_does_not_throw_away_the_other_rounds():
    keys = [f"{n}.jpg" for n in range(20)]
    on_prem, cloud = both_arms(*keys, rounds=3)
    cloud = [r for r in cloud if r.round < 3 or r.image_key == "7.jpg"]
    comparison = compared(on_prem, cloud, allow_partial=True)
    assert (comparison.per_picture.pictures, comparison.per_picture.rounds) == (20, 2)
    assert any("only 2 rounds count" in str(one) for one in comparison.warnings)


# --- copies of a picture ------------------------------------------------------------------------


def timed_pair(key: str, ratio: float, **facts: object) -> tuple[MetricRow, MetricRow]:
    on_prem = on_prem_row(key, proc_ms=10.0, cpu_ms=10.0, **facts)
    return on_prem, row(key, proc_ms=10.0 * ratio, cpu_ms=10.0 * ratio, **facts)


def manifest_with(contents: dict[str, str]) -> Manifest:
    lines = [MANIFEST_LINE(key, 1000, content) for key, content in contents.items()]
    return parse_manifest(manifest_bytes("run", 1, lines))


def compared_with_copies(ratios: dict[str, float], contents: dict[str, str] | None, **facts):
    arms = zip(*(timed_pair(key, ratio, **facts) for key, ratio in ratios.items()), strict=True)
    manifest = manifest_with(contents) if contents else None
    return compared(*map(list, arms), manifest=manifest)


def said_of_few(comparison: Comparison) -> list[str]:
    return [str(one) for one in comparison.warnings if "only" in one.text]


def test_forty_copies_of_one_picture_are_one_sample():
    keys = [f"{n}.jpg" for n in range(40)]
    comparison = compared_with_copies(dict.fromkeys(keys, 2.0), dict.fromkeys(keys, "one"))
    assert (comparison.per_picture.pictures, comparison.per_picture.copies) == (1, 39)
    assert said_of_few(comparison) == [
        "only 1 different picture among 40; copies of a picture count as one",
        "only 1 different picture (40 with copies): other pictures may say otherwise; "
        "use 20 or more",
    ]
    assert verdict_per_picture(comparison).startswith(
        "cannot tell which is faster per picture: fewer than 3 different pictures"
    )
    assert "1 different picture (40 with copies) x 1 round" in verdict_per_picture(comparison)
    assert "too few pictures" in ratio_line(comparison)


def test_copies_of_one_among_other_pictures_are_averaged_and_counted_once():
    ratios = {"a": 2.0, "b": 8.0, "c": 1.0, "d": 2.0, "e": 4.0}
    contents = {"a": "x", "b": "x", "c": "c", "d": "d", "e": "e"}
    estimate = compared_with_copies(ratios, contents).per_picture
    alone = compared_with_copies({"a": 4.0, "c": 1.0, "d": 2.0, "e": 4.0}, None).per_picture
    assert (estimate.pictures, estimate.copies) == (4, 1)
    assert estimate.ratio == pytest.approx(alone.ratio)
    assert (estimate.low, estimate.high) == pytest.approx((alone.low, alone.high))


def test_without_copies_nothing_is_said_of_them_and_nothing_changes():
    ratios = {f"{n}.jpg": 1 + n / 10 for n in range(20)}
    comparison = compared_with_copies(ratios, {key: f"of {key}" for key in ratios})
    assert said_of_few(comparison) == []
    assert ", 20 pictures x 1 round" in verdict_per_picture(comparison)
    logs = np.log([list(ratios.values())]).T
    assert comparison.per_picture.log_half_width == estimate_ratio(logs).log_half_width


def test_pictures_that_could_not_be_read_when_listed_are_no_copies_of_each_other():
    ratios = dict.fromkeys("abcd", 2.0)
    assert compared_with_copies(ratios, dict.fromkeys("abcd", "")).per_picture.pictures == 4


def test_without_a_manifest_equal_outputs_of_inputs_of_one_size_are_copies():
    ratios = dict.fromkeys("abcd", 2.0)
    comparison = compared_with_copies(ratios, None, output_sha256="ab" * 32)
    assert (comparison.per_picture.pictures, comparison.different_pictures) == (1, 1)
    arms = [
        timed_pair(key, 2.0, output_sha256="ab" * 32, orig_size=n) for n, key in enumerate("ab")
    ]
    assert compared(*map(list, zip(*arms, strict=True))).per_picture.pictures == 2
    nothing = compared_with_copies(ratios, None, output_sha256="")
    assert nothing.per_picture.pictures == 4


def test_failures_of_copies_are_one_failure_in_the_interval():
    keys = [f"{n}.jpg" for n in range(40)]
    rows = [on_prem_row(k, **FAILED) for k in keys], [row(k, **FAILED) for k in keys]
    copies = compared(*rows, manifest=manifest_with(dict.fromkeys(keys, "one")))
    one = compared([rows[0][0]], [rows[1][0]])

    def failures_of(comparison: Comparison) -> Measure:
        return judge_comparison(comparison).stability["cloud"]["failures_per_1000"]

    assert failures_of(copies) == failures_of(one)
    assert copies.first.failed == 40


def test_copies_do_not_make_cold_starts_matter():
    """The warm pairs weigh as the headline does: a picture once, however many copies it has."""
    pairs = [timed_pair(f"{n}", 8.0) for n in range(30)] + [timed_pair("z", 2.0)]
    on_prem, cloud = map(list, zip(*pairs, strict=True))
    cloud[0] = dataclasses.replace(cloud[0], cold_start=True)
    contents = {str(n): "one" for n in range(30)} | {"z": "z"}
    comparison = compared(on_prem, cloud, manifest=manifest_with(contents))
    assert comparison.ratio_without_cold == pytest.approx(4.0)
    assert not any("cold starts count" in one.text for one in comparison.warnings)


# --- the reference run --------------------------------------------------------------------------


@pytest.fixture
def reference_run(tmp_path) -> Comparison:
    """The shape of the published run: 332 cloud rows lost, and no picture resized in the cloud."""

    def lines(count: int, prefix: str, new_size: int, proc_ms: float) -> str:
        records = [
            f"2025-11-20T10:00:{n % 60:02}.{n:06}Z,{prefix}{n:04}.jpg,{10_000 + n},"
            f"{new_size or 10_000 + n},{proc_ms}"
            for n in range(count)
        ]
        return "\n".join([REFERENCE_HEADER, *records, ""])

    on_prem = read_rows(file_of(tmp_path, lines(501, "", 4_000, 99.1)), "on_prem")
    cloud = read_rows(file_of(tmp_path, lines(169, "input/", 0, 1.75)), "cloud")
    return compare(on_prem, cloud)


def test_the_reference_run_is_not_comparable_and_the_verdict_says_both_reasons(reference_run):
    said = verdict_per_picture(reference_run)
    assert said == (
        "not comparable: 332 of 501 pictures have no cloud row; "
        "no picture was changed in the cloud arm: new_size equals orig_size; "
        "the output differs in size for 169 pictures"
    )
    assert verdict_whole_job(reference_run) == ""
    assert "0169.jpg" in str(reference_run.problems[0])
    assert (reference_run.first.rows, reference_run.second.rows) == (501, 169)
    assert reference_run.ledger.completeness == pytest.approx(670 / 1002)
    assert ledger_line(reference_run) == (
        "completeness 66.9%: 670 of 1,002 rows, 670 done, 332 missing "
        "(no manifest: what either arm has is expected)"
    )


def test_a_partial_reference_run_would_still_have_done_other_work(reference_run):
    rows = reference_run.rows
    comparison = compare(rows["on_prem"], rows["cloud"], allow_partial=True)
    assert len(comparison.problems) == 2
    assert verdict_per_picture(comparison).startswith("not comparable: no picture was changed")


# --- --allow-partial ----------------------------------------------------------------------------


def test_a_partial_run_is_judged_on_its_pairs_when_that_is_allowed_and_says_so():
    rows = [on_prem_row(k) for k in "abcd"], [row(k) for k in "bcde"]
    comparison = compared(*rows, allow_partial=True, manifest=manifest_of("abcdef"))
    assert problems(comparison) == []
    assert warnings(comparison) == [
        "2 of 6 pictures have no on_prem row: 'e', 'f'",
        "2 of 6 pictures have no cloud row: 'a', 'f'",
    ]
    assert comparison.is_partial
    assert comparison.per_picture.pictures == 3


def test_a_complete_run_is_not_partial_though_it_is_allowed():
    assert not compared(*both_arms(), allow_partial=True).is_partial


VOID = {
    "duplicate": lambda cloud: [*cloud, cloud[0]],
    "unknown": lambda cloud: [*cloud, row("z")],
    "another arm's": lambda cloud: [dataclasses.replace(r, source="local") for r in cloud],
    "mixed environments": lambda cloud: [
        cloud[0],
        *(dataclasses.replace(r, environment="aws") for r in cloud[1:]),
    ],
    "unchanged": lambda cloud: [dataclasses.replace(r, new_size=r.orig_size) for r in cloud],
    "all failed": lambda cloud: [dataclasses.replace(r, **FAILED) for r in cloud],
    "another output": lambda cloud: [dataclasses.replace(cloud[0], output_sha256="x"), *cloud[1:]],
    "another picture": lambda cloud: [dataclasses.replace(cloud[0], orig_size=1), *cloud[1:]],
}


@pytest.mark.parametrize("spoil", VOID.values(), ids=VOID)
def test_allowing_gaps_excuses_nothing_else(spoil):
    on_prem, cloud = both_arms("a", "b", "c")
    for options in ({}, {"allow_partial": True}):
        comparison = compared(on_prem, spoil(cloud), manifest=manifest_of("abc"), **options)
        assert comparison.problems, options
        gaps = compared(on_prem, spoil(cloud), manifest=manifest_of("abcd"), **options)
        missing = 0 if options else 2
        assert len(gaps.problems) == len(comparison.problems) + missing


@pytest.mark.parametrize("lost", [slice(2, 4), slice(0, 3)], ids=["of a picture", "of a round"])
def test_of_a_partial_run_the_makespans_are_not_held_against_each_other(lost):
    """Of a part of the pictures it would look like a speed-up: the reference run's mistake."""
    on_prem, cloud = both_arms("a", "b", "c", rounds=2)
    cloud.sort(key=lambda r: (r.round, r.image_key))
    comparison = compared(on_prem, cloud[: lost.start] + cloud[lost.stop :], allow_partial=True)
    assert problems(comparison) == []
    assert comparison.whole_job is None
    said = verdict_whole_job(comparison)
    assert said.startswith("cannot tell which finishes the whole job sooner: ")
    assert "timestamps" not in said  # they are known


# --- warnings -----------------------------------------------------------------------------------


def test_few_pictures_are_warned_of():
    keys = [f"{n}" for n in range(20)]
    few = [str(w) for w in compared(*both_arms(*keys[:19])).warnings]
    assert few == ["only 19 pictures: other pictures may say otherwise; use 20 or more"]
    assert compared(*both_arms(*keys)).warnings == []


def timed(measured: MetricRow, ms: float, **fields: object) -> MetricRow:
    return dataclasses.replace(measured, proc_ms=ms, cpu_ms=ms, **fields)


def without_a_round(ms: float) -> Comparison:
    """Of picture a one row is lost in the cloud, and the other pair has another ratio."""
    on_prem, cloud = both_arms("a", "b", "c", rounds=2)
    return compared(
        [timed(on_prem[0], ms), *on_prem[1:]], cloud[:4] + cloud[5:], allow_partial=True
    )


def test_pictures_without_a_pair_in_every_round_are_left_out_of_the_headline_and_warned_of():
    comparison = without_a_round(1000.0)
    assert (len(comparison.pairs), comparison.per_picture.pictures) == (5, 2)
    assert comparison.per_picture.ratio == 1
    (text,) = [line for line in warnings(comparison) if "headline" in line]
    assert text.startswith("1 picture without a pair in every round")


def test_cold_starts_that_change_the_ratio_are_warned_of_with_both_ratios():
    on_prem, cloud = both_arms("a", "b", "c")
    for factor, count in ((1.05, 0), (8, 1)):
        comparison = compared(
            on_prem, [timed(cloud[0], 12.5 * factor, cold_start=True), *cloud[1:]]
        )
        assert comparison.ratio_without_cold == pytest.approx(1)
        lines = [
            "cold starts count: without them the ratio is 1.00, with them 2.00; "
            "more rounds make them rarer"
        ]
        assert warnings(comparison) == lines * count


def test_where_no_start_was_cold_none_is_warned_of_whatever_is_left_out():
    assert [line for line in warnings(without_a_round(1000.0)) if "cold" in line] == []


def test_only_cold_starts_leave_no_ratio_without_them():
    cold = [row(key, cold_start=True) for key in "abc"]
    comparison = compared([on_prem_row(key) for key in "abc"], cold)
    assert math.isnan(comparison.ratio_without_cold)
    assert warnings(comparison) == []


def test_warnings_of_each_arm_and_of_the_machine_are_all_there():
    on_prem, cloud = both_arms()
    shared = [dataclasses.replace(r, cpu_ms=r.proc_ms / 2) for r in cloud]
    steps = [{"step": "on-prem", "machine": {"steal_share": 0.5}}]
    comparison = compared(on_prem, shared, record={"steps": steps})
    first, second = warnings(comparison)
    assert first.startswith("the cloud: CPU time is 50% of wall time")
    assert second.startswith("on-prem: other guests of the host took 50%")


# --- numbers ------------------------------------------------------------------------------------


def at(seconds: float) -> str:
    return f"2026-01-02T03:04:{seconds:06.3f}+00:00"


def summary_of(rows: list[MetricRow]) -> ArmSummary:
    of_file = frame(rows)
    return summarise(of_file.assign(begin_s=begin_s(of_file)), ARMS[rows[0].source == "cloud"])


PHASES = {"fetch_ms": 100.0, "store_ms": 200.0}


def test_the_summary_of_an_arm_is_what_a_hand_computes():
    summary = summary_of(
        [
            row("a", timestamp=at(0), proc_ms=1000.0, cold_start=True, **PHASES),  # ends at 1.3
            row("b", timestamp=at(0.5), proc_ms=3000.0, worker="w2", **PHASES),  # 3.8, the last
            row("c", timestamp=at(2), proc_ms=500.0, **PHASES),  # began last, ends at 2.8
        ]
    )
    assert (summary.rows, summary.failed, summary.cold_starts, summary.workers) == (3, 0, 1, 2)
    assert (summary.mean_ms, summary.median_ms) == (1500, 1000)
    assert (summary.min_ms, summary.max_ms, summary.cold_mean_ms) == (500, 3000, 1000)
    assert summary.sd_ms == pytest.approx(math.sqrt(1_750_000))
    assert summary.cv == pytest.approx(summary.sd_ms / 1500)
    for share in (90, 95, 99):
        percentile = 1000 + (2 * share / 100 - 1) * 2000
        assert getattr(summary, f"p{share}_ms") == pytest.approx(percentile)
    assert summary.processing_s == pytest.approx(4.5)
    assert summary.cpu_utilisation == pytest.approx(3 * 12.25 / 4500)
    assert summary.makespan_s == pytest.approx(3.8)
    assert summary.throughput_per_s == pytest.approx(3 / 3.8)
    assert (summary.name, summary.label, summary.environment) == ("cloud", "the cloud", "embedded")


def test_makespans_are_by_round_and_the_one_shown_is_their_median():
    took = {1: 1000.0, 2: 5000.0, 3: 2000.0}
    rows = [
        row(key, round=number, timestamp=at(10 * number), proc_ms=ms, fetch_ms=0.0, store_ms=0.0)
        for number, ms in took.items()
        for key in "ab"
    ]
    summary = summary_of(rows)
    assert summary.makespans_s == pytest.approx((1, 5, 2))
    assert summary.makespan_s == pytest.approx(2)
    assert summary.throughput_per_s == pytest.approx(1)


def test_a_failed_picture_counts_in_the_makespan_but_not_in_the_times():
    rows = [
        row("a", timestamp=at(0), proc_ms=100.0, **PHASES),
        row("b", timestamp=at(5), proc_ms=700.0, **PHASES, status="error"),
    ]
    summary = summary_of(rows)
    assert (summary.rows, summary.failed) == (2, 1)
    assert (summary.mean_ms, summary.median_ms, summary.p95_ms) == (100, 100, 100)
    assert summary.processing_s == pytest.approx(0.1)
    assert summary.makespan_s == pytest.approx(6.0)


def test_the_makespan_reads_time_zones():
    rows = [
        row("a", timestamp="2026-01-02T03:00:00+01:00", proc_ms=1000.0, **PHASES),
        row("b", timestamp="2026-01-02T02:00:01Z", proc_ms=1000.0, **PHASES),
    ]
    assert summary_of(rows).makespan_s == pytest.approx(2.3)


@pytest.mark.parametrize("timestamp", ["", "yesterday", "2026-13-45", "1e99", "99999-01-01"])
def test_an_unreadable_timestamp_makes_the_makespan_unknown_and_nothing_fails(timestamp):
    on_prem = [on_prem_row("a", timestamp=at(1)), on_prem_row("b", timestamp=timestamp)]
    comparison = compared(on_prem, [row("a"), row("b")])
    assert math.isnan(comparison.first.makespan_s)
    assert math.isnan(comparison.first.throughput_per_s)
    assert problems(comparison) == []
    assert comparison.whole_job is None
    assert "nan" not in table(comparison)


def test_timestamps_without_seconds_leave_the_makespan_unknown_and_are_named():
    """As a spreadsheet writes them; a makespan would be wrong by up to a minute."""
    for timestamp in ("2025-11-24 10:00", "2025-11-24T10:00+00:00", "24.11.2025 10:00", "00:01.1"):
        on_prem = [on_prem_row(key, timestamp=timestamp) for key in "ab"]
        comparison = compared(on_prem, [row("a"), row("b")])
        assert math.isnan(comparison.first.makespan_s)
        assert comparison.second.makespan_s > 0
        assert (
            f"on-prem: 2 timestamps such as {timestamp!r} are no ISO 8601 time with seconds, so "
            "nothing is said of the whole job; a spreadsheet may have changed the file"
        ) in warnings(comparison)


@pytest.mark.parametrize(
    "timestamp", ["2026-01-02T03:04:00+00:00", "2026-01-02 03:04:00", "20260102T030400Z"]
)
def test_a_timestamp_on_the_full_minute_is_as_good_as_any(timestamp):
    comparison = compared([on_prem_row("a", timestamp=timestamp)], [row("a")])
    assert comparison.first.makespan_s > 0
    assert not any("timestamp" in one for one in warnings(comparison))


@pytest.mark.parametrize("timestamp", ["0001-01-01", "1500-01-01T00:00:00Z", "9999-12-31T23:59Z"])
def test_a_timestamp_of_another_age_does_not_fail(timestamp):
    makespan_s = summary_of([row(key, timestamp=timestamp) for key in "ab"]).makespan_s
    assert makespan_s == pytest.approx(0.0165, rel=0.01) or math.isnan(makespan_s)


def test_a_makespan_of_one_round_that_is_unknown_leaves_the_others_known():
    rows = [row("a", timestamp=at(1)), row("a", round=2, timestamp="")]
    known, unknown = summary_of(rows).makespans_s
    assert known == pytest.approx(0.0165)
    assert math.isnan(unknown)


def test_a_time_of_ages_does_not_fail():
    assert summary_of([row(proc_ms=1e15)]).makespan_s == pytest.approx(1e12)
    on_prem, cloud = both_arms()
    comparison = compared(on_prem, [timed(cloud[0], 1e15), *cloud[1:]])
    assert verdict_per_picture(comparison).startswith("cannot tell")


def test_the_ratio_is_cloud_over_on_prem_and_its_mean_is_geometric():
    on_prem = [on_prem_row("a", proc_ms=10.0), on_prem_row("b", proc_ms=10.0)]
    comparison = compared(on_prem, [row("a", proc_ms=5.0), row("b", proc_ms=80.0)])
    assert comparison.ratios.tolist() == [0.5, 8.0]
    assert comparison.per_picture.ratio == pytest.approx(2.0)


def test_the_headline_is_the_interval_of_the_log_ratios_by_picture_and_round():
    random = np.random.default_rng(1)
    logs = random.normal(0.3, 0.1, (4, 3))
    cells = list(np.ndindex(logs.shape))
    on_prem = [on_prem_row(f"{i}", round=r + 1, proc_ms=10.0, cpu_ms=5.0) for i, r in cells]
    ratios = [(i, r, float(np.exp(logs[i, r]))) for i, r in cells]
    cloud = [row(f"{i}", round=r + 1, proc_ms=10 * x, cpu_ms=10 * x) for i, r, x in ratios]
    random.shuffle(cloud)
    comparison = compared(on_prem, cloud)
    expected = estimate_ratio(logs)
    assert dataclasses.astuple(comparison.per_picture) == pytest.approx(
        dataclasses.astuple(expected)
    )
    assert comparison.per_picture_cpu.ratio == pytest.approx(2 * expected.ratio)
    assert 0 < comparison.signed_rank_p < 1


def test_unknown_cpu_times_leave_their_pictures_out_of_the_processor_ratio_only():
    on_prem, cloud = both_arms("a", "b", "c")
    on_prem[0] = dataclasses.replace(on_prem[0], cpu_ms=0.0)
    comparison = compared(on_prem, cloud)
    assert (comparison.per_picture.pictures, comparison.per_picture_cpu.pictures) == (3, 2)


def test_on_prem_passes_are_compared_with_each_other_by_the_same_code():
    passes = [on_prem_row(key, round=number) for key in "abc" for number in range(1, 5)]
    comparison = compare(*split_passes(frame(passes)), arms=ARMS_OF_SELF_CHECK)
    assert problems(comparison) == []
    assert (comparison.per_picture.pictures, comparison.per_picture.rounds) == (3, 2)
    assert comparison.per_picture.ratio == 1
    assert "this machine" in verdict_per_picture(comparison)


# --- whatever the rows --------------------------------------------------------------------------

any_row = st.builds(
    dict,
    image_key=st.sampled_from("ab"),
    round=st.sampled_from([1, 3]),
    run_id=st.sampled_from(["run", "run", "run", "old"]),
    status=st.sampled_from(["ok", "ok", "ok", "error"]),
    proc_ms=st.sampled_from([0.001, 12.5, 12.6, 1e12]),
    cpu_ms=st.sampled_from([0.0, 12.5]),
    timestamp=st.sampled_from([at(1), at(2), ""]),
    cold_start=st.booleans(),
)
any_rows = st.lists(any_row, min_size=1, max_size=8)


@given(any_rows, any_rows, st.none() | st.just(manifest_of("ab")), st.booleans())
@settings(deadline=None, max_examples=30)
def test_any_readable_rows_are_judged_in_words(on_prem, cloud, manifest, allow_partial):
    assume(any(fields.get("run_id", "run") == "run" for fields in (*on_prem, *cloud)))
    comparison = compared(
        [on_prem_row(**fields) for fields in on_prem],
        [row(**fields) for fields in cloud],
        manifest=manifest,
        run_id="run",
        allow_partial=allow_partial,
    )
    said = verdict_per_picture(comparison)
    assert said.startswith("not comparable: ") == bool(comparison.problems)
    assert "nan" not in said + verdict_whole_job(comparison)
    for text in (table, ledger_line, equivalence_line, ratio_line):
        assert isinstance(text(comparison), str)
    assert isinstance(comparison.merged, pd.DataFrame)
    assert len(comparison.pairs) <= 4
    assert comparison.is_partial == (comparison.ledger.completeness < 1)
