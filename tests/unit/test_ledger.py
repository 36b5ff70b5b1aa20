"""The ledger: every row and every picture is in exactly the place that its state gives it."""

import contextlib
import json
from collections import Counter, namedtuple

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.analysis.ledger import (
    JOIN,
    Ledger,
    Manifest,
    parse_manifest,
    read_manifest,
    reconcile,
)
from metrics.common.cli import UserError
from onprem_images.dataset import manifest_bytes

pytestmark = pytest.mark.filterwarnings("error")

ARMS = ("on_prem", "cloud")
Row = namedtuple("Row", "image_key round run_id status", defaults=(1, "run", "ok"))
Input = namedtuple("Input", "image_key size sha256", defaults=(10, "ab"))
A, B, LATE_A = Row("a"), Row("b"), Row("a", run_id="old")


def frame(rows: list[Row]) -> pd.DataFrame:
    columns = pd.DataFrame(rows, columns=Row._fields).astype({"image_key": object, "round": int})
    return columns.astype({"run_id": "category", "status": "category"})


def manifest_of(keys: str, rounds: int = 1) -> Manifest:
    return parse_manifest(manifest_bytes("run", rounds, [Input(key) for key in keys]))


def stock(on_prem: list[Row], cloud: list[Row], manifest: Manifest | None = None):
    rows = {"on_prem": frame(on_prem), "cloud": frame(cloud)}
    return reconcile(rows, "run", manifest)


def counts_of(ledger: Ledger, arm: str, number: int = 1) -> dict[str, int]:
    """The counts of an arm in a round that are not 0."""
    counts = ledger.counts[(ledger.counts["arm"] == arm) & (ledger.counts["round"] == number)]
    (line,) = counts.drop(columns=["arm", "round"]).to_dict("records")
    return {name: count for name, count in line.items() if count}


def who(rows: pd.DataFrame) -> list[tuple]:
    return list(rows[JOIN].itertuples(index=False, name=None))


# --- states, one by one -------------------------------------------------------------------------

DONE = {"expected": 2, "done": 2}
STATES = {
    "done": ([A, B], DONE, {}),
    "in another order": ([B, A], DONE, {}),
    "failed": ([A, Row("b", status="error")], {"expected": 2, "done": 1, "failed": 1}, {}),
    "missing": ([A], {"expected": 2, "done": 1, "missing": 1}, {"missing": ["b"]}),
    "duplicate": ([A, B, A], DONE | {"duplicate": 1}, {"duplicate": ["a"]}),
    "twice duplicate": ([A, A, B, A], DONE | {"duplicate": 2}, {"duplicate": ["a", "a"]}),
    "late": ([A, LATE_A, B], DONE, {"late": ["a"]}),
    "late instead": (
        [B, LATE_A],
        {"expected": 2, "done": 1, "missing": 1},
        {"late": ["a"], "missing": ["a"]},
    ),
    "unknown picture": ([A, B, Row("z")], DONE, {"unknown": ["z"]}),
    "unknown round": ([A, B, Row("a", 2)], DONE, {"unknown": ["a"]}),
    "unknown twice": ([A, B, Row("z"), Row("z")], DONE, {"unknown": ["z", "z"]}),
    "late and unknown": ([A, B, Row("z", run_id="old")], DONE, {"late": ["z"]}),
    "nothing": ([], {"expected": 2, "missing": 2}, {"missing": ["a", "b"]}),
    "all at once": (
        [LATE_A, Row("a", status="error"), A, Row("z"), Row("b", 2)],
        {"expected": 2, "failed": 1, "missing": 1, "duplicate": 1},
        {"late": ["a"], "duplicate": ["a"], "unknown": ["z", "b"], "missing": ["b"]},
    ),
}


@pytest.mark.parametrize(("rows", "counts", "named"), STATES.values(), ids=STATES)
@pytest.mark.parametrize("arm", ARMS)
def test_each_state_is_counted_and_named_in_its_arm_and_in_no_other(arm, rows, counts, named):
    other = ARMS[arm == "on_prem"]
    by_arm = {arm: rows, other: [A, B]}
    ledger, counted = stock(by_arm["on_prem"], by_arm["cloud"], manifest_of("ab"))
    assert counts_of(ledger, arm) == counts
    assert counts_of(ledger, other) == DONE
    for state in ("missing", "duplicate", "late", "unknown"):
        by_state = getattr(ledger, state)
        assert list(by_state[arm]["image_key"]) == named.get(state, []), state
        assert by_state[other].empty, state
    accounted = counts.get("done", 0) + counts.get("failed", 0)
    assert (ledger.expected, ledger.accounted) == (4, 2 + accounted)
    assert ledger.completeness == pytest.approx((2 + accounted) / 4)
    assert len(counted[arm]) == accounted


