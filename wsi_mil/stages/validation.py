"""A frozen model, calibrator and threshold on another cohort: what was transported, what drifted, what k cases mend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_mil import files
from wsi_mil.bags import read_bag
from wsi_mil.errors import StageError
from wsi_mil.evaluation import METRICS, Calibrator, Interval, bootstrap, fit_calibrator, out_of_fold_logistic, score
from wsi_mil.evaluation import Fold as RowFold
from wsi_mil.layout import folder_name
from wsi_mil.stages.calibrate import given_study, read_predicted, said_of
from wsi_mil.stages.calibrated import ALL, NAME, Calibration, Fitted, lay_on, load_calibration
from wsi_mil.stages.features import bags_of, usable
from wsi_mil.stages.judgement import Judgement, judge, values_of
from wsi_mil.stages.learnt import require_new
from wsi_mil.stages.trained import load, trained_models

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work

_MEASURES = tuple(name for name in METRICS if name not in ("sensitivity", "specificity"))
"""Those at the threshold are told with the decisions."""

LOCAL_DRAWS = 50
"""Random choices of the k local patients."""


@dataclass(frozen=True)
class Drift:
    """How far the bags lie from those that the model learnt from."""

    distance: dict[str, float]
    """By slide: root mean square, over features, of the mean tile's distance from the training tiles' mean, in spreads
    of the training tiles."""
    reference: tuple[float, float] | None
    """Median and 95 % quantile of the same over the slides of the model's own study; None where they are not at hand.
    """
    told_apart: float | None
    """AUROC of a logistic regression that tells the two cohorts' mean tiles apart: 0.5 the same, 1 never alike."""


@dataclass(frozen=True)
class Local:
    """Recalibration with k local patients, judged on the others."""

    k: int
    before: float
    after: float
    """Log loss on the others, means over random choices of the k."""
    worse: float
    """Share of the choices in which recalibration made it worse."""


@dataclass(frozen=True)
class Validation:
    """Everything of a validation."""

    judged: Judgement
    metrics: dict[str, Interval]
    """Of the calibrated probabilities."""
    development: dict[str, Interval]
    """The same of the model's own cross-validated cases of the same level (slides or patients), where they are at hand.
    """
    drift: Drift
    local: list[Local]


def validate(work: Work, *, columns: Sequence[str], local: Sequence[int], draws: int) -> Validation:
    """Judge the predictions of given models for labelled slides that they have not learnt from.

    Raises StageError where slides are training slides by name or content, where labels are none of the model's classes,
    or where the task is not classification.
    """
    kind: str = work.study.task.kind
    if kind != "classification":
        raise StageError(f"the model's task is {kind}; only classification is validated so far")
    require_new(work)
    table, level, calibration = _table(work)
    unknown = sorted(set(table["label"]) - set(calibration.classes))
    if unknown:
        raise StageError(
            f"the labels {', '.join(map(repr, unknown))} are none of the model's classes "
            f"({', '.join(calibration.classes)}): name them as the model does"
        )
    judged = judge(table, level, calibration, columns=values_of(work, table, level, columns), draws=draws)
    metrics = {
        name: bootstrap(name, judged.truth, judged.calibrated, judged.patients, draws=draws) for name in _MEASURES
    }
    development = _development(work, calibration, level, draws)
    return Validation(judged, metrics, development, _drift(work), _local(judged, local))


def _table(work: Work) -> tuple[pd.DataFrame, str, Calibration]:
    """The labelled cases with their calibrated probabilities; as they are where the model brings no calibration."""
    folder, source = work.stage("calibrate").folder(work), work.stage("predict").folder(work)
    level = "patient" if (source / "patients.csv").exists() else "slide"
    name = f"{level}s.csv"
    if (folder / NAME).exists():
        calibration, table = load_calibration(folder / NAME), read_predicted(folder / name)
    else:
        table = read_predicted(source / name)
        classes = tuple(column.removeprefix("p_") for column in table.columns if column.startswith("p_"))
        plain = Fitted(Calibrator("none", note="the model brings no calibration"), None, None, "no calibration", 0, ())
        calibration = Calibration(classes, "none", "none", {"slide": {ALL: plain}, "patient": {ALL: plain}})
        table = lay_on(table, said_of(work, read_predicted(source / "slides.csv")), level, calibration)
        table["threshold"] = pd.to_numeric(table["threshold"])
    known = table["label"] != ""
    if level == "slide":
        known &= table["status"] == "predicted"
    if not known.any():
        raise StageError("not one slide with a label could be predicted: name the label column (--label)")
    if level not in calibration.levels:
        raise StageError("the model was calibrated for slides, not for patients: set cohort.label_of=slide")
    return table[known].reset_index(drop=True), level, calibration


