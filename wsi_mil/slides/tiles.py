"""The tile path: a slide and a grid to batches of pixels, with reader threads and bounded memory."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8

from wsi_mil.errors import ScaleError, SlideError
from wsi_mil.geometry import Level
from wsi_mil.grid import TileGrid, TileStatus
from wsi_mil.slides.slide import WHITE, Slide
from wsi_mil.slides.tile_cache import CACHE_BYTES

RUN_TILES = 8
"""Tiles that one thread reads in a row: enough that handing them out costs nothing, few enough to share a batch."""


@dataclass(frozen=True)
class TileBatch:
    """Some tiles of a grid, in reading order."""

    index: Int64[np.ndarray, "tile"]
    """Places of the tiles in the grid."""
    pixels: UInt8[np.ndarray, "tile size size 3"]
    status: UInt8[np.ndarray, "tile"]
    """TileStatus of each tile; the pixels of an unreadable one are white."""


def read_tiles(
    slide: Slide, grid: TileGrid, *, batch_size: int, threads: int, ahead: int = 2, reuse: int | None = None
) -> Iterator[TileBatch]:
    """The tiles of a grid as batches, read by `threads` threads up to `ahead` batches in advance.

    Each tile that the slide's file stores is decoded once for all the grid's tiles that it touches. The order is the
    file's where the reader knows how that is stored (`reading_order`), else the grid's. Memory is bounded by
    ahead + 1 batches and the reader's cache, whatever the slide's size. With `reuse` the arrays are used again: a batch
    is valid until so many more are given and then the next is asked for (0: until the next is asked for).
    A damaged tile is marked UNREADABLE and the others go on; if all of them are, the slide is, and SlideError is raised
    at the end with the first reason. Raises ScaleError before any read.
    """
    slide.check_scale(grid.mpp)
    order = reading_order(slide, grid)
    starts = iter(range(0, len(grid), batch_size))
    arrays: deque[UInt8[np.ndarray, "tile size size 3"]] = deque()
    given: deque[UInt8[np.ndarray, "tile size size 3"]] = deque()
    unreadable, reason = 0, ""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="wsi-mil-read")
    try:
        waiting: deque[tuple[TileBatch, list[Future[list[str]]]]] = deque()
        while True:
            while len(waiting) <= ahead and (start := next(starts, None)) is not None:
                index = order[start : start + batch_size]
                whole = arrays.popleft() if arrays else _empty(min(batch_size, len(grid)), grid.size_px)
                waiting.append(_submit(pool, slide, grid, index, whole[: len(index)]))
            if not waiting:
                break
            batch, futures = waiting.popleft()
            faults = [fault for future in futures for fault in future.result()]
            unreadable += len(faults)
            reason = reason or (faults[0] if faults else "")
            yield batch
            if reuse is not None and batch.pixels.base is not None:
                given.append(batch.pixels.base)
                if len(given) > reuse:
                    arrays.append(given.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    if len(grid) and unreadable == len(grid):
        raise SlideError(f"slide {slide.id!r}: not one of {len(grid)} tiles can be read; the first: {reason}")


def reading_order(slide: Slide, grid: TileGrid) -> Int64[np.ndarray, "tile"]:
    """Places of a grid's tiles in the order that the file is best read in.

    Row by row, in vertical bands so narrow that all stored tiles of a row of grid tiles stay in the reader's cache
    until the next row has used them: each is then decoded once but for those on the border of two bands.
    """
    if not len(grid):
        return np.zeros(0, np.int64)
    number, box = slide.place(0, 0, size_px=grid.size_px, mpp=grid.mpp)
    stored = slide.tile_px(number)
    if stored is None:
        return np.arange(len(grid), dtype=np.int64)
    rows_alive = math.ceil(box.height / stored[1]) + 2
    width_px = max(stored[0], CACHE_BYTES // 2 // (3 * rows_alive * stored[1]))
    level = slide.levels[number]
    x_l0, y_l0 = grid.coords_l0.T
    band = (x_l0 / level.downsample[0]).astype(np.int64) // width_px
    return np.lexsort((x_l0, y_l0, band)).astype(np.int64)


def _empty(count: int, size_px: int) -> UInt8[np.ndarray, "tile size size 3"]:
    return np.empty((count, size_px, size_px, 3), np.uint8)


def _submit(
    pool: ThreadPoolExecutor,
    slide: Slide,
    grid: TileGrid,
    index: Int64[np.ndarray, "tile"],
    pixels: UInt8[np.ndarray, "tile size size 3"],
) -> tuple[TileBatch, list[Future[list[str]]]]:
    """A batch that the futures beside it fill; a future's result is why tiles of its run cannot be read."""
    batch = TileBatch(index, pixels, _edges(slide, grid, index))
    _announce(slide, grid, index)
    starts = range(0, len(index), RUN_TILES)
    return batch, [pool.submit(_fill, slide, grid, batch, range(at, min(at + RUN_TILES, len(index)))) for at in starts]


def _edges(slide: Slide, grid: TileGrid, index: Int64[np.ndarray, "tile"]) -> UInt8[np.ndarray, "tile"]:
    """Which tiles reach over the slide's edge. Half a pixel of slack: a place is rounded to whole pixels, which alone
    does not make a tile an edge."""
    top_left = grid.coords_l0[index]
    over = (top_left < 0) | (top_left + np.array(grid.extent_l0) - 0.5 > np.array(slide.size_l0))
    return np.where(over.any(axis=1), TileStatus.EDGE, TileStatus.OK).astype(np.uint8)


def _announce(slide: Slide, grid: TileGrid, index: Int64[np.ndarray, "tile"]) -> None:
    """Tell the reader, row by row, which part of the file comes next."""
    number, box = slide.place(0, 0, size_px=grid.size_px, mpp=grid.mpp)
    if slide.tile_px(number) is None:
        return
    level = slide.levels[number]
    places = grid.coords_l0[index] / np.array(level.downsample)
    for y in np.unique(places[:, 1]).tolist():
        xs = places[places[:, 1] == y, 0]
        wanted = _inside((float(xs.min()), y, float(xs.max()) + box.width, y + box.height), level)
        if wanted[2] > 0 and wanted[3] > 0:
            slide.expect(wanted, number)


def _inside(corners: tuple[float, float, float, float], level: Level) -> tuple[int, int, int, int]:
    left, top = max(0, int(corners[0])), max(0, int(corners[1]))
    right, bottom = min(level.width, math.ceil(corners[2])), min(level.height, math.ceil(corners[3]))
    return left, top, right - left, bottom - top


def _fill(slide: Slide, grid: TileGrid, batch: TileBatch, places: range) -> list[str]:
    start, faults = time.perf_counter(), []
    for place in places:
        x_l0, y_l0 = grid.coords_l0[batch.index[place]].tolist()
        try:
            slide.read(x_l0, y_l0, size_px=grid.size_px, mpp=grid.mpp, out=batch.pixels[place])
        except ScaleError:
            raise
        except SlideError as error:
            batch.pixels[place], batch.status[place] = WHITE, TileStatus.UNREADABLE
            faults.append(str(error))
    slide.clock.add("busy", time.perf_counter() - start)
    return faults
