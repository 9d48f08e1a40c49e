"""CLAM: what leaves for the instance loss, and that a bag's answer does not need it."""

from __future__ import annotations

import pytest
import torch
from contracts.aggregator import AggregatorContract
from contracts.planted import ragged

from wsi_mil.errors import ModelError
from wsi_mil.models import build_model


class TestMulti(AggregatorContract):
    name = "clam"
    options = {"hidden": 32, "attention": 16}


class TestSingle(AggregatorContract):
    name = "clam"
    options = {"hidden": 32, "attention": 16, "branches": "single", "instance_loss": "hinge"}


def test_it_is_gated_attention_with_class_heads() -> None:
    clam = build_model("clam", dim=4, n_out=3, hidden=8).eval()
    plain = build_model("abmil", dim=4, n_out=3, hidden=8, heads="class").eval()
    state = {name: value for name, value in clam.state_dict().items() if "clusters" not in name}
    plain.load_state_dict(state)
    batch = ragged(9, 4, dim=4)
    torch.testing.assert_close(clam(*batch).logits, plain(*batch).logits)


def test_the_clusters_are_for_training_alone() -> None:
    model = build_model("clam", dim=4, n_out=3).train()
    batch = ragged(9, 4, dim=4)
    assert model(*batch).aux["cluster_logits"].shape == (13, 3, 2)
    assert set(model.eval()(*batch).aux) == {"tiles"}
    without = build_model("clam", dim=4, n_out=3, clusters=0.0).train()
    assert set(without(*batch).aux) == {"tiles"}


@pytest.mark.parametrize("options", [{"branches": "both"}, {"instance_loss": "svm"}, {"tiles": 0}, {"clusters": 1.0}])
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="clam"):
        build_model("clam", dim=4, n_out=2, **options)
