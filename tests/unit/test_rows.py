"""Reading a metrics CSV strictly: every row arrives as it was written, or a line is named."""

import dataclasses
import math
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rows import row

import metrics.analysis.rows
from lambda_function.metrics_log import COLUMNS, HEADER, MetricRow, rows_to_csv
from metrics.analysis.rows import CATEGORIES, NUMBERS, read_rows
from metrics.common.cli import UserError

pytestmark = pytest.mark.filterwarnings("error")

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
    """`rows`, written to a file and read again."""
    with tempfile.TemporaryDirectory() as folder:
        path = file_of(Path(folder), HEADER + rows_to_csv(rows))
        return read_rows(path, rows[0].source)


def on_prem_row(image_key: str = "a.jpg", **fields: object) -> MetricRow:
    return row(image_key, **({"source": "on_prem", "environment": "local"} | fields))


# --- what is read -------------------------------------------------------------------------------


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
    assert list(frame([row(key) for key in HOSTILE_KEYS])["image_key"]) == HOSTILE_KEYS


def test_columns_in_another_order_and_columns_of_others_make_no_difference(tmp_path):
    text = "note,proc_ms,new_size,orig_size,image_key,timestamp\nhi,1.5,5,10,a.jpg,2025-11-20\n"
    rows = read_rows(file_of(tmp_path, text), "cloud")
    assert tuple(rows.columns) == COLUMNS
    assert rows.loc[0, ["image_key", "orig_size", "proc_ms"]].tolist() == ["a.jpg", 10, 1.5]


def test_numbers_are_floats_rounds_whole_flags_bool_and_texts_that_repeat_categories():
    rows = frame([row("a", cold_start=True), row("b", error="OSError: x", status="error")])
    floats = [column for column in NUMBERS if column != "round"]
    assert {rows[column].dtype.kind for column in floats} == {"f"}
    assert (rows["round"].dtype.kind, rows["cold_start"].dtype.kind) == ("i", "b")
    assert all(isinstance(rows[column].dtype, pd.CategoricalDtype) for column in CATEGORIES)
    assert rows["cold_start"].tolist() == [True, False]
    assert rows.index.tolist() == [0, 1]


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


@given(st.lists(ROWS, min_size=1, max_size=5), st.sampled_from([1, 2, 50_000]))
@example([row(key) for key in HOSTILE_KEYS], 3)
def test_rows_survive_being_written_and_read_in_however_many_chunks(rows, chunk_rows):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics.analysis.rows, "CHUNK_ROWS", chunk_rows)
        read = frame(rows).to_dict("records")
    for written, back in zip(map(dataclasses.asdict, rows), read, strict=True):
        for column, value in written.items():
            if column in NUMBERS:
                assert back[column] == pytest.approx(value, rel=1e-12)
            else:
                assert str(back[column]) == str(value)


def test_an_empty_cell_is_unknown_where_the_reference_run_has_no_such_column(tmp_path):
    text = f"{REFERENCE_HEADER},run_id,cpu_ms,store_ms\n2025-11-20,a,1,1,1,r,,\n"
    rows = read_rows(file_of(tmp_path, text), "cloud")
    assert rows[["cpu_ms", "store_ms"]].isna().all(axis=None)


# --- what a spreadsheet made of it --------------------------------------------------------------


def saved_again(rows: list[MetricRow], change) -> str:
    """The text of a file of `rows` after `change` of its lines."""
    lines = (HEADER + rows_to_csv(rows)).splitlines()
    return "\r\n".join(change(lines))


def quoted(lines: list[str]) -> list[str]:
    return [",".join(f'"{cell}"' for cell in line.split(",")) for line in lines]


