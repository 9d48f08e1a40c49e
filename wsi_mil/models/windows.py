"""Square windows over the grid of tiles, with a slot for each cell: what lies near is read together."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from wsi_mil.models.layers import Segments


class Windows(NamedTuple):
    """Which slot of which window each tile has; windows without tiles are not there."""

    slots: Int64[Tensor, "tile"]
    """Window times side squared, plus the row within it times side, plus the column."""
    bag: Int64[Tensor, "window"]
    """The bag of each window, rising."""
    side: int

    def spread(self, tiles: Float[Tensor, "tile hidden"]) -> Float[Tensor, "window slot hidden"]:
        """Tiles in their slots, 0 in empty ones."""
        area = self.side**2
        empty = tiles.new_zeros(len(self.bag) * area, tiles.shape[1])
        return empty.index_copy(0, self.slots, tiles).reshape(-1, area, tiles.shape[1])

    def collect(self, tokens: Float[Tensor, "window slot hidden"]) -> Float[Tensor, "tile hidden"]:
        """Tiles back from their slots."""
        return tokens.flatten(0, 1)[self.slots]

    def mask(self) -> Bool[Tensor, "window slot"]:
        """Slots that hold a tile."""
        area = self.side**2
        held = torch.zeros(len(self.bag) * area, dtype=torch.bool, device=self.slots.device)
        return held.index_fill(0, self.slots, value=True).reshape(-1, area)


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
