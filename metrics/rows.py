"""Reading a metrics CSV strictly: every cell is what the row promises, or is named by line."""

import csv
import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from lambda_function.metrics_log import COLUMNS
from metrics.files import shown
from metrics.script import UserError

REFERENCE_COLUMNS = COLUMNS[:5]  # all that the published reference run's files have
NUMBERS = ("orig_size", "new_size", "proc_ms", "cpu_ms", "fetch_ms", "store_ms", "round")
# Few different texts in many rows: a code for each text, so that a million rows stay small.
CATEGORIES = ("source", "run_id", "status", "error", "worker", "environment", "transform")
DEFAULTS = {"round": "1", "status": "ok", "cold_start": "false"}
WORDS = {"status": ("ok", "error"), "cold_start": ("true", "false")}
LARGEST_NUMBER = 1e16  # beyond any size, time and round: what is larger is an error in the file
CHUNK_ROWS = 50_000


def read_rows(path: Path, source: str) -> pd.DataFrame:
    """Rows of a metrics CSV, also of one with only the reference run's five columns.

    Numbers are floats (`round` is whole), `cold_start` is bool, CATEGORIES are categoricals, all
    else is text. Raises UserError that names the file, and line and column of what cannot be read.
    """
    name = shown(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        step = "onprem_images/local_image_proc.py" if source == "on_prem" else "the cloud arm"
        raise UserError(f"{name} does not exist; run {step} first") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{name}, line {line}: not UTF-8 text ({error.reason})") from None
    chunks = [_typed(chunk, source, name) for chunk in _chunks(text, name)]
    if not chunks:
        raise UserError(f"{name} holds no row")
    rows = pd.DataFrame(
        {column: _joined([chunk.pop(column) for chunk in chunks]) for column in COLUMNS}
    )
    rows["round"] = rows["round"].astype(int)
    return rows


def _joined(parts: list) -> object:
    if isinstance(parts[0], pd.Categorical):
        return union_categoricals(parts)
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else pd.concat(parts)


def _chunks(text: str, name: str) -> Iterator[pd.DataFrame]:
    """Texts by column, indexed by line of the file; every record is as long as the header."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        _check_header(header, name)
        records = _numbered(reader, len(header), name)
        while part := list(itertools.islice(records, CHUNK_ROWS)):
            lines, cells = zip(*part, strict=True)
            yield pd.DataFrame(list(cells), columns=header, index=lines, dtype=object)
    except csv.Error as error:
        raise UserError(f"{name}, line {reader.line_num}: {error}") from None


def _check_header(header: list[str], name: str) -> None:
    if doubles := sorted({column for column in header if header.count(column) > 1}):
        raise UserError(f"{name}, line 1: more than one column {doubles[0]!r}")
    if missing := [column for column in REFERENCE_COLUMNS if column not in header]:
        if not header:
            raise UserError(f"{name} holds no row")
        raise UserError(f"{name}, line 1: no column {missing[0]!r}; its columns are {header}")


def _numbered(reader, columns: int, name: str) -> Iterator[tuple[int, list[str]]]:
    for record in reader:
        if len(record) != columns:
            raise UserError(
                f"{name}, line {reader.line_num}: {len(record)} columns, "
                f"where the header has {columns}"
            )
        yield reader.line_num, record


def _typed(texts: pd.DataFrame, source: str, name: str) -> dict[str, object]:
    """The columns of one chunk as what they are: arrays of numbers, categoricals, texts."""
    defaults = {"source": source, **DEFAULTS}
    if source == "cloud" and "run_id" not in texts:  # reference keys carry the bucket's prefix
        texts["image_key"] = texts["image_key"].str.removeprefix("input/")
    for column in COLUMNS:
        if column not in texts:
            texts[column] = defaults.get(column, "")
    for column, words in WORDS.items():
        bad = ~texts[column].isin(words).to_numpy()
        if bad.any():
            _refuse_cell(texts, column, name, bad, f"is not one of {', '.join(words)}")
    columns = {}
    for column in COLUMNS:
        if column in NUMBERS:
            columns[column] = _numbers(texts, column, name)
        elif column in CATEGORIES:
            columns[column] = pd.Categorical(texts[column])
        elif column == "cold_start":
            columns[column] = (texts[column] == "true").to_numpy()
        else:
            columns[column] = texts[column].to_numpy(dtype=object)
    return columns


def _numbers(rows: pd.DataFrame, column: str, name: str) -> np.ndarray:
    """`column` as numbers. An empty cell is NaN, where the reference run has no such column."""
    texts = rows[column]
    numbers = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=float)
    bad = ~((numbers >= 0) & (numbers <= LARGEST_NUMBER))
    if column == "round":
        bad |= (numbers < 1) | (numbers != np.floor(numbers))
    elif column not in REFERENCE_COLUMNS:
        bad &= (texts != "").to_numpy()
    if column == "proc_ms":  # work takes time, and ratios need it
        bad |= (numbers == 0) & (rows["status"] == "ok").to_numpy()
    if bad.any():
        _refuse_cell(rows, column, name, bad, "is no valid number")
    return numbers


def _refuse_cell(texts: pd.DataFrame, column: str, name: str, bad: np.ndarray, why: str) -> None:
    line, text = texts.index[bad.argmax()], texts[column].iloc[bad.argmax()]
    raise UserError(f"{name}, line {line}, column {column}: {text!r} {why}")