SAVED_AGAIN = {
    "as it was": lambda lines: [*lines, ""],
    "no line end at the end": lambda lines: lines,
    "a byte-order mark": lambda lines: ["\ufeff" + lines[0], *lines[1:], ""],
    "blank last lines": lambda lines: [*lines, "", "", ""],
    "blank cells in last lines": lambda lines: [*lines, "," * lines[0].count(","), ",,", ""],
    "TRUE and FALSE": lambda lines: [
        line.replace(",true,", ",TRUE,").replace(",false,", ",FALSE,") for line in lines
    ],
    "True and False": lambda lines: [
        line.replace(",true,", ",True,").replace(",false,", ",False,") for line in lines
    ],
    "columns added": lambda lines: [f"{line},,," for line in lines],
    "columns added below the header": lambda lines: [lines[0], *(f"{x},," for x in lines[1:])],
    "all in quotes": quoted,
    "all in quotes, byte-order mark": lambda lines: ["\ufeff" + "\r\n".join(quoted(lines))],
    "no comma before an empty last cell": lambda lines: [
        lines[0], *(line.removesuffix(",") for line in lines[1:])
    ],
    "all of it": lambda lines: [
        f"\ufeff{lines[0]},,",
        *(f"{line.replace(',true,', ',TRUE,')},," for line in lines[1:]),
        ",,",
        "",
    ],
}  # fmt: skip


@pytest.mark.parametrize("change", SAVED_AGAIN.values(), ids=SAVED_AGAIN)
@pytest.mark.parametrize("chunk_rows", [1, 50_000])
def test_rows_that_a_spreadsheet_saved_again_are_the_same_rows(
    tmp_path, monkeypatch, change, chunk_rows
):
    rows = [row("é.jpg", cold_start=True), row("b.jpg"), row("c.jpg", status="error", error="x")]
    expected = frame(rows)
    monkeypatch.setattr(metrics.analysis.rows, "CHUNK_ROWS", chunk_rows)
    read = read_rows(file_of(tmp_path, saved_again(rows, change)), "cloud")
    pd.testing.assert_frame_equal(read.astype(str), expected.astype(str))


@pytest.mark.parametrize("column", ["orig_size", "new_size"])
def test_a_size_with_a_fraction_is_refused_since_it_may_be_a_thousand_times_as_much(
    tmp_path, column
):
    said = refusal_of_cell(tmp_path, column, "1.234")
    assert f"line 3, column {column}: '1.234' is no valid number" in said


# --- what is refused ----------------------------------------------------------------------------

