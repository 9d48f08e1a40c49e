"""How well slides of unknown kinds are told from known ones, and what answering fewer slides is worth (no torch).

Scores of unknownness are higher for the less known. Nothing here chooses a limit by looking at an unknown slide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Shaped

from wsi_mil.errors import TaskError


@dataclass(frozen=True)
class OpenSet:
    """Measures of unknown against known cases."""

    auroc: float
    """Chance that an unknown case scores higher than a known one; ties count a half."""
    average_precision_unknown: float
    """With the unknown as what is searched for."""
    average_precision_known: float
    fpr_at_95: float
    """Share of unknown cases still answered where the limit lets 95 % of the known through."""
    oscr: float
    """Area under the open-set classification rate: known cases that are right and answered, over unknown answered."""
    known: int
    unknown: int


def open_set(
    known: Float[np.ndarray, "known"], right: Bool[np.ndarray, "known"], unknown: Float[np.ndarray, "unknown"]
) -> OpenSet:
    """Measure scores of known and unknown cases; `right` tells which known cases were classified rightly.

    OSCR after Dhamija, Günther and Boult (NeurIPS 2018). Raises TaskError where either is empty or not finite.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    known, unknown = np.asarray(known, np.float64), np.asarray(unknown, np.float64)
    if not len(known) or not len(unknown):
        raise TaskError(f"{len(known)} known and {len(unknown)} unknown case(s): both are needed to tell them apart")
    both = np.concatenate([known, unknown])
    if not np.isfinite(both).all():
        raise TaskError("a score of unknownness is not finite")
    truth = np.repeat([0, 1], [len(known), len(unknown)])
    return OpenSet(
        auroc=float(roc_auc_score(truth, both)),
        average_precision_unknown=float(average_precision_score(truth, both)),
        average_precision_known=float(average_precision_score(1 - truth, -both)),
        fpr_at_95=fpr_at_tpr(known, unknown, 0.95),
        oscr=oscr(known, right, unknown),
        known=len(known),
        unknown=len(unknown),
    )


def fpr_at_tpr(known: Float[np.ndarray, "known"], unknown: Float[np.ndarray, "unknown"], tpr: float) -> float:
    """Share of unknown cases at or below the least limit that answers a share `tpr` of the known."""
    return float((np.asarray(unknown) <= limit_of(known, np.ones(len(known)), 1 - tpr)).mean())


def oscr(
    known: Float[np.ndarray, "known"], right: Bool[np.ndarray, "known"], unknown: Float[np.ndarray, "unknown"]
) -> float:
    """Area under (share of unknown answered, share of known that are answered and right) over all limits."""
    known, unknown = np.asarray(known, np.float64), np.asarray(unknown, np.float64)
    from sklearn.metrics import auc

    limits = np.unique(np.concatenate([known, unknown]))
    hits = np.array([0.0, *(((known <= limit) & right).mean() for limit in limits)])
    false = np.array([0.0, *((unknown <= limit).mean() for limit in limits)])
    return float(auc(false, hits))


def open_f1(truth: Sequence[str], said: Sequence[str]) -> float:
    """Macro F1 over the known classes and one more for the unknown, as named in `truth` and `said`."""
    from sklearn.metrics import f1_score

    return float(f1_score(list(truth), list(said), average="macro", zero_division=0.0, labels=sorted(set(truth))))


def limit_of(scores: Float[np.ndarray, "case"], weights: Float[np.ndarray, "case"], rate: float) -> float:
    """The least score at or below which a share 1 - `rate` of the (weighted) known cases lies."""
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(np.asarray(weights, np.float64)[order])
    place = int(np.searchsorted(reached, (1 - rate) * reached[-1] - 1e-9))
    return float(np.asarray(scores)[order[min(place, len(order) - 1)]])


def limit_interval(
    scores: Float[np.ndarray, "case"], patients: Sequence[str], rate: float, *, draws: int = 500, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the limit over resampled patients, each of whom counts once."""
    names, of = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    each, random = 1 / np.bincount(of)[of], np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        drawn = np.bincount(random.integers(len(names), size=len(names)), minlength=len(names))
        here = drawn[of] > 0
        found.append(limit_of(np.asarray(scores)[here], (drawn[of] * each)[here], rate))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True)
class RiskCoverage:
    """Accuracy of the cases answered, when those that look least known are left out one after the other."""

    share: Float64[np.ndarray, "point"]
    """Of the cases answered, rising to 1."""
    accuracy: Float64[np.ndarray, "point"]
    area: float
    """Mean error over all shares (AURC; Geifman and El-Yaniv, 2017): lower is better."""


def risk_coverage(scores: Float[np.ndarray, "case"], right: Bool[np.ndarray, "case"]) -> RiskCoverage:
    """The curve; cases of equal score are answered together, as any limit would."""
    values: Shaped[np.ndarray, "point"] = np.unique(np.asarray(scores))
    hit = np.asarray(right, dtype=np.float64)
    answered = np.asarray(scores)[None, :] <= values[:, None]
    counts = answered.sum(axis=1)
    accuracy = (answered @ hit) / counts
    gained = np.diff(np.concatenate([[0], counts])) / len(hit)
    return RiskCoverage(counts / len(hit), accuracy, float(((1 - accuracy) * gained).sum()))
