"""Several predictions made one: over the models of the folds, over a patient's slides, over their heatmaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Float64

from wsi_mil.errors import ModelError


def mean_prediction(
    predictions: Sequence[Float[np.ndarray, "slide answer"]],
) -> tuple[Float64[np.ndarray, "slide answer"], Float64[np.ndarray, "slide answer"]]:
    """Mean over models of the same slides' answers, and their standard deviation: how far the models disagree."""
    if not predictions:
        raise ModelError("no model's prediction was given; there is nothing to combine")
    stack = np.stack([np.asarray(prediction, dtype=np.float64) for prediction in predictions])
    return stack.mean(axis=0), stack.std(axis=0)


def by_patient(
    answers: Float[np.ndarray, "slide answer"], patients: Sequence[str]
) -> Mapping[str, Float64[np.ndarray, "answer"]]:
    """Mean answer over each patient's slides, patients in the order in which they first appear."""
    if len(answers) != len(patients):
        raise ModelError(f"{len(answers)} answers stand beside {len(patients)} patients; each slide needs its patient")
    rows: dict[str, list[int]] = {}
    for row, patient in enumerate(patients):
        rows.setdefault(patient, []).append(row)
    return {patient: answers[own].mean(axis=0, dtype=np.float64) for patient, own in rows.items()}


def mean_rank(maps: Sequence[Float[np.ndarray, "tile"]]) -> Float64[np.ndarray, "tile"]:
    """Mean over models of each tile's rank within its slide, from 0 (lowest) to 1; equal scores share their rank.

    Raw scores of two models have no common scale: only the order of tiles can be averaged.
    """
    from scipy.stats import rankdata

    if not maps:
        raise ModelError("no model's map was given; there is nothing to combine")
    count = len(maps[0])
    ranks = np.stack([rankdata(scores) - 1 for scores in maps])
    return np.asarray(ranks.mean(axis=0) / max(1, count - 1))
