"""A heatmap as DeepZoom tiles, to be laid over its slide in OpenSeadragon."""

from __future__ import annotations

import io
import math
from pathlib import PurePosixPath
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from wsi_mil.heatmaps.colours import Limits, colouring
from wsi_mil.heatmaps.heatmap import Heatmap
from wsi_mil.heatmaps.mosaic import lay_mosaic

PX_PER_TILE = 4

TILE_PX, OVERLAP_PX = 254, 1
"""Of the DeepZoom tiles, as OpenSlide and libvips write them: 256 pixels a side inside the picture."""

JPEG_QUALITY = 90


def heatmap_to_deepzoom(
    heatmap: Heatmap,
    channel: str,
    *,
    name: str,
    kind: Literal["png", "jpeg"] = "png",
    scale: str = "rank",
    limits: Limits = None,
    px_per_tile: int = PX_PER_TILE,
) -> dict[PurePosixPath, bytes]:
    """The files `name`.dzi and `name`_files/LEVEL/COLUMN_ROW.png by their places.

    One pixel is a power of two of level-0 pixels on both axes, the largest that leaves a tile at least `px_per_tile`
    pixels: the picture is a level of the slide's own DeepZoom pyramid, and in OpenSeadragon it lies on the slide with
    `width` set to Width * pixel / slide width. PNG is transparent where there is no tile, JPEG is grey. `scale` and
    `limits` are those of `colouring`.
    """
    power = max(0, math.floor(math.log2(min(heatmap.grid.step_l0) / px_per_tile)))
    by = float(1 << power)
    colours = colouring(heatmap.column(channel), scale, limits=limits)
    level, table = lay_mosaic(heatmap.grid, colours.positions, downsample=(by, by)), colours.table()
    height, width = level.cover.shape
    files = {PurePosixPath(f"{name}.dzi"): _descriptor(width, height, 1 << power, kind).encode()}
    for number in range(math.ceil(math.log2(max(width, height))), -1, -1):
        pixels = level.painted(table) if kind == "png" else level.painted_on_grey(table)
        folder = PurePosixPath(f"{name}_files", str(number))
        for row in range(math.ceil(pixels.shape[0] / TILE_PX)):
            for column in range(math.ceil(pixels.shape[1] / TILE_PX)):
                files[folder / f"{column}_{row}.{kind}"] = _encoded(_cut(pixels, row, column), kind)
        level = level.halved()
    return files


def _descriptor(width: int, height: int, pixel_l0: int, kind: str) -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<!-- one pixel is {pixel_l0} x {pixel_l0} level-0 pixels of the slide -->\n"
        f'<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" Format="{kind}" Overlap="{OVERLAP_PX}" '
        f'TileSize="{TILE_PX}"><Size Width="{width}" Height="{height}"/></Image>\n'
    )


def _cut(pixels: UInt8[np.ndarray, "h w c"], row: int, column: int) -> UInt8[np.ndarray, "y x c"]:
    """A tile with its overlap, which it has towards neighbours only."""
    (top, bottom), (left, right) = (
        (max(0, place * TILE_PX - OVERLAP_PX), (place + 1) * TILE_PX + OVERLAP_PX) for place in (row, column)
    )
    return pixels[top:bottom, left:right]


def _encoded(pixels: UInt8[np.ndarray, "y x c"], kind: str) -> bytes:
    from PIL import Image

    buffer, image = io.BytesIO(), Image.fromarray(np.ascontiguousarray(pixels))
    if kind == "png":
        image.save(buffer, format="PNG", compress_level=1)
    else:
        image.save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()
