"""The tiles of a slide as a picture of their own, one number a pixel: what TIFF, DeepZoom and contours are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from wsi_mil.grid import TileGrid
from wsi_mil.heatmaps.raster import splat

LATTICE_L0 = 1.0
"""How far, in level-0 pixels, a tile may lie from the lattice of steps to count as on it. Places are rounded."""


GLASS = 208
"""Grey where there is no tile: white is the middle of the diverging map, and black would look like a score too."""


@dataclass(frozen=True)
class Mosaic:
    """Pixel (row, column) reaches from column * downsample[0] to (column + 1) * downsample[0] in level-0 pixels."""

    values: Float32[np.ndarray, "h w"]
    """Mean of the tiles on a pixel, by the area that each covers; 0 where there are none."""
    cover: Float32[np.ndarray, "h w"]
    """Share of the pixel that tiles with a value cover, 0 to 1."""
    downsample: tuple[float, float]
    """Level-0 pixels per pixel in x and y."""

    @property
    def known(self) -> Bool[np.ndarray, "h w"]:
        """Pixels of which tiles cover at least half."""
        return np.asarray(self.cover >= 0.5)

    def halved(self) -> Mosaic:
        """At half the size, odd sides rounded up; each pixel is the mean of what is known of its four."""
        edges = ((0, self.cover.shape[0] % 2), (0, self.cover.shape[1] % 2))
        weight, total = (np.pad(part, edges, mode="edge") for part in (self.cover, self.values * self.cover))
        cover, total = (
            part[::2, ::2] + part[1::2, ::2] + part[::2, 1::2] + part[1::2, 1::2] for part in (weight, total)
        )
        values = np.divide(total, cover, out=np.zeros_like(total), where=cover > 0)
        return Mosaic(values, cover / 4, (self.downsample[0] * 2, self.downsample[1] * 2))

    def padded(self, multiple: int) -> Mosaic:
        """With empty pixels to the right and below until both sides are multiples."""
        edges = tuple((0, -side % multiple) for side in self.cover.shape)
        return Mosaic(np.pad(self.values, edges), np.pad(self.cover, edges), self.downsample)

    def painted(self, table: UInt8[np.ndarray, "colour 3"]) -> UInt8[np.ndarray, "h w 4"]:
        """RGBA, where values are places on a table of colours from 0 to 1 and alpha is the share that is covered."""
        index = np.rint(self.values * (len(table) - 1)).astype(np.intp)
        rgba = np.pad(table, ((0, 0), (0, 1)))[index]
        rgba[..., 3] = np.rint(self.cover * 255)
        return np.asarray(rgba)

    def painted_on_grey(self, table: UInt8[np.ndarray, "colour 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """RGB on grey, for formats and readers without transparency."""
        rgba = self.painted(table)
        rgb, part = np.ascontiguousarray(rgba[..., :3]), self.cover < 1
        share = self.cover[part, None]
        rgb[part] = np.rint(rgb[part] * share + GLASS * (1 - share))
        return rgb


def lay_mosaic(
    grid: TileGrid,
    values: Float32[np.ndarray, "tile"],
    *,
    downsample: tuple[float, float] | None = None,
    px_per_tile: int = 1,
) -> Mosaic:
    """The tiles' values as a picture of the slide from corner to corner; tiles without a finite value are left out.

    At `downsample` level-0 pixels per pixel, or at so many pixels to each step from tile to tile. In the second case,
    tiles that lie side by side on the lattice of steps keep their value exactly in all their pixels. All others are
    averaged by area.
    """
    width, height = grid.slide.size_l0
    by = downsample or (grid.step_l0[0] / px_per_tile, grid.step_l0[1] / px_per_tile)
    shape = max(1, math.ceil(height / by[1] - 1e-9)), max(1, math.ceil(width / by[0] - 1e-9))
    known = np.isfinite(values)
    coords, values = grid.coords_l0[known], values[known]
    cells: Int64[np.ndarray, "tile 2"] = np.rint(coords / np.asarray(grid.step_l0)).astype(np.int64)
    if downsample is None and side_by_side(grid):
        cover, mean = (np.zeros([math.ceil(side / px_per_tile) for side in shape], np.float32) for _ in range(2))
        cover[cells[:, 1], cells[:, 0]], mean[cells[:, 1], cells[:, 0]] = 1, values
        cover, mean = (
            part.repeat(px_per_tile, axis=0).repeat(px_per_tile, axis=1)[: shape[0], : shape[1]]
            for part in (cover, mean)
        )
        return Mosaic(mean, cover, by)
    # Places are rounded to whole level-0 pixels: half a pixel more on each side closes the seams between neighbours.
    places = (coords - 0.5) / np.asarray(by)
    extent = (grid.extent_l0[0] + 1) / by[0], (grid.extent_l0[1] + 1) / by[1]
    covered, total = splat(places, extent, values, shape)
    return Mosaic(total.astype(np.float32), np.minimum(covered, 1).astype(np.float32), by)


def side_by_side(grid: TileGrid) -> bool:
    """Whether the tiles neither overlap nor stand apart, and lie on the lattice of steps that starts at (0, 0)."""
    step, size = np.asarray(grid.step_l0), np.asarray(grid.slide.size_l0)
    cells = np.rint(grid.coords_l0 / step)
    inside = bool(((cells >= 0) & (cells * step < size)).all())
    near = bool((np.abs(cells * step - grid.coords_l0) <= LATTICE_L0).all())
    return bool(np.allclose(step, grid.extent_l0)) and inside and near
