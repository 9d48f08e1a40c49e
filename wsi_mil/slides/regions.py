"""A fractional rectangle of one level as a picture of any size, in bounded memory; and a level as a lazy array."""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from wsi_mil.errors import ScaleError, SlideError
from wsi_mil.geometry import SAME_SCALE, Box
from wsi_mil.slides.resample import resample

if TYPE_CHECKING:
    import dask.array

    from wsi_mil.slides.slide import Slide

BLOCK_PX = 1 << 24
"""Most level pixels read at once (64 MiB as RGBA); a larger rectangle is read and shrunk in parts."""

_log = logging.getLogger("wsi_mil")

DASK_CHUNK_PX = 1024

MOST_DAMAGED = 0.25
"""Share of the parts of a picture that may be damaged: past it the slide is cut off or worse, and is refused."""

DAMAGED, PATCH_PX = 128, 256
"""Grey of what cannot be read, and the side of the parts that are tried one by one where stored tiles are not known."""

_WHOLE = 1e-4  # of a level pixel: a box this near to whole pixels is cropped, not resampled


def picture_of(
    slide: Slide,
    box_lv: Box,
    level: int,
    size_px: tuple[int, int],
    *,
    gap: float | None = None,
    patch: bool = False,
) -> UInt8[np.ndarray, "h w 3"]:
    """A rectangle of one level, in that level's pixels, as a picture of a given width and height.

    `gap` lets it shrink first by a whole factor (see `resample`); with `patch` damaged parts are grey.
    Raises ScaleError and SlideError as `Slide.read`.
    """
    width_px, height_px = size_px
    if is_crop(box_lv, size_px):
        return _read(slide, (round(box_lv.x), round(box_lv.y), width_px, height_px), level, patch=patch)
    # Bicubic reaches two output pixels far; when enlarging, level pixels count instead.
    margin = math.ceil(2.5 * max(box_lv.width / width_px, box_lv.height / height_px, 1.0)) + 1
    outer = left, top, width, height = _with_margin(slide, box_lv, margin, level)
    if width * height > BLOCK_PX:
        return _by_halves(slide, box_lv, level, size_px, gap=gap, patch=patch)
    inner = (box_lv.x - left, box_lv.y - top, box_lv.right - left, box_lv.bottom - top)
    pixels = _read(slide, outer, level, patch=patch)
    start = time.perf_counter()
    picture = resample(pixels, inner, size_px, gap=gap)
    slide.clock.add("transform", time.perf_counter() - start)
    return picture


def _read(slide: Slide, box: tuple[int, int, int, int], level: int, *, patch: bool) -> UInt8[np.ndarray, "h w 3"]:
    """A rectangle of a level; with `patch` its damaged parts are grey, one stored tile or so at a time."""
    try:
        return slide.read_level(box, level=level)
    except ScaleError:
        raise
    except SlideError as error:
        if not patch:
            raise
        first = error
    left, top, width, height = box
    pixels = np.full((height, width, 3), DAMAGED, np.uint8)
    step_x, step_y = slide.tile_px(level) or (PATCH_PX, PATCH_PX)
    lost = parts = 0
    for y in range(top - top % step_y, top + height, step_y):
        for x in range(left - left % step_x, left + width, step_x):
            x_0, y_0, x_1, y_1 = max(x, left), max(y, top), min(x + step_x, left + width), min(y + step_y, top + height)
            parts += 1
            try:
                part = slide.read_level((x_0, y_0, x_1 - x_0, y_1 - y_0), level=level)
                pixels[y_0 - top : y_1 - top, x_0 - left : x_1 - left] = part
            except SlideError:
                lost += 1
    if lost > MOST_DAMAGED * parts:
        raise first
    _log.warning(
        "slide %r: %d of %d parts of level %d are damaged and shown grey: %s", slide.id, lost, parts, level, first
    )
    return pixels


def is_crop(box_lv: Box, size_px: tuple[int, int]) -> bool:
    """Whether a rectangle is whole level pixels at the level's own scale."""
    same_x, same_y = abs(box_lv.width / size_px[0] - 1) <= SAME_SCALE, abs(box_lv.height / size_px[1] - 1) <= SAME_SCALE
    return same_x and same_y and max(abs(box_lv.x - round(box_lv.x)), abs(box_lv.y - round(box_lv.y))) <= _WHOLE


def lazy_level(slide: Slide, level: int) -> dask.array.Array:
    """One level as a lazy array [height width 3]; a chunk is read when it is computed."""
    import dask.array as da
    from dask.delayed import delayed

    width, height = slide.levels[level].width, slide.levels[level].height
    read: Any = delayed(slide.read_level, pure=False)
    rows = []
    for top in range(0, height, DASK_CHUNK_PX):
        row = []
        for left in range(0, width, DASK_CHUNK_PX):
            box = left, top, min(DASK_CHUNK_PX, width - left), min(DASK_CHUNK_PX, height - top)
            row.append(da.from_delayed(read(box, level=level), shape=(box[3], box[2], 3), dtype=np.uint8))
        rows.append(da.concatenate(row, axis=1))
    return da.concatenate(rows, axis=0)


def _with_margin(slide: Slide, box_lv: Box, margin: int, level: int) -> tuple[int, int, int, int]:
    """The whole pixels of a rectangle, and a margin as far as the level has pixels: no white is mixed in."""
    left, top, width, height = box_lv.outer(margin)
    least_left, least_top, inner_width, inner_height = box_lv.outer()
    right = min(left + width, max(slide.levels[level].width, least_left + inner_width))
    bottom = min(top + height, max(slide.levels[level].height, least_top + inner_height))
    left, top = max(left, min(0, least_left)), max(top, min(0, least_top))
    return left, top, right - left, bottom - top


def _by_halves(
    slide: Slide, box_lv: Box, level: int, size_px: tuple[int, int], *, gap: float | None, patch: bool
) -> UInt8[np.ndarray, "h w 3"]:
    """The same picture from two halves, each with its own margin, so that the seam is not seen."""
    width_px, height_px = size_px
    if max(size_px) == 1:
        raise ScaleError(
            f"slide {slide.id!r} has no level coarse enough for one pixel of {box_lv.width:.0f} x "
            f"{box_lv.height:.0f} level-{level} pixels: ask for a finer scale"
        )
    if width_px >= height_px:
        half = width_px // 2
        cut = box_lv.width * half / width_px
        first = Box(box_lv.x, box_lv.y, cut, box_lv.height)
        second = Box(box_lv.x + cut, box_lv.y, box_lv.width - cut, box_lv.height)
        sizes, axis = ((half, height_px), (width_px - half, height_px)), 1
    else:
        half = height_px // 2
        cut = box_lv.height * half / height_px
        first = Box(box_lv.x, box_lv.y, box_lv.width, cut)
        second = Box(box_lv.x, box_lv.y + cut, box_lv.width, box_lv.height - cut)
        sizes, axis = ((width_px, half), (width_px, height_px - half)), 0
    parts = [
        picture_of(slide, box, level, size, gap=gap, patch=patch)
        for box, size in zip((first, second), sizes, strict=True)
    ]
    return np.concatenate(parts, axis=axis)
