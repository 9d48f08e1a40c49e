"""The change of colours that a slide's tiles go through before they are encoded, if any."""

from __future__ import annotations

import numpy as np

from wsi_mil.encoders import StainMap, draw_jitter, fit_macenko
from wsi_mil.errors import EncoderError
from wsi_mil.grid import TileGrid, TileStatus
from wsi_mil.slides import Slide, read_tiles

SAMPLE_TILES = 48
"""Tiles that a slide's stains are estimated from, evenly over its grid."""

SAMPLE_STEP_PX = 4
"""Every n-th pixel of them, along both axes: some 200,000 pixels."""


def stain_map(slide: Slide, grid: TileGrid, *, stain: str, jitter: float, seed: int) -> StainMap | None:
    """What `extract.stain` and `extract.stain_jitter` do to the tiles of a slide; None where they do nothing.

    The jitter is drawn from the seed and the slide's content: the same each time, another for each slide and seed.
    Raises EncoderError where the slide's stains cannot be estimated.
    """
    found = fit_macenko(_sample(slide, grid), where=f"slide {slide.id!r}") if stain == "macenko" else None
    if jitter:
        drawn = draw_jitter(jitter, np.random.default_rng([seed, int(grid.slide.fingerprint[:15] or "0", 16)]))
        found = drawn.after(found) if found else drawn
    return found


def _sample(slide: Slide, grid: TileGrid) -> np.ndarray:
    index = np.unique(np.linspace(0, len(grid) - 1, min(SAMPLE_TILES, len(grid))).round().astype(np.int64))
    pixels = [
        batch.pixels[batch.status != TileStatus.UNREADABLE][:, ::SAMPLE_STEP_PX, ::SAMPLE_STEP_PX].reshape(-1, 3)
        for batch in read_tiles(slide, grid.take(index), batch_size=8, threads=1)
    ]
    if not sum(map(len, pixels)):
        raise EncoderError(f"slide {slide.id!r}: none of the tiles its stains are estimated from can be read")
    return np.concatenate(pixels)
