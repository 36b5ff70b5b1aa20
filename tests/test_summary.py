"""Reading rows strictly, joining them, and what may be said about the two arms."""

import dataclasses
import math
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rows import row

from lambda_function.metrics_log import COLUMNS, HEADER, MetricRow, rows_to_csv
from metrics.script import UserError
from metrics.summary import (
    DRIFT_ALLOWANCE,
    Comparison,
    compare,
    geometric_mean,
    read_rows,
    summarise,
    table,
    verdict,
)

REFERENCE_HEADER = "timestamp,image_key,orig_size,new_size,proc_ms"
HOSTILE_KEYS = [
    *("a,b.jpg", 'say "x".jpg', "new\nline.jpg", "lone\rreturn.jpg", "both\r\n.jpg"),
    *("NA", "null", "nan", "001", "1e5", "True", " lead and trail ", "é/日本.jpg", "input/a.jpg"),
]


def file_of(folder: Path, text: str) -> Path:
    path = folder / "rows.csv"
    path.write_bytes(text.encode())
    return path


def frame(rows: list[MetricRow]) -> pd.DataFrame:
    with tempfile.TemporaryDirectory() as folder:
        path = file_of(Path(folder), HEADER + rows_to_csv(rows))
        return read_rows(path, rows[0].source)


def compared(on_prem: list[MetricRow], cloud: list[MetricRow]) -> Comparison:
    return compare(frame(on_prem), frame(cloud))


def on_prem_row(image_key: str = "a.jpg", **fields: object) -> MetricRow:
    return row(image_key, **({"source": "on_prem", "environment": "local"} | fields))


# --- reading ------------------------------------------------------------------------------------


def test_a_reference_file_of_five_columns_is_read_with_keys_freed_of_the_bucket_prefix(tmp_path):
    text = f"{REFERENCE_HEADER}\n2025-11-20T10:00:00Z,input/a.jpg,1000,1000,1.75\n"
    rows = read_rows(file_of(tmp_path, text), "cloud")
    assert tuple(rows.columns) == COLUMNS
    (only,) = rows.to_dict("records")
    assert (only["image_key"], only["orig_size"], only["proc_ms"]) == ("a.jpg", 1000, 1.75)
    assert (only["source"], only["status"], only["round"]) == ("cloud", "ok", 1)
    assert (only["run_id"], only["cold_start"], only["output_sha256"]) == ("", False, "")
    assert math.isnan(only["fetch_ms"])


@pytest.mark.parametrize("source", ["on_prem", "cloud"])
def test_a_picture_in_a_folder_called_input_keeps_its_folder(tmp_path, source):
    prefix = "input/" if source == "cloud" else ""
    text = f"{REFERENCE_HEADER}\n2025-11-20T10:00:00Z,{prefix}input/a.jpg,1,1,1\n"
    assert list(read_rows(file_of(tmp_path, text), source)["image_key"]) == ["input/a.jpg"]
    assert list(frame([row("input/a.jpg", source=source)])["image_key"]) == ["input/a.jpg"]


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "BOM"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_a_byte_order_mark_and_either_line_end_make_no_difference(tmp_path, mark, end):
    lines = [REFERENCE_HEADER, "2025-11-20,a.jpg,10,5,1.5", "2025-11-20,b.jpg,20,6,2.5", ""]
    rows = read_rows(file_of(tmp_path, mark + end.join(lines)), "on_prem")
    assert list(rows["image_key"]) == ["a.jpg", "b.jpg"]
    assert list(rows["proc_ms"]) == [1.5, 2.5]


def test_hostile_keys_are_texts_and_stay_as_they_are():
    rows = [on_prem_row(key, proc_ms=1.0 + n) for n, key in enumerate(HOSTILE_KEYS)]
    assert list(frame(rows)["image_key"]) == HOSTILE_KEYS
    comparison = compared(rows, [dataclasses.replace(r, source="cloud") for r in rows])
    assert comparison.problems == []
    assert sorted(comparison.pairs["image_key"]) == sorted(HOSTILE_KEYS)


TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
SIZES = st.integers(0, 2**53)
TIMES = st.floats(0.001, 1e12)
ROWS = st.builds(
    row,
    TEXTS,
    orig_size=SIZES,
    new_size=SIZES,
    proc_ms=TIMES,
    fetch_ms=TIMES,
    cpu_ms=st.floats(0, 1e12),
    round=st.integers(1, 1000),
    status=st.sampled_from(["ok", "error"]),
    error=TEXTS,
    worker=TEXTS,
    cold_start=st.booleans(),
    source=st.sampled_from(["on_prem", "cloud"]),
)


@given(st.lists(ROWS, min_size=1, max_size=5))
@example([row(key) for key in HOSTILE_KEYS])
def test_rows_survive_being_written_and_read(rows):
    read = frame(rows).to_dict("records")
    for written, back in zip(map(dataclasses.asdict, rows), read, strict=True):
        for column, value in written.items():
            if isinstance(value, float):
                assert back[column] == pytest.approx(value, rel=1e-12)
            else:
                assert str(back[column]) == str(value)


def test_an_empty_cell_is_unknown_where_the_reference_run_has_no_such_column(tmp_path):
    text = f"{REFERENCE_HEADER},run_id,cpu_ms,store_ms\n2025-11-20,a,1,1,1,r,,\n"
    rows = read_rows(file_of(tmp_path, text), "cloud")
    assert rows[["cpu_ms", "store_ms"]].isna().all(axis=None)


GOOD = "2025-11-20,a.jpg,10,5,1.5"
UNREADABLE = {
    "nothing": ("", "holds no row"),
    "only a header": (f"{REFERENCE_HEADER}\n", "holds no row"),
    "a column less": ("timestamp,image_key,orig_size,new_size\nx,a,1,1\n", "no column 'proc_ms'"),
    "a column twice": (f"{REFERENCE_HEADER},proc_ms\n{GOOD},7\n", "more than one column 'proc_ms'"),
    "a short record": (f"{REFERENCE_HEADER}\n{GOOD}\nx,b,1\n", "line 3: 3 columns"),
    "a long record": (f"{REFERENCE_HEADER}\n{GOOD}\n{GOOD},9\n", "line 3: 6 columns"),
    "a broken quote": (f'{REFERENCE_HEADER}\n{GOOD}\nx,"b"c,1,1,1\n', "line 3: "),
    "an open quote": (f'{REFERENCE_HEADER}\n{GOOD}\nx,"b,1,1,1\n', "line 3: "),
    "two header lines": (
        f"{REFERENCE_HEADER}\n{REFERENCE_HEADER}\n{GOOD}\n",
        "line 2, column orig_size: 'orig_size' is no valid number",
    ),
    "a line of a key with new lines": (
        f'{REFERENCE_HEADER}\nx,"a\nb\nc",1,1,1\nx,d,1,1,bad\n',
        "line 5, column proc_ms: 'bad'",
    ),
}


