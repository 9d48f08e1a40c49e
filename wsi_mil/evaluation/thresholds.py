"""From which probability on a case is called positive, chosen on one set of cases and judged on another."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Shaped

from wsi_mil.evaluation.metrics import Draws, Metric, Probabilities, Truth, Values

Rule = Literal["youden", "sensitivity", "cost"]

RULES = {
    "youden": "the highest sum of sensitivity and specificity",
    "sensitivity": "the highest threshold that reaches the sensitivity asked for",
    "cost": "the least expected cost: 1 / (1 + cost of a missed positive), a false alarm costing 1",
}


def choose_threshold(
    rule: Rule,
    positive: Shaped[np.ndarray, "case"],
    probabilities: Float[np.ndarray, "case"],
    weights: Float[np.ndarray, "case"],
    *,
    sensitivity: float = 0.95,
    cost: float = 1.0,
) -> float | None:
    """A threshold on the calibrated probability of the positive class; None where a class has no case.

    A case is called positive at or above it. Thresholds lie half-way between neighbouring cases, so that a case next
    to one is not called by rounding.
    """
    if rule == "cost":
        return 1 / (1 + cost)
    hit, said = np.asarray(positive, dtype=bool), np.asarray(probabilities, dtype=np.float64)
    positives, negatives = weights[hit].sum(), weights[~hit].sum()
    if not positives or not negatives:
        return None
    values = np.unique(said)
    cuts = np.concatenate([[values[0] / 2], (values[1:] + values[:-1]) / 2])
    found = np.array([weights[hit & (said >= cut)].sum() / positives for cut in cuts])
    spared = np.array([weights[~hit & (said < cut)].sum() / negatives for cut in cuts])
    if rule == "sensitivity":
        return float(cuts[found >= sensitivity - 1e-12].max())
    best = np.flatnonzero(found + spared >= (found + spared).max() - 1e-12)
    # of equal ones the one nearest to the middle of them: the least moved by one case more
    return float(cuts[best[len(best) // 2]])


def at_decision(called: Bool[np.ndarray, "case"]) -> dict[str, Metric]:
    """Sensitivity, specificity and predictive values of decisions that were made; the last class is the positive."""

    def share(top: str) -> Metric:
        def metric(truth: Truth, probabilities: Probabilities, weights: Draws) -> Values:
            hit = truth == probabilities.shape[1] - 1
            of = {"sensitivity": hit, "specificity": ~hit, "ppv": called, "npv": ~called}[top]
            right = of & (called == hit)
            bottom = weights @ of.astype(np.float64)
            found = weights @ right.astype(np.float64)
            return np.asarray(np.divide(found, bottom, out=np.full_like(found, np.nan), where=bottom > 0))

        return metric

    return {name: share(name) for name in ("sensitivity", "specificity", "ppv", "npv")}
