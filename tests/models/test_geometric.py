"""Graph operations against torch-geometric, which imports slowly and so runs in a process of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.planted import ragged

from wsi_mil.models.graph import cut_losses, neighbour_edges, neighbour_sum
from wsi_mil.models.layers import segments
from wsi_mil.models.patch_gcn import GraphLayer

THEIRS = """
import sys
import numpy, torch
from torch_geometric.nn import dense_mincut_pool
from torch_geometric.nn.aggr import SoftmaxAggregation, SumAggregation
told = {name: torch.from_numpy(value) for name, value in numpy.load(sys.argv[1]).items()}
edges, tiles = told["edges"], told["tiles"]
count = len(tiles)
adjacency = torch.zeros(count, count, dtype=tiles.dtype)
adjacency[edges[1], edges[0]] = 1
soft = SoftmaxAggregation(t=1.7)(tiles[edges[0]], edges[1], dim_size=count, dim=0)
total = SumAggregation()(tiles[edges[0]], edges[1], dim_size=count, dim=0)
_, _, cut, uneven = dense_mincut_pool(tiles[None], adjacency[None], told["assignment"].log()[None])
numpy.savez(sys.argv[2], soft=soft, total=total, cut=cut, uneven=uneven)
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch_geometric") is None, reason="torch-geometric is not installed")
def test_sums_softmax_and_cuts_as_torch_geometric_has_them(tmp_path: Path) -> None:
    _, cells, offsets = ragged(40)
    parts = segments(offsets, device=cells.device)
    edges = neighbour_edges(cells, parts)
    random = torch.Generator().manual_seed(0)
    tiles = torch.rand(40, 6, generator=random, dtype=torch.float64)
    assignment = torch.randn(40, 5, generator=random, dtype=torch.float64).softmax(1)
    np.savez(tmp_path / "ours.npz", edges=edges, tiles=tiles, assignment=assignment)
    command = [sys.executable, "-W", "ignore", "-c", THEIRS, str(tmp_path / "ours.npz"), str(tmp_path / "theirs.npz")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    theirs = {name: torch.from_numpy(value) for name, value in np.load(tmp_path / "theirs.npz").items()}
    torch.testing.assert_close(neighbour_sum(tiles, edges), theirs["total"])
    cut, uneven = cut_losses(assignment, edges, parts)
    torch.testing.assert_close(cut[0], theirs["cut"])
    torch.testing.assert_close(uneven[0], theirs["uneven"])
    layer = GraphLayer(6).double()
    with torch.no_grad():
        layer.temperature.fill_(1.7)
        layer.norm = torch.nn.Identity()  # type: ignore[assignment]
        layer.mlp = torch.nn.Identity()  # type: ignore[assignment]
        heard = layer(tiles, edges) - 2 * tiles
    torch.testing.assert_close(heard, theirs["soft"])
