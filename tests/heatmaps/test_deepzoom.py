"""DeepZoom: the files a viewer asks for are all there, of the size it expects, and fit at their seams."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import PurePosixPath

import numpy as np
import pytest
from PIL import Image

from wsi_mil.heatmaps import Heatmap, colouring, heatmap_to_deepzoom

TILE, OVERLAP = 254, 1


def opened(files: dict[PurePosixPath, bytes], level: int, column: int, row: int, kind: str = "png") -> Image.Image:
    """One tile."""
    return Image.open(io.BytesIO(files[PurePosixPath(f"A1_files/{level}/{column}_{row}.{kind}")]))


@pytest.mark.parametrize(("kind", "format_", "mode"), [("png", "PNG", "RGBA"), ("jpeg", "JPEG", "RGB")])
def test_every_tile_of_every_level_is_there(make: Callable[..., Heatmap], kind: str, format_: str, mode: str) -> None:
    files = heatmap_to_deepzoom(make(), "attention", name="A1", kind=kind, px_per_tile=8)  # type: ignore[arg-type]
    assert f'Format="{kind}"' in files.pop(PurePosixPath("A1.dzi")).decode()
    width, height = math.ceil(20_011 / 32), math.ceil(15_003 / 32)
    for level in range(10, -1, -1):
        columns, rows = math.ceil(width / TILE), math.ceil(height / TILE)
        for column in range(columns):
            for row in range(rows):
                tile = opened(files, level, column, row, kind)
                assert (tile.format, tile.mode) == (format_, mode)
                left, top = max(0, column * TILE - OVERLAP), max(0, row * TILE - OVERLAP)
                right, bottom = min(width, (column + 1) * TILE + OVERLAP), min(height, (row + 1) * TILE + OVERLAP)
                assert tile.size == (right - left, bottom - top)
                del files[PurePosixPath(f"A1_files/{level}/{column}_{row}.{kind}")]
        width, height = math.ceil(width / 2), math.ceil(height / 2)
    assert (width, height) == (1, 1)
    assert not files, "and no other"


def test_a_pixel_is_a_power_of_two_of_level_0_pixels(make: Callable[..., Heatmap]) -> None:
    for px_per_tile, pixel in ((1, 256), (4, 64), (5, 32)):
        files = heatmap_to_deepzoom(make(), "attention", name="A1", px_per_tile=px_per_tile)
        words = files[PurePosixPath("A1.dzi")].decode()
        assert f"one pixel is {pixel} x {pixel} level-0 pixels" in words
        assert f'Width="{math.ceil(20_011 / pixel)}" Height="{math.ceil(15_003 / pixel)}"' in words


def test_neighbours_share_their_overlap(make: Callable[..., Heatmap]) -> None:
    files = heatmap_to_deepzoom(make(), "attention", name="A1", px_per_tile=8)
    left, right = (np.asarray(opened(files, 10, column, 0)) for column in (0, 1))
    np.testing.assert_array_equal(left[:, -2 * OVERLAP :], right[: left.shape[0], : 2 * OVERLAP])


def test_no_score_is_transparent_and_scores_have_the_pictures_colours(make: Callable[..., Heatmap]) -> None:
    heatmap = make()
    scores = heatmap.column("attention")
    scores[1] = np.nan
    files = heatmap_to_deepzoom(heatmap, "attention", name="A1", scale="range", px_per_tile=4)
    rgba = np.asarray(opened(files, 9, 0, 0))
    spread = colouring(scores, "range")
    wanted = spread.table()[np.rint(spread.positions[[0, 2]] * 255).astype(int)]
    assert rgba[1, 1].tolist() == [*wanted[0], 255]
    assert rgba[1, 9].tolist() == [*wanted[1], 255]
    assert (rgba[1:3, 5:7, 3] == 0).all()


def test_the_same_heatmap_makes_the_same_files(make: Callable[..., Heatmap]) -> None:
    heatmap = make(tiles=40)
    assert heatmap_to_deepzoom(heatmap, "attention", name="A1") == heatmap_to_deepzoom(heatmap, "attention", name="A1")
