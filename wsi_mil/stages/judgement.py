"""How far the calibrated predictions can be relied on: calibration, decisions, sets, sites and subgroups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_mil.evaluation import (
    CALIBRATION_METRICS,
    Interval,
    Metric,
    at_decision,
    bootstrap,
    cramers_v,
    expected_band,
    mean_size,
    patients_covered,
)
from wsi_mil.stages.calibrate import read_predicted
from wsi_mil.stages.calibrated import BAR, NAME, Calibration, load_calibration

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work

MEASURES = ("brier", "log_loss")

FEWEST = 2
"""Patients of each class below which a group has no AUROC worth a row."""


@dataclass(frozen=True)
class Covered:
    """How often the sets of some patients held their class."""

    share: float
    patients: int
    low: float
    high: float
    """Where the share lies in 95 % of studies of this size, if the promise holds."""
    size: float
    """Classes in a set, on average."""


@dataclass(frozen=True)
class Group:
    """Metrics of the cases of one site, scanner or other value of a column."""

    cases: int
    patients: int
    counts: tuple[int, ...]
    """Cases of each class."""
    metrics: dict[str, Interval]


@dataclass(frozen=True)
class Judgement:
    """Everything of the calibrated cases of a study or of another cohort."""

    level: str
    patients: list[str]
    classes: tuple[str, ...]
    truth: NDArray[np.int64]
    raw: NDArray[np.float64]
    calibrated: NDArray[np.float64]
    measures: dict[str, dict[str, Interval]]
    """raw and calibrated, then by metric."""
    decisions: dict[str, Interval]
    """Sensitivity, specificity and predictive values at the thresholds; empty for more than two classes."""
    thresholds: tuple[float, ...]
    """Those in use, one a fold."""
    coverage: dict[str, Covered]
    """All patients, then each class, then each site."""
    groups: dict[str, dict[str, Group]]
    association: dict[str, tuple[float, float]]
    """Of each column with the label, patients as cases: Cramer's V and its p."""
    source: str
    rule: str
    notes: list[str]
    refused: str


def judge_study(work: Work, *, columns: Sequence[str], draws: int) -> Judgement | None:
    """Judge the cross-validated predictions; None where the study is not calibrated."""
    folder = work.stage("calibrate").folder(work)
    if not (folder / NAME).exists() or not (folder / "slides.csv").exists() or work.study.predict.models is not None:
        return None
    slides = read_predicted(folder / "slides.csv")
    own = slides[(slides["part"] == "cross-validation") & (slides["status"] == "predicted") & (slides["label"] != "")]
    if own.empty:
        return None
    table, level = own, "slide"
    if (folder / "patients.csv").exists():
        table, level = read_predicted(folder / "patients.csv"), "patient"
        table = table[table["patient"].isin(own["patient"]) & (table["label"] != "")]
    calibration = load_calibration(folder / NAME)
    return judge(table, level, calibration, columns=values_of(work, table, level, columns), draws=draws)


def judge(
    table: pd.DataFrame, level: str, calibration: Calibration, *, columns: Mapping[str, Sequence[str]], draws: int
) -> Judgement:
    """Judge rows of a calibrated table whose labels are known; `columns` has a value a row for each subgroup column."""
    classes = calibration.classes
    truth = np.array([classes.index(label) for label in table["label"]], dtype=np.int64)
    raw, made = (table[[f"{kind}_{name}" for name in classes]].to_numpy(np.float64) for kind in ("p", "calibrated"))
    patients = list(table["patient"].astype(str))
    wanted: dict[str, str | Metric] = {one: one for one in MEASURES} | dict(CALIBRATION_METRICS)
    measures = {
        name: {metric: bootstrap(found, truth, said, patients, draws=draws) for metric, found in wanted.items()}
        for name, said in (("raw", raw), ("calibrated", made))
    }
    binary = len(classes) == 2 and table["threshold"].notna().all()
    called = (table["decision"] == classes[-1]).to_numpy()
    at = at_decision(called) if binary else {}
    groups = {
        column: _groups(list(values), truth, made, patients, called if binary else None, draws)
        for column, values in columns.items()
        if len(set(values)) > 1
    }
    fitted = calibration.levels[level]
    return Judgement(
        level=level,
        patients=patients,
        classes=classes,
        truth=truth,
        raw=raw,
        calibrated=made,
        measures=measures,
        decisions={name: bootstrap(metric, truth, made, patients, draws=draws) for name, metric in at.items()},
        thresholds=tuple(sorted(set(table["threshold"].round(6)))) if binary else (),
        coverage=_coverage(table, truth, patients, calibration, level, list(columns.get("site", []))),
        groups=groups,
        association={name: _association(values, truth, patients) for name, values in columns.items() if name in groups},
        source=calibration.source,
        rule=calibration.rule,
        notes=sorted({one.calibrator.note for one in fitted.values() if one.calibrator.note}),
        refused=next((one.refused for one in fitted.values() if one.refused), ""),
    )


