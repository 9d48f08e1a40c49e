"""Folds that cannot leak: patient-grouped, label-stratified roles (fit, select, calibrate, test) for every slide."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from wsi_mil.errors import CohortError, suggestion

ROLES = ("fit", "select", "calibrate", "test")
"""fit trains, select chooses the epoch, calibrate sets thresholds, test is read once."""

COLUMNS = ("repeat", "fold", "slide", "patient", "role")


def make_folds(
    frame: pd.DataFrame,
    *,
    label: str,
    folds: int = 5,
    repeats: int = 1,
    select: float = 0.2,
    calibrate: float = 0.0,
    seed: int = 0,
    classes: bool = True,
) -> pd.DataFrame:
    """Repeated cross-validation over the rows (slide, patient, `label`) of a cohort.

    Each slide is in the test role once a repeat; of the rest, about the shares `select` and `calibrate` go to those
    roles. All slides of a patient have one role in a fold, and every class is spread as evenly as whole patients
    allow. Returns the columns repeat, fold, slide, patient, role.
    With `classes=False` the labels are groups to balance by, which need not reach every fold.
    Raises CohortError where a class, or the cohort, has fewer patients than folds.
    """
    if classes:
        _check_classes(frame, label, folds)
    elif (count := frame["patient"].nunique()) < max(2, folds):
        raise CohortError(f"too few patients for {folds} folds: {count}; lower split.folds")
    parts = []
    for repeat in range(repeats):
        test = _deal(frame, label, folds, seed=seed + 1000 * repeat)
        for fold in range(folds):
            roles = np.full(len(frame), "fit", dtype=object)
            roles[test == fold] = "test"
            for role, share in (("select", select), ("calibrate", calibrate)):
                rest = np.flatnonzero(roles == "fit")
                if share > 0:
                    # Never more parts than slides of the commonest class, in a cohort of a dozen.
                    most = int(frame[label].iloc[rest].value_counts().max())
                    ways = max(2, min(round(1 / share), most))
                    dealt = _deal(frame.iloc[rest], label, ways, seed=seed + 1000 * repeat + fold + 1)
                    roles[rest[dealt == 0]] = role
            part = frame[["slide", "patient"]].copy()
            part.insert(0, "repeat", repeat)
            part.insert(1, "fold", fold)
            part["role"] = roles
            parts.append(part)
    made = pd.concat(parts, ignore_index=True)[list(COLUMNS)]
    return check_folds(made, slides=list(frame["slide"]), where="the folds made")


def check_folds(folds: pd.DataFrame, *, slides: Sequence[str], where: str | Path) -> pd.DataFrame:
    """Check a table of folds, ours or brought: columns, roles, known slides, no patient in two roles of a fold."""
    missing = [name for name in COLUMNS if name not in folds.columns]
    if missing:
        raise CohortError(f"{where} lacks the column(s) {', '.join(missing)}: it needs {', '.join(COLUMNS)}")
    folds = folds[list(COLUMNS)].astype({"repeat": int, "fold": int, "slide": str, "patient": str, "role": str})
    faults = [f"unknown role {role!r}{suggestion(role, ROLES)}" for role in sorted(set(folds["role"]) - set(ROLES))]
    unknown = sorted(set(folds["slide"]) - set(slides))
    if unknown:
        faults.append(f"{len(unknown)} slide(s) that the cohort does not have, first {unknown[0]!r}")
    keys = ["repeat", "fold"]
    twice = folds[folds.duplicated([*keys, "slide"])]
    if len(twice):
        faults.append(f"slide {twice['slide'].iloc[0]!r} stands twice in fold {twice['fold'].iloc[0]}")
    roles = folds.groupby([*keys, "patient"])["role"].nunique()
    for repeat, fold, patient in roles[roles > 1].index[:5]:
        faults.append(
            f"patient {patient!r} is in {roles[(repeat, fold, patient)]} roles of repeat {repeat}, fold {fold}"
        )
    for (repeat, fold), group in folds.groupby(keys):
        lacking = [role for role in ("fit", "test") if role not in set(group["role"])]
        if lacking:
            faults.append(f"repeat {repeat}, fold {fold} has no slide in the role(s) {', '.join(lacking)}")
    if faults:
        raise CohortError(f"{where}: " + "; ".join(faults))
    return folds


def _check_classes(frame: pd.DataFrame, label: str, folds: int) -> None:
    patients = frame.groupby(label)["patient"].nunique()
    if len(patients) < 2:
        found = ", ".join(repr(value) for value in patients.index) or "none"
        raise CohortError(f"the label {label!r} has one value only ({found}): nothing can be learnt from it")
    few = patients[patients < max(2, folds)]
    if len(few):
        counts = ", ".join(f"{value!r} has {count}" for value, count in few.items())
        raise CohortError(
            f"too few patients for {folds} folds of {label!r}: {counts}; "
            "lower split.folds, or join or leave out classes"
        )


def _deal(frame: pd.DataFrame, label: str, ways: int, *, seed: int) -> np.ndarray:
    """A number 0..ways-1 for each row: patients whole, labels spread evenly, the same for the same seed."""
    from sklearn.model_selection import StratifiedGroupKFold

    dealt = np.zeros(len(frame), dtype=int)
    splitter = StratifiedGroupKFold(ways, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class smaller than the number of ways is spread as far as it goes; too few for the folds is refused above.
        warnings.filterwarnings("ignore", message="The least populated class")
        parts = splitter.split(np.zeros(len(frame)), frame[label].to_numpy(), frame["patient"].to_numpy())
        for number, (_, test) in enumerate(parts):
            dealt[test] = number
    return dealt
