"""ROC and precision-recall curves, each with a band that resamples patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Shaped

from wsi_mil.evaluation.intervals import patient_weights
from wsi_mil.evaluation.metrics import Ranked, ranked

_GRID = 101
_DRAWS = 500


@dataclass(frozen=True)
class Curve:
    """Points of a curve, one a threshold, and a band on an even grid of x."""

    x: Float64[np.ndarray, "point"]
    y: Float64[np.ndarray, "point"]
    thresholds: Float64[np.ndarray, "point"]
    """Score from which on a case is called positive; infinite at the first point, where none is."""
    grid: Float64[np.ndarray, "grid"]
    low: Float64[np.ndarray, "grid"]
    high: Float64[np.ndarray, "grid"]


def roc_curve(
    positive: Shaped[np.ndarray, "case"],
    scores: Float[np.ndarray, "case"],
    patients: Sequence[str],
    *,
    draws: int = _DRAWS,
    seed: int = 0,
    level: float = 0.95,
) -> Curve:
    """False positive rate (x) and true positive rate (y) at each threshold.

    NaN where one of the two classes is missing.
    """
    levels = ranked(positive, scores, np.ones((1, len(scores))))
    x, y = _rates(levels)
    grid = np.linspace(0, 1, _GRID)
    drawn = ranked(positive, scores, patient_weights(patients, draws=draws, random=np.random.default_rng(seed)))
    xs, ys = _rates(drawn)
    lines = [np.interp(grid, xs[row], ys[row]) for row in range(draws) if np.isfinite(xs[row] + ys[row]).all()]
    low, high = _band(lines, level=level)
    return Curve(x[0], y[0], _thresholds(levels), grid, low, high)


def pr_curve(
    positive: Shaped[np.ndarray, "case"],
    scores: Float[np.ndarray, "case"],
    patients: Sequence[str],
    *,
    draws: int = _DRAWS,
    seed: int = 0,
    level: float = 0.95,
) -> Curve:
    """Recall (x) and precision (y) at each threshold; the first point repeats the precision of the second."""
    levels = ranked(positive, scores, np.ones((1, len(scores))))
    x, y = _precision_recall(levels)
    grid = np.linspace(0, 1, _GRID)
    drawn = ranked(positive, scores, patient_weights(patients, draws=draws, random=np.random.default_rng(seed)))
    xs, ys = _precision_recall(drawn)
    # Between two points the curve is a step: the precision at the first threshold that reaches the recall.
    lines = [
        ys[row][np.minimum(np.searchsorted(xs[row], grid), xs.shape[1] - 1)]
        for row in range(draws)
        if np.isfinite(xs[row]).all()
    ]
    low, high = _band(lines, level=level)
    return Curve(x[0], y[0], _thresholds(levels), grid, low, high)


def _rates(levels: Ranked) -> tuple[Float64[np.ndarray, "draw point"], Float64[np.ndarray, "draw point"]]:
    return _share(levels.negative), _share(levels.positive)


def _precision_recall(levels: Ranked) -> tuple[Float64[np.ndarray, "draw point"], Float64[np.ndarray, "draw point"]]:
    hits = levels.positive.cumsum(axis=1)
    called = hits + levels.negative.cumsum(axis=1)
    precision = np.divide(hits, called, out=np.ones_like(hits), where=called > 0)
    return _share(levels.positive), np.concatenate([precision[:, :1], precision], axis=1)


def _share(weights: Float64[np.ndarray, "draw level"]) -> Float64[np.ndarray, "draw point"]:
    """Running share of all weight, from 0 to 1; NaN where there is none."""
    running = np.concatenate([np.zeros((len(weights), 1)), weights.cumsum(axis=1)], axis=1)
    total = np.broadcast_to(running[:, -1:], running.shape)
    return np.asarray(np.divide(running, total, out=np.full(running.shape, np.nan), where=total > 0))


def _thresholds(levels: Ranked) -> Float64[np.ndarray, "point"]:
    return np.concatenate([[np.inf], levels.levels]).astype(np.float64)


def _band(
    lines: list[Float64[np.ndarray, "grid"]], *, level: float
) -> tuple[Float64[np.ndarray, "grid"], Float64[np.ndarray, "grid"]]:
    if len(lines) < 2:
        return np.full(_GRID, np.nan), np.full(_GRID, np.nan)
    low, high = np.quantile(np.stack(lines), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
