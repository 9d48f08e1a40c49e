"""How each kind of answer is judged: its truth from the table, its measures, a baseline, and its figures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_mil.evaluation import (
    Fold,
    Statistic,
    class_measures,
    confusion,
    grade_measures,
    kaplan_meier,
    label_measures,
    log_rank,
    number_measures,
    out_of_fold_cox,
    out_of_fold_logistic,
    out_of_fold_ridge,
    roc_curve,
    survival_measures,
)
from wsi_mil.report import Curve, confusion_figure, curve_figure, scatter_figure, survival_figure
from wsi_mil.stages.question import Asked

Numbers = NDArray[np.float64]

CURVE_DRAWS = 400
"""Resamples behind the band of a curve."""


class Answers(ABC):
    """The answers of one kind of question: `names` are the columns of the predictions without their p_."""

    leading: str
    """The measure to look at first, by which baselines are compared."""
    chance: float | None
    """The leading measure of an answer that knows nothing."""
    baseline_by: str
    """What the baselines are."""

    def __init__(self, asked: Asked, names: Sequence[str]) -> None:
        self.asked, self.names = asked, list(names)

    @abstractmethod
    def truth(self, cells: pd.DataFrame) -> Numbers:
        """case column: the labels as numbers; every case has one, or of several columns one at least."""

    @abstractmethod
    def measures(self, truth: Numbers, answers: Numbers) -> Mapping[str, Statistic]:
        """All measures by name, as statistics of case weights."""

    @abstractmethod
    def baseline(self, features: Numbers, truth: Numbers, folds: Sequence[Fold]) -> Numbers:
        """Out-of-fold answers from some numbers a case, as far as the leading measure reads them."""

    @abstractmethod
    def figures(self, truth: Numbers, answers: Numbers, patients: Sequence[str]) -> list[str]:
        """SVG texts."""


class Classes(Answers):
    """One of several classes."""

    leading, chance, baseline_by = "auroc", 0.5, "logistic regression"

    def truth(self, cells: pd.DataFrame) -> Numbers:
        return np.array([[self.names.index(cell)] for cell in cells[self.asked.label]], dtype=np.float64)

    def measures(self, truth: Numbers, answers: Numbers) -> Mapping[str, Statistic]:
        return class_measures(truth[:, 0].astype(np.int64), answers)

    def baseline(self, features: Numbers, truth: Numbers, folds: Sequence[Fold]) -> Numbers:
        return out_of_fold_logistic(features, truth[:, 0].astype(np.int64), folds).probabilities

    def figures(self, truth: Numbers, answers: Numbers, patients: Sequence[str]) -> list[str]:
        own = truth[:, 0].astype(np.int64)
        shown = [1] if len(self.names) == 2 else range(len(self.names))
        positive = np.stack([own == number for number in shown], axis=1).astype(np.float64)
        names = [self.names[number] for number in shown]
        table = confusion_figure(confusion(own, answers), self.names, title="Confusion")
        return [_rocs(positive, answers[:, list(shown)], names, patients), table]


class Labels(Answers):
    """Several columns of 0 and 1."""

    leading, chance, baseline_by = "mean_auroc", 0.5, "logistic regression for each column"

    def truth(self, cells: pd.DataFrame) -> Numbers:
        return cells[list(self.asked.columns)].replace("", "nan").to_numpy().astype(np.float64)

    def measures(self, truth: Numbers, answers: Numbers) -> Mapping[str, Statistic]:
        return label_measures(truth, answers, self.names)

    def baseline(self, features: Numbers, truth: Numbers, folds: Sequence[Fold]) -> Numbers:
        found = np.full(truth.shape, np.nan)
        for column in range(truth.shape[1]):
            known = ~np.isnan(truth[:, column])
            own = [Fold(known_only(fold.fit, known), known_only(fold.select, known), fold.test) for fold in folds]
            values = np.where(known, truth[:, column], 0).astype(np.int64)
            found[:, column] = out_of_fold_logistic(features, values, own).probabilities[:, 1]
        return found

    def figures(self, truth: Numbers, answers: Numbers, patients: Sequence[str]) -> list[str]:
        return [_rocs(truth, answers, self.names, patients)]


class Number(Answers):
    """A number."""

    leading, chance, baseline_by = "r2", 0.0, "ridge regression"

    def truth(self, cells: pd.DataFrame) -> Numbers:
        return cells[[self.asked.label]].to_numpy().astype(np.float64)

    def measures(self, truth: Numbers, answers: Numbers) -> Mapping[str, Statistic]:
        return number_measures(truth[:, 0], answers[:, 0])

    def baseline(self, features: Numbers, truth: Numbers, folds: Sequence[Fold]) -> Numbers:
        return out_of_fold_ridge(features, truth[:, 0], folds)[:, None]

    def figures(self, truth: Numbers, answers: Numbers, patients: Sequence[str]) -> list[str]:
        return [scatter_figure(truth[:, 0], answers[:, 0], title="True and predicted", name=self.asked.label)]


class Grades(Answers):
    """Grades in order; the last name is the expected grade."""

    leading, chance, baseline_by = "quadratic_kappa", 0.0, "ridge regression of the grade's number, rounded"

    def truth(self, cells: pd.DataFrame) -> Numbers:
        return np.array([[self.names[:-1].index(cell)] for cell in cells[self.asked.label]], dtype=np.float64)

    def measures(self, truth: Numbers, answers: Numbers) -> Mapping[str, Statistic]:
        called = self._called(answers)
        return grade_measures(truth[:, 0].astype(np.int64), called, answers[:, -1], grades=len(self.names) - 1)

    def baseline(self, features: Numbers, truth: Numbers, folds: Sequence[Fold]) -> Numbers:
        expected = out_of_fold_ridge(features, truth[:, 0], folds)
        last = len(self.names) - 2
        sure = np.eye(last + 1)[np.clip(np.rint(np.nan_to_num(expected)), 0, last).astype(np.int64)]
        return np.concatenate([sure, expected[:, None]], axis=1)

    def figures(self, truth: Numbers, answers: Numbers, patients: Sequence[str]) -> list[str]:
        grades = len(self.names) - 1
        counts = confusion(truth[:, 0].astype(np.int64), np.eye(grades)[self._called(answers)])
        return [confusion_figure(counts, self.names[:-1], title="Confusion at the median grade")]

    def _called(self, answers: Numbers) -> NDArray[np.int64]:
        """The median grade, as the task calls it."""
        below = (answers[:, :-1].cumsum(axis=1) < 0.5).sum(axis=1)
        return np.minimum(below, answers.shape[1] - 2).astype(np.int64)


class Fate(Answers):
    """Survival at the horizons, and the risk."""

    leading, chance, baseline_by = "c_index", 0.5, "Cox regression with a ridge penalty"

    def truth(self, cells: pd.DataFrame) -> Numbers:
        return cells[[self.asked.time, self.asked.event]].to_numpy().astype(np.float64)

    def measures(self, truth: Numbers, answers: Numbers) -> Mapping[str, Statistic]:
        return survival_measures(truth[:, 0], truth[:, 1] > 0, answers[:, -1], answers[:, :-1], self.asked.horizons)

    def baseline(self, features: Numbers, truth: Numbers, folds: Sequence[Fold]) -> Numbers:
        risk = out_of_fold_cox(features, truth[:, 0], truth[:, 1] > 0, folds)
        unknown = np.full((len(risk), len(self.names) - 1), np.nan)
        return np.concatenate([unknown, risk[:, None]], axis=1)

    def figures(self, truth: Numbers, answers: Numbers, patients: Sequence[str]) -> list[str]:
        high = answers[:, -1] > np.median(answers[:, -1])
        times, events, groups = truth[:, 0], truth[:, 1] > 0, {}
        for name, own in (("lower risk", ~high), ("higher risk", high)):
            if own.any():
                curve = kaplan_meier(times[own], events[own])
                groups[name] = (curve.times, curve.survival, curve.low, curve.high, int(own.sum()))
        p = log_rank(times, events, high)
        title = "Kaplan-Meier, cut at the median of the predicted risk"
        return [survival_figure(groups, title=title, time=self.asked.time, note=f"log-rank p = {p:.2g}")]


ANSWERS: dict[str, type[Answers]] = {
    "classification": Classes,
    "multilabel": Labels,
    "regression": Number,
    "ordinal": Grades,
    "survival": Fate,
}


def known_only(rows: NDArray[np.int64], known: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rows with a label."""
    return rows[known[rows]]


def _rocs(positive: Numbers, scores: Numbers, names: Sequence[str], patients: Sequence[str]) -> str:
    """One ROC curve a column, over the cases whose truth is known."""
    curves: list[Any] = []
    for column, name in enumerate(names):
        known = ~np.isnan(positive[:, column])
        own = [patient for patient, is_known in zip(patients, known, strict=True) if is_known]
        truth = positive[known, column] > 0
        if truth.all() or not truth.any():
            continue
        curve = roc_curve(truth, scores[known, column], own, draws=CURVE_DRAWS)
        order = np.argsort(curve.x, kind="stable")
        line = np.interp(curve.grid, curve.x[order], curve.y[order])
        curves.append(Curve(name, curve.grid, line, curve.low, curve.high))
    return curve_figure(
        curves, title="ROC", x="false positive rate", y="true positive rate", chance=None, diagonal="chance"
    )
