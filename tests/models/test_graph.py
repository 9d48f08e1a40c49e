"""The graph of tiles: constants worked out by hand, and a loop over all pairs."""

from __future__ import annotations

import math

import pytest
import torch
from contracts.planted import ragged
from torch import Tensor

from wsi_mil.models import graph
from wsi_mil.models.graph import (
    SquareConvolution,
    cut_losses,
    degrees,
    neighbour_edges,
    neighbour_softmax,
    neighbour_sum,
    squares,
    unevenness,
)
from wsi_mil.models.layers import Segments, segments


def _grid(width: int, height: int) -> Tensor:
    return torch.cartesian_prod(torch.arange(width), torch.arange(height))


def _parts(*lengths: int) -> Segments:
    return segments(torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()]), device=torch.device("cpu"))


def test_degrees_of_a_small_grid() -> None:
    edges = neighbour_edges(_grid(3, 3), _parts(9))
    assert degrees(edges, 9).tolist() == [3, 5, 3, 5, 8, 5, 3, 5, 3]


def test_edges_of_a_full_grid() -> None:
    edges = neighbour_edges(_grid(20, 10) - 50, _parts(200))
    assert edges.shape[1] == 2 * 712
    assert len({tuple(edge) for edge in edges.T.tolist()}) == 2 * 712


