"""What can be had without a single pixel: the site alone, and the clinical record alone, in the model's own folds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsi_mil.cohort import ClinicalEncoder
from wsi_mil.errors import CohortError, TaskError
from wsi_mil.evaluation import Baseline, Fold, LinearModel, out_of_fold_logistic

if TYPE_CHECKING:
    import pandas as pd

    from wsi_mil.stages.work import Work

SITE, RECORD = "site alone", "clinical record alone"

Numbers = NDArray[np.float64]

Answer = Callable[[Numbers, Fold], Numbers]
"""Answers of all cases from some numbers a case, by a model of one fold; those of its test role are read."""

Read = Callable[["pd.DataFrame", Sequence[Fold], "Work"], "list[Numbers] | None"]
"""The numbers of the cases as each fold reads them; None where the cohort has none."""


def record_baselines(
    slides: Sequence[str], truth: NDArray[np.int64], folds: Sequence[Fold], work: Work
) -> dict[str, Baseline]:
    """Baselines of classes for which the cohort has something: two sites or more, factors in `cohort.clinical`.

    `slides` has one slide of each case.
    """
    found = {}
    for name, read in READ.items():
        models: list[LinearModel] = []
        probabilities = _out_of_fold(read, folds, partial(_logistic, truth, models), work.rows_of(slides), work)
        if probabilities is not None:
            found[name] = Baseline(probabilities, tuple(models))
    return found


def record_answers(rows: pd.DataFrame, folds: Sequence[Fold], answer: Answer, work: Work) -> dict[str, Numbers]:
    """The same for any question: by baseline the mean answer of the folds that test a case, NaN where none does.

    `rows` has the row of the cohort table of each case.
    """
    told = {name: _out_of_fold(read, folds, answer, rows, work) for name, read in READ.items()}
    return {name: one for name, one in told.items() if one is not None}


def _out_of_fold(read: Read, folds: Sequence[Fold], answer: Answer, rows: pd.DataFrame, work: Work) -> Numbers | None:
    """None where the cohort has nothing to read, or the folds are too small for a baseline."""
    try:
        told = read(rows, folds, work)
        said = [] if told is None else [answer(numbers, fold) for numbers, fold in zip(told, folds, strict=True)]
    except (TaskError, CohortError):
        return None
    if not said:
        return None
    total, times = np.zeros_like(said[0]), np.zeros((len(rows), 1))
    for one, fold in zip(said, folds, strict=True):
        total[fold.test] += one[fold.test]
        times[fold.test] += 1
    return np.divide(total, times, out=np.full_like(total, np.nan), where=times > 0)


def _logistic(truth: NDArray[np.int64], models: list[LinearModel], numbers: Numbers, fold: Fold) -> Numbers:
    one = out_of_fold_logistic(numbers, truth, [fold])
    models.extend(one.models)
    return one.probabilities


def _sites(rows: pd.DataFrame, folds: Sequence[Fold], work: Work) -> list[Numbers] | None:
    """A flag for each site; None where there is one only."""
    sites = sorted(set(rows["site"]) - {""})
    if len(sites) < 2:
        return None
    flags = np.array([[site == one for one in sites] for site in rows["site"]], dtype=np.float64)
    return [flags] * len(folds)


def _record(rows: pd.DataFrame, folds: Sequence[Fold], work: Work) -> list[Numbers] | None:
    """The encoded record with what is missing; the encoder is fitted on each fold's own fit role."""
    if not work.study.cohort.clinical:
        return None
    found = []
    for fold in folds:
        record = ClinicalEncoder.of(work.study.cohort.clinical).fit(rows.iloc[fold.fit]).encode(rows)
        numbers = np.concatenate([np.where(record.missing, 0, record.values), record.missing], axis=1)
        found.append(numbers.astype(np.float64))
    return found


READ: dict[str, Read] = {SITE: _sites, RECORD: _record}
