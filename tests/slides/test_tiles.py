"""The tile path: order, status, damage, memory."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from contracts.slide import ArraySlide, textured
from jaxtyping import UInt8

from wsi_mil.errors import ScaleError, SlideError
from wsi_mil.grid import SlideRef, TileGrid, TileStatus, lay_grid
from wsi_mil.slides import Slide, TileBatch, open_slide, read_tiles
from wsi_mil.slides.tiff import TiffReader

Write = Callable[..., Path]


def grid_of(slide: Slide, *, size_px: int = 64, mpp: float = 0.5) -> TileGrid:
    ref = SlideRef(slide.id, "f", slide.size_l0, slide.mpp, "metadata")
    coords, extent, step = lay_grid(ref, size_px=size_px, mpp=mpp)
    return TileGrid(ref, coords, np.ones(len(coords), np.float32), size_px, mpp, extent, step)


def joined(batches: list[TileBatch]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return tuple(np.concatenate([getattr(batch, name) for batch in batches]) for name in ("index", "pixels", "status"))


@pytest.mark.parametrize(("batch_size", "threads", "ahead"), [(7, 3, 2), (1, 1, 0), (1000, 2, 5)])
def test_tiles_come_in_the_order_of_the_grid(batch_size: int, threads: int, ahead: int) -> None:
    slide = ArraySlide([textured(500, 300)])
    grid = grid_of(slide, mpp=0.6)
    batches = list(read_tiles(slide, grid, batch_size=batch_size, threads=threads, ahead=ahead))
    index, pixels, status = joined(batches)
    np.testing.assert_array_equal(index, np.arange(len(grid)))
    assert all(len(batch.index) == batch_size for batch in batches[:-1])
    for place, (x, y) in enumerate(grid.coords_l0):
        np.testing.assert_array_equal(pixels[place], slide.read(int(x), int(y), size_px=64, mpp=0.6))
    over = (grid.coords_l0 + grid.extent_l0 > np.array(slide.size_l0) + 0.5).any(axis=1)
    np.testing.assert_array_equal(status, np.where(over, TileStatus.EDGE, TileStatus.OK))


def test_a_tile_that_ends_with_the_slide_is_no_edge() -> None:
    # A tile is 64.128 pixels wide: the last one, at 577, ends at 641.128.
    slide = ArraySlide([textured(641, 192)], mpp=(0.499, 0.499))
    grid = grid_of(slide, mpp=0.5)
    assert grid.coords_l0.max() == 577
    (batch,) = read_tiles(slide, grid, batch_size=100, threads=1)
    assert set(batch.status) == {TileStatus.OK}


def test_a_damaged_tile_is_marked_and_the_rest_goes_on(
    write_slide: Write, break_tile: Callable[[Path, int], None]
) -> None:
    path = write_slide(downsamples=(1,))
    break_tile(path, 2)
    with open_slide(path) as slide:
        grid = grid_of(slide)
        index, pixels, status = joined(list(read_tiles(slide, grid, batch_size=16, threads=3)))
    damaged = status == TileStatus.UNREADABLE
    x, y = grid.coords_l0[damaged].T
    assert set(zip(x.tolist(), y.tolist(), strict=True)) == {(256, 0), (320, 0), (256, 64), (320, 64)}
    assert (pixels[damaged] == 255).all()
    assert pixels[~damaged].mean() < 200


def test_a_slide_of_which_nothing_can_be_read_fails(test_data: Path) -> None:
    with open_slide(test_data / "slides/broken/unreadable.svs") as slide:
        grid = grid_of(slide, size_px=16, mpp=0.499)
        with pytest.raises(SlideError, match="not one of 1 tiles can be read"):
            list(read_tiles(slide, grid, batch_size=4, threads=2))


def test_a_scale_too_fine_fails_at_once_and_marks_nothing() -> None:
    slide = ArraySlide([textured(100, 100)])
    with pytest.raises(ScaleError):
        next(read_tiles(slide, grid_of(slide, mpp=0.1), batch_size=4, threads=1))
    assert slide.asked == []


def test_a_grid_of_nothing_gives_nothing() -> None:
    slide = ArraySlide([textured(100, 100)])
    empty = grid_of(slide).take(np.zeros(4, bool))
    assert list(read_tiles(slide, empty, batch_size=4, threads=2)) == []


class Counting(ArraySlide):
    """Counts its reads, from any thread."""

    lock = threading.Lock()
    reads = 0

    def _read(self, box: tuple[int, int, int, int], level: int) -> UInt8[np.ndarray, "h w 3"]:
        with self.lock:
            self.reads += 1
        return super()._read(box, level)


def settled(slide: Counting) -> int:
    """Reads done once the threads have nothing left that they may do."""
    before = -1
    while before != slide.reads:
        before = slide.reads
        time.sleep(0.1)
    return before


def test_no_more_is_read_than_the_window_holds() -> None:
    slide = Counting([textured(640, 640)])
    batches = read_tiles(slide, grid_of(slide), batch_size=10, threads=4, ahead=2)
    next(batches)
    assert settled(slide) == 30
    next(batches)
    assert settled(slide) == 40
    batches.close()
    assert settled(slide) == 40


def test_who_stops_early_waits_for_no_more_than_is_being_read() -> None:
    class Slow(Counting):
        def _read(self, box: tuple[int, int, int, int], level: int) -> UInt8[np.ndarray, "h w 3"]:
            time.sleep(0.02)
            return super()._read(box, level)

    slide = Slow([textured(640, 640)])
    batches = read_tiles(slide, grid_of(slide), batch_size=10, threads=1, ahead=4)
    next(batches)
    batches.close()
    assert slide.reads < 40


def test_any_other_error_is_not_taken_for_damage() -> None:
    class Bug(ArraySlide):
        def _read(self, box: tuple[int, int, int, int], level: int) -> UInt8[np.ndarray, "h w 3"]:
            raise RuntimeError("a bug")

    slide = Bug([textured(200, 200)])
    with pytest.raises(RuntimeError, match="a bug"):
        list(read_tiles(slide, grid_of(slide), batch_size=4, threads=2))


@pytest.mark.parametrize(("mpp", "size_px"), [(0.5, 100), (0.5, 300), (0.7, 64), (1.0, 128)])
def test_each_stored_tile_is_decoded_once(write_slide: Write, mpp: float, size_px: int) -> None:
    with TiffReader(
        write_slide(rgb=textured(1500, 1100), downsamples=(1,)), id="a", mpp=None, mpp_source="metadata"
    ) as slide:
        grid = grid_of(slide, size_px=size_px, mpp=mpp)
        list(read_tiles(slide, grid, batch_size=8, threads=4))
        stored = -(-1500 // 128) * -(-1100 // 128)
        assert slide.decoded_tiles == stored


def test_the_order_is_the_files_and_the_places_are_told(write_slide: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a cache for little more than two rows of a narrow band, bands are walked one after the other."""
    monkeypatch.setattr("wsi_mil.slides.tiles.CACHE_BYTES", 2 * 3 * 3 * 128 * 400)
    with open_slide(write_slide(rgb=textured(1500, 700), downsamples=(1,)), reader="tiff") as slide:
        grid = grid_of(slide, size_px=100)
        index, pixels, _ = joined(list(read_tiles(slide, grid, batch_size=7, threads=2)))
        assert sorted(index.tolist()) == list(range(len(grid)))
        x, y = grid.coords_l0[index].T
        band = x // 400
        assert (np.diff(band) >= 0).all()
        assert (np.diff(y)[np.diff(band) == 0] >= 0).all()
        for place in range(0, len(grid), 9):
            left, top = grid.coords_l0[index[place]].tolist()
            np.testing.assert_array_equal(pixels[place], slide.read(left, top, size_px=100, mpp=0.5))


@pytest.mark.parametrize("later", [0, 2])
def test_reused_arrays_hold_a_batch_until_so_many_more_are_given(write_slide: Write, later: int) -> None:
    with open_slide(write_slide(rgb=textured(1500, 1100), downsamples=(1,))) as slide:
        grid = grid_of(slide)
        owners = set()
        valid: deque[TileBatch] = deque(maxlen=later + 1)
        for batch in read_tiles(slide, grid, batch_size=16, threads=3, ahead=2, reuse=later):
            owners.add(batch.pixels.__array_interface__["data"][0])
            valid.append(batch)
            for one in valid:
                left, top = grid.coords_l0[one.index[-1]].tolist()
                np.testing.assert_array_equal(one.pixels[-1], slide.read(left, top, size_px=64, mpp=0.5))
        assert len(owners) <= 4 + later
