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


@pytest.mark.parametrize("options", [{"heads": 3}, {"side": 0}, {"depth": 0}])
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="hierarchical"):
        build_model("hierarchical", dim=4, n_out=2, **options)