@pytest.mark.parametrize(("text", "reason"), UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_file_is_refused_by_name_and_line(tmp_path, text, reason):
    with pytest.raises(UserError) as caught:
        read_rows(file_of(tmp_path, text), "on_prem")
    assert str(tmp_path / "rows.csv") in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.parametrize("cell", ["fast", "-1", "nan", "inf", "-inf", "", "1,5", "1e999", "0x10"])
@pytest.mark.parametrize("column", ["orig_size", "new_size", "proc_ms"])
def test_a_cell_that_is_no_number_is_named_by_line_and_column(tmp_path, column, cell):
    cells = {"timestamp": "x", "image_key": "a", "orig_size": "1", "new_size": "1", "proc_ms": "1"}
    bad = cells | {column: f'"{cell}"'}
    lines = [REFERENCE_HEADER, ",".join(cells.values()), ",".join(bad.values())]
    with pytest.raises(UserError) as caught:
        read_rows(file_of(tmp_path, "\n".join(lines)), "on_prem")
    assert f"rows.csv, line 3, column {column}: {cell!r} is no valid number" in str(caught.value)


def test_a_picture_that_took_no_time_is_refused_unless_it_failed():
    assert frame([row(proc_ms=0.0, status="error")])["proc_ms"].tolist() == [0]
    with pytest.raises(UserError, match=r"line 2, column proc_ms: '0\.0'"):
        frame([row(proc_ms=0.0)])


def test_a_file_that_is_not_utf8_or_not_there_is_refused_by_name(tmp_path):
    path = tmp_path / "rows.csv"
    with pytest.raises(UserError, match=r"rows\.csv does not exist; run onprem_images/local_image"):
        read_rows(path, "on_prem")
    path.write_bytes(f"{REFERENCE_HEADER}\nx,caf\xe9.jpg,1,1,1\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"rows\.csv is not UTF-8"):
        read_rows(path, "on_prem")


# --- joining and judging ------------------------------------------------------------------------


def test_equal_work_on_equal_pictures_has_no_problem():
    keys = ["a", "b", "c"]
    comparison = compared([on_prem_row(key) for key in keys], [row(key) for key in reversed(keys)])
    assert comparison.problems == []
    assert list(comparison.pairs["image_key"]) == keys


def test_pictures_missing_in_either_arm_are_counted_and_named():
    comparison = compared([on_prem_row(k) for k in "abc"], [row(k) for k in "cd"])
    assert comparison.problems == [
        "2 of 4 pictures have no cloud row: 'a', 'b'",
        "1 of 4 pictures have no on_prem row: 'd'",
    ]
    assert sorted(comparison.merged["image_key"]) == ["a", "b", "c", "d"]
    assert list(comparison.pairs["image_key"]) == ["c"]


def test_of_many_missing_pictures_five_are_named_and_all_are_counted():
    on_prem = [on_prem_row(f"{n:02}") for n in range(12)]
    (problem,) = compared(on_prem, [row("00")]).problems
    assert problem.startswith("11 of 12 pictures have no cloud row: '01', '02'")
    assert problem.endswith("'05' and 6 more")


@pytest.mark.parametrize("arm", ["on_prem", "cloud"])
def test_a_second_row_of_a_picture_is_a_problem_and_makes_no_second_pair(arm):
    rows = {"on_prem": [on_prem_row("a"), on_prem_row("b")], "cloud": [row("a"), row("b")]}
    rows[arm].append(dataclasses.replace(rows[arm][0], proc_ms=99.0))
    comparison = compared(**rows)
    assert comparison.problems == [f"more than one {arm} row for 'a'"]
    assert len(comparison.pairs) == 2


def test_rounds_of_a_picture_are_joined_round_by_round():
    on_prem = [on_prem_row(round=1, proc_ms=1.0), on_prem_row(round=2, proc_ms=2.0)]
    comparison = compared(on_prem, [row(round=2, proc_ms=6.0), row(round=1, proc_ms=5.0)])
    assert comparison.problems == []
    assert comparison.ratios.tolist() == [5.0, 3.0]


@pytest.mark.parametrize(
    "cloud", [[row("a"), row("b", run_id="old")], [row(k, run_id="old") for k in "ab"]]
)
def test_rows_of_another_run_are_a_problem_that_names_both_runs(cloud):
    (problem,) = compared([on_prem_row("a"), on_prem_row("b")], cloud).problems
    assert problem.startswith("rows of different runs are mixed: ")
    assert "'run'" in problem
    assert f"{sum(r.run_id == 'old' for r in cloud)} of 'old'" in problem


FAILED = {"status": "error", "new_size": 0, "output_sha256": ""}
OTHER_WORK = {
    "output": ({"output_sha256": "cd" * 32}, "the output differs for 1 pictures: 'b'"),
    "hash in one arm": ({"output_sha256": ""}, "the output differs for 1 pictures: 'b'"),
    "input size": ({"orig_size": 7}, "the input differs in size for 1 pictures: 'b'"),
    "transform": ({"transform": "v2"}, "other transform versions for 1 pictures: 'b'"),
    "failure": (FAILED, "the arms differ in success or error for 1 pictures: 'b'"),
}


@pytest.mark.parametrize(("fields", "reason"), OTHER_WORK.values(), ids=OTHER_WORK)
def test_other_work_on_a_picture_is_a_problem_that_names_it(fields, reason):
    on_prem = [on_prem_row(key) for key in "abc"]
    (problem,) = compared(on_prem, [row("a"), row("b", **fields), row("c")]).problems
    assert problem.startswith(reason)
    mirrored = [on_prem_row("a"), on_prem_row("b", **fields), on_prem_row("c")]
    (problem,) = compared(mirrored, [row(key) for key in "abc"]).problems
    assert problem.startswith(reason)


def test_failing_alike_is_no_problem_though_the_wording_differs_but_another_class_is():
    def errors(on_prem: str, cloud: str) -> list[str]:
        failed = on_prem_row("b", error=on_prem, **FAILED)
        return compared([on_prem_row("a"), failed], [row("a"), row("b", error=cloud, **FAILED)])

    assert errors("OSError: broken", "OSError: truncated: 7 bytes").problems == []
    (problem,) = errors("OSError: broken", "MemoryError: broken").problems
    assert problem == "the arms differ in success or error for 1 pictures: 'b'"


@pytest.mark.parametrize("arm", ["on_prem", "cloud"])
def test_an_arm_that_changed_no_picture_is_a_problem(arm):
    rows = {"on_prem": [on_prem_row(k) for k in "ab"], "cloud": [row(k) for k in "ab"]}
    rows[arm] = [dataclasses.replace(r, new_size=r.orig_size) for r in rows[arm]]
    problem = f"no picture was changed in the {arm} arm: new_size equals orig_size"
    assert compared(**rows).problems == [problem]  # the hashes are equal: made from one template
    rows[arm][0] = dataclasses.replace(rows[arm][0], new_size=500)
    assert compared(**rows).problems == []


def test_arms_without_a_common_picture_are_not_comparable():
    comparison = compared([on_prem_row("a")], [row("b")])
    assert "no picture was processed in both arms" in comparison.problems
    assert verdict(comparison) == "not comparable: 3 problems, see above"


def test_arms_in_which_every_picture_failed_are_not_comparable():
    comparison = compared([on_prem_row(**FAILED)], [row(**FAILED)])
    assert comparison.problems == ["no picture was processed in both arms"]
    assert verdict(comparison) == "not comparable: 1 problem, see above"
    assert "nan" in table(comparison)


def test_the_shape_of_the_reference_run_is_not_comparable_for_both_its_reasons(tmp_path):
    def lines(count: int, prefix: str, new_size: int, proc_ms: float) -> str:
        records = [
            f"2025-11-20T10:00:{n % 60:02}.{n:06}Z,{prefix}{n:04}.jpg,{10_000 + n},"
            f"{new_size or 10_000 + n},{proc_ms}"
            for n in range(count)
        ]
        return "\n".join([REFERENCE_HEADER, *records, ""])

    on_prem = read_rows(file_of(tmp_path, lines(501, "", 4_000, 99.1)), "on_prem")
    cloud = read_rows(file_of(tmp_path, lines(169, "input/", 0, 1.75)), "cloud")
    comparison = compare(on_prem, cloud)
    said = "\n".join(comparison.problems)
    assert "332 of 501 pictures have no cloud row: '0169.jpg'" in said
    assert "no picture was changed in the cloud arm: new_size equals orig_size" in said
    assert "the output differs in size for 169 pictures" in said
    assert verdict(comparison).startswith("not comparable")
    assert (comparison.on_prem.rows, comparison.cloud.rows) == (501, 169)


# --- numbers ------------------------------------------------------------------------------------


def at(seconds: float) -> str:
    return f"2026-01-02T03:04:{seconds:06.3f}+00:00"


PHASES = {"fetch_ms": 100.0, "store_ms": 200.0}


def test_the_summary_of_an_arm_is_what_a_hand_computes():
    rows = [
        row("a", timestamp=at(0), proc_ms=1000.0, cold_start=True, **PHASES),  # ends at 1.3
        row("b", timestamp=at(0.5), proc_ms=3000.0, **PHASES),  # ends at 3.8, the last
        row("c", timestamp=at(2), proc_ms=500.0, **PHASES),  # began last, ends at 2.8
    ]
    summary = summarise(frame(rows), "cloud")
    assert (summary.rows, summary.failed, summary.cold_starts) == (3, 0, 1)
    assert (summary.mean_ms, summary.median_ms) == (1500, 1000)
    assert summary.p95_ms == pytest.approx(1000 + 0.9 * 2000)
    assert summary.busy_s == pytest.approx(4.5)
    assert summary.makespan_s == pytest.approx(3.8)
    assert summary.pictures_per_s == pytest.approx(3 / 3.8)
    assert (summary.source, summary.environment) == ("cloud", "embedded")


def test_a_failed_picture_counts_in_the_makespan_but_not_in_the_times():
    rows = [
        row("a", timestamp=at(0), proc_ms=100.0, **PHASES),
        row("b", timestamp=at(5), proc_ms=700.0, **PHASES, status="error"),
    ]
    summary = summarise(frame(rows), "cloud")
    assert (summary.rows, summary.failed) == (2, 1)
    assert (summary.mean_ms, summary.median_ms, summary.p95_ms) == (100, 100, 100)
    assert summary.busy_s == pytest.approx(0.1)
    assert summary.makespan_s == pytest.approx(6.0)


def test_the_makespan_reads_time_zones():
    rows = [
        row("a", timestamp="2026-01-02T03:00:00+01:00", proc_ms=1000.0, **PHASES),
        row("b", timestamp="2026-01-02T02:00:01Z", proc_ms=1000.0, **PHASES),
    ]
    assert summarise(frame(rows), "cloud").makespan_s == pytest.approx(2.3)


@pytest.mark.parametrize("timestamp", ["", "yesterday", "2026-13-45", "1e99"])
def test_an_unreadable_timestamp_makes_the_makespan_unknown_and_nothing_fails(timestamp):
    on_prem = [on_prem_row("a", timestamp=at(1)), on_prem_row("b", timestamp=timestamp)]
    comparison = compared(on_prem, [row("a"), row("b")])
    assert math.isnan(comparison.on_prem.makespan_s)
    assert math.isnan(comparison.on_prem.pictures_per_s)
    assert comparison.problems == []
    assert table(comparison).count("nan") == 2


def test_a_time_beyond_any_calendar_does_not_fail():
    assert summarise(frame([row(proc_ms=1e300)]), "cloud").makespan_s == pytest.approx(1e297)


def test_the_ratio_is_cloud_over_on_prem_and_its_mean_is_geometric():
    on_prem = [on_prem_row("a", proc_ms=10.0), on_prem_row("b", proc_ms=10.0)]
    comparison = compared(on_prem, [row("a", proc_ms=5.0), row("b", proc_ms=80.0)])
    assert comparison.ratios.tolist() == [0.5, 8.0]
    assert geometric_mean(comparison.ratios) == pytest.approx(2.0)


def test_the_table_has_a_line_for_each_arm():
    comparison = compared([on_prem_row(proc_ms=10.0)], [row(proc_ms=20.0, cold_start=True)])
    header, on_prem, cloud = table(comparison).splitlines()
    assert header.split()[:3] == ["arm", "runs", "on"]
    assert on_prem.split()[:8] == ["on_prem", "local", "1", "0", "0", "10.0", "10.0", "10.0"]
    assert cloud.split()[:8] == ["cloud", "embedded", "1", "0", "1", "20.0", "20.0", "20.0"]


# --- the verdict --------------------------------------------------------------------------------


def verdict_of(ratio: float, cpu_share: float = 1.0, **fields: object) -> str:
    """The verdict where the cloud arm takes `ratio` x the time and has `cpu_share` of it."""
    took_ms = 10.0 * ratio
    cloud = [row(key, proc_ms=took_ms, cpu_ms=took_ms * cpu_share, **fields) for key in "abc"]
    on_prem = [on_prem_row(key, proc_ms=10.0, cpu_ms=10.0) for key in "abc"]
    return verdict(compared(on_prem, cloud))


def test_the_verdict_names_the_faster_arm_and_by_how_much():
    assert verdict_of(2).startswith("per picture: on-prem is 2.00x faster (")
    assert verdict_of(0.5).startswith("per picture: the cloud is 2.00x faster (")


def test_the_verdict_says_how_it_was_reached():
    basis = "geometric mean of cloud/on-prem 2.00, 3 pictures x 1 round, embedded cloud, not AWS"
    assert basis in verdict_of(2)
    assert "one pass allows for 25% drift of the machine" in verdict_of(2)


@pytest.mark.parametrize(
    ("environment", "where"),
    [("aws", "AWS;"), ("embedded", "not AWS;"), ("", "cloud environment unknown;")],
)
def test_only_rows_from_aws_are_called_aws(environment, where):
    assert where in verdict_of(2, environment=environment)
    assert ("AWS" in verdict_of(2, environment=environment)) == (environment != "")


@pytest.mark.parametrize("ratio", [1, 1.2, 1 / 1.2, 1.249, 1 / 1.249])
def test_a_difference_within_the_drift_allowance_is_called_unknown(ratio):
    assert verdict_of(ratio).startswith("per picture: cannot tell which is faster (")


@given(st.floats(-3, 3).map(lambda power: 10**power))
def test_an_arm_is_called_faster_only_beyond_the_drift_allowance(ratio):
    said = verdict_of(ratio)
    if abs(np.log(ratio)) < np.log(DRIFT_ALLOWANCE) - 1e-9:
        assert "x faster" not in said
    elif abs(np.log(ratio)) > np.log(DRIFT_ALLOWANCE) + 1e-9:
        assert ("on-prem is" if ratio > 1 else "the cloud is") in said


def test_no_arm_is_called_faster_when_one_on_this_machine_shared_its_processor():
    said = verdict_of(2, cpu_share=0.8)
    assert said.startswith("per picture: cannot tell which is faster: the cloud arm had the proc")
    assert "x faster" not in said


def test_a_share_of_a_processor_on_aws_is_what_was_bought_and_counts():
    assert "x faster" in verdict_of(2, cpu_share=0.3, environment="aws")


def test_a_file_without_cpu_times_still_gets_a_verdict():
    frames = [frame([on_prem_row(k, proc_ms=10.0) for k in "abc"])]
    frames += [frame([row(k, proc_ms=50.0) for k in "abc"])]
    for rows in frames:
        rows["cpu_ms"] = np.nan
    assert "5.00x faster" in verdict(compare(*frames))


def test_one_or_two_pictures_make_no_arm_faster():
    arms = [on_prem_row(proc_ms=1.0, cpu_ms=1.0)], [row(proc_ms=99.0, cpu_ms=99.0)]
    assert "cannot tell which is faster from fewer than 3" in verdict(compared(*arms))


def test_without_any_hash_other_sizes_are_other_work():
    arms = [on_prem_row(output_sha256="")], [row(output_sha256="", new_size=7)]
    assert compared(*arms).problems == ["the output differs in size for 1 pictures: 'a.jpg'"]
    assert compared([on_prem_row(output_sha256="")], [row(output_sha256="")]).problems == []


def test_the_rows_of_one_arm_taken_for_both_are_no_comparison():
    rows = frame([on_prem_row()])
    assert compare(rows, rows).problems == ["rows of on_prem among the cloud rows"]


def test_rows_of_different_clouds_are_not_mixed():
    cloud = [row("a", environment="aws"), row("b", environment="embedded")]
    problems = compared([on_prem_row("a"), on_prem_row("b")], cloud).problems
    assert problems == ["cloud rows of different environments: aws, embedded"]


def test_a_comparison_with_a_problem_never_gets_a_faster_arm():
    comparison = compared([on_prem_row("a", proc_ms=1.0), on_prem_row("b")], [row("a", proc_ms=99)])
    assert verdict(comparison) == "not comparable: 1 problem, see above"
