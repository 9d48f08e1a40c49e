"""How much of each tile is tissue: exact areas, for grids and outlines of any size."""

from __future__ import annotations

import numpy as np
import shapely
from jaxtyping import Float32, Float64, Int64
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon

MOST_CELLS = 1 << 22
"""Cells measured at once; tiles that lie too scattered for so many are dealt into groups."""

Edges = Float64[np.ndarray, "edge 4"]


def tissue_share(
    outline: MultiPolygon, coords_l0: Int64[np.ndarray, "tile 2"], extent_l0: tuple[float, float]
) -> Float32[np.ndarray, "tile"]:
    """Share of each tile's area inside the outline, 0 to 1; the part of a tile outside the slide counts as no tissue.

    The sides of all tiles, drawn on through the whole picture, cut it into cells. Every edge of the outline is cut at
    the lines it crosses, and by Green's theorem each piece adds what lies to the right of it to the cells of its row,
    as rasterisers of fonts do; sums of cells are tiles. Exact, in time that grows with edges and cells only.
    """
    share = np.zeros(len(coords_l0), np.float32)
    edges = _edges(outline)
    waiting = [np.arange(len(coords_l0))] if len(edges) else []
    while waiting:
        tiles = waiting.pop()
        if not len(tiles):
            continue
        lows = coords_l0[tiles].astype(np.float64)
        highs = lows + np.asarray(extent_l0)
        xs, ys = (np.unique(np.concatenate([lows[:, axis], highs[:, axis]])) for axis in (0, 1))
        if len(xs) * len(ys) > MOST_CELLS and len(tiles) > 1:
            axis = int(np.argmax(np.ptp(lows, axis=0)))
            order = tiles[np.argsort(lows[:, axis], kind="stable")]
            waiting += [order[: len(order) // 2], order[len(order) // 2 :]]
            continue
        # The area left of and above each crossing of lines: a tile is what its four corners differ by.
        areas = np.zeros((len(ys), len(xs)))
        areas[1:, 1:] = _cell_areas(edges, xs, ys).cumsum(axis=0).cumsum(axis=1)
        left, right = np.searchsorted(xs, lows[:, 0]), np.searchsorted(xs, highs[:, 0])
        top, bottom = np.searchsorted(ys, lows[:, 1]), np.searchsorted(ys, highs[:, 1])
        inside = areas[bottom, right] - areas[bottom, left] - areas[top, right] + areas[top, left]
        share[tiles] = np.clip(_settled(inside / (extent_l0[0] * extent_l0[1])), 0, 1)
    return share


def _settled(share: Float64[np.ndarray, "tile"]) -> Float64[np.ndarray, "tile"]:
    """Shares that rounding left beside nothing or all, put there."""
    share = np.where(share < 1e-7, 0, share)
    return np.where(share > 1 - 1e-7, 1, share)


def _edges(outline: MultiPolygon) -> Edges:
    """Every edge as x0, y0, x1, y1, running so that the tissue lies to one and the same side, holes included."""
    polygons = shapely.get_parts(outline)
    rings, owner = shapely.get_rings(polygons, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    same = ring[1:] == ring[:-1]
    edges = np.concatenate([points[:-1], points[1:]], axis=1)[same]
    of_ring = ring[1:][same]
    x0, y0, x1, y1 = edges.T
    turn = np.bincount(of_ring, weights=x0 * y1 - x1 * y0, minlength=len(rings))
    is_outer = np.r_[True, owner[1:] != owner[:-1]][: len(rings)]
    turned = (turn > 0) != is_outer
    return np.where(turned[of_ring][:, None], edges[:, [2, 3, 0, 1]], edges)


def _cell_areas(
    edges: Edges, xs: Float64[np.ndarray, "x"], ys: Float64[np.ndarray, "y"]
) -> Float64[np.ndarray, "rows columns"]:
    """Area of the outline in each cell between neighbouring lines."""
    low, high = np.minimum(edges[:, 1], edges[:, 3]), np.maximum(edges[:, 1], edges[:, 3])
    # An edge right of all cells, or above or below, adds nothing; one left of them counts as lying on the first line.
    near = (high > ys[0]) & (low < ys[-1]) & (np.minimum(edges[:, 0], edges[:, 2]) < xs[-1]) & (high > low)
    x0, y0, x1, y1 = _cut(edges[near], xs, ys).T
    middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
    row = np.searchsorted(ys, middle_y) - 1
    column = np.searchsorted(xs, middle_x) - 1
    keep = (row >= 0) & (row < len(ys) - 1) & (column < len(xs) - 1)
    row, column, middle_x, rise = row[keep], column[keep], middle_x[keep], (y0 - y1)[keep]
    column, middle_x = np.maximum(column, 0), np.maximum(middle_x, xs[0])
    rows, columns = len(ys) - 1, len(xs) - 1
    flat = row * columns + column
    own = np.bincount(flat, weights=rise * (xs[column + 1] - middle_x), minlength=rows * columns)
    rises = np.bincount(flat, weights=rise, minlength=rows * columns).reshape(rows, columns)
    # All columns to the right of an edge get its whole height times their width.
    before = np.cumsum(rises, axis=1) - rises
    areas: NDArray[np.float64] = own.reshape(rows, columns) + before * np.diff(xs)
    return areas


def _cut(edges: Edges, xs: Float64[np.ndarray, "x"], ys: Float64[np.ndarray, "y"]) -> Float64[np.ndarray, "piece 4"]:
    """The edges, cut wherever they cross a line."""
    number = np.arange(len(edges))
    owners, places = [number, number], [np.zeros(len(edges)), np.ones(len(edges))]
    for axis, lines in ((0, xs), (1, ys)):
        start, end = edges[:, axis], edges[:, axis + 2]
        first = np.searchsorted(lines, np.minimum(start, end), side="right")
        count = np.maximum(np.searchsorted(lines, np.maximum(start, end), side="left") - first, 0)
        owner = np.repeat(number, count)
        step = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
        owners.append(owner)
        places.append((lines[np.repeat(first, count) + step] - start[owner]) / (end - start)[owner])
    owner, place = np.concatenate(owners), np.concatenate(places)
    order = np.lexsort((place, owner))
    owner, place = owner[order], place[order, None]
    points = edges[owner, :2] * (1 - place) + edges[owner, 2:] * place
    same = owner[1:] == owner[:-1]
    return np.concatenate([points[:-1], points[1:]], axis=1)[same]
