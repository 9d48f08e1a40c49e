"""The share of each tile that is tissue, against one intersection a tile."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from shapely.geometry import MultiPolygon, Point

from wsi_mil.grid import SlideRef, lay_grid
from wsi_mil.tissue import mask_to_outline, tissue_share

SLIDE = SlideRef("A1", "f", (5000, 4000), (0.5, 0.5), "metadata")


def ring() -> MultiPolygon:
    return MultiPolygon([Point(2300, 2100).buffer(1500).difference(Point(2000, 2000).buffer(500))])


def one_by_one(outline: MultiPolygon, coords: np.ndarray, extent: tuple[float, float]) -> np.ndarray:
    boxes = shapely.box(coords[:, 0], coords[:, 1], coords[:, 0] + extent[0], coords[:, 1] + extent[1])
    return shapely.area(shapely.intersection(boxes, outline)) / (extent[0] * extent[1])


@pytest.mark.parametrize(("size_px", "mpp", "overlap_px"), [(64, 0.5, 0), (64, 0.77, 16), (1000, 1.0, 0)])
def test_shares_are_exact_areas(size_px: int, mpp: float, overlap_px: int) -> None:
    coords, extent, _ = lay_grid(SLIDE, size_px=size_px, mpp=mpp, overlap_px=overlap_px)
    share = tissue_share(ring(), coords, extent)
    assert share.dtype == np.float32
    np.testing.assert_allclose(share, one_by_one(ring(), coords, extent), atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(
    places=st.lists(st.tuples(st.integers(-200, 5000), st.integers(-200, 4000)), min_size=1, max_size=60),
    extent=st.tuples(st.floats(1, 900), st.floats(1, 900)),
)
def test_scattered_tiles_in_any_order_are_exact_too(places: list[tuple[int, int]], extent: tuple[float, float]) -> None:
    coords = np.array(places, np.int64)
    np.testing.assert_allclose(tissue_share(ring(), coords, extent), one_by_one(ring(), coords, extent), atol=1e-5)


@pytest.mark.parametrize("seed", [0, 7])
def test_corners_that_lie_on_the_tiles_edges_are_exact_too(seed: int) -> None:
    mask = gaussian_filter(np.random.default_rng(seed).normal(size=(120, 120)), 3) > 0
    outline = mask_to_outline(mask, (16.0, 16.0))
    slide = SlideRef("A1", "f", (1920, 1920), (0.5, 0.5), "metadata")
    coords, extent, _ = lay_grid(slide, size_px=64, mpp=0.5)
    np.testing.assert_allclose(tissue_share(outline, coords, extent), one_by_one(outline, coords, extent), atol=1e-6)


def test_inside_is_all_and_outside_is_nothing() -> None:
    coords, extent, _ = lay_grid(SLIDE, size_px=50, mpp=0.5)
    whole = MultiPolygon([shapely.box(-10, -10, 6000, 6000)])
    assert (tissue_share(whole, coords, extent) == 1).all()
    assert (tissue_share(MultiPolygon(), coords, extent) == 0).all()


def test_no_tiles_have_no_shares() -> None:
    assert tissue_share(ring(), np.empty((0, 2), np.int64), (10.0, 10.0)).shape == (0,)


def test_a_tile_over_the_slide_s_edge_counts_what_lies_outside_as_none() -> None:
    whole = MultiPolygon([shapely.box(0, 0, 5000, 4000)])
    np.testing.assert_allclose(tissue_share(whole, np.array([[4950, 0]]), (100.0, 100.0)), [0.5])


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), reverse=st.booleans())
def test_holes_islands_and_either_direction_of_rings(seed: int, reverse: bool) -> None:
    mask = gaussian_filter(np.random.default_rng(seed).normal(size=(60, 80)), 2) > 0
    outline = mask_to_outline(mask, (16.3, 15.9))
    given_outline = shapely.reverse(outline) if reverse else outline
    slide = SlideRef("A1", "f", (1304, 954), (0.5, 0.47), "metadata")
    coords, extent, _ = lay_grid(slide, size_px=70, mpp=0.5, overlap_px=20)
    share = tissue_share(given_outline, coords, extent)
    np.testing.assert_allclose(share, one_by_one(outline, coords, extent), atol=1e-6)


def test_tiles_too_scattered_for_one_table_of_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsi_mil.tissue.share.MOST_CELLS", 200)
    coords = np.random.default_rng(0).integers(0, 4000, (300, 2))
    np.testing.assert_allclose(
        tissue_share(ring(), coords, (90.0, 70.0)), one_by_one(ring(), coords, (90.0, 70.0)), atol=1e-6
    )
