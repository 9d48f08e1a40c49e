"""The numbers that suit each kind of answer, each as a statistic of case weights that a bootstrap can resample."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import inf

import numpy as np
from jaxtyping import Float, Float64, Int

from wsi_mil.evaluation.intervals import Interval, Statistic
from wsi_mil.evaluation.metrics import (
    METRICS,
    Draws,
    Values,
    balanced_accuracy,
    binary_auroc,
    binary_average_precision,
    check_cases,
)

Numbers = Float[np.ndarray, "case"]

BOUNDS: Mapping[str, tuple[float, float]] = {
    "log_loss": (0.0, inf),
    "mae": (0.0, inf),
    "rmse": (0.0, inf),
    "grade_mae": (0.0, inf),
    "r2": (-inf, 1.0),
    "pearson": (-1.0, 1.0),
    "spearman": (-1.0, 1.0),
    "quadratic_kappa": (-1.0, 1.0),
    "brier": (0.0, 2.0),  # of two classes to 1, of more to 2
}
"""What a measure can be; any that is not here lies between 0 and 1."""


def class_measures(
    truth: Int[np.ndarray, "case"], probabilities: Float[np.ndarray, "case class"]
) -> dict[str, Statistic]:
    """All of METRICS that are defined for the number of classes."""
    check_cases(truth, probabilities)
    two = probabilities.shape[1] == 2
    return {
        name: partial(metric, truth, probabilities)
        for name, metric in METRICS.items()
        if two or name not in ("sensitivity", "specificity")
    }


def number_measures(truth: Numbers, predicted: Numbers) -> dict[str, Statistic]:
    """Of a regression: r2, mae, rmse, pearson, spearman."""
    truth, predicted = truth.astype(np.float64), predicted.astype(np.float64)
    return {
        "r2": partial(r2, truth, predicted),
        "mae": partial(_mean, np.abs(predicted - truth)),
        "rmse": lambda weights: np.sqrt(_mean((predicted - truth) ** 2, weights)),
        "pearson": partial(pearson, truth, predicted),
        "spearman": partial(spearman, truth, predicted),
    }


def grade_measures(
    truth: Int[np.ndarray, "case"],
    called: Int[np.ndarray, "case"],
    expected: Numbers,
    *,
    grades: int,
) -> dict[str, Statistic]:
    """Of ordered grades, by number from 0: quadratic_kappa and grade_mae of the grade that is called, and others."""
    one_hot = np.eye(grades)[called]
    return {
        "quadratic_kappa": partial(quadratic_kappa, truth, called, grades=grades),
        "grade_mae": partial(_mean, np.abs(called - truth).astype(np.float64)),
        "accuracy": partial(_mean, (called == truth).astype(np.float64)),
        "balanced_accuracy": lambda weights: balanced_accuracy(truth, one_hot, weights),
        "spearman": partial(spearman, truth.astype(np.float64), expected.astype(np.float64)),
    }


def label_measures(
    truth: Float[np.ndarray, "case label"], probabilities: Float[np.ndarray, "case label"], names: Sequence[str]
) -> dict[str, Statistic]:
    """Of several columns of 0 and 1 (NaN: unknown): the mean over columns of auroc, average precision and Brier score.

    Then each column's own auroc. In a resample without both kinds of a column, the mean is over the others.
    """
    parts: dict[str, list[Statistic]] = {"mean_auroc": [], "mean_average_precision": [], "mean_brier": []}
    for column in range(truth.shape[1]):
        known = ~np.isnan(truth[:, column])
        positive, scores = truth[known, column] > 0, probabilities[known, column].astype(np.float64)
        parts["mean_auroc"].append(_where(known, partial(binary_auroc, positive, scores)))
        parts["mean_average_precision"].append(_where(known, partial(binary_average_precision, positive, scores)))
        parts["mean_brier"].append(_where(known, partial(_mean, (scores - positive) ** 2)))
    found: dict[str, Statistic] = {name: partial(_mean_of, tuple(own)) for name, own in parts.items()}
    return found | {f"auroc {name}": own for name, own in zip(names, parts["mean_auroc"], strict=True)}


def r2(truth: Numbers, predicted: Numbers, weights: Draws) -> Values:
    """1 - sum of squared errors / sum of squares about the mean: 0 for who always says the mean. Never a square."""
    centre = _mean(truth, weights)[:, None]
    error, total = weights @ (predicted - truth) ** 2, (weights * (truth - centre) ** 2).sum(axis=1)
    return np.asarray(1 - np.divide(error, total, out=np.full(len(weights), np.nan), where=total > 0))


def pearson(first: Numbers, second: Numbers, weights: Draws) -> Values:
    """Correlation; NaN where one of the two does not vary."""
    return _correlation(np.broadcast_to(first, weights.shape), np.broadcast_to(second, weights.shape), weights)


def spearman(first: Numbers, second: Numbers, weights: Draws) -> Values:
    """Correlation of the ranks, those of ties being their mean, ranked anew in each resample."""
    return _correlation(_ranks(first, weights), _ranks(second, weights), weights)


def quadratic_kappa(
    truth: Int[np.ndarray, "case"], called: Int[np.ndarray, "case"], weights: Draws, *, grades: int
) -> Values:
    """1 - observed / expected squared distance of grades (Cohen's weighted kappa); 0 for chance, 1 for agreement."""
    table = (weights @ np.eye(grades * grades)[truth * grades + called]).reshape(-1, grades, grades)
    places = np.arange(grades)
    distance = (places[:, None] - places) ** 2
    chance = table.sum(axis=2)[:, :, None] * table.sum(axis=1)[:, None]
    expected = (chance * distance).sum(axis=(1, 2)) / weights.sum(axis=1)
    observed = (table * distance).sum(axis=(1, 2))
    return np.asarray(1 - np.divide(observed, expected, out=np.full(len(weights), np.nan), where=expected > 0))


def within_bounds(measure: str, interval: Interval) -> Interval:
    """The interval cut to what the measure can be: a t interval may reach beyond, where there is nothing."""
    low, high = BOUNDS.get(measure, (0.0, 1.0))
    return replace(interval, low=max(interval.low, low), high=min(interval.high, high))


def _mean(values: Numbers, weights: Draws) -> Values:
    total = weights.sum(axis=1)
    return np.asarray(np.divide(weights @ values, total, out=np.full(len(weights), np.nan), where=total > 0))


def _where(known: np.ndarray, statistic: Statistic) -> Statistic:
    """The statistic of the cases that are known, as one of all cases."""
    if not known.any():
        return lambda weights: np.full(len(weights), np.nan)
    return lambda weights: statistic(weights[:, known])


def _mean_of(statistics: Sequence[Statistic], weights: Draws) -> Values:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mean of empty slice")  # no column is defined: NaN, as it should be
        return np.asarray(np.nanmean([one(weights) for one in statistics], axis=0))


def _ranks(values: Numbers, weights: Draws) -> Float64[np.ndarray, "draw case"]:
    """Mean rank of each case in the resampled list that holds it `weights` times."""
    levels, place = np.unique(values, return_inverse=True)
    at = weights @ np.eye(len(levels))[place]  #                                           draw level
    return np.asarray((at.cumsum(axis=1) - at / 2 + 0.5)[:, place])


def _correlation(
    first: Float[np.ndarray, "draw case"], second: Float[np.ndarray, "draw case"], weights: Draws
) -> Values:
    total = weights.sum(axis=1, keepdims=True)
    first = first - (weights * first).sum(axis=1, keepdims=True) / total
    second = second - (weights * second).sum(axis=1, keepdims=True) / total
    spread = (weights * first**2).sum(axis=1) * (weights * second**2).sum(axis=1)
    top = (weights * first * second).sum(axis=1)
    return np.asarray(np.divide(top, np.sqrt(spread), out=np.full(len(weights), np.nan), where=spread > 1e-24))