GOOD = "2025-11-20,a.jpg,10,5,1.5"
UNREADABLE = {
    "nothing": ("", "holds no row"),
    "only a header": (f"{REFERENCE_HEADER}\n", "holds no row"),
    "a column less": (
        "timestamp,image_key,orig_size,new_size\nx,a,1,1\n",
        "line 1: no column 'proc_ms'",
    ),
    "a column twice": (f"{REFERENCE_HEADER},proc_ms\n{GOOD},7\n", "more than one column 'proc_ms'"),
    "a short record": (f"{REFERENCE_HEADER}\n{GOOD}\nx,b,1\n", "line 3: 3 columns"),
    "a long record": (f"{REFERENCE_HEADER}\n{GOOD}\n{GOOD},9\n", "line 3: 6 columns"),
    "an empty line": (f"{REFERENCE_HEADER}\n{GOOD}\n\n{GOOD}\n", "line 3: 0 columns"),
    "blank cells between rows": (f"{REFERENCE_HEADER}\n{GOOD}\n,,,,\n{GOOD}\n", "line 3: "),
    "semicolons": (
        f"{REFERENCE_HEADER}\n{GOOD}\n".replace(",", ";"),
        "line 1: its columns are separated by ';' in place of ','; save it as CSV UTF-8",
    ),
    "tabs": (
        f"{REFERENCE_HEADER}\n{GOOD}\n".replace(",", "\t"),
        r"line 1: its columns are separated by '\t' in place of ','; save it as CSV UTF-8",
    ),
    "whole lines in quotes": (
        f'"{REFERENCE_HEADER}"\n"{GOOD}"\n',
        "line 1: its columns are quoted as a whole; save it as CSV UTF-8",
    ),
    "a separator line": (f"sep=;\n{REFERENCE_HEADER}\n{GOOD}\n", "line 1: its columns are sep"),
    "a broken quote": (f'{REFERENCE_HEADER}\n{GOOD}\nx,"b"c,1,1,1\n', "line 3: "),
    "an open quote": (f'{REFERENCE_HEADER}\n{GOOD}\nx,"b,1,1,1\n', "line 3: "),
    "an endless cell": (f"{REFERENCE_HEADER}\nx,{'a' * 200_000},1,1,1\n", "line 2: "),
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
@pytest.mark.parametrize("chunk_rows", [1, 50_000])
def test_an_unreadable_file_is_refused_by_name_and_line(
    tmp_path, monkeypatch, text, reason, chunk_rows
):
    monkeypatch.setattr(metrics.analysis.rows, "CHUNK_ROWS", chunk_rows)
    with pytest.raises(UserError) as caught:
        read_rows(file_of(tmp_path, text), "on_prem")
    assert str(tmp_path / "rows.csv") in str(caught.value)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def refusal_of_cell(folder: Path, column: str, cell: str) -> str:
    """What is said of a file whose third line has `cell` in `column`."""
    cells = {"timestamp": "x", "image_key": "a", "orig_size": "1", "new_size": "1", "proc_ms": "1"}
    cells |= {"round": "1", "cpu_ms": "1", "status": "ok", "cold_start": "false"}
    bad = cells | {column: f'"{cell}"'}
    lines = [",".join(cells), ",".join(cells.values()), ",".join(bad.values())]
    with pytest.raises(UserError) as caught:
        read_rows(file_of(folder, "\n".join(lines)), "on_prem")
    return str(caught.value)


@pytest.mark.parametrize(
    "cell",
    [
        *("fast", "-1", "nan", "inf", "-inf", "", "1e300", "1e999", "0x10"),
        *("1,5", "1,234", "1.234,5", "1 234", "1\u00a0234", "1\u202f234", "1'234", "1.234.567"),
    ],
)
@pytest.mark.parametrize("column", ["orig_size", "new_size", "proc_ms"])
def test_a_cell_that_is_no_number_is_named_by_line_and_column(tmp_path, column, cell):
    said = refusal_of_cell(tmp_path, column, cell)
    assert f"rows.csv, line 3, column {column}: {cell!r} is no valid number" in said


@pytest.mark.parametrize("cell", ["0", "-1", "1.5", "", "first", "nan", "1e300"])
def test_a_round_that_is_no_whole_number_from_1_is_named_by_line_and_column(tmp_path, cell):
    assert f"line 3, column round: {cell!r}" in refusal_of_cell(tmp_path, "round", cell)


@pytest.mark.parametrize("cell", ["slow", "-1", "inf", "nan"])
def test_an_optional_number_may_be_empty_but_not_wrong(tmp_path, cell):
    assert f"line 3, column cpu_ms: {cell!r}" in refusal_of_cell(tmp_path, "cpu_ms", cell)


@pytest.mark.parametrize(
    ("column", "cell"),
    [("status", "OK"), ("status", ""), ("cold_start", "yes"), ("cold_start", "WAHR")],
)
def test_a_cell_outside_the_few_words_of_its_column_is_named_by_line_and_column(
    tmp_path, column, cell
):
    assert f"line 3, column {column}: {cell!r}" in refusal_of_cell(tmp_path, column, cell)


def test_a_picture_that_took_no_time_is_refused_unless_it_failed():
    assert frame([row(proc_ms=0.0, status="error")])["proc_ms"].tolist() == [0]
    with pytest.raises(UserError, match=r"line 2, column proc_ms: '0\.0'"):
        frame([row(proc_ms=0.0)])


def test_a_file_that_is_not_there_is_refused_with_the_script_that_writes_it(tmp_path):
    with pytest.raises(UserError, match=r"rows\.csv does not exist; run onprem_images/local_image"):
        read_rows(tmp_path / "rows.csv", "on_prem")
    with pytest.raises(UserError, match=r"rows\.csv does not exist; run the cloud arm first"):
        read_rows(tmp_path / "rows.csv", "cloud")


def test_a_file_that_is_not_utf8_is_refused_by_name_and_line(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(f"{REFERENCE_HEADER}\n{GOOD}\nx,caf\xe9.jpg,1,1,1\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"rows\.csv, line 3: not UTF-8 text"):
        read_rows(path, "on_prem")
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        text = f"{REFERENCE_HEADER}\n{GOOD}\n"
        mark = "" if encoding == "utf-16" else "\ufeff"
        path.write_bytes((mark + text).encode(encoding))
        with pytest.raises(UserError) as caught:
            read_rows(path, "on_prem")
        said = str(caught.value)
        assert "rows.csv, line 1: not UTF-8 text but UTF-16; save it as CSV UTF-8" in said


# --- both ways to read --------------------------------------------------------------------------


def read_both_ways(text: str, source: str = "cloud") -> tuple[object, object]:
    """What pandas reads, None where it is not trusted to; and what the csv module does, or says."""
    with tempfile.TemporaryDirectory() as folder:
        path = file_of(Path(folder), text)
        try:
            header = metrics.analysis.rows._header(path, "rows.csv")
        except UserError as error:
            return None, str(error)
        at_once = metrics.analysis.rows._rows_of_regular(path, header, source)
        try:
            checked = metrics.analysis.rows._rows_one_by_one(path, header, source, "rows.csv")
        except UserError as error:
            return at_once, str(error)
        return at_once, checked


def assert_the_same(at_once: pd.DataFrame, checked: object) -> None:
    assert isinstance(checked, pd.DataFrame), checked
    if not checked.empty:
        assert list(at_once.dtypes) == list(checked.dtypes)
        pd.testing.assert_frame_equal(at_once, checked, check_exact=True)


@given(st.lists(ROWS, min_size=1, max_size=5), st.sampled_from([7, 64, 2**22]))
@example([row(key) for key in HOSTILE_KEYS if "\r" not in key], 7)
@settings(deadline=None)
def test_a_file_as_it_was_written_is_read_at_once_and_alike(rows, block_bytes):
    text = HEADER + rows_to_csv(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics.analysis.rows, "BLOCK_BYTES", block_bytes)
        at_once, checked = read_both_ways(text)
    if "\0" in text or text.count("\r") != text.count("\r\n"):
        assert at_once is None
    else:
        assert_the_same(at_once, checked)


INSERTED = st.sampled_from([*',"\r\n\0 x', '""', "\r\n", ",,", "-"])
EDITS = st.lists(st.tuples(st.floats(0, 1), INSERTED, st.integers(0, 2)), min_size=1, max_size=3)


@given(st.lists(ROWS, min_size=1, max_size=3), EDITS, st.sampled_from([7, 64, 2**22]))
@settings(deadline=None, max_examples=300)
def test_pandas_is_trusted_only_with_what_the_csv_module_reads_alike(rows, edits, block_bytes):
    text = HEADER + rows_to_csv(rows)
    for place, inserted, removed in edits:
        at = int(place * len(text))
        text = text[:at] + inserted + text[at + removed :]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics.analysis.rows, "BLOCK_BYTES", block_bytes)
        at_once, checked = read_both_ways(text)
    if at_once is not None:
        assert_the_same(at_once, checked)


@pytest.mark.parametrize("block_bytes", [5, 2**22])
def test_a_long_record_does_not_make_up_for_a_short_one(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(metrics.analysis.rows, "BLOCK_BYTES", block_bytes)
    text = f"{REFERENCE_HEADER}\nx,b,1,1\n{GOOD},9\n"
    with pytest.raises(UserError, match=r"rows\.csv, line 2: 4 columns, where the header has 5"):
        read_rows(file_of(tmp_path, text), "on_prem")


def test_numbers_in_texts_stay_as_they_are():
    rows = frame([row("001", worker="002", run_id="1e5", transform="true", error="NA")])
    texts = rows[["image_key", "worker", "run_id", "transform", "error"]]
    assert texts.astype(str).to_numpy().tolist() == [["001", "002", "1e5", "true", "NA"]]


def test_a_column_of_others_that_is_not_utf8_is_refused_too(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(f"{REFERENCE_HEADER},note\n{GOOD},caf\xe9\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"rows\.csv, line 2: not UTF-8 text"):
        read_rows(path, "on_prem")
