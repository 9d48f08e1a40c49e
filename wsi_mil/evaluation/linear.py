"""Baselines for numbers and for survival: ridge regression and a ridge Cox model on a few numbers a slide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64

from wsi_mil.errors import TaskError
from wsi_mil.evaluation.baselines import Fold

PENALTIES = (1.0, 10.0, 100.0, 1000.0)
"""Tried on the select role: from a few slides' weight to so much that little but the mean is left."""

FIXED_PENALTY = 30.0
"""Taken where the select role is empty."""

Solve = Callable[[Float[np.ndarray, "slide dim"], Any, float], Float64[np.ndarray, "dim"]]
"""Weights of standardised numbers from the numbers, the truth and the penalty."""


def out_of_fold_ridge(
    features: Float[np.ndarray, "slide dim"], truth: Float[np.ndarray, "slide"], folds: Sequence[Fold]
) -> Float64[np.ndarray, "slide"]:
    """Ridge regression in each fold, its penalty chosen on the select role; mean over the folds that test a slide.

    NaN for a slide that none tests.
    """
    told = truth.astype(np.float64)
    return _out_of_fold(
        features,
        folds,
        fit=lambda numbers, rows, penalty: _ridge(numbers, told[rows] - told[rows].mean(), penalty),
        loss=lambda scores, rows, fitted: float(((scores + told[fitted].mean() - told[rows]) ** 2).mean()),
        level=lambda fitted: float(told[fitted].mean()),
    )


def out_of_fold_cox(
    features: Float[np.ndarray, "slide dim"],
    times: Float[np.ndarray, "slide"],
    events: Bool[np.ndarray, "slide"],
    folds: Sequence[Fold],
) -> Float64[np.ndarray, "slide"]:
    """Risk by a ridge Cox model (Breslow's ties) in each fold. TaskError where a fit role has no event."""
    for number, fold in enumerate(folds):
        if not events[fold.fit].any():
            raise TaskError(f"the fit role of fold {number} has no event; use fewer folds")
    return _out_of_fold(
        features,
        folds,
        fit=lambda numbers, rows, penalty: _cox(numbers, times[rows], events[rows], penalty),
        loss=lambda scores, rows, _: _partial(scores, times[rows], events[rows])[0],
        level=lambda _: 0.0,
    )


def _out_of_fold(
    features: Float[np.ndarray, "slide dim"],
    folds: Sequence[Fold],
    *,
    fit: Callable[[Any, Any, float], Float64[np.ndarray, "dim"]],
    loss: Callable[[Any, Any, Any], float],
    level: Callable[[Any], float],
) -> Float64[np.ndarray, "slide"]:
    if not np.isfinite(features).all():
        row, column = np.argwhere(~np.isfinite(features))[0]
        raise TaskError(f"number {column} of slide {row} is {features[row, column]}; a baseline needs finite numbers")
    total, times = np.zeros(len(features)), np.zeros(len(features))
    for fold in folds:
        own = features[fold.fit].astype(np.float64)
        mean, scale = own.mean(axis=0), own.std(axis=0)
        scale[scale <= 1e-8 * np.maximum(1, np.abs(mean))] = 1.0
        numbers = (features - mean) / scale
        # Weights lie in the span of the fit role's rows: as many unknowns as slides, however many numbers there are.
        _, _, basis = np.linalg.svd(numbers[fold.fit], full_matrices=False)
        numbers = numbers @ basis.T
        tried = PENALTIES if len(fold.select) else (FIXED_PENALTY,)
        weights = [fit(numbers[fold.fit], fold.fit, penalty) for penalty in tried]
        losses = [loss(numbers[fold.select] @ one, fold.select, fold.fit) for one in weights] if len(tried) > 1 else [0]
        total[fold.test] += numbers[fold.test] @ weights[int(np.argmin(losses))] + level(fold.fit)
        times[fold.test] += 1
    return np.divide(total, times, out=np.full(len(total), np.nan), where=times > 0)


def _ridge(
    numbers: Float64[np.ndarray, "slide dim"], truth: Float64[np.ndarray, "slide"], penalty: float
) -> Float64[np.ndarray, "dim"]:
    inner = numbers.T @ numbers + penalty * np.eye(numbers.shape[1])
    return np.asarray(np.linalg.solve(inner, numbers.T @ truth))


def _cox(
    numbers: Float64[np.ndarray, "slide dim"],
    times: Float[np.ndarray, "slide"],
    events: Bool[np.ndarray, "slide"],
    penalty: float,
) -> Float64[np.ndarray, "dim"]:
    from scipy.optimize import minimize

    def objective(weights: Float64[np.ndarray, "dim"]) -> tuple[float, Float64[np.ndarray, "dim"]]:
        value, slope = _partial(numbers @ weights, times, events)
        return value + penalty / 2 * float(weights @ weights), numbers.T @ slope + penalty * weights

    found = minimize(objective, np.zeros(numbers.shape[1]), jac=True, method="L-BFGS-B")
    return np.asarray(found.x, dtype=np.float64)


def _partial(
    risk: Float64[np.ndarray, "slide"], times: Float[np.ndarray, "slide"], events: Bool[np.ndarray, "slide"]
) -> tuple[float, Float64[np.ndarray, "slide"]]:
    """Minus Cox's log partial likelihood with Breslow's ties, and its slope in each risk."""
    hazard = np.exp(risk - risk.max())
    there = times[None] >= times[events][:, None]  #                                       event slide
    total = there @ hazard
    value = float((np.log(total) + risk.max() - risk[events]).sum())
    return value, (there / total[:, None]).sum(axis=0) * hazard - events
