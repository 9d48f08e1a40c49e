"""Tiles as the browser takes them: the right pixels at the right place, stored bytes where they can be."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from contracts.slide import ArraySlide
from PIL import Image
from viewer.conftest import LESION, LESION_RGB, SIZE, TISSUE_RGB, Planted

from wsi_mil.geometry import Box
from wsi_mil.slides import open_slide
from wsi_mil.viewer.pyramid import MOST_READ_PX, crop_jpeg, tile_jpeg, view_levels


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


@pytest.mark.parametrize("shrink", [True, False])
def test_every_level_shows_the_whole_slide(seen: Planted, shrink: bool) -> None:
    with open_slide(seen.root / "slides" / "L1.tiff", shrink=shrink) as slide:
        truth = slide.overview(max_px=SIZE[0])[0].astype(int)
        levels = view_levels(slide)
        assert [round(level.downsample[0]) for level in levels] == [1, 2, 4, 8]
        assert [level.stored is not None for level in levels] == [True, False, True, False]
        for level in levels:
            picture = np.zeros((level.height, level.width, 3), int)
            for row in range(level.grid[1]):
                for column in range(level.grid[0]):
                    left, top, width, height = level.box(column, row)
                    tile = pixels(tile_jpeg(slide, level, column, row))
                    assert tile.shape == (height, width, 3)
                    picture[top : top + height, left : left + width] = tile
            by = round(level.downsample[0])
            small = truth[by // 2 :: by, by // 2 :: by]
            inner = np.abs(small - picture[: small.shape[0], : small.shape[1]]).max(axis=2)
            assert np.mean(inner > 12) < 0.02, "but for the edges of the planted squares"


def test_a_whole_stored_tile_is_the_bytes_of_the_file(seen: Planted) -> None:
    path = seen.root / "slides" / "L1.tiff"
    with open_slide(path) as slide:
        level = view_levels(slide)[0]
        data = tile_jpeg(slide, level, 3, 2)
        scan = data[data.index(b"\xff\xda") :]
        assert scan in path.read_bytes()
        assert np.abs(pixels(data)[128, 128] - LESION_RGB).max() <= 3, "RGB is told as such to the browser"
        edge = tile_jpeg(slide, level, 7, 5)
        assert pixels(edge).shape == (SIZE[1] - 5 * 256, SIZE[0] - 7 * 256, 3), "what lies beyond the slide is cut off"


@pytest.mark.parametrize("place", [(-1, 0), (0, -1), (8, 0), (0, 6), (10**9, 0)])
def test_a_tile_that_is_not_there_is_no_tile(seen: Planted, place: tuple[int, int]) -> None:
    with open_slide(seen.root / "slides" / "L1.tiff") as slide, pytest.raises(IndexError):
        tile_jpeg(slide, view_levels(slide)[0], *place)


def test_comments_in_a_stored_tile_are_not_passed_on(seen: Planted) -> None:
    with open_slide(seen.root / "slides" / "L1.tiff") as slide:
        form = slide._planes[0].form  # type: ignore[attr-defined]
        data = slide._bytes(slide._planes[0], 0)  # type: ignore[attr-defined]
        assert form.as_jpeg(data) is not None
        comment = b"\xff\xfe" + (len("SMITH") + 2).to_bytes(2, "big") + b"SMITH"
        assert form.as_jpeg(data[:2] + comment + data[2:]) is None
        exif = b"\xff\xe1" + (2 + 4).to_bytes(2, "big") + b"Exif"
        assert form.as_jpeg(data[:2] + exif + data[2:]) is None


def test_a_slide_without_a_pyramid_is_shown_from_where_it_is_fast() -> None:
    side = 40_000
    level = np.broadcast_to(np.uint8(200), (side, side, 3))
    levels = view_levels(ArraySlide([level]))
    coarsest = levels[-1]
    assert (256 * coarsest.downsample[0]) ** 2 <= MOST_READ_PX
    assert max(coarsest.grid) > 1


def test_a_crop_is_the_place_that_was_asked_for(seen: Planted) -> None:
    with open_slide(seen.root / "slides" / "L1.tiff") as slide:
        left, top, right, bottom = LESION
        crop = pixels(crop_jpeg(slide, Box(left, top, right - left, bottom - top), max_px=64))
        assert crop.shape == (64, 64, 3)
        assert np.abs(crop[8:-8, 8:-8] - LESION_RGB).max() < 8
        beyond = pixels(crop_jpeg(slide, Box(-128.0, 300.0, 256.0, 256.0), max_px=64))
        assert beyond[32, 4].min() > 250, "white outside"
        assert (
            np.abs(pixels(crop_jpeg(slide, Box(400.0, 400.0, 100.0, 50.0), max_px=64))[10, 20] - TISSUE_RGB).max() < 8
        )


def test_the_whole_path_never_names_the_file(seen: Planted, tmp_path: Path) -> None:
    with open_slide(seen.root / "slides" / "L1.tiff") as slide:
        data = b"".join(tile_jpeg(slide, level, 0, 0) for level in view_levels(slide))
    assert b"SMITH" not in data
