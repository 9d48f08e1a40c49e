"""The coarser scales of a bag: each block of tiles seen once more, as one tile from further away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wsi_mil.bags import Scale, coarser_grid
from wsi_mil.encoders import Encoder, StainMap
from wsi_mil.grid import TileGrid
from wsi_mil.slides import Slide, read_tiles

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work

FEW = 32
"""Tiles encoded at once where nobody says otherwise: there are too few of them to try out what is fast."""


def encode_scales(slide: Slide, grid: TileGrid, encoder: Encoder, work: Work, *, stain: StainMap | None) -> list[Scale]:
    """Features of every scale of `tile.coarser`, from the encoder of the bag; they are few, and kept in memory."""
    runtime, made = work.study.runtime, []
    for mpp in work.study.tile.coarser:
        coarse = coarser_grid(grid, mpp)
        features = np.zeros((len(coarse), encoder.dim), dtype=np.float16)
        status = np.zeros(len(coarse), dtype=np.uint8)
        size = runtime.batch_tiles or FEW
        for batch in read_tiles(slide, coarse, batch_size=size, threads=runtime.readers):
            features[batch.index] = encoder.encode(stain.apply(batch.pixels) if stain else batch.pixels)
            status[batch.index] = batch.status
        made.append(Scale(coarse, features, status))
    return made
