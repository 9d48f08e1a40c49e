"""Strips of a slide's highest and lowest tiles, as the encoder saw them."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

import numpy as np

from wsi_mil.errors import SlideError
from wsi_mil.heatmaps import heatmap_from_hdf5
from wsi_mil.stages import ledger
from wsi_mil.stages.work import Work, open_item

if TYPE_CHECKING:
    from PIL.Image import Image

TILE_PX = 128
"""Side of a tile in the strip."""

GAP_PX = 4

BAR_SHARE = 0.6
"""Longest scale bar, as a share of a tile's side."""


def strip(slide: str, work: Work, *, count: int) -> bytes | None:
    """Two rows of tiles (highest, lowest) as JPEG, or None where the slide has no map or cannot be read."""
    from PIL import Image

    path = work.stage("heatmap").folder(work) / slide / f"{slide}.h5"
    item = next(one for one in work.slide_items() if one.name == slide)
    record = ledger.read_record(work.stage("heatmap"), slide, work)
    if not path.exists() or record is None:
        return None
    heatmap = heatmap_from_hdf5(path.read_bytes())
    scores = heatmap.scores[:, heatmap.channels.index(record["facts"]["channel"])]
    order = np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")
    order = order[np.isfinite(scores[order])]
    rows = (order[:count], order[::-1][:count])
    sheet = Image.new("RGB", (count * (TILE_PX + GAP_PX) - GAP_PX, 2 * TILE_PX + GAP_PX), "white")
    try:
        with open_item(item) as opened:
            for row, tiles in enumerate(rows):
                for column, tile in enumerate(tiles):
                    x, y = (int(value) for value in heatmap.grid.coords_l0[tile])
                    pixels = opened.read(x, y, size_px=heatmap.grid.size_px, mpp=heatmap.grid.mpp)
                    picture = Image.fromarray(pixels).resize((TILE_PX, TILE_PX), Image.Resampling.LANCZOS)
                    sheet.paste(picture, (column * (TILE_PX + GAP_PX), row * (TILE_PX + GAP_PX)))
    except SlideError:
        return None
    _draw_bar(sheet, heatmap.grid.size_px * heatmap.grid.mpp)
    out = io.BytesIO()
    sheet.save(out, format="jpeg", quality=85)
    return out.getvalue()


def bar_um(tile_um: float) -> float:
    """Length of the scale bar on tiles of a side: 1, 2 or 5 times a power of ten."""
    longest = BAR_SHARE * tile_um
    power: float = 10.0 ** math.floor(math.log10(longest))
    return next(step * power for step in (5, 2, 1) if step * power <= longest * (1 + 1e-9))


def _draw_bar(sheet: Image, tile_um: float) -> None:
    """A scale bar in the lower left corner of the first tile, black on white."""
    from PIL import ImageDraw

    length_px = round(bar_um(tile_um) / tile_um * TILE_PX)
    draw, bottom = ImageDraw.Draw(sheet), TILE_PX - 7
    draw.rectangle((6, bottom - 5, 8 + length_px, bottom + 1), fill="white")
    draw.rectangle((7, bottom - 4, 7 + length_px, bottom), fill="black")
