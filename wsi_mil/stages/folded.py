"""Every measure as a mean over the folds that were tested, beside the one number of all folds' cases together.

Pooled cases let a fold whose scores all lie higher look like knowledge, or hide it; the mean over folds compares only
what the same models said. Both are told, for neither is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from wsi_mil.evaluation import Interval, corrected_interval, within_bounds
from wsi_mil.stages.answers import Answers
from wsi_mil.stages.calibrate import said_of
from wsi_mil.stages.cases import cases_of
from wsi_mil.stages.train import read_folds

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work

HEADER = "mean over folds"
TOLD = (
    "The mean over folds has the interval of Nadeau and Bengio, which knows that folds and repeats share training "
    "patients; a fold in which a measure is not defined (one class, no event) is left out and counted."
)


@dataclass(frozen=True)
class FoldMean:
    """A measure of each tested fold, and their mean."""

    values: tuple[float, ...]
    """By repeat and fold; NaN where it is not defined."""
    mean: Interval
    """With Nadeau and Bengio's interval (2003), cut to what the measure can be."""

    @property
    def text(self) -> str:
        """Value, interval, and of how many folds."""
        from wsi_mil.report import interval_text

        defined = int(np.isfinite(self.values).sum())
        of = f"{defined}" if defined == len(self.values) else f"{defined} of {len(self.values)}"
        return f"{interval_text(self.mean.value, self.mean.low, self.mean.high)}, {of} folds"

    @property
    def plain(self) -> dict[str, object]:
        """For programs; a fold without the measure is None."""
        values = [value if np.isfinite(value) else None for value in self.values]
        return {"value": self.mean.value, "low": self.mean.low, "high": self.mean.high, "folds": values}


Folded = Mapping[str, FoldMean]
"""By measure; empty where fewer than two folds are tested."""


def fold_means(name: str, answers: Answers, slides: pd.DataFrame, work: Work) -> Folded:
    """All measures of one question, each fold's models judged on the cases that they are tested on.

    `slides` is a table of predictions: what of it counts as tested, the caller has chosen.
    """
    said = said_of(work, slides)
    said = said[said["repeat"] >= 0]
    parts = [(part, cases_of(name, answers, part, work)) for _, part in said.groupby(["repeat", "fold"], sort=True)]
    folds = [cases for _, cases in parts if cases is not None]
    if len(folds) < 2:
        return {}
    cells = pd.concat([one.cells for one in folds], ignore_index=True)
    told = np.concatenate([one.answers for one in folds])
    # A fold is a resample that draws each of its own cases once and no other.
    of = np.repeat(np.arange(len(folds)), [len(one.cells) for one in folds])
    weights = (of == np.arange(len(folds))[:, None]).astype(np.float64)
    tested, fitted = _sizes(work)
    found = {}
    for measure, statistic in answers.measures(answers.truth(cells), told).items():
        values = tuple(float(value) for value in statistic(weights))
        mean = corrected_interval(values, tested=tested, fitted=fitted)
        found[measure] = FoldMean(values, within_bounds(measure, mean))
    return found


def _sizes(work: Work) -> tuple[float, float]:
    """How many slides a fold tests, and how many it learns from, on average."""
    folds = read_folds(work)
    roles = folds.groupby(["repeat", "fold"])["role"]
    tested = roles.agg(lambda role: int((role == "test").sum())).mean()
    fitted = roles.agg(lambda role: int(role.isin(["fit", "select"]).sum())).mean()
    return float(tested), float(fitted)
