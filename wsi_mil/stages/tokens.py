"""Rows of a bag for tiles of a grid: one each, or one for each part of a tile that an encoder gives a vector."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_mil.encoders import Encoder
from wsi_mil.errors import StageError
from wsi_mil.grid import TileGrid, split_grid


@dataclass(frozen=True)
class BagRows:
    """Which rows of a bag belong to which tiles of the grid it is made from."""

    grid: TileGrid
    """Of the bag: the tiles, or their parts."""
    per_tile: int

    def of(self, tiles: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of some tiles, tile by tile."""
        return (tiles[:, None] * self.per_tile + np.arange(self.per_tile)).reshape(-1)

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """A value a tile as a value a row."""
        return values if self.per_tile == 1 else np.repeat(values, self.per_tile, axis=0)


def bag_rows(grid: TileGrid, encoder: Encoder, *, coarser: tuple[float, ...] = ()) -> BagRows:
    """The rows that an encoder makes of a grid.

    Raises StageError where tiles overlap and their parts would lie on one another, and where the bag is to hold coarser
    scales too, which have one vector a tile.
    """
    if encoder.tokens == 1:
        return BagRows(grid, 1)
    if coarser:
        raise StageError("tokens and several scales do not go together: set tile.mpp to one scale, or extract.pooling")
    side = math.isqrt(encoder.tokens)
    overlap = max(extent / step for extent, step in zip(grid.extent_l0, grid.step_l0, strict=True))
    if overlap * encoder.covered > 1 + 1e-6:
        raise StageError("tokens of overlapping tiles would lie on one another: set tile.overlap_px=0")
    if side * side != encoder.tokens:
        raise StageError(f"encoder {encoder.name!r} gives {encoder.tokens} tokens a tile, which fill no square")
    return BagRows(split_grid(grid, side, covered=encoder.covered), encoder.tokens)
