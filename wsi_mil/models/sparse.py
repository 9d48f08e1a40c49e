"""Ways from scores to weights that give most tiles exactly nothing: sparsemax, entmax, softmax of the k largest."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

_STEPS = 50
"""Halvings of an interval of length 1 at most: beyond the last digit of float32, near that of float64."""


def sparsemax(scores: Float[Tensor, "tile query"]) -> Float[Tensor, "tile query"]:
    """p = argmin |p - e|^2 over the simplex, each column alone: max(e - tau, 0) (Martins, Astudillo, ICML 2016)."""
    return _weights(scores, 2.0)


def entmax(scores: Float[Tensor, "tile query"], alpha: float = 1.5) -> Float[Tensor, "tile query"]:
    """p = max((alpha - 1) e - tau, 0)^(1 / (alpha - 1)), each column alone (Peters, Niculae, Martins, ACL 2019).

    alpha 1 is softmax, 2 sparsemax; 1.5 is found exactly by sorting, others by bisection.
    """
    return scores.softmax(dim=0) if alpha == 1 else _weights(scores, alpha)


def top_softmax(scores: Float[Tensor, "tile query"], k: int) -> Float[Tensor, "tile query"]:
    """Softmax over the k largest scores of each column, 0 for the others."""
    values, rows = scores.topk(min(k, len(scores)), dim=0)
    return torch.zeros_like(scores).scatter(0, rows, values.softmax(dim=0))


def _weights(scores: Tensor, alpha: float) -> Tensor:
    weights: Tensor = _Entmax.apply(scores, alpha)
    return weights


class _Entmax(torch.autograd.Function):
    """Backward from the weights alone: J = diag(s) - s s' / sum(s), s = p^(2 - alpha) where p > 0 and 0 elsewhere."""

    @staticmethod
    def forward(context: Any, scores: Tensor, alpha: float) -> Tensor:
        # "+ 1" below is lost beside large scores
        scores = scores - scores.max(dim=0).values
        if alpha == 2:
            weights = _project(scores)
        elif alpha == 1.5:
            weights = _entmax15(scores / 2)
        else:
            weights = _bisect(scores * (alpha - 1), alpha)
        context.alpha = alpha
        context.save_for_backward(weights)
        return weights

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (weights,) = context.saved_tensors
        slopes = torch.where(weights > 0, weights ** (2 - context.alpha), 0.0)
        mean = (gradient * slopes).sum(dim=0) / slopes.sum(dim=0)
        return slopes * (gradient - mean), None


def _ranks(scores: Tensor) -> Tensor:
    return torch.arange(1, len(scores) + 1, dtype=scores.dtype, device=scores.device)[:, None]


def _project(scores: Tensor) -> Tensor:
    """tau = (sum of the k largest - 1) / k, for the largest k with 1 + k e_(k) > sum of the k largest."""
    ordered = scores.sort(dim=0, descending=True).values
    sums = ordered.cumsum(dim=0)
    support = (1 + _ranks(scores) * ordered > sums).sum(dim=0, keepdim=True)
    tau = (sums.gather(0, support - 1) - 1) / support
    return (scores - tau).clamp_min(0)


def _entmax15(halves: Tensor) -> Tensor:
    """For each k the tau at which sum (e - tau)^2 over the k largest is 1; right is the last k with tau <= e_(k)."""
    ordered = halves.sort(dim=0, descending=True).values
    ranks = _ranks(halves)
    mean, squares = ordered.cumsum(dim=0) / ranks, (ordered**2).cumsum(dim=0) / ranks
    tau = mean - ((1 / ranks) - (squares - mean**2)).clamp_min(0).sqrt()
    support = (tau <= ordered).sum(dim=0, keepdim=True)
    return (halves - tau.gather(0, support - 1)).clamp_min(0) ** 2


def _bisect(scaled: Tensor, alpha: float) -> Tensor:
    power = 1 / (alpha - 1)
    low = torch.full_like(scaled[:1], -1.0)
    high = torch.full_like(low, -(len(scaled) ** (1.0 - alpha)))
    for _ in range(_STEPS):
        middle = (low + high) / 2
        enough = ((scaled - middle).clamp_min(0) ** power).sum(dim=0, keepdim=True) >= 1
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    weights = (scaled - low).clamp_min(0) ** power
    return weights / weights.sum(dim=0)
