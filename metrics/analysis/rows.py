"""Reading a metrics CSV strictly: every number and word is one, or is named by line and column."""

import codecs
import csv
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from lambda_function.metrics_log import COLUMNS
from metrics.common.cli import UserError
from metrics.common.paths import shown

REFERENCE_COLUMNS = COLUMNS[:5]  # all that the published reference run's files have
NUMBERS = (
    *("orig_size", "new_size", "proc_ms", "cpu_ms", "fetch_ms", "store_ms"),
    *("round", "memory_mb"),
)
# Few different texts in many rows: a code for each text, so that a million rows stay small.
CATEGORIES = ("source", "run_id", "status", "error", "worker", "environment", "transform")
DEFAULTS = {"round": "1", "status": "ok", "cold_start": "false"}
WORDS = {"status": ("ok", "error"), "cold_start": ("true", "false")}
# As spreadsheets, and Python and pandas, write them.
CAPITALS = {"TRUE": "true", "FALSE": "false", "True": "true", "False": "false"}
WHOLE = ("orig_size", "new_size", "round", "memory_mb")
NO_NUMBER = "is no valid number (1234.5: a decimal point, and no separator of thousands)"
SAVE_AS = "save it as CSV UTF-8 with commas, or use the file as it was written"
MIN_TIME_MS = 1e-6  # of work that was done: no clock tells less, and ratios need it
MAX_NUMBER = 1e16  # beyond any size, time and round: what is larger is an error in the file
CHUNK_ROWS = 50_000
BLOCK_BYTES = 2**22
COMMA, QUOTE, LINE_FEED = b',"\n'


def read_rows(path: Path, source: str) -> pd.DataFrame:
    """Rows of a metrics CSV, also of one with only the reference run's five columns.

    Numbers are floats (`round` is whole), `cold_start` is bool, CATEGORIES are categoricals, all
    else is text. Raises UserError that names the file, and line and column of what cannot be read.
    """
    name = shown(path)
    try:
        header = _header(path, name)
        rows = _rows_of_regular(path, header, source)
        if rows is None:
            rows = _rows_one_by_one(path, header, source, name)
    except FileNotFoundError:
        step = "onprem_images/local_image_proc.py" if source == "on_prem" else "the cloud arm"
        raise UserError(f"{name} does not exist; run {step} first") from None
    except UnicodeDecodeError:
        line, encoding = _undecodable(path)
        raise UserError(f"{name}, line {line}: not UTF-8 text{encoding}; {SAVE_AS}") from None
    if rows.empty:
        raise UserError(f"{name} holds no row")
    rows["round"] = rows["round"].astype(int)
    return rows


def _undecodable(path: Path) -> tuple[int, str]:
    """The line that is not UTF-8, and what a spreadsheet calls "Unicode text" by its name."""
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return 1, " but UTF-16"
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return data.count(b"\n", 0, error.start) + 1, ""
    return 1, ""


def _header(path: Path, name: str) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            header = next(csv.reader(file, strict=True), [])
        except csv.Error as error:
            raise UserError(f"{name}, line 1: {error}") from None
    while header and not header[-1]:  # columns that a spreadsheet added
        header.pop()
    _check_header(header, name)
    return header


def _check_header(header: list[str], name: str) -> None:
    if doubles := sorted({column for column in header if header.count(column) > 1}):
        raise UserError(f"{name}, line 1: more than one column {doubles[0]!r}")
    if missing := [column for column in REFERENCE_COLUMNS if column not in header]:
        if not header:
            raise UserError(f"{name} holds no row")
        if len(header) == 1 and (mark := next((m for m in ",;\t" if m in header[0]), None)):
            how = "quoted as a whole" if mark == "," else f"separated by {mark!r} in place of ','"
            raise UserError(f"{name}, line 1: its columns are {how}; {SAVE_AS}")
        raise UserError(f"{name}, line 1: no column {missing[0]!r}; its columns are {header}")


# --- a file as it was written -------------------------------------------------------------------


