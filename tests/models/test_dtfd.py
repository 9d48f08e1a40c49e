"""DTFD: pseudo-bags are dealt fairly, always alike in evaluation, and attention is that of both tiers."""

from __future__ import annotations

import pytest
import torch
from contracts.aggregator import AggregatorContract
from contracts.planted import ragged

from wsi_mil.errors import ModelError
from wsi_mil.models import build_model
from wsi_mil.models.layers import segments


class TestDTFD(AggregatorContract):
    name = "dtfd"
    options = {"hidden": 32, "attention": 16}


def test_one_pseudo_bag_is_attention_alone() -> None:
    model = build_model("dtfd", dim=4, n_out=2, pseudo_bags=1, hidden=8).eval()
    plain = build_model("abmil", dim=4, n_out=2, hidden=8).eval()
    method = model.aggregator
    plain.aggregator.projection.load_state_dict(method.projection.state_dict())
    plain.aggregator.attention.load_state_dict(method.first.state_dict())
    plain.head.load_state_dict(model.head.state_dict())
    batch = ragged(9, 4, dim=4)
    torch.testing.assert_close(model(*batch).logits, plain(*batch).logits)


@pytest.mark.parametrize("training", [False, True])
def test_tiles_are_dealt_fairly_within_their_bag(training: bool) -> None:
    model = build_model("dtfd", dim=4, n_out=2).train(training)
    features, cells, offsets = ragged(10, 3, dim=4)
    parts = segments(offsets, device=torch.device("cpu"))
    order, pseudo, above = model.aggregator._deal(features, parts)
    assert sorted(order.tolist()) == list(range(13))
    assert pseudo.lengths == [3, 3, 2, 2, 1, 1, 1]
    assert above.bag.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert torch.equal(above.bag[pseudo.bag], parts.bag[order])


def test_training_deals_anew_and_evaluation_does_not() -> None:
    model = build_model("dtfd", dim=4, n_out=2, dropout=0.0).train()
    batch = ragged(40, dim=4)
    assert not torch.equal(model(*batch).logits, model(*batch).logits)
    model.eval()
    assert torch.equal(model(*batch).logits, model(*batch).logits)


def test_the_pseudo_logits_are_of_the_lower_tier() -> None:
    model = build_model("dtfd", dim=4, n_out=2).eval()
    features, cells, offsets = ragged(2, dim=4)
    pooled = model(features, cells, offsets)
    hidden = model.aggregator.projection(features)  # each tile is a pseudo-bag of its own
    wanted = model.aggregator.pseudo_head(hidden)
    found = pooled.aux["pseudo_logits"]
    torch.testing.assert_close(found.sort(0).values, wanted.sort(0).values)
    assert pooled.aux["pseudo_bag"].tolist() == [0, 0]


def test_no_pseudo_bag_is_refused() -> None:
    with pytest.raises(ModelError, match="pseudo_bags is 0"):
        build_model("dtfd", dim=4, n_out=2, pseudo_bags=0)
