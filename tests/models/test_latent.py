"""Latent cross-attention against plain multi-head attention."""

from __future__ import annotations

import pytest
import torch
from contracts.aggregator import AggregatorContract
from contracts.planted import ragged

from wsi_mil.errors import ModelError
from wsi_mil.models import build_model
from wsi_mil.models.transformer import CrossAttention


class TestLatent(AggregatorContract):
    name = "latent"
    steps = 100
    options = {"hidden": 32, "attention": 16, "latents": 8}


def test_cross_attention() -> None:
    torch.manual_seed(0)
    layer = CrossAttention(8, heads=2).double()
    asking, asked = torch.randn(3, 8, dtype=torch.float64), torch.randn(5, 8, dtype=torch.float64)
    known = layer.norm_asked(asked)
    q, k, v = layer.query(layer.norm_asking(asking)), layer.key(known), layer.value(known)
    heads = [(q[:, i : i + 4] @ k[:, i : i + 4].T / 2).softmax(1) @ v[:, i : i + 4] for i in (0, 4)]
    torch.testing.assert_close(layer(asking, asked), asking + layer.out(torch.cat(heads, dim=1)))


def test_a_tile_hears_of_the_others() -> None:
    model = build_model("latent", dim=4, n_out=2, hidden=8).eval()
    features, cells, offsets = ragged(6, dim=4)
    before = model(features, cells, offsets).scores
    features[5] += 1
    assert not torch.equal(model(features, cells, offsets).scores[:5], before[:5])


@pytest.mark.parametrize("options", [{"heads": 3}, {"depth": 0}, {"latents": 0}])
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="latent"):
        build_model("latent", dim=4, n_out=2, **options)
