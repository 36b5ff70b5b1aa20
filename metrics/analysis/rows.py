"""Reading a metrics CSV strictly: every number and word is one, or is named by line and column."""

import codecs
import csv
import gc
import itertools
from collections.abc import Iterator
from pathlib import Path

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
WHOLE = ("orig_size", "new_size", "round", "memory_mb")
NO_NUMBER = "is no valid number (1234.5: a decimal point, and no separator of thousands)"
SAVE_AS = "save it as CSV UTF-8 with commas, or use the file as it was written"
MIN_TIME_MS = 1e-6  # of work that was done: no clock tells less, and ratios need it
MAX_NUMBER = 1e16  # beyond any size, time and round: what is larger is an error in the file
CHUNK_ROWS = 50_000


def read_rows(path: Path, source: str) -> pd.DataFrame:
    """Rows of a metrics CSV, also of one with only the reference run's five columns.

    Numbers are floats (`round` is whole), `cold_start` is bool, CATEGORIES are categoricals, all
    else is text. Raises UserError that names the file, and line and column of what cannot be read.
    """
    name = shown(path)
    collected = gc.isenabled()
    gc.disable()  # millions of small lists and no cycle among them: measured a quarter faster
    try:
        chunks = [_typed(*chunk, source, name) for chunk in _chunks(path, name)]
    except FileNotFoundError:
        step = "onprem_images/local_image_proc.py" if source == "on_prem" else "the cloud arm"
        raise UserError(f"{name} does not exist; run {step} first") from None
    except UnicodeDecodeError:
        line, encoding = _undecodable(path)
        raise UserError(f"{name}, line {line}: not UTF-8 text{encoding}; {SAVE_AS}") from None
    finally:
        if collected:
            gc.enable()
    if not chunks:
        raise UserError(f"{name} holds no row")
    rows = pd.DataFrame(
        {column: _joined([chunk.pop(column) for chunk in chunks]) for column in COLUMNS}
    )
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


def _joined(parts: list) -> object:
    return (
        union_categoricals(parts) if isinstance(parts[0], pd.Categorical) else np.concatenate(parts)
    )


Cells = dict[str, np.ndarray]  # texts by column


def _chunks(path: Path, name: str) -> Iterator[tuple[list[int], Cells]]:
    """Lines of the file at which records end, and the records' texts by column."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            while header and not header[-1]:  # columns that a spreadsheet added
                header.pop()
            _check_header(header, name)
            while records := list(itertools.islice(_checked(reader, header, name), CHUNK_ROWS)):
                lines, *columns = zip(*records, strict=True)
                arrays = (np.array(column, dtype=object) for column in columns)
                yield lines, dict(zip(header, arrays, strict=True))
        except csv.Error as error:
            raise UserError(f"{name}, line {reader.line_num}: {error}") from None


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


def _typed(lines: list[int], cells: Cells, source: str, name: str) -> dict[str, object]:
    """The columns of one chunk as what they are: arrays of numbers, categoricals, texts."""
    if source == "cloud" and "run_id" not in cells:  # reference keys carry the bucket's prefix
        keys = [key.removeprefix("input/") for key in cells["image_key"]]
        cells["image_key"] = np.array(keys, dtype=object)
    defaults = {"source": source, **DEFAULTS}
    for column in COLUMNS:
        if column not in cells:
            cells[column] = np.full(len(lines), defaults.get(column, ""), dtype=object)

    def refuse(column: str, bad: np.ndarray, why: str) -> None:
        if bad.any():
            line, text = lines[bad.argmax()], cells[column][bad.argmax()]
            raise UserError(f"{name}, line {line}, column {column}: {text!r} {why}")

    # As spreadsheets and as Python and pandas write them.
    capitals = {"TRUE": "true", "FALSE": "false", "True": "true", "False": "false"}
    flags = cells["cold_start"]
    cells["cold_start"] = np.array([capitals.get(flag, flag) for flag in flags], dtype=object)
    for column, words in WORDS.items():
        refuse(column, ~np.isin(cells[column], words), f"is not one of {', '.join(words)}")
    columns = {}
    for column in COLUMNS:
        if column in NUMBERS:
            columns[column] = pd.to_numeric(cells[column], errors="coerce").astype(float)
            refuse(column, _no_numbers(columns[column], column, cells), NO_NUMBER)
        elif column in CATEGORIES:
            columns[column] = pd.Categorical(cells[column])
        else:
            columns[column] = cells[column]
    columns["cold_start"] = cells["cold_start"] == "true"
    return columns


def _no_numbers(numbers: np.ndarray, column: str, cells: Cells) -> np.ndarray:
    """Where a cell is not what its column promises. An empty one is NaN, where the reference run
    has no such column."""
    bad = ~((numbers >= 0) & (numbers <= MAX_NUMBER))
    if column in WHOLE:  # 1.234 bytes are a thousand in a spreadsheet of another language
        bad |= numbers != np.floor(numbers)
    if column == "round":
        bad |= numbers < 1
    elif column not in REFERENCE_COLUMNS:
        bad &= cells[column] != ""
    if column == "proc_ms":
        bad |= (numbers < MIN_TIME_MS) & (cells["status"] == "ok")
    return bad
