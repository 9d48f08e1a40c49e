"""What can be had without attention: logistic regression on a few numbers a slide, in the same folds as the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int

from wsi_mil.errors import TaskError

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Inverse regularisation strengths tried on the select role, weakest fit first."""

FIXED_STRENGTH = 0.1
"""Taken where the select role is empty: right for some dozens of slides and as many standardised numbers."""


class Fold(NamedTuple):
    """Row numbers of the slides in each role."""

    fit: Int[np.ndarray, "fit"]
    select: Int[np.ndarray, "select"]
    test: Int[np.ndarray, "test"]


@dataclass(frozen=True)
class LinearModel:
    """softmax(W (x - mean) / scale + b), fitted on one fold."""

    mean: Float64[np.ndarray, "dim"]
    scale: Float64[np.ndarray, "dim"]
    weights: Float64[np.ndarray, "class dim"]
    bias: Float64[np.ndarray, "class"]
    strength: float

    def scores(self, features: Float[np.ndarray, "case dim"]) -> Float64[np.ndarray, "case class"]:
        """Log-odds of each class against the mean of all; also of tiles, where their slide's numbers are tile means."""
        logits = (features - self.mean) / self.scale @ self.weights.T + self.bias
        return np.asarray(logits - logits.mean(axis=1, keepdims=True))

    def predict(self, features: Float[np.ndarray, "case dim"]) -> Float64[np.ndarray, "case class"]:
        """Probability of each class."""
        scores = self.scores(features)
        exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Baseline:
    """Predictions of slides by models that have not seen them."""

    probabilities: Float64[np.ndarray, "slide class"]
    """Mean over the folds that test the slide; NaN for a slide that none tests."""
    models: tuple[LinearModel, ...]
    """One a fold."""


def out_of_fold_logistic(
    features: Float[np.ndarray, "slide dim"],
    truth: Int[np.ndarray, "slide"],
    folds: Sequence[Fold],
    *,
    strength: float | None = None,
) -> Baseline:
    """Logistic regression in each fold: fitted on the fit role, its strength chosen on the select role.

    `strength` fixes the inverse regularisation instead. Features are standardised on the fit role too. Truth outside
    the fit and select roles of a fold never reaches that fold's model. TaskError for numbers that are not finite, or
    for a fit role without one of the classes.
    """
    if not np.isfinite(features).all():
        row, column = np.argwhere(~np.isfinite(features))[0]
        raise TaskError(f"number {column} of slide {row} is {features[row, column]}; a baseline needs finite numbers")
    classes = int(truth.max()) + 1
    total, times = np.zeros((len(features), classes)), np.zeros((len(features), 1))
    models = []
    for number, fold in enumerate(folds):
        lacking = sorted(set(range(classes)) - set(truth[fold.fit].tolist()))
        if lacking:
            raise TaskError(f"the fit role of fold {number} has no slide of class {lacking}; use fewer folds")
        model = _fit(features, truth, fold, strength=strength)
        total[fold.test] += model.predict(features[fold.test])
        times[fold.test] += 1
        models.append(model)
    probabilities = np.divide(total, times, out=np.full_like(total, np.nan), where=times > 0)
    return Baseline(probabilities, tuple(models))


def bag_statistics(features: Float[np.ndarray, "tile dim"]) -> Float64[np.ndarray, "four_dim"]:
    """Mean, minimum, maximum and standard deviation of each feature over a slide's tiles, one after the other."""
    values = features.astype(np.float64)
    return np.concatenate([values.mean(axis=0), values.min(axis=0), values.max(axis=0), values.std(axis=0)])


def layout_statistics(places: Float[np.ndarray, "tile 2"] | Int[np.ndarray, "tile 2"]) -> Float64[np.ndarray, "7"]:
    """Count, and mean, standard deviation and range of x and y: what the place of the tiles alone gives away."""
    values = places.astype(np.float64)
    return np.concatenate([[len(values)], values.mean(axis=0), values.std(axis=0), np.ptp(values, axis=0)])


def _fit(
    features: Float[np.ndarray, "slide dim"],
    truth: Int[np.ndarray, "slide"],
    fold: Fold,
    *,
    strength: float | None,
) -> LinearModel:
    if strength is not None or not len(fold.select):
        return _fit_one(features[fold.fit], truth[fold.fit], strength or FIXED_STRENGTH)
    models = [_fit_one(features[fold.fit], truth[fold.fit], value) for value in STRENGTHS]
    own = truth[fold.select]
    losses = [
        -np.log(np.clip(model.predict(features[fold.select])[np.arange(len(own)), own], 1e-12, 1)).mean()
        for model in models
    ]
    return models[int(np.argmin(losses))]


def _fit_one(features: Float[np.ndarray, "slide dim"], truth: Int[np.ndarray, "slide"], strength: float) -> LinearModel:
    from sklearn.linear_model import LogisticRegression

    mean, scale = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    scale[scale <= 1e-8 * np.maximum(1, np.abs(mean))] = 1.0
    # Far more steps than it takes: a fit that stops early would depend on where it started.
    regression = LogisticRegression(C=strength, max_iter=10_000, tol=1e-6)
    regression.fit((features - mean) / scale, truth)
    weights, bias = np.atleast_2d(regression.coef_), np.atleast_1d(regression.intercept_)
    if len(weights) == 1:  # of two classes scikit-learn keeps one row: the second class against the first
        weights, bias = np.concatenate([0 * weights, weights]), np.concatenate([0 * bias, bias])
    return LinearModel(mean, scale, weights.astype(np.float64), bias.astype(np.float64), strength)
