"""Whether a table of folds holds together: roles, known slides, no patient on two sides; each fault with its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from wsi_mil.errors import CohortError, suggestion

ROLES = ("fit", "select", "calibrate", "test")
"""fit trains, select chooses the epoch, calibrate sets thresholds, test is read once."""

COLUMNS = ("repeat", "fold", "slide", "patient", "role")

MOST_FAULTS = 40
"""Named one by one; the rest is counted."""

_KEYS = ["repeat", "fold"]

_SHOWN = 8
"""Rows that one sentence lists."""


def check_folds(
    folds: pd.DataFrame,
    *,
    slides: Sequence[str],
    where: str | Path,
    patients: Mapping[str, str] | None = None,
    rows: Sequence[str] = (),
) -> pd.DataFrame:
    """Check a table of folds, ours or brought: columns, roles, known slides, no patient in two roles of a fold.

    `patients`, by slide, is what the cohort says; a table that says otherwise would hide a patient on two sides. `rows`
    says where each row stands in the file that it was read from. Raises CohortError that names every fault.
    """
    missing = [name for name in COLUMNS if name not in folds.columns]
    if missing:
        raise CohortError(f"{where} lacks the column(s) {', '.join(missing)}: it needs {', '.join(COLUMNS)}")
    folds = folds.reset_index(drop=True)
    places = pd.Series(list(rows) if len(rows) else "", index=folds.index, dtype=object)
    for name in _KEYS:
        odd = ~folds[name].astype(str).str.strip().str.isdigit()
        if odd.any():
            first = str(folds[name][odd].iloc[0])
            more = f"{odd.sum()} such row(s){_at(places[odd])}"
            raise CohortError(f"{where}: {name} {first!r} is not a number from 0 on ({more})")
    folds = folds[list(COLUMNS)].astype({"repeat": int, "fold": int, "slide": str, "patient": str, "role": str})
    faults = [
        *_unknown(folds, slides, places),
        *_other_patients(folds, patients or {}, places),
        *_twice(folds, places),
        *_two_sides(folds, places),
        *_lacking(folds),
    ]
    if faults:
        more = f"; ... and {len(faults) - MOST_FAULTS} more" if len(faults) > MOST_FAULTS else ""
        raise CohortError(f"{where}: {len(faults)} fault(s): " + "; ".join(faults[:MOST_FAULTS]) + more)
    return folds


def _unknown(folds: pd.DataFrame, slides: Sequence[str], places: pd.Series) -> list[str]:
    faults = [
        f"unknown role {role!r}{suggestion(role, ROLES)}{_at(places[folds['role'] == role])}"
        for role in sorted(set(folds["role"]) - set(ROLES))
    ]
    unknown = sorted(set(folds["slide"]) - set(slides))
    if unknown:
        faults.append(
            f"{len(unknown)} slide(s) that the cohort does not have, first {unknown[0]!r}"
            f"{_at(places[folds['slide'].isin(unknown)])} (those without a label or outside split.where take no part)"
        )
    return faults


def _other_patients(folds: pd.DataFrame, patients: Mapping[str, str], places: pd.Series) -> list[str]:
    told = folds["slide"].map(patients)
    wrong = told.notna() & (told != folds["patient"])
    return [
        f"slide {slide!r} is of patient {told[group.index[0]]!r} in the cohort, not of {patient!r}"
        f"{_at(places[group.index])}"
        for (slide, patient), group in folds[wrong].groupby(["slide", "patient"], sort=False)
    ]


def _twice(folds: pd.DataFrame, places: pd.Series) -> list[str]:
    twice = folds[folds.duplicated([*_KEYS, "slide"], keep=False)]
    return [
        f"slide {slide!r} stands {'twice' if len(group) == 2 else f'{len(group)} times'} in repeat {repeat}, "
        f"fold {fold}{_at(places[group.index])}"
        for (repeat, fold, slide), group in twice.groupby([*_KEYS, "slide"], sort=False)
    ]


def _two_sides(folds: pd.DataFrame, places: pd.Series) -> list[str]:
    several = folds.groupby([*_KEYS, "patient"])["role"].transform("nunique") > 1
    faults = []
    for (repeat, fold, patient), group in folds[several].groupby([*_KEYS, "patient"], sort=False):
        roles = sorted(set(group["role"]))
        told = f"patient {patient!r} is in {len(roles)} roles of repeat {repeat}, fold {fold} ({' and '.join(roles)})"
        faults.append(told + _at(places[group.index]))
    return faults


def _lacking(folds: pd.DataFrame) -> list[str]:
    faults = []
    for (repeat, fold), group in folds.groupby(_KEYS):
        lacking = [role for role in ("fit", "test") if role not in set(group["role"])]
        if lacking:
            faults.append(f"repeat {repeat}, fold {fold} has no slide in the role(s) {', '.join(lacking)}")
    return faults


def _at(places: pd.Series) -> str:
    """Where some rows stand; nothing for folds that were never a file."""
    told = [place for place in places if place]
    more = f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    return f", rows {', '.join(told[:_SHOWN])}{more}" if told else ""
