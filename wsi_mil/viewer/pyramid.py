"""The pyramid that a browser is shown: levels of a slide, one half the other, cut into tiles of JPEG."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from wsi_mil.geometry import Box
from wsi_mil.slides import Slide, picture_of

TILE_PX = 256
"""Side of the tiles of slides that are not stored in tiles that suit."""

STORED_TILES_PX = (128, 1024)
"""Sides that stored tiles may have to be shown as they are; smaller ones cost a request each, larger ones a wait."""

SAME_LEVEL = 0.02
"""How far from a power of two the downsample of a stored level may be to take its place: it is placed exactly."""

JPEG_QUALITY = 85

WHOLE = 1e-3
"""How near to a whole number a shrinkage must be to be done by averaging squares."""

MOST_READ_PX = 1 << 26
"""Most pixels read for one tile. A slide without a pyramid is shown from the level at which this suffices."""


@dataclass(frozen=True)
class ViewLevel:
    """One level as it is shown: exact downsample (x, y), size in its own pixels, and tiles from the top left."""

    downsample: tuple[float, float]
    width: int
    height: int
    tile: tuple[int, int]
    stored: int | None
    """The slide's own level, where this is one."""

    @property
    def grid(self) -> tuple[int, int]:
        """Columns and rows of tiles."""
        return math.ceil(self.width / self.tile[0]), math.ceil(self.height / self.tile[1])

    def box(self, column: int, row: int) -> tuple[int, int, int, int]:
        """Left, top, width and height of a tile, cut at the level's edge."""
        left, top = column * self.tile[0], row * self.tile[1]
        return left, top, min(self.tile[0], self.width - left), min(self.tile[1], self.height - top)


def view_levels(slide: Slide) -> tuple[ViewLevel, ...]:
    """The levels from fine to coarse, until one fits into a tile or costs too much to make."""
    width, height = slide.size_l0
    tile = _shown_tile(slide, 0)
    levels: list[ViewLevel] = []
    factor = 1
    while True:
        level = _stored_level(slide, factor) or ViewLevel(
            (float(factor), float(factor)), math.ceil(width / factor), math.ceil(height / factor), tile, None
        )
        if levels and _pixels_read(slide, level) > MOST_READ_PX:
            break
        levels.append(level)
        if max(level.width, level.height) <= TILE_PX:
            break
        factor *= 2
    return tuple(levels)


def tile_jpeg(slide: Slide, level: ViewLevel, column: int, row: int) -> bytes:
    """A tile as JPEG: the file's own bytes where they can be, else read, shrunk and encoded.

    Raises SlideError where the slide is damaged there, IndexError for a tile that is not there.
    """
    columns, rows = level.grid
    if not (0 <= column < columns and 0 <= row < rows):
        raise IndexError(f"no tile {column}, {row} in a level of {columns} x {rows} tiles")
    box = level.box(column, row)
    if level.stored is not None:
        if slide.tile_px(level.stored) == level.tile:
            stored = slide.stored_jpeg(level.stored, column, row)
            if stored is not None:
                return stored
        return encode(slide.read_level(box, level=level.stored))
    number = _source(slide, level)
    by_x, by_y = _shrinkage(slide, level, number)
    size_px = box[2], box[3]
    whole = round(by_x)
    if abs(by_x - whole) < WHOLE and abs(by_y - whole) < WHOLE and whole > 1:
        return encode(_averaged(slide, box, number, whole))
    box_lv = Box(box[0] * by_x, box[1] * by_y, box[2] * by_x, box[3] * by_y)
    return encode(picture_of(slide, box_lv, number, size_px, gap=1.0))


def crop_jpeg(slide: Slide, box_l0: Box, *, max_px: int) -> bytes:
    """A rectangle of level 0 as a JPEG with no side longer than `max_px`; white outside the slide."""
    by = max(1.0, max(box_l0.width, box_l0.height) / max_px)
    wanted = ViewLevel((by, by), 1, 1, (max_px, max_px), None)
    number = _source(slide, wanted)
    size_px = max(1, round(box_l0.width / by)), max(1, round(box_l0.height / by))
    return encode(picture_of(slide, slide.levels[number].box(box_l0), number, size_px, gap=1.0))


def encode(rgb: UInt8[np.ndarray, "h w 3"], *, quality: int = JPEG_QUALITY) -> bytes:
    """A picture as JPEG."""
    import simplejpeg

    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality, "RGB", "420"))


def _stored_level(slide: Slide, factor: int) -> ViewLevel | None:
    """The slide's own level nearest to a downsample. A level that the decoder makes has no tiles of its own size."""
    whole = slide.tile_px(0)
    for number, level in enumerate(slide.levels):
        tile = slide.tile_px(number)
        made = number > 0 and tile is not None and whole is not None and tile[0] < whole[0]
        if made or max(abs(value / factor - 1) for value in level.downsample) > SAME_LEVEL:
            continue
        return ViewLevel(level.downsample, level.width, level.height, _shown_tile(slide, number), number)
    return None


def _shown_tile(slide: Slide, number: int) -> tuple[int, int]:
    """The tiles of a level as it is stored, where they suit: a tile of half the scale then takes four, and not nine."""
    tile = slide.tile_px(number)
    low, high = STORED_TILES_PX
    return tile if tile is not None and low <= min(tile) and max(tile) <= high else (TILE_PX, TILE_PX)


def _source(slide: Slide, level: ViewLevel) -> int:
    """The slide's level from which a tile is made by decoding the fewest stored tiles; of equal ones the coarsest."""

    def cost(number: int) -> tuple[float, float]:
        tile = slide.tile_px(number) or (TILE_PX, TILE_PX)
        by = _shrinkage(slide, level, number)
        stored = math.ceil(level.tile[0] * by[0] / tile[0]) * math.ceil(level.tile[1] * by[1] / tile[1])
        return stored, -slide.levels[number].downsample[0]

    fine = [n for n in range(len(slide.levels)) if min(_shrinkage(slide, level, n)) >= 1 - SAME_LEVEL]
    return min(fine or [0], key=cost)


def _shrinkage(slide: Slide, level: ViewLevel, number: int) -> tuple[float, float]:
    own = slide.levels[number].downsample
    return level.downsample[0] / own[0], level.downsample[1] / own[1]


def _pixels_read(slide: Slide, level: ViewLevel) -> float:
    if level.stored is not None:
        return 0.0
    by = _shrinkage(slide, level, _source(slide, level))
    return min(level.tile[0], level.width) * by[0] * min(level.tile[1], level.height) * by[1]


def _averaged(slide: Slide, box: tuple[int, int, int, int], number: int, by: int) -> UInt8[np.ndarray, "h w 3"]:
    """A tile shrunk by a whole factor without a margin, so that no neighbouring tile is decoded for it."""
    from PIL import Image

    left, top, width, height = (value * by for value in box)
    if width * height > MOST_READ_PX >> 4:
        box_lv = Box(float(left), float(top), float(width), float(height))
        return picture_of(slide, box_lv, number, (box[2], box[3]), gap=1.0)
    pixels = slide.read_level((left, top, width, height), level=number)
    return np.asarray(Image.fromarray(pixels).reduce(by))
