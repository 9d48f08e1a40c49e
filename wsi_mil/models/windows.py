"""Square windows over the grid of tiles, with a slot for each cell: what lies near is read together."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from wsi_mil.models.layers import Segments


class Windows(NamedTuple):
    """Which slot of which window each tile has; windows without tiles are not there."""

    slots: Int64[Tensor, "tile"]
    """Window times side squared, plus the row within it times side, plus the column."""
    bag: Int64[Tensor, "window"]
    """The bag of each window, rising."""
    side: int

    def places(self) -> Int64[Tensor, "tile"]:
        """The slot of each tile within its window."""
        return self.slots % self.side**2

    def packed(self) -> list[Packed]:
        """All windows in groups of up to 1, 2, 4, 8 ... tiles: at most half of the places of a group are empty.

        Tissue is scattered; a window with three tiles is not to cost as much as a full one.
        """
        window = self.slots // self.side**2
        order = self.slots.argsort()
        counts = torch.bincount(window, minlength=len(self.bag))
        starts = counts.cumsum(0) - counts
        widths = 1 << (counts - 1).double().add(0.5).log2().floor().add(1).clamp_min(0).long()
        groups = []
        for width in sorted(set(widths.tolist())):
            own = (widths == width).nonzero()[:, 0]
            steps = torch.arange(width, device=own.device)
            mask = steps < counts[own, None]
            rows = order[(starts[own, None] + steps).clamp_max(len(order) - 1)]
            groups.append(Packed(own, torch.where(mask, rows, 0), mask))
        return groups


class Packed(NamedTuple):
    """Windows of about equally many tiles, their tiles side by side without the empty slots."""

    windows: Int64[Tensor, "set"]
    tiles: Int64[Tensor, "set place"]
    """Row of each tile, by its slot; 0 where a window has fewer."""
    mask: Bool[Tensor, "set place"]


def windows(cells: Int64[Tensor, "tile 2"], parts: Segments, *, side: int, shift: int = 0) -> Windows:
    """Windows of side x side cells, laid from the corner of each bag's tiles, moved up and left by `shift` cells.

    Tiles that share a cell come into windows of their own. Time O(N log N).
    """
    bag = parts.bag
    corner = cells.new_full((len(parts.lengths), 2), torch.iinfo(cells.dtype).max)
    corner = corner.scatter_reduce(0, bag[:, None].expand_as(cells), cells, "amin")
    places = cells - corner[bag] + shift
    width, height = ((places.amax(dim=0) // side + 1) * side).tolist()
    column, row = places.unbind(dim=1)
    copy = _copies((bag * width + column) * height + row)
    across, down = width // side, height // side
    keys = ((bag * (int(copy.max()) + 1) + copy) * across + column // side) * down + row // side
    found, window = keys.unique(return_inverse=True)
    slots = window * side**2 + (row % side) * side + column % side
    return Windows(slots, bag.new_zeros(len(found)).scatter(0, window, bag), side)


def _copies(keys: Tensor) -> Tensor:
    """How many earlier tiles have the same key."""
    ordered, order = keys.sort(stable=True)
    first = torch.searchsorted(ordered, ordered)
    return torch.zeros_like(keys).scatter(0, order, torch.arange(len(keys), device=keys.device) - first)
