"""Metrics that take a weight for each case, so that a thousand resamples are one call.

A resample is a list of how often each case was drawn: a metric of weights gives the very number that the resampled list
would. Every metric here is `metric(truth, probabilities, weights[draw case]) -> value[draw]`, and NaN where it is not
defined, such as an AUROC without negatives or the recall of a class that is not there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int, Shaped

from wsi_mil.errors import TaskError, unknown

Truth = Int[np.ndarray, "case"]
"""Index of each case's class."""
Probabilities = Float[np.ndarray, "case class"]
Draws = Float64[np.ndarray, "draw case"]
Values = Float64[np.ndarray, "draw"]
Metric = Callable[[Truth, Probabilities, Draws], Values]


class Ranked(NamedTuple):
    """Weight of positives and of negatives at each distinct score, from the highest score down."""

    positive: Float64[np.ndarray, "draw level"]
    negative: Float64[np.ndarray, "draw level"]
    levels: Float[np.ndarray, "level"]


def ranked(positive: Shaped[np.ndarray, "case"], scores: Float[np.ndarray, "case"], weights: Draws) -> Ranked:
    """Add up weights case by case of equal score; ties are one level, as they are one threshold."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    hit = np.asarray(positive, dtype=bool)[order]
    weights = weights[:, order]
    return Ranked(
        np.add.reduceat(np.where(hit, weights, 0.0), starts, axis=1),
        np.add.reduceat(np.where(hit, 0.0, weights), starts, axis=1),
        ordered[starts],
    )


def binary_auroc(positive: Shaped[np.ndarray, "case"], scores: Float[np.ndarray, "case"], weights: Draws) -> Values:
    """Probability that a positive case scores above a negative one, ties counting half."""
    levels = ranked(positive, scores, weights)
    below = levels.negative.sum(axis=1, keepdims=True) - levels.negative.cumsum(axis=1)
    wins = (levels.positive * (below + levels.negative / 2)).sum(axis=1)
    return _ratio(wins, levels.positive.sum(axis=1) * levels.negative.sum(axis=1))


def binary_average_precision(
    positive: Shaped[np.ndarray, "case"], scores: Float[np.ndarray, "case"], weights: Draws
) -> Values:
    """Mean over positives of the precision at their score (a step curve, not interpolated); NaN without positives."""
    levels = ranked(positive, scores, weights)
    hits = levels.positive.cumsum(axis=1)
    called = hits + levels.negative.cumsum(axis=1)
    precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
    return _ratio((levels.positive * precision).sum(axis=1), hits[:, -1])


def auroc(truth: Truth, probabilities: Probabilities, weights: Draws) -> Values:
    """Area under the ROC curve; of more than two classes the mean of each against the rest."""
    return _one_vs_rest(binary_auroc, truth, probabilities, weights)


def average_precision(truth: Truth, probabilities: Probabilities, weights: Draws) -> Values:
    """Average precision of the last of two classes; of more the mean of each against the rest."""
    return _one_vs_rest(binary_average_precision, truth, probabilities, weights)


def accuracy(truth: Truth, probabilities: Probabilities, weights: Draws) -> Values:
    """Share of cases whose most probable class is the true one."""
    return _mean(probabilities.argmax(axis=1) == truth, weights)


def balanced_accuracy(truth: Truth, probabilities: Probabilities, weights: Draws) -> Values:
    """Mean over classes of the share of their cases found; NaN where a class has no cases."""
    table = _tables(truth, probabilities, weights)
    hits = np.diagonal(table, axis1=1, axis2=2)
    return np.asarray(_ratio(hits, table.sum(axis=2)).mean(axis=1))


def f1(truth: Truth, probabilities: Probabilities, weights: Draws) -> Values:
    """Harmonic mean of precision and recall of the last of two classes; of more classes their mean."""
    table = _tables(truth, probabilities, weights)
    hits = np.diagonal(table, axis1=1, axis2=2)
    values = _ratio(2 * hits, table.sum(axis=1) + table.sum(axis=2))
    return np.asarray(values[:, -1] if values.shape[1] == 2 else values.mean(axis=1))


def sensitivity(truth: Truth, probabilities: Probabilities, weights: Draws) -> Values:
    """Share of the cases of the last class that are called so, at the most probable class."""
    table = _tables(truth, probabilities, weights)
    return _ratio(table[:, -1, -1], table[:, -1].sum(axis=1))


def specificity(truth: Truth, probabilities: Probabilities, weights: Draws) -> Values:
    """Share of the cases of the other classes that are not called the last one."""
    table = _tables(truth, probabilities, weights)
    return _ratio(table[:, :-1, :-1].sum(axis=(1, 2)), table[:, :-1].sum(axis=(1, 2)))


def brier(truth: Truth, probabilities: Probabilities, weights: Draws) -> Values:
    """Mean squared error of the probability of the last of two classes; of more, summed over the classes."""
    squares = ((probabilities - np.eye(probabilities.shape[1])[truth]) ** 2).sum(axis=1)
    return _mean(squares / 2 if probabilities.shape[1] == 2 else squares, weights)


def log_loss(truth: Truth, probabilities: Probabilities, weights: Draws) -> Values:
    """Mean of minus the log of the true class's probability."""
    own = probabilities[np.arange(len(truth)), truth].astype(np.float64)
    return _mean(-np.log(np.clip(own, np.finfo(np.float64).eps, 1.0)), weights)


