"""How much of each tile is tissue: exact areas, for grids of any size."""

from __future__ import annotations

import numpy as np
import shapely
from jaxtyping import Float32, Int64
from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry

FEW = 16
"""Tiles that are intersected one by one; more are first halved, and the outline with them."""


def tissue_share(
    outline: MultiPolygon, coords_l0: Int64[np.ndarray, "tile 2"], extent_l0: tuple[float, float]
) -> Float32[np.ndarray, "tile"]:
    """Share of each tile's area inside the outline, 0 to 1; the part of a tile outside the slide counts as no tissue.

    The tiles are halved again and again, the outline clipped to each half: tiles far from the outline's edge are
    settled in bulk, and each of the others meets only the few corners near it.
    """
    share = np.zeros(len(coords_l0), np.float32)
    waiting: list[tuple[BaseGeometry, Int64[np.ndarray, "some"]]] = [(outline, np.arange(len(coords_l0)))]
    while waiting:
        area, tiles = waiting.pop()
        if not len(tiles):
            continue
        low = coords_l0[tiles].min(axis=0)
        high = coords_l0[tiles].max(axis=0) + np.asarray(extent_l0)
        # Not the faster clip_by_rect: where corners lie on the rectangle its areas are wrong, up to all or nothing.
        area = shapely.intersection(area, shapely.box(*low, *high))
        if area.is_empty:
            continue
        if area.area >= np.prod(high - low) * (1 - 1e-9):
            share[tiles] = 1
        elif len(tiles) <= FEW:
            share[tiles] = _one_by_one(area, coords_l0[tiles], extent_l0)
        else:
            order = np.argsort(coords_l0[tiles][:, int(np.argmax(high - low))], kind="stable")
            half = len(tiles) // 2
            waiting += [(area, tiles[order[:half]]), (area, tiles[order[half:]])]
    return share


def _one_by_one(
    area: BaseGeometry, coords_l0: Int64[np.ndarray, "tile 2"], extent_l0: tuple[float, float]
) -> Float32[np.ndarray, "tile"]:
    x, y = coords_l0[:, 0], coords_l0[:, 1]
    boxes = shapely.box(x, y, x + extent_l0[0], y + extent_l0[1])
    inside = shapely.area(shapely.intersection(area, boxes)) / (extent_l0[0] * extent_l0[1])
    return np.clip(inside, 0, 1).astype(np.float32)
