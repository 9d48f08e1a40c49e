"""The part of the study page that shows what is wrong with tiles: counts a slide, and the worst tiles of each fault."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from wsi_mil.bags import read_quality
from wsi_mil.errors import SlideError
from wsi_mil.report import Part, Picture, TableView
from wsi_mil.stages import ledger
from wsi_mil.stages.quality import FAULTS, Fault, judge
from wsi_mil.stages.work import Work, open_item

TILE_PX = 128
"""Side of a tile on the sheet."""

GAP_PX = 4

TILES_A_SLIDE = 2
"""Tiles of one slide on a sheet, at most: one bad slide would fill them all."""

LOW_IS_WORSE: tuple[Fault, ...] = ("blur",)


def faults(work: Work, count: int) -> Part:
    """What is wrong with the tiles of each slide; `count` of the worst tiles of each fault."""
    quality = work.study.extract.quality
    rows, found = [], _Worst()
    for item in work.slide_items():
        record = ledger.read_record(work.stage("extract"), item.name, work)
        told = record["facts"] if record else {}
        if "faults" not in told:
            continue
        shares = [told["faults"].get(name, 0) for name in FAULTS]
        rows.append([item.name, str(told["tiles"]), *map(str, shares), str(told.get("left_out", 0))])
        if count and any(shares):
            found.look(item.name, work)
    excluded = ", ".join(quality.exclude) or "none"
    text = (
        f"Tiles with each fault, by the thresholds of extract.quality; a tile may have several. Left out of training "
        f"and prediction: {excluded}. Red ink counts as blood: both have one colour."
    )
    if not rows:
        return Part("Quality of the tiles", "No tile was judged: the bags were made elsewhere.")
    headers = ["slide", "tiles", *FAULTS, "left out"]
    total = ["all slides", *(f"{sum(int(row[column]) for row in rows):,}" for column in range(1, len(headers)))]
    pictures = found.sheets(work, count) if count else []
    tables = [TableView(headers, [total, *rows])]
    return Part("Quality of the tiles", text, tables=tables, pictures=pictures, folded=len(rows) > 60, wide=True)


class _Worst:
    """The tiles with each fault over all slides, as (badness, slide, x, y)."""

    def __init__(self) -> None:
        self._tiles: dict[Fault, list[tuple[float, str, int, int]]] = {name: [] for name in FAULTS}

    def look(self, slide: str, work: Work) -> None:
        """Remember the worst tiles of a slide."""
        path = ledger.require("extract", slide, work)
        grid, status, measures = read_quality(path)
        for name, tiles in judge(work.study.extract.quality, measures, status).items():
            values = measures[FAULTS[name]] * (-1 if name in LOW_IS_WORSE else 1)
            flagged = np.flatnonzero(tiles)
            for tile in flagged[np.argsort(-values[flagged], kind="stable")][:TILES_A_SLIDE]:
                x, y = grid.coords_l0[tile].tolist()
                self._tiles[name].append((float(values[tile]), slide, x, y))

    def sheets(self, work: Work, count: int) -> list[Picture]:
        """One row of tiles a fault, the worst first."""
        pictures = []
        for name, tiles in self._tiles.items():
            chosen = sorted(tiles, reverse=True)[:count]
            sheet = _sheet([(slide, x, y) for _, slide, x, y in chosen], work, columns=count)
            if sheet is not None:
                slides = ", ".join(dict.fromkeys(slide for _, slide, _, _ in chosen))
                pictures.append(Picture(sheet, f"{name}: the worst tiles, at most {TILES_A_SLIDE} a slide ({slides})"))
        return pictures


def _sheet(tiles: Sequence[tuple[str, int, int]], work: Work, *, columns: int) -> bytes | None:
    """Tiles side by side as JPEG, as wide as `columns` of them, so that all sheets show them at one size.

    None where there is none that can be read.
    """
    from PIL import Image

    items = {item.name: item for item in work.slide_items()}
    tile, read = work.study.tile, []
    for slide, x, y in tiles:
        try:
            with open_item(items[slide]) as opened:
                pixels = opened.read(x, y, size_px=tile.size_px, mpp=tile.mpp)
        except SlideError:
            continue
        read.append(Image.fromarray(pixels).resize((TILE_PX, TILE_PX), Image.Resampling.LANCZOS))
    if not read:
        return None
    sheet = Image.new("RGB", (columns * (TILE_PX + GAP_PX) - GAP_PX, TILE_PX), "white")
    for column, picture in enumerate(read):
        sheet.paste(picture, (column * (TILE_PX + GAP_PX), 0))
    out = io.BytesIO()
    sheet.save(out, format="jpeg", quality=85)
    return out.getvalue()
