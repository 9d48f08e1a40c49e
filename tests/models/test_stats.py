"""Bag statistics against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contracts.aggregator import AggregatorContract
from contracts.planted import ragged

from wsi_mil.errors import ModelError
from wsi_mil.models import build_model


class TestStats(AggregatorContract):
    name = "stats"
    options = {"dropout": 0.0}
    learning_rate = 0.1


class TestExtremes(AggregatorContract):
    name = "stats"
    options = {"statistics": ["min", "max"], "dropout": 0.0}
    learning_rate = 0.1


def test_the_statistics() -> None:
    model = build_model("stats", dim=4, n_out=2).eval()
    features, cells, offsets = ragged(9, 5, dim=4)
    embedding = model(features, cells, offsets).embedding[1, 0].detach()
    bag = features[9:].numpy()
    wanted = np.concatenate([bag.mean(0), bag.std(0), bag.min(0), bag.max(0)])
    np.testing.assert_allclose(embedding, wanted, atol=1e-5)


def test_the_score_of_a_tile_is_the_logit_of_a_bag_that_holds_it_alone() -> None:
    model = build_model("stats", dim=4, n_out=2).eval()
    features, cells, offsets = ragged(9, dim=4)
    alone = model(features, cells, torch.arange(10)).logits
    torch.testing.assert_close(model(features, cells, offsets).scores, alone)


@pytest.mark.parametrize("statistics", [[], ["median"], ["mean", "mean"]])
def test_other_statistics_are_refused(statistics: list[str]) -> None:
    with pytest.raises(ModelError, match="each once"):
        build_model("stats", dim=4, n_out=2, statistics=statistics)
