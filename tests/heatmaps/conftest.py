"""Heatmaps of a slide whose pixels are not square and whose grid steps are not whole numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from wsi_mil.grid import SlideRef, TileGrid, lay_grid
from wsi_mil.heatmaps import Heatmap

SLIDE = SlideRef("A1", "f" * 64, (20_011, 15_003), (0.499, 0.4571), "metadata")

Maker = Callable[..., Heatmap]


@pytest.fixture
def make() -> Maker:
    """Makes a heatmap of the whole slide; random scores unless some are given."""

    def made(scores: np.ndarray | None = None, *, size_px: int = 256, overlap_px: int = 0, tiles: int = 0) -> Heatmap:
        coords, extent, step = lay_grid(SLIDE, size_px=size_px, mpp=0.5, overlap_px=overlap_px)
        coords = coords[: tiles or None]
        grid = TileGrid(SLIDE, coords, np.ones(len(coords), np.float32), size_px, 0.5, extent, step)
        if scores is None:
            scores = np.random.default_rng(0).normal(size=(len(coords), 2)).astype(np.float32)
        channels = ("attention", "contribution_tumour")[: scores.shape[1]]
        kinds = {"attention": "attention"}
        return Heatmap(
            SLIDE, grid, scores, channels, model="abmil", prediction={"tumour": 0.83, "normal": 0.17}, kinds=kinds
        )

    return made
