"""Tables as spreadsheets save them: their separators and encodings, and the cells that they have rewritten."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pandas as pd

from wsi_mil.errors import CohortError

_REWRITTEN = re.compile(r"\d{1,2}[-./ ][A-Z][a-z]{2}|[A-Z][a-z]{2}[-./ ]\d{2,4}|\d(?:[.,]\d+)?E\+\d+")
"""3-4 saved as 4-Mar, MAR2019 as Mar-19, and long numbers as 1.23E+12."""


def read_table(path: Path) -> pd.DataFrame:
    """A CSV (comma, semicolon or tab; UTF-8 with or without BOM, else Latin-1) as text, blanks trimmed, empty as ""."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CohortError(f"cannot read the table {path}: {error.strerror or error}") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    header = text.partition("\n")[0]
    if not header.strip():
        raise CohortError(f"the table {path} is empty: its first line must name the columns")
    separator = max(",;\t", key=header.count)
    try:
        frame = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            dtype=str,
            keep_default_na=False,
            skipinitialspace=True,
            quoting=csv.QUOTE_MINIMAL,
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise CohortError(f"the table {path} cannot be read as CSV: {' '.join(str(error).split())}") from error
    frame.columns = [str(name).strip() for name in frame.columns]
    return frame.map(lambda cell: cell.strip() if isinstance(cell, str) else "")


def rewritten(cell: str) -> bool:
    """Whether a cell looks as if a spreadsheet had taken a name for a date or for a number."""
    return bool(_REWRITTEN.fullmatch(cell))
