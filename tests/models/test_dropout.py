"""Dropout from few random bits drops the right share, each value by itself, and keeps the mean."""

from __future__ import annotations

import pytest
import torch

from wsi_mil.models.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_the_share_and_the_mean_are_right(p: float) -> None:
    torch.manual_seed(0)
    ones = torch.ones(1000, 401)
    got = Dropout(p)(ones)
    dropped = (got == 0).float()
    sigma = (p * (1 - p) / ones.numel()) ** 0.5
    assert abs(dropped.mean().item() - p) < 4 * sigma
    assert got[got > 0].unique().item() == pytest.approx(1 / (1 - p), rel=1e-4)
    # The four values of one draw are as independent as those of two.
    for apart in (1, 2, 3, 4, 401):
        flat = dropped.flatten() - p
        assert abs((flat[apart:] * flat[:-apart]).mean().item()) < 5 * p * (1 - p) / ones.numel() ** 0.5


def test_gradients_pass_where_values_did() -> None:
    torch.manual_seed(1)
    values = torch.randn(50, 7, requires_grad=True)
    got = Dropout(0.5)(values)
    got.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad != 0, got != 0)


def test_nothing_is_dropped_in_evaluation_or_at_zero_and_all_at_one() -> None:
    values = torch.randn(9, 5)
    assert torch.equal(Dropout(0.5).eval()(values), values)
    assert torch.equal(Dropout(0.0)(values), values)
    assert not Dropout(1.0)(values).any()
    assert Dropout(0.5)(torch.empty(0, 5)).shape == (0, 5)


def test_the_seed_decides() -> None:
    values, module = torch.randn(9, 5), Dropout(0.5)
    torch.manual_seed(3)
    first = module(values)
    torch.manual_seed(3)
    assert torch.equal(first, module(values))
    assert module(values.half()).dtype == torch.float16
