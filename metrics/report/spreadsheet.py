"""Tables for people: no cell of theirs is a formula when a spreadsheet opens them.

Names come from files and rows from buckets, so a cell may read `=HYPERLINK(...)`. As OWASP's "CSV
injection" advises, such a cell gets an apostrophe in front. A cell that begins with one gets
another, so that taking one away from each cell that has one gives back what was there.
"""

import pandas as pd

APOSTROPHE = "'"
# What a spreadsheet takes for the beginning of a formula, or skips before one (the wide ones in
# East Asian locales), and the apostrophe itself.
MARKED = frozenset("=+-@\t\r\n＝＋－＠'")  # noqa: RUF001


def escape_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with its text cells as above; numbers, truth values and empty cells as they are."""
    texts = table.select_dtypes(exclude=["number", "bool"])
    return table.assign(**{name: texts[name].map(escape_formula, "ignore") for name in texts})


def escape_formula(cell: object) -> object:
    return APOSTROPHE + cell if isinstance(cell, str) and cell[:1] in MARKED else cell