METRICS: dict[str, Metric] = {
    "auroc": auroc,
    "average_precision": average_precision,
    "balanced_accuracy": balanced_accuracy,
    "accuracy": accuracy,
    "f1": f1,
    "sensitivity": sensitivity,
    "specificity": specificity,
    "brier": brier,
    "log_loss": log_loss,
}
LOWER_IS_BETTER = frozenset({"brier", "log_loss", "mae", "rmse", "grade_mae", "mean_brier", "integrated_brier"})


def find_metric(name: str | Metric) -> Metric:
    """A metric by its name in METRICS, or one's own."""
    if not isinstance(name, str):
        return name
    if name not in METRICS:
        raise TaskError(unknown("metric", name, METRICS))
    return METRICS[name]


def score(metric: str | Metric, truth: Truth, probabilities: Probabilities) -> float:
    """The metric of the cases as they are. TaskError where truth and probabilities do not fit each other."""
    check_cases(truth, probabilities)
    return float(find_metric(metric)(truth, probabilities, np.ones((1, len(truth))))[0])


def confusion(truth: Truth, probabilities: Probabilities) -> Int[np.ndarray, "class class"]:
    """How many cases of each class (row) were called each class (column)."""
    check_cases(truth, probabilities)
    return np.asarray(_tables(truth, probabilities, np.ones((1, len(truth))))[0], dtype=np.int64)


def check_cases(truth: Truth, probabilities: Probabilities) -> None:
    """Raise TaskError where truth and probabilities are not of the same cases and classes."""
    if len(truth) != len(probabilities) or not len(truth):
        raise TaskError(
            f"{len(truth)} true classes stand beside {len(probabilities)} predictions; each needs the other"
        )
    if not np.isfinite(probabilities).all():
        row = int(np.argwhere(~np.isfinite(probabilities))[0][0])
        raise TaskError(f"the prediction of case {row} is not finite; leave cases without a prediction out")
    if probabilities.shape[1] < 2 or truth.min() < 0 or truth.max() >= probabilities.shape[1]:
        raise TaskError(
            f"true classes run from {truth.min()} to {truth.max()} and there are {probabilities.shape[1]} columns of "
            "probabilities; two or more are needed, one for each class"
        )


def _one_vs_rest(
    metric: Callable[[Shaped[np.ndarray, "case"], Float[np.ndarray, "case"], Draws], Values],
    truth: Truth,
    probabilities: Probabilities,
    weights: Draws,
) -> Values:
    count = probabilities.shape[1]
    classes = [1] if count == 2 else range(count)
    return np.asarray(
        np.mean([metric(truth == number, probabilities[:, number], weights) for number in classes], axis=0)
    )


def _tables(truth: Truth, probabilities: Probabilities, weights: Draws) -> Float64[np.ndarray, "draw class class"]:
    """Confusion matrix of each draw: rows the truth, columns the most probable class."""
    count = probabilities.shape[1]
    cells = np.eye(count * count)[truth * count + probabilities.argmax(axis=1)]
    return np.asarray((weights @ cells).reshape(-1, count, count))


def _mean(values: Shaped[np.ndarray, "case"], weights: Draws) -> Values:
    return _ratio(weights @ np.asarray(values, dtype=np.float64), weights.sum(axis=1))


def _ratio(top: Float64[np.ndarray, "*shape"], bottom: Float64[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    return np.asarray(np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom > 0))
