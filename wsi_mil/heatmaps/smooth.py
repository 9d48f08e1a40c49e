"""Scores smoothed over neighbouring tiles, without a look across the tissue's edge."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float32

from wsi_mil.heatmaps.heatmap import Heatmap

REACH = 3.0
"""Standard deviations beyond which a neighbour has no weight."""


def smoothed(heatmap: Heatmap, channel: str, *, tiles: float) -> Heatmap:
    """The heatmap with one channel smoothed by a Gaussian whose standard deviation is `tiles` steps from tile to tile.

    Each tile gets the mean of the tiles around, weighted by nearness, over those that have a score and belong to the
    same piece (tiles that touch, corners included): glass takes no part, so that scores do not fade towards the edge of
    the tissue, and two pieces of tissue do not speak for each other. Tiles without a score stay without.
    """
    if tiles <= 0:
        return heatmap
    scores = heatmap.scores.copy()
    scores[:, heatmap.channels.index(channel)] = _smooth(heatmap, heatmap.column(channel), tiles)
    kind = heatmap.kinds.get(channel, "score")
    kinds = {**heatmap.kinds, channel: f"{kind}, smoothed over {tiles:g} tile{'s' * (tiles != 1)}"}
    return dataclasses.replace(heatmap, scores=scores, kinds=kinds)


def _smooth(heatmap: Heatmap, values: Float32[np.ndarray, "tile"], tiles: float) -> Float32[np.ndarray, "tile"]:
    from scipy.ndimage import find_objects, gaussian_filter, label

    known = np.isfinite(values)
    out = np.full(len(values), np.nan, np.float32)
    if not known.any():
        return out
    cells = np.rint(heatmap.grid.coords_l0[known] / np.asarray(heatmap.grid.step_l0)).astype(np.int64)
    cells -= cells.min(axis=0)
    shape = tuple(cells.max(axis=0) + 1)
    count, total = np.zeros(shape), np.zeros(shape)
    np.add.at(count, tuple(cells.T), 1.0)
    np.add.at(total, tuple(cells.T), values[known])
    pieces, _ = label(count > 0, structure=np.ones((3, 3)))
    mean = np.zeros(shape)
    for number, window in enumerate(find_objects(pieces), start=1):
        own = pieces[window] == number
        # outside the window there is nothing of the piece: nothing is added there
        weight, sums = (
            gaussian_filter(np.where(own, part[window], 0.0), tiles, mode="constant", truncate=REACH)
            for part in (count, total)
        )
        mean[window][own] = sums[own] / weight[own]
    out[known] = mean[tuple(cells.T)]
    return out
