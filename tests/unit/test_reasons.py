"""Why pictures failed: each reason once, with all of its pictures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics.common.reasons import MAX_REASONS, Failure, failure_findings, failures_by_reason

IDS = ("8f14e45f-ceea-467f-a9c1-2b1f3a4d5e6f", "0cc175b9-c0f1-4a2b-8c3d-9e8f7a6b5c4d")
ALIKE = {
    "numbers": ("2000x9000 pixels are too many", "30000x7000 pixels are too many"),
    "request ids": tuple(f"RequestId: {one} Error: signal: killed" for one in IDS),
    "folders": tuple(f"/task/w-{one}/PIL/_imaging.so: failed to map" for one in ("ab", "cd")),
    "times": ("Task timed out after 60.00 seconds", "Task timed out after 60.01 seconds"),
}


def reasons(*failed: tuple[str, str]) -> list[tuple[str, list[str]]]:
    return [(one.reason, one.pictures) for one in failures_by_reason(failed)]


def test_pictures_with_the_same_error_are_one_reason_and_the_commonest_comes_first():
    failed = [("a", "OSError: x"), ("b", "ValueError: y"), ("c", "ValueError: y")]
    assert reasons(*failed) == [("ValueError: y", ["b", "c"]), ("OSError: x", ["a"])]


@pytest.mark.parametrize("texts", ALIKE.values(), ids=ALIKE)
def test_errors_that_differ_in_numbers_ids_or_folders_only_are_one_reason(texts):
    ((reason, pictures),) = reasons(("a", texts[0]), ("b", texts[1]))
    assert (reason, pictures) == (f"{min(texts)} (and alike)", ["a", "b"])


def test_errors_of_another_class_or_wording_stay_apart():
    assert len(reasons(("a", "OSError: x"), ("b", "IOError: x"), ("c", "OSError: y"))) == 3


def test_a_picture_that_failed_in_every_round_is_named_once_and_its_rows_are_counted():
    (failure,) = failures_by_reason([("a", "OSError: x")] * 4)
    assert (failure.rows, failure.pictures) == (4, ["a"])


def test_a_row_without_an_error_has_that_for_its_reason():
    assert reasons(("a", "")) == [("no reason in its row", ["a"])]


@given(st.text())
def test_a_reason_is_one_printable_line_of_bounded_length(error):
    ((reason, _),) = reasons(("a", error * 50))
    assert reason.isprintable()
    assert len(reason) < 3000  # 280 characters, of which each may be an escape of ten


def test_of_a_long_error_class_and_cause_are_kept():
    ((reason, _),) = reasons(("a", "ImportError: " + "x" * 1000 + " failed to map segment"))
    assert reason.startswith("ImportError: x")
    assert reason.endswith("x failed to map segment")


def test_what_a_terminal_might_act_on_is_written_as_its_escape():
    ((reason, _),) = reasons(("a", "OSError: \x1b[2J"))
    assert reason == r"'OSError: \x1b[2J'"


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.text(max_size=3)), max_size=40))
def test_no_picture_and_no_row_is_lost_among_reasons_and_findings(failed):
    found = failures_by_reason(failed)
    assert sum(one.rows for one in found) == len(failed)
    pictures = {key for key, _ in failed}
    assert {key for one in found for key in one.pictures} == pictures
    findings = failure_findings("on-prem", found)
    assert {key for one in findings for key in one.names} == pictures
    assert len(findings) <= MAX_REASONS + 1


def test_a_finding_says_who_how_many_why_and_which():
    failures = [Failure("OSError: x", False, 7, list("abcdefg"))]
    (finding,) = failure_findings("the cloud", failures)
    assert str(finding) == (
        "the cloud: 7 pictures failed (OSError: x): 'a', 'b', 'c', 'd', 'e' and 2 more"
    )


def test_beyond_the_commonest_reasons_the_others_are_one_line():
    failures = [Failure("x" * n, False, 1, [f"{n}.jpg"]) for n in range(1, MAX_REASONS + 4)]
    *_, rest = failure_findings("on-prem", failures)
    assert rest.text == "on-prem: 3 pictures failed for 3 other reasons"
