"""Calibrators, thresholds and sets of a study: fitted on patients that neither trained nor test, and laid on others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_mil import files
from wsi_mil.errors import ModelError, TaskError
from wsi_mil.evaluation import Calibrator, Conformal, choose_threshold, fit_calibrator, fit_conformal

if TYPE_CHECKING:
    from wsi_mil.stages.calibrate import Calibrate

FORMAT = 1

NAME = "calibration.json"

ALL = "all"
"""Key of what is fitted on the calibration patients of all folds together: for slides of no fold, and other cohorts."""

BAR, EMPTY = "|", "none"
"""Between the classes of a set; a set without any. No class may be called so where sets are wanted."""

Place = tuple[int, int]
"""Repeat and fold."""


@dataclass(frozen=True)
class Fitted:
    """What was fitted on one set of calibration patients."""

    calibrator: Calibrator
    threshold: float | None
    """On the calibrated probability of the last of two classes; None: the most probable class is called."""
    conformal: Conformal | None
    refused: str
    """Why there are no conformal sets, where there are none."""
    cases: int
    patients: tuple[int, ...]
    """Of each class."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **vars(self),
            "calibrator": self.calibrator.to_json(),
            "conformal": None if self.conformal is None else self.conformal.to_json(),
            "patients": list(self.patients),
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Fitted:
        """Back from `to_json`."""
        sets = None if told["conformal"] is None else Conformal.from_json(told["conformal"])
        made = {"calibrator": Calibrator.from_json(told["calibrator"]), "conformal": sets}
        return cls(**{**told, **made, "patients": tuple(told["patients"])})


@dataclass(frozen=True)
class Calibration:
    """All that was fitted for a study; by level (slide, patient), then by fold ("0/1": repeat 0, fold 1) or ALL."""

    classes: tuple[str, ...]
    source: str
    """"the calibrate role", or "cross-fitted"."""
    rule: str
    """How the threshold was chosen, in words."""
    levels: dict[str, dict[str, Fitted]]

    def of(self, level: str, place: Place | None) -> Fitted:
        """What belongs to a fold, or to all."""
        by_place = self.levels[level]
        return by_place.get(ALL if place is None else key_of(place), by_place[ALL])

    def save(self, path: Path) -> None:
        """As JSON."""
        levels = {level: {key: one.to_json() for key, one in found.items()} for level, found in self.levels.items()}
        files.write_json(path, {"format": FORMAT, **vars(self), "classes": list(self.classes), "levels": levels})


def load_calibration(path: Path) -> Calibration:
    """Read calibration.json. ModelError where it is none, or of another version."""
    try:
        told = files.read_json(path)
        if told["format"] != FORMAT:
            raise ModelError(f"{path} has format {told['format']!r} and this version reads {FORMAT}; calibrate again")
        levels = {
            level: {key: Fitted.from_json(one) for key, one in found.items()} for level, found in told["levels"].items()
        }
        return Calibration(tuple(told["classes"]), told["source"], told["rule"], levels)
    except (OSError, ValueError, KeyError, TypeError, TaskError) as error:
        raise ModelError(f"{path} is no calibration of wsi_mil ({error}); make it with `wsi-mil calibrate`") from error


def key_of(place: Place) -> str:
    """ "repeat/fold"."""
    return f"{place[0]}/{place[1]}"


def fit_calibration(
    rows: pd.DataFrame, places: Sequence[Place], classes: Sequence[str], how: Calibrate, *, source: str, patients: bool
) -> Calibration:
    """Fit each fold's on its own rows (repeat, fold, slide, patient, label, p_*), and one on all.

    The rows must be of calibration patients alone: what is not handed over cannot leak.
    """
    levels = {}
    for level in ["slide", *(["patient"] if patients else [])]:
        found = {}
        for place in [*places, None]:
            here = rows if place is None else rows[(rows["repeat"] == place[0]) & (rows["fold"] == place[1])]
            found[ALL if place is None else key_of(place)] = _fit(cases_of(here, level, classes), classes, how)
        levels[level] = found
    return Calibration(tuple(classes), source, how.told_rule, levels)


def cases_of(rows: pd.DataFrame, level: str, classes: Sequence[str]) -> pd.DataFrame:
    """One row a slide, or a patient: the mean probability over its rows, with patient and label."""
    answers = [f"p_{name}" for name in classes]
    grouped = rows.groupby(level, sort=False)
    table = grouped[answers].mean()
    first = grouped[["label", *(["patient"] if level == "slide" else [])]].first()
    table = table.join(first)
    return table.reset_index()


