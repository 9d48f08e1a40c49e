"""Folds that cannot leak: patient-grouped, label-stratified roles (fit, select, calibrate, test) for every slide."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd

from wsi_mil.cohort.checked import COLUMNS, check_folds
from wsi_mil.errors import CohortError

By = Literal["patients", "sites", "leave_one_site_out"]
"""What is kept whole between the test role and the others; patients always are."""


def make_folds(
    frame: pd.DataFrame,
    *,
    label: str,
    folds: int = 5,
    repeats: int = 1,
    select: float = 0.2,
    calibrate: float = 0.0,
    seed: int = 0,
    by: By = "patients",
    test: float = 0.2,
    classes: bool = True,
) -> pd.DataFrame:
    """Repeated cross-validation over the rows (slide, patient, `label`, and site where asked for) of a cohort.

    Each slide is in the test role once a repeat; of the patients outside it the shares `select` and `calibrate` go to
    those roles. All slides of a patient have one role in a fold, and every class is spread as evenly as whole patients
    allow. `by="sites"` keeps whole sites in the test role, `by="leave_one_site_out"` makes a fold of each site (select
    and calibrate are dealt by patients). With `folds=1` the share `test` of the patients is one test set that no other
    fold learns from. With `classes=False` the labels are groups to balance by, which need not reach every fold.
    Returns the columns repeat, fold, slide, patient, role.
    Raises CohortError where a class, or the cohort, has fewer patients than folds, or sites cannot be kept whole.
    """
    least = 2 if by != "patients" else folds
    if classes:
        _check_classes(frame, label, least)
    elif (count := frame["patient"].nunique()) < max(2, least):
        raise CohortError(f"too few patients for {folds} folds: {count}; lower split.folds")
    sides = groups_of_sites(frame) if by != "patients" else None
    parts = []
    for repeat in range(repeats):
        dealing = seed + 1000 * repeat
        if sides is not None:
            tests = deal_sites(
                frame, sides, label=label, ways=folds if by == "sites" else 0, seed=dealing, classes=classes
            )
        elif folds == 1:
            tests = [_taken(frame, label, test, seed=dealing)]
        else:
            dealt = _deal(frame, label, folds, seed=dealing)
            tests = [dealt == fold for fold in range(folds)]
        for fold, tested in enumerate(tests):
            roles = np.where(tested, "test", "fit").astype(object)
            deal_rest(roles, frame, label=label, shares={"select": select, "calibrate": calibrate}, seed=dealing + fold)
            parts.append(part_of(frame, roles, repeat=repeat, fold=fold))
    made = pd.concat(parts, ignore_index=True)[list(COLUMNS)]
    return check_folds(made, slides=list(frame["slide"]), where="the folds made")


def deal_rest(roles: np.ndarray, frame: pd.DataFrame, *, label: str, shares: Mapping[str, float], seed: int) -> None:
    """Give rows of the fit role to other roles, in place, patients whole.

    Each share is of the patients outside the test role, whichever role was dealt before it. CohortError where a share
    leaves nobody to learn from.
    """
    learning = frame["patient"][roles != "test"].nunique()
    for role, share in shares.items():
        rest = np.flatnonzero(roles == "fit")
        left = frame["patient"].iloc[rest].nunique()
        if share <= 0 or left < 2:
            continue
        of_rest = share if left == learning else share * learning / left
        if of_rest >= 1:
            raise CohortError(
                f"the role {role} is to have {share:g} of {learning} patients, and the roles before it have left "
                f"{left}: lower split.{role}, so that some are left to learn from"
            )
        taken = _taken(frame.iloc[rest], label, of_rest, seed=seed + 1)
        roles[rest[taken]] = role


def part_of(frame: pd.DataFrame, roles: np.ndarray, *, repeat: int, fold: int) -> pd.DataFrame:
    """Rows of the table of folds for one fold."""
    part = frame[["slide", "patient"]].copy()
    part.insert(0, "repeat", repeat)
    part.insert(1, "fold", fold)
    part["role"] = roles
    return part


def groups_of_sites(frame: pd.DataFrame) -> np.ndarray:
    """A number a row: sites that share a patient are one group. CohortError for slides whose site is not known."""
    lacking = list(frame["slide"][frame["site"] == ""]) if "site" in frame.columns else list(frame["slide"])
    if lacking:
        raise CohortError(
            f"folds by sites need a site for every slide; {len(lacking)} have none (first {lacking[0]!r}): fill in the "
            "column `site` of the cohort table"
        )
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    sites, patients = (pd.factorize(frame[name])[0] for name in ("site", "patient"))
    count = int(sites.max()) + 1 + int(patients.max()) + 1
    edges = coo_matrix((np.ones(len(frame)), (sites, patients + sites.max() + 1)), shape=(count, count))
    return np.asarray(connected_components(edges, directed=False)[1][sites])


def deal_sites(
    frame: pd.DataFrame, sides: np.ndarray, *, label: str, ways: int, seed: int, classes: bool = True
) -> list[np.ndarray]:
    """Which rows are tested in each fold, sites whole; a fold each site where `ways` is 0.

    CohortError, with the sites, where there are fewer than folds, or where a fold would have to learn without a class
    (with `classes=False` the labels are groups to balance by, which a fold may lack).
    """
    groups = np.unique(sides)
    names = {group: "+".join(sorted(frame["site"][sides == group].unique())) for group in groups}
    if len(groups) < max(2, ways):
        raise CohortError(
            f"{len(groups)} site(s) ({', '.join(names.values())}) are too few for {max(2, ways)} folds that keep sites "
            "whole; lower split.folds, or split by patients"
        )
    dealt = sides if ways == 0 else _deal(frame.assign(patient=sides.astype(str)), label, ways, seed=seed)
    tests = [dealt == number for number in np.unique(dealt)]
    faults = []
    for tested in tests:
        gone = sorted(set(frame[label]) - set(frame[label][~tested]))
        if gone and classes:
            where = ", ".join(names[group] for group in np.unique(sides[tested]))
            faults.append(f"without {where} no slide of {', '.join(map(repr, gone))} is left to learn from")
    if faults:
        raise CohortError(f"sites cannot be kept whole for {label!r}: " + "; ".join(faults))
    return tests


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


def _taken(frame: pd.DataFrame, label: str, share: float, *, seed: int) -> np.ndarray:
    """Which rows make a share of the patients: patients whole, labels in the same proportions, by the seed.

    A half, a third, a fifth are one part of two, three, five. Any other share is drawn systematically: the patients in
    the order of their labels, and by chance within equal labels, are passed with a step of 1 / share. Of each kind of
    patient the share is met to within one, and of a kind with two or more not all are taken by a share up to a half.
    """
    patients, number = np.unique(frame["patient"].to_numpy(dtype=str), return_inverse=True)
    ways = round(1 / share)
    if ways > 1 and abs(ways * share - 1) < 1e-9:
        # Never more parts than slides of the commonest class, in a cohort of a dozen.
        most = int(frame[label].value_counts().max())
        return _deal(frame, label, max(2, min(ways, most, len(patients))), seed=seed) == 0
    counts = pd.crosstab(number, frame[label].to_numpy()).to_numpy()
    chance = np.random.default_rng(seed).permutation(len(patients))
    # By the commonest label, then by how many slides of each.
    order = np.lexsort([chance, *counts.T, counts.argmax(axis=1)])
    count = min(max(1, round(len(patients) * share)), len(patients) - 1)
    steps = np.floor(np.arange(len(patients) + 1) * count / len(patients) + 0.5)
    taken = np.zeros(len(patients), dtype=bool)
    taken[order] = np.diff(steps) > 0
    return np.asarray(taken[number])


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
