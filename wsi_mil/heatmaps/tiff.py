"""A heatmap as a pyramid in a TIFF: in colours for every slide reader, or as numbers in OME-TIFF."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_mil.heatmaps.colours import Limits, colouring
from wsi_mil.heatmaps.heatmap import Heatmap
from wsi_mil.heatmaps.mosaic import Mosaic, lay_mosaic

PX_PER_TILE = 4

TILE_PX = 256
"""Side of the TIFF's own tiles, and of the coarsest level at most."""

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "wsi_mil/ome")


def heatmap_to_tiff(
    heatmap: Heatmap,
    channel: str,
    *,
    scale: str = "rank",
    limits: Limits = None,
    px_per_tile: int = PX_PER_TILE,
) -> bytes:
    """One channel in colours, grey where there is no tile.

    The levels are ordinary directories marked as reduced, because OpenSlide does not look into sub-directories. A tile
    has `px_per_tile` pixels a side (of overlapping tiles, the step from one to the next has), which makes pixels square
    in micrometres. The description tells, as JSON, level-0 pixels per pixel; the picture is padded so that each level
    is exactly half the one before. `scale` and `limits` are those of `colouring`.
    """
    import tifffile

    colours = colouring(heatmap.column(channel), scale, limits=limits)
    first = lay_mosaic(heatmap.grid, colours.positions, px_per_tile=px_per_tile)
    about = {**heatmap.provenance(), "downsample": first.downsample, "channel": channel, "colours": colours.meaning}
    buffer, table = io.BytesIO(), colours.table()
    with tifffile.TiffWriter(buffer) as tiff:
        for number, level in enumerate(_pyramid(first)):
            tiff.write(
                level.painted_on_grey(table),
                photometric="rgb",
                subfiletype=int(number > 0),
                description="" if number else json.dumps(about),
                **_layout(heatmap, level),
            )
    return buffer.getvalue()


def heatmap_to_ome_tiff(heatmap: Heatmap, *, px_per_tile: int = PX_PER_TILE) -> bytes:
    """Every channel as float32 numbers, NaN where there is no score, with the levels in sub-directories.

    For Bio-Formats, QuPath, napari and tifffile; OpenSlide would see the first level alone. Places as in
    `heatmap_to_tiff`.
    """
    import tifffile

    channels = [
        list(_pyramid(lay_mosaic(heatmap.grid, heatmap.column(name), px_per_tile=px_per_tile)))
        for name in heatmap.channels
    ]
    levels = [
        (
            levels[0],
            np.stack([np.where(level.known, level.values, np.nan).astype(np.float32) for level in levels]),
        )
        for levels in zip(*channels, strict=True)
    ]
    about: dict[str, Any] = {
        "axes": "CYX",
        "Channel": {"Name": list(heatmap.channels)},
        "Description": json.dumps({**heatmap.provenance(), "downsample": levels[0][0].downsample}),
        # tifffile would draw a new one each time.
        "UUID": str(uuid.uuid5(_NAMESPACE, f"{heatmap.slide.fingerprint} {heatmap.model}")),
    }
    for axis, mpp, by in zip("XY", heatmap.slide.mpp, levels[0][0].downsample, strict=True):
        if mpp:
            about |= {f"PhysicalSize{axis}": mpp * by, f"PhysicalSize{axis}Unit": "µm"}
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, ome=True) as tiff:
        for number, (level, numbers) in enumerate(levels):
            told = {"subfiletype": 1} if number else {"metadata": about, "subifds": len(levels) - 1}
            tiff.write(numbers, photometric="minisblack", **(_layout(heatmap, level) | told | {"predictor": False}))
    return buffer.getvalue()


def _pyramid(level: Mosaic) -> Iterator[Mosaic]:
    """Levels from fine to coarse, each exactly half the one before, until one fits into a tile."""
    halvings = 0
    while max(level.cover.shape) > TILE_PX << halvings:
        halvings += 1
    level = level.padded(1 << halvings)
    yield level
    for _ in range(halvings):
        level = level.halved()
        yield level


def _layout(heatmap: Heatmap, level: Mosaic) -> dict[str, Any]:
    """What tifffile is told of every level; the resolution only where the slide's scale is known."""
    told: dict[str, Any] = {
        "tile": (TILE_PX, TILE_PX),
        "compression": "adobe_deflate",
        "predictor": True,
        "metadata": None,
    }
    um_per_px: NDArray[np.float64] = np.asarray(heatmap.slide.mpp) * level.downsample
    if um_per_px.all():
        told |= {"resolution": tuple((1e4 / um_per_px).tolist()), "resolutionunit": "CENTIMETER"}
    return told
