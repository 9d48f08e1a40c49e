"""Sparse operators: the constants worked out by hand, a brute-force projection, and their gradients."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from wsi_mil.models.sparse import entmax, sparsemax, top_softmax


def _column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


@pytest.mark.parametrize(
    ("scores", "wanted"),
    [
        ([2, 1, 0.1], [1, 0, 0]),
        ([1, 2.1, 1.9], [0, 0.6, 0.4]),
        ([1, 0.8, 0.1], [0.6, 0.4, 0]),
        ([0.5, 0, -0.5], [0.75, 0.25, 0]),
        ([1, 0.5], [0.75, 0.25]),
        ([1, 1, 0.5, 0.5], [0.5, 0.5, 0, 0]),
    ],
)
def test_sparsemax(scores: list[float], wanted: list[float]) -> None:
    torch.testing.assert_close(sparsemax(_column(*scores)), _column(*wanted))
    torch.testing.assert_close(entmax(_column(*scores), 1.9999999), _column(*wanted), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("scores", "wanted"),
    [
        ([2, 1, 0.1], [0.83072, 0.16928, 0]),
        ([1, 2.1, 1.9], [0.03691, 0.55076, 0.41233]),
        ([1, 0.8, 0.1], [0.52925, 0.39375, 0.07700]),
    ],
)
def test_entmax15(scores: list[float], wanted: list[float]) -> None:
    torch.testing.assert_close(entmax(_column(*scores), 1.5), _column(*wanted), atol=1e-5, rtol=0)


def _random(rows: int, seed: int = 0) -> Tensor:
    return 2 * torch.randn(rows, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_entmax_near_one_is_softmax_and_sorting_is_bisection() -> None:
    scores = _random(9)
    torch.testing.assert_close(entmax(scores, 1.0001), scores.softmax(0), atol=1e-4, rtol=0)
    torch.testing.assert_close(entmax(scores, 1), scores.softmax(0))
    torch.testing.assert_close(entmax(scores, 1.5), entmax(scores, 1.5 + 1e-9), atol=1e-6, rtol=0)


@pytest.mark.parametrize("seed", range(5))
def test_sparsemax_is_the_nearest_point_of_the_simplex(seed: int) -> None:
    """Over all supports: the projection onto each face, and of those within the simplex the nearest."""
    for scores in _random(5, seed).T:
        best, distance = None, float("inf")
        for size in range(1, 6):
            for support in map(list, itertools.combinations(range(5), size)):
                point = torch.zeros(5, dtype=torch.float64)
                point[support] = scores[support] - (scores[support].sum() - 1) / size
                if (point >= 0).all() and (point - scores).norm() < distance:
                    best, distance = point, float((point - scores).norm())
        torch.testing.assert_close(sparsemax(scores[:, None])[:, 0], best)


@pytest.mark.parametrize("alpha", [1.2, 1.5, 1.7, 2.0])
def test_properties(alpha: float) -> None:
    scores = _random(40)
    weights = entmax(scores, alpha)
    torch.testing.assert_close(weights.sum(0), torch.ones(3, dtype=torch.float64))
    assert (weights >= 0).all()
    torch.testing.assert_close(entmax(scores + 1e4, alpha), weights, atol=1e-8, rtol=0)
    order = scores[:, 0].argsort()
    assert (weights[order, 0].diff() >= 0).all()
    sizes = [int((entmax(scores * scale, alpha) > 0).sum()) for scale in (0.1, 1, 3, 10)]
    assert sizes == sorted(sizes, reverse=True)
    leaf = scores[:6].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda values: entmax(values, alpha), (leaf,))


def test_dropped_tiles_get_no_gradient() -> None:
    for operator in (sparsemax, entmax, lambda scores: top_softmax(scores, 2)):
        scores = _column(2, 1.9, -5, -6).requires_grad_()
        (operator(scores) * _column(1, 2, 3, 4)).sum().backward()
        assert (scores.grad[:2] != 0).all()
        assert (scores.grad[2:] == 0).all()


def test_top_softmax() -> None:
    weights = top_softmax(_column(2, 0, 1, -1), 2)
    torch.testing.assert_close(weights, _column(1, 0, torch.exp(torch.tensor(-1.0)), 0) / (1 + 2.718281828459045**-1))
    torch.testing.assert_close(top_softmax(_column(3), 8), _column(1))


def test_huge_scores_in_float32() -> None:
    scores = torch.tensor([[3e7], [3e7], [1e7]])
    for alpha in (1.5, 1.7, 2):
        torch.testing.assert_close(entmax(scores, alpha), torch.tensor([[0.5], [0.5], [0.0]]))
