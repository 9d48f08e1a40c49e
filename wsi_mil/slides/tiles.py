"""The tile path: a slide and a grid to batches of pixels, with reader threads and bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8

from wsi_mil.errors import ScaleError, SlideError
from wsi_mil.grid import TileGrid, TileStatus
from wsi_mil.slides.slide import WHITE, Slide


@dataclass(frozen=True)
class TileBatch:
    """Some tiles of a grid, in the grid's order."""

    index: Int64[np.ndarray, "tile"]
    """Places of the tiles in the grid."""
    pixels: UInt8[np.ndarray, "tile size size 3"]
    status: UInt8[np.ndarray, "tile"]
    """TileStatus of each tile; the pixels of an unreadable one are white."""


def read_tiles(slide: Slide, grid: TileGrid, *, batch_size: int, threads: int, ahead: int = 2) -> Iterator[TileBatch]:
    """The tiles of a grid as batches in the grid's order, read by `threads` threads up to `ahead` batches in advance.

    Memory is bounded by ahead + 1 batches. A damaged tile is marked UNREADABLE and the others go on; if all of them
    are, the slide is, and SlideError is raised at the end with the first reason. Raises ScaleError before any read.
    """
    slide.check_scale(grid.mpp)
    starts = iter(range(0, len(grid), batch_size))
    unreadable, reason = 0, ""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="wsi-mil-read")
    try:
        waiting: deque[tuple[TileBatch, list[Future[str]]]] = deque()
        while True:
            while len(waiting) <= ahead and (start := next(starts, None)) is not None:
                waiting.append(_submit(pool, slide, grid, start=start, stop=min(start + batch_size, len(grid))))
            if not waiting:
                break
            batch, futures = waiting.popleft()
            faults = [fault for future in futures if (fault := future.result())]
            unreadable += len(faults)
            reason = reason or (faults[0] if faults else "")
            yield batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    if len(grid) and unreadable == len(grid):
        raise SlideError(f"slide {slide.id!r}: not one of {len(grid)} tiles can be read; the first: {reason}")


def _submit(
    pool: ThreadPoolExecutor, slide: Slide, grid: TileGrid, *, start: int, stop: int
) -> tuple[TileBatch, list[Future[str]]]:
    """A batch whose arrays the futures beside it fill; a future's result is why its tile cannot be read, or ''."""
    count = stop - start
    batch = TileBatch(
        index=np.arange(start, stop, dtype=np.int64),
        pixels=np.empty((count, grid.size_px, grid.size_px, 3), np.uint8),
        status=np.full(count, TileStatus.OK, np.uint8),
    )
    return batch, [pool.submit(_fill, slide, grid, batch, place) for place in range(count)]


def _fill(slide: Slide, grid: TileGrid, batch: TileBatch, place: int) -> str:
    x_l0, y_l0 = (int(value) for value in grid.coords_l0[batch.index[place]])
    # Half a pixel of slack: a place is rounded to whole pixels, which alone does not make a tile an edge.
    right_l0, bottom_l0 = x_l0 + grid.extent_l0[0] - 0.5, y_l0 + grid.extent_l0[1] - 0.5
    if x_l0 < 0 or y_l0 < 0 or right_l0 > slide.size_l0[0] or bottom_l0 > slide.size_l0[1]:
        batch.status[place] = TileStatus.EDGE
    try:
        batch.pixels[place] = slide.read(x_l0, y_l0, size_px=grid.size_px, mpp=grid.mpp)
    except ScaleError:
        raise
    except SlideError as error:
        batch.pixels[place], batch.status[place] = WHITE, TileStatus.UNREADABLE
        return str(error)
    return ""
