"""Tiles as a graph: which tiles touch which, sums over them, and how well clusters cut them apart."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from wsi_mil.models.layers import Segments, segment_sum

_SQUARE = [(across, down) for down in (-1, 0, 1) for across in (-1, 0, 1)]
_HALF = ((1, 0), (0, 1), (1, 1), (1, -1))
"""One of each two opposite ways to a neighbour."""


def neighbour_edges(cells: Int64[Tensor, "tile 2"], parts: Segments) -> Int64[Tensor, "2 edge"]:
    """Edges, both ways, between tiles of one bag whose cells touch at a side or a corner.

    Row 0 is where an edge comes from, row 1, rising, where it goes. Time O(N log N), by sorting the cells. Tiles on
    one cell have the same neighbours and no edge between them.
    """
    keys, height = _keys(cells, parts)
    ordered, order = keys.sort(stable=True)
    tiles = torch.arange(len(keys), device=keys.device)
    sources, targets = [], []
    for across, down in _HALF:
        wanted = keys + (across * height + down)
        first = torch.searchsorted(ordered, wanted)
        counts = torch.searchsorted(ordered, wanted, right=True) - first
        source = torch.repeat_interleave(tiles, counts)
        # the n-th of the tiles on the neighbouring cell
        number = torch.arange(len(source), device=keys.device) - torch.repeat_interleave(
            counts.cumsum(0) - counts, counts
        )
        sources.append(source)
        targets.append(order[torch.repeat_interleave(first, counts) + number])
    there, back = torch.cat(sources), torch.cat(targets)
    source, target = torch.cat([there, back]), torch.cat([back, there])
    order = (target * len(keys) + source).argsort()
    return torch.stack([source[order], target[order]])


def _keys(cells: Tensor, parts: Segments) -> tuple[Tensor, int]:
    """One number for each bag and cell, such that a step down adds 1 and a step across `height`, never into others."""
    corner = cells.amin(dim=0)
    width, height = (int(side) for side in (cells.amax(dim=0) - corner + 3).tolist())
    column, row = (cells - corner + 1).unbind(dim=1)
    return (parts.bag * width + column) * height + row, height


def squares(cells: Int64[Tensor, "tile 2"], parts: Segments) -> Int64[Tensor, "tile 9"]:
    """The tiles of the 3 x 3 cells around each tile, row by row, itself in the middle; -1 where there is none.

    Of several tiles on one cell the first is given. Time O(N log N).
    """
    keys, height = _keys(cells, parts)
    ordered, order = keys.sort(stable=True)
    wanted = torch.stack([keys + (across * height + down) for across, down in _SQUARE], dim=1)
    place = torch.searchsorted(ordered, wanted).clamp_max(len(ordered) - 1)
    return torch.where(ordered[place] == wanted, order[place], -1)


class SquareConvolution(nn.Module):
    """A convolution of 3 x 3 cells over tiles where they lie; where no tile lies is 0. Time and memory linear in N."""

    def __init__(self, inward: int, outward: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(9, inward, outward))
        self.bias = nn.Parameter(torch.zeros(outward))
        nn.init.normal_(self.weight, std=(2 / (9 * inward)) ** 0.5)  # as He et al., for a ReLU after it

    def forward(
        self, tiles: Float[Tensor, "tile inward"], around: Int64[Tensor, "tile 9"]
    ) -> Float[Tensor, "tile outward"]:
        """`around` is what `squares` gives."""
        # a last row of zeros, for cells without a tile
        padded = torch.cat([tiles, tiles.new_zeros(1, tiles.shape[1])])
        total: Tensor = self.bias
        for weight, rows in zip(self.weight, around.T, strict=True):
            total = total + (padded @ weight)[rows]
        return total


def neighbour_sum(values: Float[Tensor, "tile column"], edges: Int64[Tensor, "2 edge"]) -> Float[Tensor, "tile column"]:
    """For each tile the sum over its neighbours: A X, with every edge both ways."""
    if bool((edges[1].diff() < 0).any()):
        edges = edges[:, edges[1].argsort(stable=True)]
    summed: Tensor = _NeighbourSum.apply(values, edges)
    return summed


class _NeighbourSum(torch.autograd.Function):
    """A is its own transpose, so the way back is the same sum of the gradients.

    As a sum over bags of rows it took 1.5 ms for 10,000 tiles of 64 columns, where index_add took 24 and again 24 back.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, edges: Tensor) -> Tensor:
        ctx.save_for_backward(edges)
        return _sum_rows(values, edges)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        return _sum_rows(slopes[0], ctx.saved_tensors[0]), None


def _sum_rows(values: Tensor, edges: Tensor) -> Tensor:
    counts = degrees(edges, len(values))
    whole = values.to(torch.promote_types(values.dtype, torch.float32)).contiguous()
    return functional.embedding_bag(edges[0], whole, counts.cumsum(0) - counts, mode="sum").to(values.dtype)


def degrees(edges: Int64[Tensor, "2 edge"], tiles: int) -> Int64[Tensor, "tile"]:
    """Number of neighbours of each tile."""
    return torch.bincount(edges[1], minlength=tiles)


def cut_losses(
    assignment: Float[Tensor, "tile cluster"], edges: Int64[Tensor, "2 edge"], parts: Segments
) -> tuple[Float[Tensor, "bag"], Float[Tensor, "bag"]]:
    """Min-cut and orthogonality loss of each bag (Bianchi, Grattarola, Alippi, ICML 2020).

    -tr(S'AS) / tr(S'DS), in [-1, 0], and || S'S / |S'S| - I / sqrt(K) ||, in [0, sqrt(2 - 2 / sqrt(K))]. Each is 0
    where it cannot be judged: the first without any edge, the second with fewer tiles than clusters, where its floor is
    above 0.
    """
    clusters = assignment.shape[1]
    count = degrees(edges, len(assignment)).to(assignment.dtype)[:, None]
    linked = segment_sum((assignment * neighbour_sum(assignment, edges)).sum(1, keepdim=True), parts)[:, 0]
    volume = segment_sum((assignment**2).sum(1, keepdim=True) * count, parts)[:, 0]
    some = volume > 0
    cut = -torch.where(some, linked / torch.where(some, volume, 1.0), 0.0)
    even = torch.eye(clusters, dtype=assignment.dtype, device=assignment.device) / clusters**0.5
    grams = [part.T @ part for part in torch.split(assignment, parts.lengths)]
    uneven = [
        (gram / gram.norm() - even).norm() if length >= clusters else gram.sum() * 0
        for gram, length in zip(grams, parts.lengths, strict=True)
    ]
    return cut, torch.stack(uneven)
