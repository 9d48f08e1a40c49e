"""The tiles as a picture of their own: exact on the lattice, averaged by area elsewhere, halved without drift."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from wsi_mil.heatmaps import Heatmap
from wsi_mil.heatmaps.mosaic import Mosaic, lay_mosaic, side_by_side

GREY = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)


def test_on_the_lattice_every_pixel_has_exactly_its_tiles_score(make: Callable[..., Heatmap]) -> None:
    heatmap = make()
    grid, scores = heatmap.grid, heatmap.column("attention")
    scores[5] = np.nan
    mosaic = lay_mosaic(grid, scores, px_per_tile=3)
    assert mosaic.cover.shape == (161, 235), "as many pixels as it takes to reach the slide's far corner"
    np.testing.assert_allclose(mosaic.downsample, np.array(grid.step_l0) / 3)
    for tile in range(0, len(grid), 11):
        column, row = (3 * np.rint(grid.coords_l0[tile] / np.array(grid.step_l0))).astype(int)
        assert (mosaic.values[row : row + 3, column : column + 3] == scores[tile]).all()
    assert not mosaic.known[:3, 15:18].any(), "no score, no cover"
    assert mosaic.known.sum() == 161 * 235 - 9


def test_elsewhere_as_painted_finer(make: Callable[..., Heatmap]) -> None:
    """Against level-0 pixels counted one by one; half a pixel a side closes the seams, and blurs as much."""
    heatmap = make(overlap_px=100, tiles=6)
    values = heatmap.column("attention")
    mosaic = lay_mosaic(heatmap.grid, values, downsample=(16.0, 16.0))
    total, count = np.zeros((2, 320, 1600))
    for (x, y), value in zip(heatmap.grid.coords_l0, values, strict=True):
        right, bottom = np.rint(np.array([x, y]) + heatmap.grid.extent_l0).astype(int)
        total[y:bottom, x:right] += value
        count[y:bottom, x:right] += 1
    total, count = (part.reshape(20, 16, 100, 16).mean(axis=(1, 3)) for part in (total, count))
    inside = count > 0.2
    np.testing.assert_allclose(mosaic.cover[:20, :100], np.minimum(count, 1), atol=0.15)
    np.testing.assert_allclose(
        mosaic.values[:20, :100][inside], (total / np.where(inside, count, 1))[inside], atol=0.15
    )
    assert mosaic.cover[20:].max() == 0


def test_halving_averages_what_is_known() -> None:
    values = np.array([[1, 3, 5], [0, 2, 7], [4, 8, 9]], np.float32)
    cover = np.array([[1, 1, 1], [0, 1, 1], [0.5, 0, 0]], np.float32)
    half = Mosaic(values, cover, (10.0, 20.0)).halved()
    assert half.downsample == (20, 40)
    np.testing.assert_allclose(half.values, [[2, 6], [4, 0]])
    np.testing.assert_allclose(half.cover, [[0.75, 1], [0.25, 0]])


def test_padding_adds_only_empty_pixels() -> None:
    padded = Mosaic(np.ones((3, 5), np.float32), np.ones((3, 5), np.float32), (1.0, 1.0)).padded(4)
    assert padded.cover.shape == (4, 8)
    assert padded.cover.sum() == 15
    assert padded.cover[:3, :5].all()


def test_alpha_is_the_cover_and_grey_shines_through() -> None:
    mosaic = Mosaic(np.array([[0, 1, 0, 0.5]], np.float32), np.array([[1, 1, 0.4, 0]], np.float32), (1.0, 1.0))
    assert mosaic.painted(GREY)[0, :3].tolist() == [[0, 0, 0, 255], [255, 255, 255, 255], [0, 0, 0, 102]]
    assert mosaic.painted(GREY)[0, 3, 3] == 0
    assert mosaic.painted_on_grey(GREY)[0, :, 0].tolist() == [0, 255, 125, 208]


@pytest.mark.parametrize(
    ("shift", "overlap_px", "told"), [(0, 0, True), (9, 0, False), (-9, 0, False), (0, 100, False)]
)
def test_which_grids_are_side_by_side(make: Callable[..., Heatmap], shift: int, overlap_px: int, told: bool) -> None:
    grid = make(overlap_px=overlap_px, tiles=50).grid
    assert side_by_side(dataclasses.replace(grid, coords_l0=grid.coords_l0 + shift)) is told


def test_no_tiles_are_an_empty_picture(make: Callable[..., Heatmap]) -> None:
    heatmap = make(overlap_px=100)
    none = lay_mosaic(heatmap.grid.take(np.arange(0)), np.empty(0, np.float32), downsample=(512.0, 512.0))
    assert none.cover.shape == (30, 40)
    assert not none.cover.any()
