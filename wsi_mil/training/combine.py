"""Several predictions made one: over the models of folds or of an ensemble, a patient's slides, their heatmaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Float64, Int

from wsi_mil.errors import ModelError

_LEAST = 1e-12
"""Least probability that is taken the logarithm of."""

_STEPS = 10_000
"""Of the expectation maximisation, at most; it ends far earlier unless two members are nearly one."""


def mean_prediction(
    predictions: Sequence[Float[np.ndarray, "slide answer"]],
) -> tuple[Float64[np.ndarray, "slide answer"], Float64[np.ndarray, "slide answer"]]:
    """Mean over models of the same slides' answers, and their standard deviation: how far the models disagree."""
    if not predictions:
        raise ModelError("no model's prediction was given; there is nothing to combine")
    stack = np.stack([np.asarray(prediction, dtype=np.float64) for prediction in predictions])
    return stack.mean(axis=0), stack.std(axis=0)


def fit_weights(
    predictions: Float[np.ndarray, "member slide answer"], truth: Int[np.ndarray, "slide"]
) -> Float64[np.ndarray, "member"]:
    """Weights, 0 or more and 1 in all, with which the members' mean probability has the lowest log loss.

    The slides must be those of the calibrate role: neither trained on nor tested. Found by expectation maximisation of
    a mixture, w_m <- mean_i w_m p_m(y_i) / sum_n w_n p_n(y_i); the problem is convex, so where it starts (at equal
    weights) does not matter. Without slides the weights stay equal.
    """
    if not len(predictions):
        raise ModelError("no member's prediction was given; there is nothing to weigh")
    weights = np.full(len(predictions), 1 / len(predictions))
    if not len(truth):
        return weights
    right = np.take_along_axis(np.asarray(predictions, np.float64), np.asarray(truth)[None, :, None], axis=2)[:, :, 0]
    right = np.clip(right, _LEAST, None)  #                                               member slide
    for _ in range(_STEPS):
        shares = weights[:, None] * right
        weights, before = (shares / shares.sum(axis=0)).mean(axis=1), weights
        if np.abs(weights - before).max() < 1e-9:
            break
    return np.asarray(weights / weights.sum())


def weighted_prediction(
    predictions: Float[np.ndarray, "member slide answer"], weights: Float[np.ndarray, "member"]
) -> tuple[Float64[np.ndarray, "slide answer"], Float64[np.ndarray, "slide"]]:
    """The members' weighted mean probability, and how far they disagree: the mutual information, in nats.

    H(mean) - sum_m w_m H(p_m): 0 where all members say the same, however unsure they are of it; at most ln(members).
    """
    stack, share = np.asarray(predictions, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if len(stack) != len(share) or not np.isclose(share.sum(), 1) or (share < 0).any():
        raise ModelError(
            f"{len(stack)} members have the weights {share.tolist()}; each needs one of 0 or more, and they sum to 1"
        )
    mean = np.tensordot(share, stack, axes=1)
    alone = np.tensordot(share, _entropy(stack), axes=1)
    return mean, np.maximum(_entropy(mean) - alone, 0)


def _entropy(probabilities: Float[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    return np.asarray(-(probabilities * np.log(np.clip(probabilities, _LEAST, None))).sum(axis=-1))


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