def _rows_of_regular(path: Path, header: list[str], source: str) -> pd.DataFrame | None:
    """The rows, read by pandas; None where anything is odd, which it would mend in silence."""
    if not _is_regular(path.read_bytes(), len(header)):
        return None
    own = [column for column in header if column in COLUMNS]
    numbers = [column for column in own if column in NUMBERS]
    try:
        cells = pd.read_csv(
            path,
            header=0,
            names=header,
            usecols=own,
            dtype=dict.fromkeys(own, object) | dict.fromkeys(numbers, float),
            keep_default_na=False,
            na_values={column: [""] for column in numbers},
            compression=None,  # whatever the file is called
        )
    except UnicodeDecodeError:
        raise
    except (ValueError, OverflowError):  # what is no number
        return None
    columns, odd = _typed({column: cells[column].array for column in own}, len(cells), source)
    return None if odd else pd.DataFrame(columns)


def _is_regular(data: bytes, width: int) -> bool:
    """Whether each record has `width` cells, and quotes are around cells only. (pandas fills up
    short records, takes any quote, and ends a text at a NUL.) Raises UnicodeDecodeError."""
    returns = data.count(b"\r")
    if b"\0" in data or returns != data.count(b"\r\n"):  # a lone one ends a line, or is in a text
        return False
    ends, commas_before, is_quoted, commas = [], [], False, 0
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(data), BLOCK_BYTES):
        block = np.frombuffer(data, np.uint8, min(BLOCK_BYTES, len(data) - start), start)
        decoder.decode(block.tobytes())
        is_quote = block == QUOTE
        if is_quote.any() and not _are_around_cells(
            np.flatnonzero(is_quote) + start, data, is_quoted
        ):
            return False
        is_outside = np.bitwise_xor.accumulate(is_quote) == is_quoted
        is_quoted ^= bool(is_quote.sum() % 2)
        commas_here = np.flatnonzero((block == COMMA) & is_outside)
        ends_here = np.flatnonzero((block == LINE_FEED) & is_outside)
        ends.append(ends_here + start)
        commas_before.append(np.searchsorted(commas_here, ends_here) + commas)
        commas += len(commas_here)
    decoder.decode(b"", final=True)
    if is_quoted:
        return False
    if not data.endswith(b"\n"):
        ends.append([len(data)])
        commas_before.append([commas])
    cells = np.diff(np.concatenate(commas_before), prepend=0) + 1
    longest = np.diff(np.concatenate(ends), prepend=-1).max()
    return bool((cells == width).all() and longest <= csv.field_size_limit())


def _are_around_cells(quotes: np.ndarray, data: bytes, is_quoted: bool) -> bool:
    """Whether before each first and after each second quote a cell ends, or another quote stands:
    two are one in the text. `is_quoted`: the first of these is a second one."""
    edges = np.frombuffer(b',"\r\n', np.uint8)
    array = np.frombuffer(data, np.uint8)
    before, after = quotes[int(is_quoted) :: 2] - 1, quotes[1 - int(is_quoted) :: 2] + 1
    beside = np.concatenate([before[before >= 0], after[after < len(array)]])
    return bool(np.isin(array[beside], edges).all())


# --- any other file -----------------------------------------------------------------------------


def _rows_one_by_one(path: Path, header: list[str], source: str, name: str) -> pd.DataFrame:
    """The rows of a file that a spreadsheet saved again; or what is wrong with it, by line."""
    chunks = []
    for lines, cells in _chunks(path, header, name):
        columns, odd = _typed(dict(cells), len(lines), source)
        if odd:
            text = cells[odd.column][odd.row]
            raise UserError(
                f"{name}, line {lines[odd.row]}, column {odd.column}: {text!r} {odd.why}"
            )
        chunks.append(columns)
    return pd.DataFrame(
        {column: _joined([chunk.pop(column) for chunk in chunks]) for column in COLUMNS}
        if chunks
        else {"round": []}
    )


def _joined(parts: list) -> object:
    return (
        union_categoricals(parts) if isinstance(parts[0], pd.Categorical) else np.concatenate(parts)
    )