def test_edges_against_all_pairs() -> None:
    _, cells, offsets = ragged(60, 1, 35, 20)
    cells[96:] = cells[96:] // 3  # several tiles on one cell
    bag = torch.repeat_interleave(torch.arange(4), offsets.diff())
    far = (cells[:, None] - cells[None]).abs().amax(2)
    wanted = (far == 1) & (bag[:, None] == bag[None])
    edges = neighbour_edges(cells, segments(offsets, device=torch.device("cpu")))
    found = torch.zeros_like(wanted)
    found[edges[0], edges[1]] = True
    assert torch.equal(found, wanted)
    assert edges.shape[1] == int(wanted.sum())
    values = torch.randn(116, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(neighbour_sum(values, edges), wanted.float() @ values)


def test_a_picture_of_the_grid_gives_what_sorting_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    _, cells, offsets = ragged(60, 1, 35)
    cells -= 7
    parts = segments(offsets, device=torch.device("cpu"))
    drawn, around = neighbour_edges(cells, parts), squares(cells, parts)
    assert graph._picture(*graph._keys(cells, parts)) is not None
    assert graph._picture(*graph._keys(cells * 50, parts)) is None  # wide and empty
    monkeypatch.setattr(graph, "_picture", lambda keys, height: None)
    found = neighbour_edges(cells, parts)
    assert set(map(tuple, drawn.T.tolist())) == set(map(tuple, found.T.tolist()))
    assert (drawn[1].diff() >= 0).all()
    assert torch.equal(squares(cells, parts), around)


def test_gradients_of_the_softmax_over_neighbours() -> None:
    random = torch.Generator().manual_seed(0)
    _, cells, offsets = ragged(12, 1)  # the last tile is alone
    edges = neighbour_edges(cells, segments(offsets, device=torch.device("cpu")))
    values = torch.randn(13, 3, dtype=torch.float64, generator=random).requires_grad_()
    temperature = torch.tensor([1.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, t: neighbour_softmax(x, t, edges), (values, temperature))
    heard = neighbour_softmax(values, temperature, edges)
    for tile in range(13):
        around = values[edges[0, edges[1] == tile]]
        torch.testing.assert_close(heard[tile], ((1.7 * around).softmax(0) * around).sum(0))


@pytest.mark.parametrize("temperature", [9.0, 12.0, -40.0])
def test_a_hot_softmax_over_neighbours_hears_all_of_them(temperature: float) -> None:
    """The second tile's neighbours lie far below the highest of all, by more than float32 can tell by one shift."""
    _, cells, offsets = ragged(12, 1)
    edges = neighbour_edges(cells, segments(offsets, device=torch.device("cpu")))
    values = torch.linspace(-6, 12, 39).reshape(13, 3).flip(0).clone().requires_grad_()
    heard = neighbour_softmax(values, torch.tensor([temperature]), edges)
    for tile in range(13):
        around = values[edges[0, edges[1] == tile]]
        torch.testing.assert_close(heard[tile], ((temperature * around).softmax(0) * around).sum(0))
    heard.sum().backward()
    assert torch.isfinite(values.grad).all()


def _cliques(*, bridge: bool) -> Tensor:
    """Two cliques of five, with or without an edge from one to the other."""
    block = torch.ones(5, 5) - torch.eye(5)
    dense = torch.block_diag(block, block)
    if bridge:
        dense[4, 5] = dense[5, 4] = 1
    return dense.nonzero().T.contiguous()


PERFECT = torch.eye(2, dtype=torch.float64).repeat_interleave(5, 0)


@pytest.mark.parametrize(
    ("assignment", "bridge", "wanted"),
    [
        (PERFECT, False, (-1, 0)),
        (torch.full((10, 2), 0.5, dtype=torch.float64), False, (-1, math.sqrt(2 - 2 / math.sqrt(2)))),
        (PERFECT[:1].expand(10, 2), False, (-1, 0.7653668647)),
        (PERFECT.reshape(2, 5, 2).transpose(0, 1).reshape(10, 2), False, (-0.4, 0)),
        (PERFECT, True, (-40 / 42, 0)),
    ],
)
def test_min_cut(assignment: Tensor, bridge: bool, wanted: tuple[float, float]) -> None:
    cut, uneven = cut_losses(assignment, _cliques(bridge=bridge), _parts(10))
    assert cut.item() == pytest.approx(wanted[0], abs=1e-9)
    assert uneven.item() == pytest.approx(wanted[1], abs=1e-7)


@pytest.mark.parametrize(("tiles", "floor"), [(50, 0.7653669), (25, 1.0), (100, 0.0)])
def test_fewer_tiles_than_clusters_have_a_floor(tiles: int, floor: float) -> None:
    """sqrt(2 - 2 sqrt(N / K)): a cluster for each tile is the best that N < K tiles can do."""
    best = torch.eye(tiles, 100, dtype=torch.float64)
    assert unevenness(best).item() == pytest.approx(floor, abs=1e-6)
    random = torch.Generator().manual_seed(0)
    for sharpness in (0.1, 1.0, 10.0, 100.0):
        other = (sharpness * torch.randn(tiles, 100, dtype=torch.float64, generator=random)).softmax(1)
        assert unevenness(other).item() >= floor - 1e-9


def test_collapse_into_a_hundred_clusters() -> None:
    assignment = torch.full((200, 100), 0.01, dtype=torch.float64)
    _, uneven = cut_losses(assignment, neighbour_edges(_grid(20, 10), _parts(200)), _parts(200))
    assert uneven.item() == pytest.approx(1.3416408, abs=1e-6)


def test_min_cut_where_it_cannot_be_judged_is_nothing() -> None:
    assignment = torch.full((3, 5), 0.2, requires_grad=True)
    cut, uneven = cut_losses(assignment, torch.zeros(2, 0, dtype=torch.int64), _parts(1, 2))
    (cut + uneven).sum().backward()
    assert not cut.any()
    assert not uneven.any()
    assert not assignment.grad.any()


def test_min_cut_gradients() -> None:
    logits = torch.randn(10, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    edges = _cliques(bridge=True)
    assert torch.autograd.gradcheck(lambda values: cut_losses(values.softmax(1), edges, _parts(10)), (logits,))


def test_a_convolution_over_tiles_is_that_of_a_picture() -> None:
    torch.manual_seed(0)
    layer = SquareConvolution(3, 2).double()
    with torch.no_grad():
        layer.bias.fill_(0.3)
    _, cells, offsets = ragged(30, 12)
    tiles = torch.randn(42, 3, dtype=torch.float64)
    found = layer(tiles, squares(cells, segments(offsets, device=torch.device("cpu"))))
    kernel = layer.weight.reshape(3, 3, 3, 2).permute(3, 2, 0, 1)  # row, column, in, out -> out, in, row, column
    for start, stop in ((0, 30), (30, 42)):
        column, row = cells[start:stop].T
        picture = torch.zeros(1, 3, 10, 10, dtype=torch.float64)
        picture[0, :, row, column] = tiles[start:stop].T
        wanted = torch.nn.functional.conv2d(picture, kernel, layer.bias, padding=1)
        torch.testing.assert_close(found[start:stop], wanted[0, :, row, column].T)
