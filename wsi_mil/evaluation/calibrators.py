"""Probabilities made to mean what they say: temperature, Platt and isotonic calibrators, as plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float64, Int

from wsi_mil.errors import TaskError, unknown

Method = Literal["none", "temperature", "platt", "isotonic"]

METHODS = ("none", "temperature", "platt", "isotonic")

LEAST = 1e-6
"""Probabilities are kept this far from 0 and 1 before a logarithm is taken."""

COLDEST, HOTTEST = 0.05, 20.0
"""Temperatures searched."""

FACTOR = 2.0
"""By which a temperature is taken to lie off 1, one standard deviation, before a case is seen."""

FEW_FOR_ISOTONIC = 100
"""Patients below which a free monotone curve follows chance."""


@dataclass(frozen=True)
class Calibrator:
    """A map from probabilities to probabilities; `curves` has a list of numbers a class (one for two classes)."""

    method: Method
    curves: tuple[tuple[float, ...], ...] = ()
    """temperature: (T,); platt: (slope, intercept) of the logit; isotonic: x1, y1, x2, y2 ... joined by lines."""
    note: str = ""

    def apply(self, probabilities: Float[np.ndarray, "case class"]) -> Float64[np.ndarray, "case class"]:
        """Calibrated probability of each class; rows sum to 1."""
        raw = np.asarray(probabilities, dtype=np.float64)
        if self.method == "none":
            return raw
        if self.method == "temperature":
            return _softmax(np.log(np.clip(raw, LEAST, 1)) / self.curves[0][0])
        columns = range(1, 2) if raw.shape[1] == 2 else range(raw.shape[1])
        made = [self._one(raw[:, column], curve) for column, curve in zip(columns, self.curves, strict=True)]
        if raw.shape[1] == 2:
            return np.stack([1 - made[0], made[0]], axis=1)
        stacked = np.clip(np.stack(made, axis=1), LEAST, None)
        return np.asarray(stacked / stacked.sum(axis=1, keepdims=True))

    def _one(self, p: Float64[np.ndarray, "case"], curve: Sequence[float]) -> Float64[np.ndarray, "case"]:
        if self.method == "platt":
            return np.asarray(1 / (1 + np.exp(-(curve[0] * logit(p) + curve[1]))))
        return np.asarray(np.interp(p, curve[0::2], curve[1::2]))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"method": self.method, "curves": [list(one) for one in self.curves], "note": self.note}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Calibrator:
        """The calibrator back from `to_json`; TaskError for what none wrote."""
        try:
            if told["method"] not in METHODS:
                raise TaskError(unknown("calibrator", str(told["method"]), METHODS))
            curves = tuple(tuple(float(number) for number in one) for one in told["curves"])
            return cls(told["method"], curves, str(told.get("note", "")))
        except (KeyError, TypeError, ValueError) as error:
            raise TaskError(f"this is no calibrator: {error}") from error


def fit_calibrator(
    method: Method,
    probabilities: Float[np.ndarray, "case class"],
    truth: Int[np.ndarray, "case"],
    weights: Float[np.ndarray, "case"],
) -> Calibrator:
    """Fit on cases that neither trained the model nor test it; `weights` let every patient count once.

    Where few cases are separated without a fault, nothing may make the answer certain: the logarithm of the temperature
    (Guo et al., ICML 2017) has a normal prior about 0, and Platt's line (1999) is fitted to his softened targets,
    (N_k + 1) / (N_k + K) for the true class and 1 / (N_k + K) for the others. A class without a case cannot be
    calibrated: the probabilities are left as they are, and the note says so.
    """
    counts = np.array([weights[truth == number].sum() for number in range(probabilities.shape[1])])
    if method == "none":
        return Calibrator("none")
    if (counts < 1).any():
        lacking = ", ".join(str(number) for number in np.flatnonzero(counts < 1))
        return Calibrator("none", note=f"no case of class number {lacking}: not calibrated")
    raw = np.asarray(probabilities, dtype=np.float64)
    soft = (
        np.where(np.eye(len(counts))[truth] > 0, (counts[truth] + 1)[:, None], 1.0)
        / (counts[truth] + len(counts))[:, None]
    )
    if method == "temperature":
        return _temperature(raw, truth, weights)
    columns = range(1, 2) if len(counts) == 2 else range(len(counts))
    if method == "platt":
        return Calibrator("platt", tuple(_platt(logit(raw[:, one]), soft[:, one], weights) for one in columns))
    few = f"fitted on {weights.sum():.0f} patients: isotonic needs {FEW_FOR_ISOTONIC} or more"
    curves = tuple(_isotonic(raw[:, one], (truth == one).astype(float), weights) for one in columns)
    return Calibrator("isotonic", curves, few if weights.sum() < FEW_FOR_ISOTONIC else "")


def logit(p: Float[np.ndarray, "case"]) -> Float64[np.ndarray, "case"]:
    """log(p / (1 - p)), kept finite."""
    kept = np.clip(np.asarray(p, dtype=np.float64), LEAST, 1 - LEAST)
    return np.asarray(np.log(kept) - np.log1p(-kept))


def _temperature(
    raw: Float64[np.ndarray, "case class"],
    truth: Int[np.ndarray, "case"],
    weights: Float[np.ndarray, "case"],
) -> Calibrator:
    from scipy.optimize import minimize_scalar

    logs = np.log(np.clip(raw, LEAST, 1))

    def loss(log_temperature: float) -> float:
        scaled = _softmax(logs / np.exp(log_temperature))
        own = np.log(np.clip(scaled[np.arange(len(truth)), truth], 1e-300, 1))
        return float(-(weights * own).sum() + 0.5 * (log_temperature / np.log(FACTOR)) ** 2)

    found = minimize_scalar(loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded", options={"xatol": 1e-6})
    temperature = float(np.exp(found.x))
    at_end = temperature > 0.98 * HOTTEST
    return Calibrator("temperature", ((temperature,),), "the probabilities say nothing of the truth" if at_end else "")


def _platt(
    x: Float64[np.ndarray, "case"], soft: Float64[np.ndarray, "case"], weights: Float[np.ndarray, "case"]
) -> tuple[float, float]:
    """Slope and intercept of the logit; convex, with a ridge of 1e-6 that keeps it finite."""
    from scipy.optimize import minimize

    def loss(beta: Float64[np.ndarray, "2"]) -> tuple[float, Float64[np.ndarray, "2"]]:
        z = beta[0] * x + beta[1]
        error = weights * (1 / (1 + np.exp(-np.clip(z, -500, 500))) - soft)
        value = (weights * (np.logaddexp(0, z) - soft * z)).sum() + 0.5e-6 * (beta**2).sum()
        return float(value), np.array([error @ x, error.sum()]) + 1e-6 * beta

    found = minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS", options={"gtol": 1e-7 * len(x)})
    return float(found.x[0]), float(found.x[1])


def _isotonic(
    p: Float64[np.ndarray, "case"], hit: Float64[np.ndarray, "case"], weights: Float[np.ndarray, "case"]
) -> tuple[float, ...]:
    from sklearn.isotonic import IsotonicRegression

    # Never nearer to 0 or 1 than the number of patients can tell.
    margin = 1 / (weights.sum() + 2)
    regression = IsotonicRegression(y_min=margin, y_max=1 - margin, out_of_bounds="clip").fit(p, hit, weights)
    points = zip(regression.X_thresholds_, regression.y_thresholds_, strict=True)
    return tuple(float(number) for point in points for number in point)


def _softmax(logits: Float64[np.ndarray, "case class"]) -> Float64[np.ndarray, "case class"]:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))
