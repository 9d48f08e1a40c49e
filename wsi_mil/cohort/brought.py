"""Folds that a person brings: a column of the cohort, our folds.csv, CLAM's splits_<i>.csv, STAMP's splits.json."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from wsi_mil.cohort.checked import COLUMNS, check_folds
from wsi_mil.cohort.splits import deal_rest, part_of
from wsi_mil.cohort.spreadsheet import read_table
from wsi_mil.errors import CohortError
from wsi_mil.layout import slide_id

WORDS = {
    "fit": ("fit", "train", "training", "development"),
    "select": ("select", "val", "valid", "validation", "tune"),
    "calibrate": ("calibrate", "calibration"),
    "test": ("test", "testing", "holdout", "hold-out"),
}
"""What a column may call a role."""

CLAM_NAME = re.compile(r"splits_(\d+)\.csv$")

ROW = "row of the file"
"""Column that says where a row of the folds was read; no file has one of this name."""

MOST_VALUES = 50
"""Distinct values of a column that may still be numbers of folds; more is a column of something else."""


def folds_by_column(
    frame: pd.DataFrame,
    column: str,
    *,
    label: str,
    shares: Mapping[str, float],
    seed: int,
    row_of: Mapping[str, int] | None = None,
) -> pd.DataFrame:
    """Folds from a column of the cohort, for rows with slide, patient, `label` and the column.

    Words for roles (train, val, calibration, test ...) make one fold; any other values make a fold each, in which their
    slides are tested. Roles that the column does not name are dealt from the fit role by `shares`, patients whole.
    `row_of` has the row of the cohort table by slide. Raises CohortError that names every fault.
    """
    values = frame[column].str.strip().str.casefold()
    role_of = {word: role for role, words in WORDS.items() for word in words}
    faults = [
        f"{f'row {row_of[slide]}: ' if row_of else ''}slide {slide!r} has no value"
        for slide in frame["slide"][values == ""]
    ]
    distinct = sorted(set(values) - {""}, key=lambda value: (len(value), value) if value.isdigit() else (99, value))
    if not set(distinct) <= set(role_of) and set(distinct) & set(role_of):
        odd = sorted(set(distinct) - set(role_of))
        faults.append(f"{', '.join(map(repr, odd))} is no role, but other values are: write {', '.join(WORDS)}")
    if not 2 <= len(distinct) <= MOST_VALUES:
        faults.append(f"it has {len(distinct)} different values; folds need 2 to {MOST_VALUES}")
    if faults:
        raise CohortError(f"split.column {column!r}: {len(faults)} fault(s): {'; '.join(faults[:40])}")
    parts = []
    if set(distinct) <= set(role_of):
        roles = values.map(role_of).to_numpy(dtype=object)
        parts.append(_completed(frame, roles, label=label, shares=shares, seed=seed, fold=0))
    else:
        for fold, value in enumerate(distinct):
            roles = np.where(values == value, "test", "fit").astype(object)
            parts.append(_completed(frame, roles, label=label, shares=shares, seed=seed, fold=fold))
    made = pd.concat(parts, ignore_index=True)[list(COLUMNS)]
    rows = [str(row_of[slide]) for slide in made["slide"]] if row_of else []
    return check_folds(made, slides=list(frame["slide"]), where=f"split.column {column!r}", rows=rows)


def read_brought(
    path: Path, frame: pd.DataFrame, *, label: str, shares: Mapping[str, float], seed: int
) -> pd.DataFrame:
    """Folds from a file, for the rows (slide, patient, `label`) that take part.

    A CSV with repeat, fold, slide, patient, role; a `splits_<i>.csv` of CLAM (train, val, test: columns of slide ids),
    or a folder of them; a `splits.json` of STAMP (lists of patients; select and calibrate are dealt by `shares`).
    Raises CohortError that names every fault.
    """
    if path.is_dir():
        found = sorted(path.glob("splits_*.csv"), key=lambda one: (len(one.name), one.name))
        files = [one for one in found if CLAM_NAME.search(one.name)]
        if not files:
            raise CohortError(f"{path} is a folder without splits_0.csv, splits_1.csv ... of CLAM: give a file")
        folds = pd.concat([_clam(one, frame, number) for number, one in enumerate(files)], ignore_index=True)
    elif path.suffix.lower() == ".json":
        folds = _stamp(path, frame, label=label, shares=shares, seed=seed)
    else:
        folds = read_table(path)
        if {"train", "test"} <= set(folds.columns):
            folds = _clam(path, frame, 0)
        else:
            folds[ROW] = [str(row + 2) for row in range(len(folds))]
    patients = dict(zip(frame["slide"], frame["patient"], strict=True))
    rows = list(folds[ROW]) if ROW in folds.columns else []
    return check_folds(folds, slides=list(frame["slide"]), where=path, patients=patients, rows=rows)


def files_of(path: Path) -> list[Path]:
    """The files that folds are read from."""
    return sorted(path.glob("splits_*.csv")) if path.is_dir() else [path]


def _clam(path: Path, frame: pd.DataFrame, number: int) -> pd.DataFrame:
    """One fold of CLAM: ragged columns of slide ids."""
    table = read_table(path)
    patients = dict(zip(frame["slide"], frame["patient"], strict=True))
    rows = []
    for column, role in (("train", "fit"), ("val", "select"), ("test", "test")):
        for row, told in enumerate(table.get(column, [])):
            if told:
                slide = told if told in patients else slide_id(Path(told))
                known = slide if slide in patients else told
                rows.append((0, number, known, patients.get(slide, told), role, f"{row + 2} of {path.name}"))
    return pd.DataFrame(rows, columns=[*COLUMNS, ROW])


def _stamp(path: Path, frame: pd.DataFrame, *, label: str, shares: Mapping[str, float], seed: int) -> pd.DataFrame:
    """Folds of STAMP: lists of patients to train on and to test."""
    try:
        splits = json.loads(path.read_text(encoding="utf-8"))["splits"]
        told = [({str(one) for one in split["train_patients"]}, {str(one) for one in split["test_patients"]})
                for split in splits]  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CohortError(
            f"{path} cannot be read as STAMP's splits.json ({error}): it needs splits, a list of train_patients and "
            "test_patients"
        ) from error
    known, faults, parts = set(frame["patient"]), [], []
    for fold, (train, test) in enumerate(told):
        faults += [f"patient {one!r} is in train and test of fold {fold}" for one in sorted(train & test)]
        unknown = sorted((train | test) - known)
        if unknown:
            faults.append(f"{len(unknown)} patient(s) of fold {fold} are not in the cohort, first {unknown[0]!r}")
    if faults or not told:
        raise CohortError(f"{path}: {len(faults)} fault(s): {'; '.join(faults[:40]) or 'it has no fold'}")
    for fold, (train, test) in enumerate(told):
        here = frame[frame["patient"].isin(train | test)].reset_index(drop=True)
        roles = np.where(here["patient"].isin(test), "test", "fit").astype(object)
        parts.append(_completed(here, roles, label=label, shares=shares, seed=seed, fold=fold))
    return pd.concat(parts, ignore_index=True)


def _completed(
    frame: pd.DataFrame, roles: np.ndarray, *, label: str, shares: Mapping[str, float], seed: int, fold: int
) -> pd.DataFrame:
    lacking = {role: share for role, share in shares.items() if role not in set(roles)}
    deal_rest(roles, frame, label=label, shares=lacking, seed=seed + fold)
    return part_of(frame, roles, repeat=0, fold=fold)
