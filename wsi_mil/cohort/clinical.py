"""Clinical records: columns of the cohort table to numbers that a model reads, fitted on the training slides alone."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32

from wsi_mil.errors import CohortError, suggestion

Kind = Literal["number", "category"]
Factors = Mapping[str, Kind | tuple[str, str]]
"""By name of the factor: number or category (the name is the column), or two columns of dates."""

MISSING = frozenset({"", "na", "n/a", "nan", "none", "null", "?", "unknown"})
"""What stands in a cell of which nothing is known, in any case."""

LIMIT = 5.0
"""Spreads from the mean beyond which a standardised number is cut, as for features: one odd value is no lever."""


@dataclass(frozen=True)
class Factor:
    """One clinical factor, and once fitted how its cells become numbers."""

    name: str
    kind: Literal["number", "category", "days"]
    columns: tuple[str, ...]
    """Of the table: one, or for days the first and the second date."""
    categories: tuple[str, ...] = ()
    mean: float = 0.0
    scale: float = 1.0

    @property
    def size(self) -> int:
        """Columns of numbers that it becomes: one for each category seen in training, else one."""
        return len(self.categories) if self.kind == "category" else 1


@dataclass(frozen=True)
class Record:
    """What is known of some slides' patients: row i belongs to slide i that was asked for."""

    values: Float32[np.ndarray, "slide column"]
    """0 where missing."""
    missing: Bool[np.ndarray, "slide column"]


@dataclass(frozen=True)
class ClinicalEncoder:
    """How records become numbers. Numbers and days (from the first date to the second) have mean 0 and spread 1 over
    the training slides; a category is a column of its own. A cell that is missing, or a category that no training slide
    had, is marked as missing, which is a fact the model reads and not a guess of the value.
    """

    factors: tuple[Factor, ...]
    fitted_on: tuple[str, ...] = field(default=(), compare=False)
    """Slides of the rows that the fit read; told where it was fitted, not kept with the factors."""

    @classmethod
    def of(cls, factors: Factors) -> ClinicalEncoder:
        """An encoder that is not fitted yet."""
        made = []
        for name, kind in factors.items():
            if isinstance(kind, tuple):
                made.append(Factor(name, "days", kind))
            else:
                made.append(Factor(name, kind, (name,)))
        return cls(tuple(made))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Columns of numbers of each factor."""
        return tuple(factor.size for factor in self.factors)

    def problems(self, frame: pd.DataFrame) -> list[str]:
        """Every cell that cannot be read, with its row as a spreadsheet counts, and every column that is not there."""
        faults = []
        for factor in self.factors:
            lacking = [column for column in factor.columns if column not in frame.columns]
            faults += [
                f"no column {column!r} for the clinical factor {factor.name!r}{suggestion(column, frame.columns)}"
                for column in lacking
            ]
            if lacking or factor.kind == "category":
                continue
            for column in factor.columns:
                for row, cell in enumerate(frame[column]):
                    if not _is_missing(cell) and _read(cell, factor.kind) is None:
                        wanted = "a number" if factor.kind == "number" else "a date such as 2021-03-31"
                        faults.append(f"row {row + 2}: {column!r} is {cell!r}, not {wanted}")
        return faults

    def fit(self, frame: pd.DataFrame) -> ClinicalEncoder:
        """The encoder fitted to the rows of the training slides. CohortError for a factor that none of them tells."""
        fitted = []
        for factor in self.factors:
            told = _cells(factor, frame)
            known = [cell for cell in told if cell is not None]
            if not known:
                raise CohortError(
                    f"clinical factor {factor.name!r} is missing for every training slide: leave it out of "
                    "cohort.clinical"
                )
            if factor.kind == "category":
                fitted.append(replace(factor, categories=tuple(sorted({str(cell) for cell in known}))))
                continue
            numbers = np.array(known, dtype=np.float64)
            spread = float(numbers.std())
            fitted.append(replace(factor, mean=float(numbers.mean()), scale=spread if spread > 0 else 1.0))
        return ClinicalEncoder(tuple(fitted), tuple(frame["slide"]) if "slide" in frame.columns else ())

    def encode(self, frame: pd.DataFrame) -> Record:
        """Numbers of each row. A factor whose column the table lacks is missing for all."""
        values = np.zeros((len(frame), sum(self.sizes)), dtype=np.float32)
        missing = np.ones((len(frame), sum(self.sizes)), dtype=bool)
        start = 0
        for factor in self.factors:
            here = slice(start, start + factor.size)
            start += factor.size
            for row, cell in enumerate(_cells(factor, frame)):
                if cell is None or (factor.kind == "category" and cell not in factor.categories):
                    continue
                missing[row, here] = False
                if factor.kind == "category":
                    values[row, here] = [cell == category for category in factor.categories]
                else:
                    values[row, here] = np.clip((float(cell) - factor.mean) / factor.scale, -LIMIT, LIMIT)
        return Record(values, missing)

    def unknown(self, frame: pd.DataFrame) -> list[str]:
        """Names of the factors of which a one-row table tells nothing that the encoder can read."""
        missing, start, found = self.encode(frame).missing[0], 0, []
        for factor in self.factors:
            if missing[start : start + factor.size].all():
                found.append(factor.name)
            start += factor.size
        return found

    def to_json(self) -> list[dict[str, Any]]:
        """Plain values for a checkpoint."""
        return [{**vars(factor), "columns": list(factor.columns), "categories": list(factor.categories)}
                for factor in self.factors]  # fmt: skip

    @classmethod
    def from_json(cls, told: list[dict[str, Any]]) -> ClinicalEncoder:
        """The encoder back from `to_json`."""
        return cls(
            tuple(
                Factor(**{**one, "columns": tuple(one["columns"]), "categories": tuple(one["categories"])})
                for one in told
            )
        )


def _cells(factor: Factor, frame: pd.DataFrame) -> list[float | str | None]:
    """One value a row: a number, the name of a category, or None where missing or without its column."""
    if any(column not in frame.columns for column in factor.columns):
        return [None] * len(frame)
    if factor.kind == "category":
        return [None if _is_missing(cell) else str(cell).strip() for cell in frame[factor.columns[0]]]
    columns = [[_read(cell, factor.kind) for cell in frame[column]] for column in factor.columns]
    if factor.kind == "number":
        return list(columns[0])
    return [None if first is None or second is None else second - first for first, second in zip(*columns, strict=True)]


def _is_missing(cell: Any) -> bool:
    return str(cell).strip().casefold() in MISSING


def _read(cell: Any, kind: str) -> float | None:
    """A finite number, or for a date its day; None where there is none."""
    if _is_missing(cell):
        return None
    try:
        if kind == "days":
            return float(datetime.date.fromisoformat(str(cell).strip()[:10]).toordinal())
        number = float(str(cell))
    except ValueError:
        return None
    return number if math.isfinite(number) else None
