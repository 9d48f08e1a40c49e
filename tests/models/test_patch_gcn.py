"""Patch-GCN: one step along the edges against a loop, and what the graph is for."""

from __future__ import annotations

import pytest
import torch
from contracts.aggregator import AggregatorContract
from contracts.planted import ragged

from wsi_mil.errors import ModelError
from wsi_mil.models import build_model
from wsi_mil.models.graph import neighbour_edges
from wsi_mil.models.layers import segments
from wsi_mil.models.patch_gcn import GraphLayer, MeanLayer


class TestPatchGCN(AggregatorContract):
    name = "patch_gcn"
    options = {"hidden": 32, "attention": 16, "layers": 2}


class TestPatchGCNOfMeans(AggregatorContract):
    name = "patch_gcn"
    options = {"hidden": 32, "attention": 16, "layers": 2, "message": "mean"}


def test_one_step_against_a_loop() -> None:
    torch.manual_seed(0)
    layer = GraphLayer(6).double()
    with torch.no_grad():
        layer.temperature.fill_(1.7)
    _, cells, offsets = ragged(20)
    edges = neighbour_edges(cells, segments(offsets, device=torch.device("cpu")))
    tiles = torch.randn(20, 6, dtype=torch.float64)
    known = layer.norm(tiles).relu()
    rows = []
    for tile in range(20):
        around = known[edges[0, edges[1] == tile]]
        heard = ((1.7 * around).softmax(0) * around).sum(0)  # 0 without neighbours
        rows.append(tiles[tile] + layer.mlp(known[tile] + heard))
    torch.testing.assert_close(layer(tiles, edges), torch.stack(rows))


def test_one_step_of_means_against_a_loop() -> None:
    torch.manual_seed(0)
    layer = MeanLayer(6).double()
    _, cells, offsets = ragged(20)
    edges = neighbour_edges(cells, segments(offsets, device=torch.device("cpu")))
    tiles = torch.randn(20, 6, dtype=torch.float64)
    near = (cells[:, None] - cells).abs().amax(2) <= 1  # with the tile itself
    means = torch.stack([tiles[row].mean(0) for row in near])
    torch.testing.assert_close(layer(tiles, edges), layer.norm(layer.linear(means)).relu())


def test_layers_are_joined_as_if_side_by_side() -> None:
    model = build_model("patch_gcn", dim=4, n_out=2, layers=2, hidden=8, dropout=0.0)
    method = model.aggregator
    made = [torch.randn(5, 8) for _ in range(3)]
    torch.testing.assert_close(method._joined(made), method.join(torch.cat(made, dim=1)))


def test_bad_options_are_refused() -> None:
    with pytest.raises(ModelError, match="message is 'sum'"):
        build_model("patch_gcn", dim=4, n_out=2, message="sum")
    with pytest.raises(ModelError, match="layers is 0"):
        build_model("patch_gcn", dim=4, n_out=2, layers=0)


def test_far_tiles_are_not_heard() -> None:
    model = build_model("patch_gcn", dim=4, n_out=2, layers=2, hidden=8).eval()
    features = ragged(6, dim=4)[0]
    cells = torch.stack([torch.arange(6), torch.zeros(6, dtype=torch.int64)], dim=1)
    before = model(features, cells, torch.tensor([0, 6])).scores
    features[0] += 1
    changed = ((model(features, cells, torch.tensor([0, 6])).scores - before).abs() > 1e-5)[:, 0]
    assert changed.tolist() == [True, True, True, False, False, False]
