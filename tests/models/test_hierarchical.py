"""Region to slide: what a tile hears of its region, and what of the others."""

from __future__ import annotations

import pytest
import torch
from contracts.aggregator import AggregatorContract
from contracts.planted import ragged

from wsi_mil.errors import ModelError
from wsi_mil.models import build_model


class TestHierarchical(AggregatorContract):
    name = "hierarchical"
    steps = 100
    options = {"hidden": 16, "attention": 8, "side": 4, "heads": 2, "depth": 1}


def test_other_regions_are_heard_through_their_mean_alone() -> None:
    model = build_model("hierarchical", dim=4, n_out=2, side=2, depth=1, hidden=8).eval()
    features = ragged(6, dim=4)[0]
    cells = torch.stack([torch.arange(6), torch.zeros(6, dtype=torch.int64)], dim=1)
    offsets = torch.tensor([0, 6])
    before = model(features, cells, offsets).scores
    features[0] += 1
    after = model(features, cells, offsets).scores
    assert ((after - before).abs() > 1e-6).all()
    with torch.no_grad():
        model.aggregator.back.weight.zero_()
    after = model(features, cells, offsets).scores
    features[0] -= 1
    changed = ((model(features, cells, offsets).scores - after).abs() > 1e-6)[:, 0]
    assert changed.tolist() == [True, True, False, False, False, False]


def test_regions_are_of_16_by_16_cells_with_two_layers_in_each_and_two_between() -> None:
    method = build_model("hierarchical", dim=4, n_out=2).aggregator
    assert method.position.shape[0] == 16 * 16
    assert (len(method.within), len(method.between)) == (2, 2)


def test_written_out() -> None:
    """Two regions of three tiles and one: attention within, the mean, attention between, and back to the tiles."""
    model = build_model("hierarchical", dim=4, n_out=2, side=2, depth=1, hidden=8, attention=5).eval().double()
    method, features = model.aggregator, ragged(4, dim=4)[0].double()
    cells = torch.tensor([[0, 0], [1, 0], [1, 1], [2, 0]])
    pooled = model(features, cells, torch.tensor([0, 4]))
    placed = method.projection(features) + method.position[cells[:, 1] % 2 * 2 + cells[:, 0] % 2]
    parts = [method.within[0](part[None], None)[0] for part in (placed[:3], placed[3:])]
    told = method.between[0](torch.stack([part.mean(0) for part in parts])[None], None)[0]
    tiles = torch.cat([part + method.back(one) for part, one in zip(parts, told, strict=True)])
    weights = method.attention(tiles).softmax(0)
    torch.testing.assert_close(model.head((weights * tiles).sum(0)[None, None]), pooled.logits)


@pytest.mark.parametrize("options", [{"heads": 3}, {"side": 0}, {"depth": 0}])
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="hierarchical"):
        build_model("hierarchical", dim=4, n_out=2, **options)