def test_of_several_rows_of_a_picture_the_first_counts():
    first_failed = [Row("a", status="error"), A]
    _, counted = stock(first_failed, first_failed[::-1], manifest_of("a"))
    assert [counted[arm]["status"].tolist() for arm in ARMS] == [["error"], ["ok"]]


def test_a_late_row_is_never_taken_for_the_first_of_its_picture():
    _, counted = stock([LATE_A._replace(status="error"), A], [A])
    assert counted["on_prem"]["status"].tolist() == ["ok"]


def test_states_are_counted_round_by_round():
    on_prem = [A, B, Row("a", 2), Row("a", 3, status="error"), Row("b", 3), Row("b", 3)]
    ledger, _ = stock(on_prem, [Row(k, r) for r in (3, 1, 2) for k in "ba"], manifest_of("ab", 3))
    assert counts_of(ledger, "on_prem", 1) == DONE
    assert counts_of(ledger, "on_prem", 2) == {"expected": 2, "done": 1, "missing": 1}
    assert counts_of(ledger, "on_prem", 3) == DONE | {"done": 1, "failed": 1, "duplicate": 1}
    assert all(counts_of(ledger, "cloud", number) == DONE for number in (1, 2, 3))
    assert who(ledger.missing["on_prem"]) == [("b", 2)]
    assert ledger.completeness == pytest.approx(11 / 12)
    assert ledger.counts["round"].tolist() == [1, 2, 3] * 2


# --- what is expected ---------------------------------------------------------------------------


def test_without_a_manifest_all_pictures_and_rounds_of_either_arm_are_expected():
    ledger, _ = stock([A, B], [Row("b"), Row("c", 3)])
    assert not ledger.from_manifest
    assert who(ledger.missing["on_prem"]) == [("c", 1), ("a", 3), ("b", 3), ("c", 3)]
    assert who(ledger.missing["cloud"]) == [("a", 1), ("c", 1), ("a", 3), ("b", 3)]
    assert ledger.expected == 12
    assert all(rows.empty for rows in ledger.unknown.values())


def test_without_a_manifest_rows_of_other_runs_make_nothing_expected():
    ledger, _ = stock([A], [A, Row("z", run_id="old"), Row("a", 2, run_id="old")])
    assert (ledger.expected, ledger.completeness) == (2, 1)


def test_only_a_manifest_knows_of_a_picture_that_neither_arm_has():
    assert stock([A], [A])[0].completeness == 1
    ledger, _ = stock([A], [A], manifest_of("ab"))
    assert ledger.from_manifest
    assert ledger.completeness == 0.5


def test_a_picture_that_the_manifest_names_twice_is_expected_once():
    assert stock([A], [A], manifest_of("aa"))[0].completeness == 1


@pytest.mark.parametrize("manifest", [None, manifest_of("")], ids=["no manifest", "an empty one"])
def test_a_run_without_any_row_of_its_own_is_covered_by_nothing(manifest):
    ledger, counted = stock([LATE_A], [], manifest)
    assert (ledger.expected, ledger.accounted, ledger.completeness) == (0, 0, 0)
    assert all(rows.empty for rows in counted.values())


# --- all states in any combination, against a ledger kept with plain sets ------------------------

any_row = st.builds(
    Row,
    st.sampled_from("abcz"),
    st.integers(1, 3),
    st.sampled_from(["run", "run", "run", "old"]),
    st.sampled_from(["ok", "ok", "error"]),
)
any_rows = st.lists(any_row, max_size=12)


