"""Reductions over the tiles of each bag, against a loop."""

from __future__ import annotations

import pytest
import torch

from wsi_mil.models.layers import Head, segment_max, segment_mean, segment_softmax, segment_sum, segments, weighted_sum

LENGTHS = [3, 1, 6]
OFFSETS = torch.tensor([0, 3, 4, 10])
PARTS = segments(OFFSETS, device=torch.device("cpu"))


@pytest.fixture
def values() -> torch.Tensor:
    return torch.randn(10, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_segments() -> None:
    assert PARTS.lengths == LENGTHS
    assert PARTS.bag.tolist() == [0, 0, 0, 1, 2, 2, 2, 2, 2, 2]


def test_softmax(values: torch.Tensor) -> None:
    wanted = torch.cat([part.softmax(0) for part in values.split(LENGTHS)])
    torch.testing.assert_close(segment_softmax(values, PARTS), wanted)
    leaf = values.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda scores: segment_softmax(scores, PARTS), (leaf,))


@pytest.mark.parametrize("lengths", [[10], LENGTHS])
def test_softmax_survives_huge_and_half_precision_scores(lengths: list[int]) -> None:
    parts = segments(torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()]), device=torch.device("cpu"))
    scores = torch.full((10, 1), 60000.0, dtype=torch.float16)
    scores[4] = -60000.0
    attention = segment_softmax(scores, parts)
    assert attention.dtype == torch.float32
    assert torch.isfinite(attention).all()
    assert attention[4] == 0


def test_sums_means_and_largest(values: torch.Tensor) -> None:
    loop = values.split(LENGTHS)
    torch.testing.assert_close(segment_sum(values, PARTS), torch.stack([part.sum(0) for part in loop]))
    torch.testing.assert_close(segment_mean(values, PARTS), torch.stack([part.mean(0) for part in loop]))
    top, rows = segment_max(values, PARTS)
    torch.testing.assert_close(top, torch.stack([part.max(0).values for part in loop]))
    torch.testing.assert_close(values.gather(0, rows), top)
    weights = values[:, :2].abs()
    wanted = [weight.T @ part for weight, part in zip(weights.split(LENGTHS), loop, strict=True)]
    torch.testing.assert_close(weighted_sum(values, weights, PARTS), torch.stack(wanted))


@pytest.mark.parametrize("query_per_class", [True, False])
def test_the_head_splits_over_tiles(query_per_class: bool, values: torch.Tensor) -> None:
    head = Head(4, queries=3, n_out=3, query_per_class=query_per_class).double()
    attention = segment_softmax(values[:, :3], PARTS)
    logits = head(weighted_sum(values, attention, PARTS))
    sums = segment_sum(head.contributions(values, attention), PARTS)
    torch.testing.assert_close(sums + head.bias, logits)
