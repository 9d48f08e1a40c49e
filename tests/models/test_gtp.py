"""GTP: what the graph does to it, and GraphCAM against gradients taken by hand."""

from __future__ import annotations

import pytest
import torch
from contracts.aggregator import AggregatorContract
from contracts.planted import ragged

from wsi_mil.errors import ModelError
from wsi_mil.models import build_model


class TestGTP(AggregatorContract):
    name = "gtp"
    options = {"hidden": 16, "clusters": 6, "depth": 2, "heads": 2}


def _model(**options: object) -> torch.nn.Module:
    return build_model("gtp", dim=4, n_out=2, hidden=16, clusters=5, depth=2, heads=2, **options).eval().double()


def test_number_of_parameters() -> None:
    """As counted from the published shapes, less the bias before the norm, with two numbers a channel for the norm."""
    model = build_model("gtp", dim=512, n_out=3)
    block = 64 * 192 + 64 * 64 + 64 + 2 * 128 + 64 * 128 + 128 + 128 * 64 + 64
    wanted = 512 * 64 + 128 + 64 * 100 + 100 + 64 + 3 * block + 128 + 64 * 3 + 3
    assert sum(weight.numel() for weight in model.parameters()) == wanted


def test_without_neighbours_the_tiles_are_a_set() -> None:
    model = _model()
    features, cells, offsets = ragged(12, dim=4)
    apart = model(features, cells * 10, offsets).logits
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(features, cells[order] * 10, offsets).logits, apart)
    assert not torch.allclose(model(features, cells, offsets).logits, apart)


def test_clusters_cut_the_graph() -> None:
    pooled = _model()(*ragged(12, 3, dim=4))
    assert ((pooled.aux["min_cut"] >= -1) & (pooled.aux["min_cut"] <= 0)).all()
    assert pooled.aux["orthogonality"][1] == 0  # fewer tiles than clusters


def test_graph_cam_by_hand() -> None:
    model = _model()
    method = model.aggregator
    tokens = torch.randn(2, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    seen = method.graph_cam(tokens)
    for bag in range(2):
        for out in range(2):
            read, maps = method._read(tokens[bag : bag + 1])
            for attention in maps:
                attention.retain_grad()
            method.head(read)[0, out].backward()
            rollout = torch.eye(6, dtype=torch.float64)
            for attention in maps:
                rollout = (torch.eye(6) + (attention.grad * attention)[0].clamp_min(0).mean(0)) @ rollout
            torch.testing.assert_close(seen[bag, out], rollout[0, 1:].detach())


def test_graph_cam_in_inference_mode_is_the_same_and_shares_out_over_tiles() -> None:
    model = _model()
    batch = ragged(12, dim=4)
    scores = model(*batch).scores
    with torch.inference_mode():
        torch.testing.assert_close(model(*batch).scores, scores)
    assert not scores.requires_grad
    assert not model.train()(*batch).scores.any()
    # a map of ones is one everywhere, because each tile shares itself out whole
    method = model.eval().aggregator
    method.graph_cam = lambda tokens: torch.ones(1, 2, 5, dtype=torch.float64)
    torch.testing.assert_close(model(*batch).scores, torch.ones(12, 2, dtype=torch.float64))


@pytest.mark.parametrize("options", [{"heads": 3}, {"clusters": 1}, {"depth": 0}])
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="gtp"):
        build_model("gtp", dim=4, n_out=2, **options)