@given(any_rows, any_rows, st.none() | st.builds(manifest_of, st.just("abc"), st.integers(1, 2)))
@settings(deadline=None, max_examples=60)
def test_any_mixture_of_states_is_kept_as_plain_sets_would(on_prem, cloud, manifest):
    ledger, counted = stock(on_prem, cloud, manifest)
    own = [r for r in on_prem + cloud if r.run_id == "run"]
    keys = set("abc") if manifest else {r.image_key for r in own}
    rounds = range(1, manifest.rounds + 1) if manifest else {r.round for r in own}
    expected = {(key, number) for key in keys for number in rounds}
    for arm, rows in zip(ARMS, (on_prem, cloud), strict=True):
        seen, late, unknown, duplicate, states = set(), [], [], [], Counter()
        for r in rows:
            if r.run_id != "run":
                late.append(r[:2])
            elif r[:2] not in expected:
                unknown.append(r[:2])
            elif r[:2] in seen:
                duplicate.append(r[:2])
            else:
                seen.add(r[:2])
                states[r.round, "done" if r.status == "ok" else "failed"] += 1
        assert who(ledger.late[arm]) == late
        assert who(ledger.unknown[arm]) == unknown
        assert who(ledger.duplicate[arm]) == duplicate
        assert sorted(who(ledger.missing[arm])) == sorted(expected - seen)
        assert sorted(who(counted[arm])) == sorted(seen)
        for number in rounds:
            counts = Counter(counts_of(ledger, arm, number))
            assert counts["expected"] == len(keys)
            assert counts["done"] == states[number, "done"]
            assert counts["failed"] == states[number, "failed"]
            assert counts["missing"] == len(keys) - counts["done"] - counts["failed"]
            assert counts["duplicate"] == sum(where[1] == number for where in duplicate)
    assert 0 <= ledger.completeness <= 1
    complete = expected and all(rows.empty for rows in ledger.missing.values())
    assert (ledger.completeness == 1) == bool(complete)


# --- the manifest -------------------------------------------------------------------------------


@given(
    st.text(),
    st.integers(1, 99),
    st.lists(st.builds(Input, st.text(), st.integers(0, 2**53), st.text("0123456789abcdef"))),
)
def test_a_manifest_reads_back_as_it_was_written(run_id, rounds, pictures):
    try:
        data = manifest_bytes(run_id, rounds, pictures)
    except UnicodeEncodeError:  # names that are not UTF-8 are refused before there is a run
        return
    back = parse_manifest(data)
    assert (back.run_id, back.rounds) == (run_id, rounds)
    assert list(back.pictures.itertuples(index=False, name=None)) == pictures


def hostile(**fields: object) -> bytes:
    picture = {"image_key": "a", "size": 1, "sha256": "ab"}
    content = {"run_id": "run", "rounds": 1, "pictures": [picture]} | fields
    return json.dumps({name: value for name, value in content.items() if value != "gone"}).encode()


NO_MANIFEST = {
    "nothing": b"",
    "not UTF-8": b"\xff{}",
    "no JSON": b"{",
    "a list": b"[]",
    "null": b"null",
    "a number": b"3",
    "nested too deeply": b"[" * 100_000,
    "no run id": hostile(run_id="gone"),
    "a run id that is no text": hostile(run_id=3),
    "no pictures": hostile(pictures="gone"),
    "pictures null": hostile(pictures=None),
    "pictures as text": hostile(pictures="abc"),
    "pictures that are numbers": hostile(pictures=[1, 2]),
    "pictures that are texts": hostile(pictures=["a"]),
    "a picture without key": hostile(pictures=[{"size": 1, "sha256": ""}]),
    "a key that is a number": hostile(pictures=[{"image_key": 1, "size": 1, "sha256": ""}]),
    "a key that is a list": hostile(pictures=[{"image_key": ["a"], "size": 1, "sha256": ""}]),
    "a picture without size": hostile(pictures=[{"image_key": "a", "sha256": ""}]),
    "a size that is text": hostile(pictures=[{"image_key": "a", "size": "1", "sha256": ""}]),
    "rounds as text": hostile(rounds="two"),
    "rounds null": hostile(rounds=None),
    "no round": hostile(rounds=0),
    "rounds below 0": hostile(rounds=-1),
    "half a round": hostile(rounds=1.5),
    "endless rounds": hostile(rounds=float("inf")),
    "more rounds than memory": hostile(rounds=10**12),
}


@pytest.mark.parametrize("data", NO_MANIFEST.values(), ids=NO_MANIFEST)
def test_what_is_no_manifest_is_refused_in_one_line_that_names_the_file(tmp_path, data):
    path = tmp_path / "manifest.json"
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_manifest(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_manifest_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=r"manifest\.json does not exist"):
        read_manifest(tmp_path / "manifest.json")


def test_a_manifest_that_does_not_tell_of_rounds_is_of_one():
    assert parse_manifest(hostile(rounds="gone")).rounds == 1


@given(st.binary(max_size=40) | st.recursive(st.none() | st.integers() | st.text(), st.lists))
def test_whatever_is_no_manifest_raises_one_of_the_errors_that_are_promised(content):
    data = content if isinstance(content, bytes) else hostile(pictures=content)
    with contextlib.suppress(ValueError, KeyError, TypeError):
        parse_manifest(data)
