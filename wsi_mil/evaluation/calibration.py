"""Whether a probability means what it says: slope, intercept, expected error, reliability and decision curves.

The measures take weights for each draw, as all metrics do. Of more than two classes each is the mean over the classes,
one against the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Shaped

from wsi_mil.evaluation.calibrators import logit
from wsi_mil.evaluation.intervals import patient_weights
from wsi_mil.evaluation.metrics import Draws, Metric, Probabilities, Truth, Values

BINS = 10

FEW_FOR_ECE = 200
"""Cases below which the expected calibration error is mostly chance: with 10 bins of 10 cases a perfectly calibrated
model shows about 0.1."""


@dataclass(frozen=True)
class Reliability:
    """Bins of equally many cases: what was said, what came true, with the interval of the share (Wilson, 95 %)."""

    said: Float64[np.ndarray, "bin"]
    came: Float64[np.ndarray, "bin"]
    low: Float64[np.ndarray, "bin"]
    high: Float64[np.ndarray, "bin"]
    cases: Float64[np.ndarray, "bin"]


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit at each threshold of risk, beside calling all and calling none (Vickers and Elkin, 2006)."""

    thresholds: Float64[np.ndarray, "point"]
    model: Float64[np.ndarray, "point"]
    low: Float64[np.ndarray, "point"]
    high: Float64[np.ndarray, "point"]
    call_all: Float64[np.ndarray, "point"]


def calibration_slope(truth: Truth, probabilities: Probabilities, weights: Draws) -> Values:
    """Slope of the truth's log-odds on the predicted ones: below 1 the predictions are too extreme, above too timid."""
    return _each_class(truth, probabilities, lambda hit, x: _logistic(hit, x, weights)[:, 0])


def calibration_intercept(truth: Truth, probabilities: Probabilities, weights: Draws) -> Values:
    """Calibration in the large: log-odds to add at a slope of 1; above 0 the predictions are too low on the whole."""
    return _each_class(truth, probabilities, lambda hit, x: _offset(hit, x, weights))


def expected_calibration_error(truth: Truth, probabilities: Probabilities, weights: Draws) -> Values:
    """Mean over bins of equally many cases of |said - came|, of the most probable class; biased upwards if few."""
    if probabilities.shape[1] == 2:
        said, hit = probabilities[:, 1].astype(np.float64), (truth == 1).astype(np.float64)
    else:
        said, hit = probabilities.max(axis=1).astype(np.float64), (probabilities.argmax(axis=1) == truth).astype(float)
    total = np.zeros(len(weights))
    for here in _bins(said):
        total += np.abs(weights[:, here] @ (said[here] - hit[here]))
    whole = weights.sum(axis=1)
    return np.asarray(np.divide(total, whole, out=np.full_like(total, np.nan), where=whole > 0))


CALIBRATION_METRICS: dict[str, Metric] = {
    "calibration_slope": calibration_slope,
    "calibration_intercept": calibration_intercept,
    "expected_calibration_error": expected_calibration_error,
}


def reliability(hit: Shaped[np.ndarray, "case"], said: Float[np.ndarray, "case"]) -> Reliability:
    """What came true in each bin of a class's predicted probability."""
    hit, said = np.asarray(hit, dtype=np.float64), np.asarray(said, dtype=np.float64)
    rows = [
        (said[here].mean(), hit[here].mean(), *wilson(hit[here].sum(), len(here)), len(here)) for here in _bins(said)
    ]
    return Reliability(*(np.array(column, dtype=np.float64) for column in zip(*rows, strict=True)))


def decision_curve(
    hit: Shaped[np.ndarray, "case"],
    said: Float[np.ndarray, "case"],
    patients: Sequence[str],
    *,
    draws: int = 400,
    seed: int = 0,
) -> DecisionCurve:
    """Net benefit, true positives less false ones times t / (1 - t), a case, with its 95 % band over patients."""
    hit, said = np.asarray(hit, dtype=bool), np.asarray(said, dtype=np.float64)
    grid = np.linspace(0.01, 0.99, 99)
    weights = patient_weights(patients, draws=draws, random=np.random.default_rng(seed))
    lines = _benefit(hit, said, weights, grid)
    low, high = np.quantile(lines, [0.025, 0.975], axis=0)
    one = np.ones((1, len(hit)))
    call_all = _benefit(hit, np.ones(len(hit)), one, grid)[0]
    return DecisionCurve(grid, _benefit(hit, said, one, grid)[0], low, high, call_all)


