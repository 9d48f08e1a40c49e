"""Every measure as a mean over the folds that were tested, beside the one number of all folds' cases together.

Pooled cases let a fold whose scores all lie higher look like knowledge, or hide it; the mean over folds compares only
what the same models said. Both are told, for neither is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_mil.evaluation import Interval, Statistic, bootstrap_statistic, corrected_interval, within_bounds
from wsi_mil.stages.answers import Answers
from wsi_mil.stages.calibrate import said_of
from wsi_mil.stages.cases import Cases, cases_of, of_patients
from wsi_mil.stages.train import read_folds

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work

HEADER = "mean over folds"
TOLD = (
    "The mean over folds is resampled over patients too: in each resample every fold is measured on its own patients. "
    "Where folds are repeated, the interval of Nadeau and Bengio stands beside it (NB), which knows that folds and "
    "repeats share training patients. A fold in which a measure is not defined (one class, no event) is left out and "
    "counted."
)


@dataclass(frozen=True)
class FoldMean:
    """A measure of each tested fold, and their mean."""

    values: tuple[float, ...]
    """By repeat and fold; NaN where it is not defined."""
    mean: Interval
    """Percentile interval over resampled patients, the trained models kept."""
    corrected: Interval | None = None
    """Where folds are repeated Nadeau and Bengio's interval (2003), cut to what the measure can be."""

    @property
    def text(self) -> str:
        """Value, intervals, and of how many folds."""
        from wsi_mil.report import interval_text

        defined = int(np.isfinite(self.values).sum())
        of = f"{defined}" if defined == len(self.values) else f"{defined} of {len(self.values)}"
        told = f"{interval_text(self.mean.value, self.mean.low, self.mean.high)}, {of} folds"
        known = self.corrected is not None and np.isfinite(self.corrected.low)
        return f"{told}; NB {self.corrected.low:.3f} to {self.corrected.high:.3f}" if known and self.corrected else told

    @property
    def plain(self) -> dict[str, object]:
        """For programs; a fold without the measure is None."""
        values = [value if np.isfinite(value) else None for value in self.values]
        corrected = None if self.corrected is None else {"low": self.corrected.low, "high": self.corrected.high}
        bounds = {"low": self.mean.low, "high": self.mean.high}
        return {"value": self.mean.value, **bounds, "nadeau_bengio": corrected, "folds": values}


Folded = Mapping[str, FoldMean]
"""By measure; empty where fewer than two folds are tested."""


Place = tuple[int, int]
"""Repeat and fold."""


def fold_means(
    name: str, answers: Answers, slides: pd.DataFrame, work: Work, *, draws: int, patients: bool = False
) -> Folded:
    """All measures of one question, each fold's models judged on the cases that they are tested on.

    `slides` is a table of predictions: what of it counts as tested, the caller has chosen. With `patients` the cases
    are patients, whose answer is the mean over their slides.
    """
    by_place = cases_by_fold(name, answers, slides, work, patients=patients)
    folds = list(by_place.values())
    if len(folds) < 2:
        return {}
    measures = [answers.measures(answers.truth(one.cells), one.answers) for one in folds]
    whose = [patient for one in folds for patient in one.patients]
    repeated = len({repeat for repeat, _ in by_place}) > 1
    tested, fitted = fold_sizes(work)
    found = {}
    for measure in measures[0]:
        statistics = [one[measure] for one in measures]
        values = tuple(
            float(one(np.ones((1, len(cases.patients))))[0]) for one, cases in zip(statistics, folds, strict=True)
        )
        counts = [len(one.patients) for one in folds]
        mean = bootstrap_statistic(partial(_mean_over_folds, statistics, counts), whose, draws=draws)
        corrected = within_bounds(measure, corrected_interval(values, tested=tested, fitted=fitted))
        found[measure] = FoldMean(values, mean, corrected if repeated else None)
    return found


def cases_by_fold(
    name: str, answers: Answers, slides: pd.DataFrame, work: Work, *, patients: bool = False
) -> dict[Place, Cases]:
    """What each fold's models said of the cases that they are tested on; a fold without a label is left out."""
    said, found = said_of(work, slides), {}
    for repeat, fold in sorted(set(zip(said["repeat"], said["fold"], strict=True))):
        here = (said["repeat"] == repeat) & (said["fold"] == fold)
        cases = cases_of(name, answers, said[here], work) if repeat >= 0 else None
        if cases is not None:
            found[int(repeat), int(fold)] = of_patients(cases) if patients else cases
    return found


def fold_sizes(work: Work) -> tuple[float, float]:
    """How many patients a fold tests, and how many it learns from, on average."""
    folds = read_folds(work)
    sizes = []
    for roles in (["test"], ["fit", "select"]):
        own = folds[folds["role"].isin(roles)].groupby(["repeat", "fold"])["patient"].nunique()
        sizes.append(float(own.mean()))
    return sizes[0], sizes[1]


def _mean_over_folds(
    statistics: Sequence[Statistic], counts: Sequence[int], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean over the folds in which the measure is defined; the cases of the folds stand one after the other."""
    values, start = np.full((len(statistics), len(weights)), np.nan), 0
    for number, (statistic, count) in enumerate(zip(statistics, counts, strict=True)):
        own = weights[:, start : start + count]
        drawn = own.any(axis=1)
        if drawn.any():
            values[number, drawn] = statistic(own[drawn])
        start += count
    known = np.isfinite(values)
    total, defined = np.where(known, values, 0).sum(axis=0), known.sum(axis=0)
    return np.divide(total, defined, out=np.full(len(weights), np.nan), where=defined > 0)
