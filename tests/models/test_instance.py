"""Instance MIL: the pooled scores against their formulas."""

from __future__ import annotations

import pytest
import torch
from contracts.aggregator import AggregatorContract
from contracts.planted import ragged

from wsi_mil.errors import ModelError
from wsi_mil.models import build_model


class TestAdditive(AggregatorContract):
    name = "instance"
    options = {"hidden": 32, "attention": 16}


class TestTopK(AggregatorContract):
    name = "instance"
    options = {"hidden": 32, "pooling": "topk", "k": 4}


class TestNoisyOr(AggregatorContract):
    name = "instance"
    options = {"hidden": 32, "pooling": "noisy_or"}


def test_top_k_is_the_mean_of_the_largest() -> None:
    model = build_model("instance", dim=4, n_out=2, pooling="topk", k=3).eval()
    pooled = model(*ragged(9, 2, dim=4))
    torch.testing.assert_close(pooled.logits[0], pooled.scores[:9].topk(3, dim=0).values.mean(0))
    torch.testing.assert_close(pooled.logits[1], pooled.scores[9:].mean(0))
    assert (pooled.contributions[:9] != 0).sum(0).tolist() == [3, 3]


def test_noisy_or_is_one_less_the_chance_that_none_says_yes() -> None:
    model = build_model("instance", dim=4, n_out=2, pooling="noisy_or").eval().double()
    pooled = model(*ragged(9, dim=4))
    wanted = 1 - (1 - pooled.scores.sigmoid()).prod(0)
    torch.testing.assert_close(pooled.logits[0].sigmoid(), wanted)


def test_noisy_or_stays_finite_for_sure_tiles_and_hopeless_ones() -> None:
    model = build_model("instance", dim=4, n_out=2, pooling="noisy_or").eval()
    batch = ragged(9, dim=4)
    with torch.no_grad():
        for bias, sign in ((50.0, 1), (-50.0, -1)):
            model.aggregator.bias.fill_(bias)
            logits = model(*batch).logits
            assert torch.isfinite(logits).all()
            assert (logits * sign > 30).all()


def test_a_pooling_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModelError, match="instance.*median"):
        build_model("instance", dim=4, n_out=2, pooling="median")
    with pytest.raises(ModelError, match="k=0"):
        build_model("instance", dim=4, n_out=2, pooling="topk", k=0)
