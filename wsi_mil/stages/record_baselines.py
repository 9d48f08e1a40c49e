"""What can be had without a single pixel: the site alone, and the clinical record alone, in the model's own folds."""

from __future__ import annotations

from collections.abc import Sequence
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


def record_baselines(
    slides: Sequence[str], truth: NDArray[np.int64], folds: Sequence[Fold], work: Work
) -> dict[str, Baseline]:
    """Baselines for which the cohort has something: two sites or more, factors in `cohort.clinical`."""
    rows = work.rows_of(slides)
    found: dict[str, Baseline] = {}
    sites = sorted(set(rows["site"]) - {""})
    try:
        if len(sites) > 1:
            flags = np.array([[site == one for one in sites] for site in rows["site"]], dtype=np.float64)
            found[SITE] = out_of_fold_logistic(flags, truth, folds)
        if work.study.cohort.clinical:
            found[RECORD] = _of_record(rows, truth, folds, work)
    except (TaskError, CohortError):
        pass  # folds too small for a baseline, as with the others
    return found


def _of_record(rows: pd.DataFrame, truth: NDArray[np.int64], folds: Sequence[Fold], work: Work) -> Baseline:
    """Logistic regression on the encoded record; the encoder is fitted on each fold's own fit role."""
    total, times = np.zeros((len(rows), int(truth.max()) + 1)), np.zeros((len(rows), 1))
    models: list[LinearModel] = []
    for fold in folds:
        encoder = ClinicalEncoder.of(work.study.cohort.clinical).fit(rows.iloc[fold.fit])
        record = encoder.encode(rows)
        numbers = np.concatenate([np.where(record.missing, 0, record.values), record.missing], axis=1)
        one = out_of_fold_logistic(numbers.astype(np.float64), truth, [fold])
        total[fold.test] += one.probabilities[fold.test]
        times[fold.test] += 1
        models += one.models
    probabilities = np.divide(total, times, out=np.full_like(total, np.nan), where=times > 0)
    return Baseline(probabilities, tuple(models))