def values_of(work: Work, table: pd.DataFrame, level: str, columns: Sequence[str]) -> dict[str, list[str]]:
    """The value of each column for each row: of a patient all that their slides have, joined by +."""
    frame, found = work.cohort.frame, {}
    for column in dict.fromkeys(["site", *columns]):
        work.cohort.column(column)
        by = frame.groupby(level, sort=False)[column].agg(lambda cells: "+".join(dict.fromkeys(map(str, cells))))
        found[column] = [by[name] or "unknown" for name in table[level]]
    return found


def worst(groups: Mapping[str, Group]) -> str | None:
    """The group with the lowest AUROC."""
    known = {name: one.metrics["auroc"].value for name, one in groups.items() if "auroc" in one.metrics}
    return min(known, key=lambda name: known[name]) if len(known) > 1 else None


def _groups(
    values: Sequence[str],
    truth: NDArray[np.int64],
    said: NDArray[np.float64],
    patients: Sequence[str],
    called: NDArray[np.bool_] | None,
    draws: int,
) -> dict[str, Group]:
    found, names = {}, np.asarray(patients)
    for value in sorted(set(values)):
        here = np.asarray(values) == value
        own = {number: set(names[here & (truth == number)]) for number in range(said.shape[1])}
        counts = tuple(int((truth[here] == number).sum()) for number in own)
        metrics: dict[str, Interval] = {}
        if all(len(one) >= FEWEST for one in own.values()):
            wanted = {"auroc": "auroc", "brier": "brier"} | ({} if called is None else at_decision(called[here]))
            metrics = {
                name: bootstrap(metric, truth[here], said[here], list(names[here]), draws=draws)
                for name, metric in wanted.items()
            }
        found[value] = Group(int(here.sum()), len(set(names[here])), counts, metrics)
    return found


def _coverage(
    table: pd.DataFrame,
    truth: NDArray[np.int64],
    patients: Sequence[str],
    calibration: Calibration,
    level: str,
    sites: Sequence[str],
) -> dict[str, Covered]:
    """Coverage of the sets of all, each class and each site, where there are sets."""
    used = [one.conformal for one in calibration.levels[level].values() if one.conformal is not None]
    if not used or (table["set"] == "").any():
        return {}
    sets = np.array([[name in told.split(BAR) for name in calibration.classes] for told in table["set"]])
    # The band is that of the smallest calibration set: with several folds it is wider than need be.
    counts, promised = np.min([one.patients for one in used], axis=0), used[0].coverage
    # What the promise is of: a patient, or a patient's cases of a class where the classes are promised apart.
    apart = used[0].class_conditional
    units = [f"{patient}|{number}" if apart else patient for patient, number in zip(patients, truth, strict=True)]
    parts = {"all patients": (np.ones(len(truth), dtype=bool), int(counts.min()))}
    parts |= {
        f"class {name}": (truth == number, int(counts[number])) for number, name in enumerate(calibration.classes)
    }
    if len(set(sites)) > 1:
        parts |= {f"site {site}": (np.asarray(sites) == site, int(counts.min())) for site in sorted(set(sites))}
    found = {}
    for name, (here, behind) in parts.items():
        if here.any():
            held = patients_covered(sets[here], truth[here], [units[row] for row in np.flatnonzero(here)])
            low, high = expected_band(behind, len(held), promised)
            found[name] = Covered(float(np.mean(list(held.values()))), len(held), low, high, mean_size(sets[here]))
    return found


def _association(values: Sequence[str], truth: NDArray[np.int64], patients: Sequence[str]) -> tuple[float, float]:
    first = pd.DataFrame({"value": list(values), "truth": truth.astype(str), "patient": list(patients)})
    first = first.drop_duplicates("patient")
    return cramers_v(list(first["value"]), list(first["truth"]))