def _development(work: Work, calibration: Calibration, level: str, draws: int) -> dict[str, Interval]:
    """What cross-validation had said of cases of the same level, from the tables of the model's own study."""
    home = given_study(work)
    folder = None if home is None else home[0] / "calibrate" / home[1]
    if folder is None or not (folder / "slides.csv").exists() or not (folder / f"{level}s.csv").exists():
        return {}
    slides = read_predicted(folder / "slides.csv")
    own = slides[(slides["part"] == "cross-validation") & (slides["status"] == "predicted") & (slides["label"] != "")]
    if level == "patient":
        patients = read_predicted(folder / "patients.csv")
        own = patients[patients["patient"].isin(own["patient"]) & (patients["label"] != "")]
    names = [f"calibrated_{name}" for name in calibration.classes]
    if own.empty or not set(own["label"]) <= set(calibration.classes) or not set(names) <= set(own.columns):
        return {}
    truth = np.array([calibration.classes.index(label) for label in own["label"]], dtype=np.int64)
    said, patients_of = own[names].to_numpy(np.float64), list(own["patient"])
    return {name: bootstrap(name, truth, said, patients_of, draws=draws) for name in _MEASURES}


def _drift(work: Work) -> Drift:
    models = [load(one, work).model for one in trained_models(work)]
    mean = np.mean([model.feature_mean.cpu().numpy() for model in models], axis=0, dtype=np.float64)
    scale = np.mean([model.feature_scale.cpu().numpy() for model in models], axis=0, dtype=np.float64)
    means = {slide: _mean_tile(path) for slide, path in bags_of(work, work.cohort.slides)[0].items()}
    distance = {slide: float(np.sqrt((((one - mean) / scale) ** 2).mean())) for slide, one in means.items()}
    home = given_study(work)
    folder = None if home is None else home[0] / "extract" / folder_name(work.study.extract.encoder)
    paths = sorted(folder.glob("*.h5")) if folder is not None else []
    if not paths or len(means) < 4 or work.study.model.beside:
        return Drift(distance, None, None)
    own = np.stack([_mean_tile(path) for path in paths])
    away = np.sqrt((((own - mean) / scale) ** 2).mean(axis=1))
    reference = (float(np.median(away)), float(np.quantile(away, 0.95)))
    return Drift(distance, reference, _told_apart(own, np.stack(list(means.values()))))


def _told_apart(own: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    both = np.concatenate([own, other])
    truth = np.repeat([0, 1], [len(own), len(other)])
    dealt = np.random.default_rng(0).permutation(len(both)) % 4
    rows = np.arange(len(both))
    folds = [RowFold(rows[dealt != one], rows[:0], rows[dealt == one]) for one in range(4)]
    if any(len(set(truth[fold.fit])) < 2 for fold in folds):
        return float("nan")
    return score("auroc", truth, out_of_fold_logistic(both, truth, folds).probabilities)


def _mean_tile(path: Path) -> NDArray[np.float64]:
    return np.asarray(usable(read_bag(path))[0].mean(axis=0, dtype=np.float64))


def _local(told: Judgement, wanted: Sequence[int]) -> list[Local]:
    """Platt's line on the calibrated probabilities of k patients, both classes among them, judged on all others."""
    names, of = np.unique(np.asarray(told.patients), return_inverse=True)
    random, found = np.random.default_rng(0), []
    for k in wanted:
        pairs = []
        for _ in range(LOCAL_DRAWS):
            chosen = np.isin(of, random.permutation(len(names))[:k])
            rest = ~chosen
            if len(names) <= k or len(set(told.truth[chosen])) < len(told.classes):
                continue
            weights = 1 / np.bincount(of)[of[chosen]]
            line = fit_calibrator("platt", told.calibrated[chosen], told.truth[chosen], weights)
            after = line.apply(told.calibrated[rest])
            pairs.append([score("log_loss", told.truth[rest], said) for said in (told.calibrated[rest], after)])
        if len(pairs) > LOCAL_DRAWS // 2:
            before, after = np.mean(pairs, axis=0)
            worse = float(np.mean([two > one for one, two in pairs]))
            found.append(Local(k, float(before), float(after), worse))
    return found


def validate_study(work: Work, *, columns: Sequence[str], local: Sequence[int], draws: int) -> dict[str, Any]:
    """Validate, write validate/index.html and validate/validation.json, and return the numbers."""
    from wsi_mil.stages.validation_page import numbers_of, page_of

    told, folder = validate(work, columns=columns, local=local, draws=draws), work.root / "validate"
    numbers = numbers_of(told)
    files.write_json(folder / "validation.json", numbers)
    files.write_text(folder / "index.html", page_of(told, work))
    return numbers
