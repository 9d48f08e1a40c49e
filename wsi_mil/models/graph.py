"""Tiles as a graph: which tiles touch which, sums over them, and how well clusters cut them apart."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from wsi_mil.models.layers import Segments, segment_sum

_SQUARE = [(across, down) for down in (-1, 0, 1) for across in (-1, 0, 1)]
_HALF = ((1, 0), (0, 1), (1, 1), (1, -1))
"""One of each two opposite ways to a neighbour."""
_ROOM = 16
"""Cells a tile up to which a picture of the grid is cheaper than sorting."""
_ONE_SHIFT = 60.0
"""Spread of a softmax's exponents over all tiles, up to which one shift for all loses nothing in float32."""


def neighbour_edges(cells: Int64[Tensor, "tile 2"], parts: Segments) -> Int64[Tensor, "2 edge"]:
    """Edges, both ways, between tiles of one bag whose cells touch at a side or a corner.

    Row 0 is where an edge comes from, row 1, rising, where it goes. Time O(N): tiles are laid into a picture of the
    grid, or, where the grid is wide and empty or cells hold several tiles, O(N log N), by sorting the cells. Tiles on
    one cell have the same neighbours and no edge between them.
    """
    keys, height = _keys(cells, parts)
    picture = _picture(keys, height)
    if picture is None:
        return _sorted_edges(keys, height)
    steps = [across * height + down for across, down in _SQUARE if across or down]
    around = picture[keys[:, None] + keys.new_tensor(steps)]  #                           tile 8
    there = (around >= 0).nonzero()
    return torch.stack([around[there[:, 0], there[:, 1]], there[:, 0]])


def _picture(keys: Tensor, height: int) -> Tensor | None:
    """The tile on each cell, -1 where there is none; None where it would be large or a cell holds several."""
    area = int(keys.max()) + height + 2
    if area > _ROOM * len(keys):
        return None
    tiles = torch.arange(len(keys), device=keys.device)
    picture = keys.new_full((area,), -1).index_copy_(0, keys, tiles)
    return picture if bool((picture[keys] == tiles).all()) else None


def _sorted_edges(keys: Tensor, height: int) -> Tensor:
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

    Of several tiles on one cell the first is given. Time as for `neighbour_edges`.
    """
    keys, height = _keys(cells, parts)
    wanted = keys[:, None] + keys.new_tensor([across * height + down for across, down in _SQUARE])
    picture = _picture(keys, height)
    if picture is not None:
        return picture[wanted]
    ordered, order = keys.sort(stable=True)
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
    summed: Tensor = _NeighbourSum.apply(values, _Rows.of(edges, len(values)))
    return summed


def neighbour_softmax(
    values: Float[Tensor, "tile column"], temperature: Float[Tensor, "1"], edges: Int64[Tensor, "2 edge"]
) -> Float[Tensor, "tile column"]:
    """sum_j softmax_j(t x_j) x_j over the neighbours j of each tile, each column by itself; 0 where there is none.

    In float32 at least, under autocast too. Every edge both ways. Derivatives of derivatives are not to be had.
    """
    precision = torch.promote_types(values.dtype, torch.float32)
    whole, heat = values.to(precision), temperature.to(precision)
    spread = (whole.detach().amax(0) - whole.detach().amin(0)).max() * heat.detach().abs()
    if float(spread) > _ONE_SHIFT:
        return _softmax_by_edge(whole, heat, edges).to(values.dtype)
    heard: Tensor = _NeighbourSoftmax.apply(whole, heat, _Rows.of(edges, len(values)))
    return heard.to(values.dtype)


def _softmax_by_edge(values: Tensor, temperature: Tensor, edges: Tensor) -> Tensor:
    """The same with a shift for each tile: a number an edge and column, where one shift for all would drown some."""
    sources, targets = edges
    heat = (values * temperature)[sources]
    index = targets[:, None].expand_as(heat)
    top = torch.full_like(values, float("-inf")).scatter_reduce(0, index, heat.detach(), "amax")
    weights = (heat - top[targets]).exp()
    below = torch.zeros_like(values).index_add(0, targets, weights)
    heard = torch.zeros_like(values).index_add(0, targets, weights * values[sources])
    return heard / torch.where(below > 0, below, 1.0)


class _Rows(NamedTuple):
    """The edges as the rows of a sparse matrix."""

    sources: Tensor
    starts: Tensor

    @classmethod
    def of(cls, edges: Tensor, tiles: int) -> _Rows:
        if bool((edges[1].diff() < 0).any()):
            edges = edges[:, edges[1].argsort(stable=True)]
        counts = degrees(edges, tiles)
        return cls(edges[0], counts.cumsum(0) - counts)

    def sums(self, values: Tensor) -> Tensor:
        whole = values.to(torch.promote_types(values.dtype, torch.float32)).contiguous()
        return functional.embedding_bag(self.sources, whole, self.starts, mode="sum").to(values.dtype)


class _NeighbourSum(torch.autograd.Function):
    """A is its own transpose, so the way back is the same sum of the gradients.

    As a sum over bags of rows it took 1.5 ms for 10,000 tiles of 64 columns, where index_add took 24 and again 24 back.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, rows: _Rows) -> Tensor:
        ctx.rows = rows
        return rows.sums(values)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        return ctx.rows.sums(slopes[0]), None


class _NeighbourSoftmax(torch.autograd.Function):
    """With e = exp(t x): s = A (e x) / A e, and back, for g the gradient of s and r = g / A e:

    dx = e (A r + t c), dt = sum(e x c), where c = x A r - A (r s). Written out, since what autograd keeps and copies
    for it took more time than the layer's matrix products.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, temperature: Tensor, rows: _Rows) -> Tensor:
        heat = values * temperature
        # One shift for all tiles is enough within _ONE_SHIFT: after the norm no value is far from the others.
        weights = heat.sub_(heat.amax(dim=0)).exp_()
        below = rows.sums(weights)
        below.masked_fill_(below == 0, 1.0)  # no neighbours: nothing is heard
        heard = rows.sums(weights * values).div_(below)
        ctx.rows = rows
        ctx.save_for_backward(values, temperature, weights, below, heard)
        return heard

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor, None]:
        values, temperature, weights, below, heard = ctx.saved_tensors
        share = slopes[0] / below
        direct = ctx.rows.sums(share)
        change = ctx.rows.sums(share.mul_(heard)).neg_().addcmul_(values, direct).mul_(weights)
        warmer = (change.flatten() @ values.flatten()).reshape(1)
        return change.mul_(temperature).addcmul_(weights, direct), warmer, None


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
    uneven = [
        unevenness(part) if len(part) >= clusters else part.sum() * 0 for part in torch.split(assignment, parts.lengths)
    ]
    return cut, torch.stack(uneven)


def unevenness(assignment: Float[Tensor, "tile cluster"]) -> Float[Tensor, ""]:
    """|| S'S / |S'S| - I / sqrt(K) || of one bag: 0 for K clusters of one size, and never below its floor.

    The floor is sqrt(2 - 2 sqrt(N / K)) for N < K tiles, which no assignment can pass, and else 0.
    """
    gram, clusters = assignment.T @ assignment, assignment.shape[1]
    even = torch.eye(clusters, dtype=assignment.dtype, device=assignment.device) / clusters**0.5
    return (gram / gram.norm() - even).norm()