def lay_on(table: pd.DataFrame, rows: pd.DataFrame, level: str, calibration: Calibration) -> pd.DataFrame:
    """The table (one row a slide or patient) with calibrated_*, threshold, decision and set.

    `rows` has what each fold's models said of it (repeat and fold are -1 for models of no fold). Several folds that
    test a case are averaged; a class is in its set where at least half of their sets hold it, which keeps at least
    1 - 2 (1 - coverage) of the promise (Gasparin and Ramdas, 2024).
    """
    classes = calibration.classes
    answers = [f"p_{name}" for name in classes]
    told: dict[str, list[tuple[NDArray[np.float64], float | None, NDArray[np.bool_] | None]]] = {}
    for repeat, fold in sorted(set(zip(rows["repeat"], rows["fold"], strict=True))):
        part = rows[(rows["repeat"] == repeat) & (rows["fold"] == fold)]
        own = calibration.of(level, None if repeat < 0 else (int(repeat), int(fold)))
        cases = part.groupby(level, sort=False)[answers].mean()
        raw = cases.to_numpy(np.float64)
        made = own.calibrator.apply(raw)
        sets = None if own.conformal is None else own.conformal.sets(raw)
        for number, name in enumerate(cases.index):
            told.setdefault(str(name), []).append((made[number], own.threshold, None if sets is None else sets[number]))
    found = [_joined(told[str(name)], classes) if str(name) in told else {} for name in table[level]]
    columns = [*(f"calibrated_{name}" for name in classes), "threshold", "decision", "set"]
    return table.assign(**{name: [one.get(name, "") for one in found] for name in columns})


def _fit(cases: pd.DataFrame, classes: Sequence[str], how: Calibrate) -> Fitted:
    raw = cases[[f"p_{name}" for name in classes]].to_numpy(np.float64)
    truth = np.array([list(classes).index(label) for label in cases["label"]], dtype=np.int64)
    patients = cases["patient"].astype(str)
    # Every patient counts once, however many slides they have.
    weights = 1 / patients.map(patients.value_counts()).to_numpy(np.float64)
    calibrator = fit_calibrator(how.method, raw, truth, weights)
    made, threshold = calibrator.apply(raw), None
    if len(classes) == 2:
        threshold = choose_threshold(
            how.threshold, truth == 1, made[:, 1], weights, sensitivity=how.sensitivity, cost=how.cost
        )
    conformal, refused = _sets(raw, truth, list(patients), classes, how)
    counts = tuple(int(patients[truth == number].nunique()) for number in range(len(classes)))
    return Fitted(calibrator, threshold, conformal, refused, len(cases), counts)


def _sets(
    raw: NDArray[np.float64], truth: NDArray[np.int64], patients: Sequence[str], classes: Sequence[str], how: Calibrate
) -> tuple[Conformal | None, str]:
    """The sets, or why there are none."""
    unclear = [repr(name) for name in classes if name == EMPTY or BAR in name]
    if unclear:
        return None, (
            f"no sets can be written with a class called {' or '.join(unclear)}: a set is its classes with {BAR} "
            f"between them, and {EMPTY} where it is empty; name the class otherwise"
        )
    coverage, apart = how.coverage, how.class_conditional
    try:
        return fit_conformal(raw, truth, patients, classes=classes, coverage=coverage, class_conditional=apart), ""
    except TaskError as error:
        return None, str(error)


def _joined(
    told: list[tuple[NDArray[np.float64], float | None, NDArray[np.bool_] | None]], classes: Sequence[str]
) -> dict[str, Any]:
    mean = np.mean([one[0] for one in told], axis=0)
    cuts = [one[1] for one in told if one[1] is not None]
    found: dict[str, Any] = {f"calibrated_{name}": value for name, value in zip(classes, mean, strict=True)}
    if len(cuts) == len(told):
        found["threshold"] = float(np.mean(cuts))
        found["decision"] = classes[int(mean[1] >= found["threshold"])]
    else:
        found["decision"] = classes[int(mean.argmax())]
    sets = [one[2] for one in told if one[2] is not None]
    if len(sets) == len(told):
        held = np.mean(sets, axis=0) >= 0.5
        found["set"] = BAR.join(name for name, one in zip(classes, held, strict=True) if one) or EMPTY
    return found