def _chunks(
    path: Path, header: list[str], name: str
) -> Iterator[tuple[tuple[int, ...], dict[str, np.ndarray]]]:
    """Lines of the file at which records end, and the records' texts by column."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        next(reader)
        try:
            while records := list(itertools.islice(_checked(reader, header, name), CHUNK_ROWS)):
                lines, *columns = zip(*records, strict=True)
                arrays = (np.array(column, dtype=object) for column in columns)
                yield lines, dict(zip(header, arrays, strict=True))
        except csv.Error as error:
            raise UserError(f"{name}, line {reader.line_num}: {error}") from None


def _checked(reader, header: list[str], name: str) -> Iterator[list]:
    """Records as long as the header, each after the line at which it ends. Blank lines at the end
    and blank cells beyond the header are a spreadsheet's."""
    width, blank = len(header), None
    for record in reader:
        if not any(record):
            blank = blank or (reader.line_num, len(record))
            continue
        line, columns = blank or (reader.line_num, len(record))
        if header[len(record) :] == ["request_id"]:  # Excel leaves out commas before empty cells
            record.append("")
        if blank or len(record) != width:
            if blank or len(record) < width or any(record[width:]):
                raise UserError(
                    f"{name}, line {line}: {columns} columns, where the header has {width}"
                )
            del record[width:]
        yield [line, *record]


# --- what cells hold ----------------------------------------------------------------------------


class Odd(NamedTuple):
    """A cell that is not what its column promises."""

    column: str
    row: int
    why: str


def _typed(
    cells: dict[str, object], count: int, source: str
) -> tuple[dict[str, object], Odd | None]:
    """The columns as what they are: arrays of numbers, categoricals, texts; and the first odd cell.
    `cells` are texts; pandas may have made numbers of them already."""
    if source == "cloud" and "run_id" not in cells:  # reference keys carry the bucket's prefix
        keys = [key.removeprefix("input/") for key in cells["image_key"]]
        cells["image_key"] = np.array(keys, dtype=object)
    defaults = {"source": source, **DEFAULTS}
    columns = {}
    for column in COLUMNS:
        found = cells.get(column)
        if found is None:
            found = np.full(count, defaults.get(column, ""), dtype=object)
        if column in NUMBERS:
            found = np.asarray(pd.to_numeric(found, errors="coerce"), float)
        elif column in CATEGORIES or column in WORDS:
            found = pd.Categorical(found)
        columns[column] = found
    columns["cold_start"] = columns["cold_start"].map(lambda word: CAPITALS.get(word, word))
    odd = _odd_word(columns) or _odd_number(columns, cells)
    columns["cold_start"] = np.asarray(columns["cold_start"] == "true")
    return columns, odd


def _odd_word(columns: dict[str, object]) -> Odd | None:
    for column, words in WORDS.items():
        if (bad := ~np.asarray(columns[column].isin(words))).any():
            return Odd(column, int(bad.argmax()), f"is not one of {', '.join(words)}")
    return None


def _odd_number(columns: dict[str, object], cells: dict[str, object]) -> Odd | None:
    """An empty cell is NaN, where the reference run has no such column."""
    for column in NUMBERS:
        numbers = columns[column]
        bad = ~((numbers >= 0) & (numbers <= MAX_NUMBER))
        if column in WHOLE:  # 1.234 bytes are a thousand in a spreadsheet of another language
            bad |= numbers != np.floor(numbers)
        if column == "round":
            bad |= numbers < 1
        elif column not in REFERENCE_COLUMNS:
            bad &= ~_is_empty(cells, column, numbers)
        if column == "proc_ms":
            bad |= (numbers < MIN_TIME_MS) & np.asarray(columns["status"] == "ok")
        if bad.any():
            return Odd(column, int(bad.argmax()), NO_NUMBER)
    return None


def _is_empty(cells: dict[str, object], column: str, numbers: np.ndarray) -> np.ndarray:
    if column not in cells or cells[column].dtype != object:
        return np.isnan(numbers)  # pandas takes nothing else for that
    return cells[column] == ""