def wilson(hits: float, cases: int, *, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's interval of a share; (0, 1) without cases."""
    if not cases:
        return 0.0, 1.0
    share, z2 = hits / cases, z * z / cases
    middle, half = share + z2 / 2, z * np.sqrt(share * (1 - share) / cases + z2 / (4 * cases))
    return max(0.0, float((middle - half) / (1 + z2))), min(1.0, float((middle + half) / (1 + z2)))


def _benefit(
    hit: Bool[np.ndarray, "case"], said: Float64[np.ndarray, "case"], weights: Draws, grid: Float64[np.ndarray, "point"]
) -> Float64[np.ndarray, "draw point"]:
    called = (said[:, None] >= grid).astype(np.float64)
    gain = np.where(hit[:, None], called, -called * grid / (1 - grid))
    return np.asarray(weights @ gain / weights.sum(axis=1, keepdims=True))


def _bins(said: Float64[np.ndarray, "case"]) -> list[np.ndarray]:
    """Places of the cases in bins of equally many, in order of what was said."""
    order = np.argsort(said, kind="stable")
    return [part for part in np.array_split(order, min(BINS, max(1, len(said) // 2))) if len(part)]


def _each_class(truth: Truth, probabilities: Probabilities, measure: object) -> Values:
    classes = [1] if probabilities.shape[1] == 2 else range(probabilities.shape[1])
    found = [measure((truth == one).astype(float), logit(probabilities[:, one])) for one in classes]  # type: ignore[operator]
    return np.asarray(np.mean(found, axis=0), dtype=np.float64)


def _logistic(
    hit: Float64[np.ndarray, "case"], x: Float64[np.ndarray, "case"], weights: Draws
) -> Float64[np.ndarray, "draw 2"]:
    """Slope and intercept of a logistic regression in each draw, by Newton's method; NaN where the classes separate."""
    beta = np.zeros((len(weights), 2))  # where the curvature is largest, so that the first steps do not overshoot
    for _ in range(40):
        p = 1 / (1 + np.exp(-np.clip(beta[:, :1] * x + beta[:, 1:], -35, 35)))
        error, curvature = weights * (p - hit), weights * p * (1 - p)
        g0, g1 = error @ x, error.sum(axis=1)
        h00, h01, h11 = curvature @ (x * x), curvature @ x, curvature.sum(axis=1)
        determinant = h00 * h11 - h01 * h01
        with np.errstate(divide="ignore", invalid="ignore"):
            step = np.stack([(h11 * g0 - h01 * g1) / determinant, (h00 * g1 - h01 * g0) / determinant], axis=1)
            # as long a step as Newton's, at most 2: farther out the curve says nothing
            step = step * np.minimum(1.0, 2.0 / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-12))
        beta = beta - np.where(np.isfinite(step), step, 0.0)
    settled = np.isfinite(step).all(axis=1) & (np.abs(step).max(axis=1) < 1e-4)
    return np.where(settled[:, None], beta, np.nan)


def _offset(hit: Float64[np.ndarray, "case"], x: Float64[np.ndarray, "case"], weights: Draws) -> Values:
    """Intercept at a slope of 1, by Newton's method; NaN where only one class was drawn."""
    shift = np.zeros(len(weights))
    for _ in range(60):
        p = 1 / (1 + np.exp(-np.clip(x + shift[:, None], -35, 35)))
        curvature = (weights * p * (1 - p)).sum(axis=1)
        shift = shift - np.clip((weights * (p - hit)).sum(axis=1) / np.maximum(curvature, 1e-12), -2, 2)
    positive, whole = weights @ hit, weights.sum(axis=1)
    return np.asarray(np.where((positive > 0) & (positive < whole), shift, np.nan))
