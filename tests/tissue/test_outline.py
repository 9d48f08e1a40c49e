"""Outlines: from masks and back, through GeoJSON, onto pictures."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from shapely.geometry import MultiPolygon

from wsi_mil.errors import SlideError
from wsi_mil.grid import SlideRef
from wsi_mil.tissue import (
    clipped,
    draw_outline,
    mask_to_outline,
    outline_from_geojson,
    outline_to_geojson,
    overlap,
    whole_slide,
)

SLIDE = SlideRef("A1", "fingerprint", (4000, 3000), (0.5, 0.5), "metadata")
SQUARE: list[list[list[float]]] = [[[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]]


def blobs(seed: int, *, width: int = 90, height: int = 70) -> np.ndarray:
    """Wavy areas with holes, some cut by the edge."""
    return gaussian_filter(np.random.default_rng(seed).normal(size=(height, width)), 4) > 0.02


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), downsample=st.tuples(st.floats(1, 40), st.floats(1, 40)))
def test_an_outline_is_where_its_mask_is(seed: int, downsample: tuple[float, float]) -> None:
    mask = blobs(seed)
    outline = mask_to_outline(mask, downsample)
    assert outline.is_valid
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    inside = shapely.contains_xy(outline, (x + 0.5) * downsample[0], (y + 0.5) * downsample[1])
    assert (inside != mask).mean() < 0.02
    assert outline.area == pytest.approx(mask.sum() * downsample[0] * downsample[1], rel=0.05, abs=40 * downsample[0])


def test_a_full_mask_reaches_the_edges() -> None:
    outline = mask_to_outline(np.ones((30, 50), bool), (4.0, 8.0))
    assert outline.bounds == (0, 0, 200, 240)
    assert outline.area > 0.999 * 200 * 240


def test_an_empty_mask_has_no_outline() -> None:
    assert mask_to_outline(np.zeros((30, 50), bool), (4.0, 8.0)).is_empty


def test_a_hole_stays_and_an_island_in_it_too() -> None:
    mask = np.zeros((60, 60), bool)
    mask[5:55, 5:55] = True
    mask[15:45, 15:45] = False
    mask[25:35, 25:35] = True
    outline = mask_to_outline(mask, (1.0, 1.0))
    assert sorted(len(polygon.interiors) for polygon in outline.geoms) == [0, 1]
    assert outline.area == pytest.approx(mask.sum(), rel=0.002)


def test_corners_that_touch_are_two_pieces() -> None:
    mask = np.zeros((20, 20), bool)
    mask[2:10, 2:10] = mask[10:18, 10:18] = True
    outline = mask_to_outline(mask, (1.0, 1.0))
    assert outline.is_valid
    assert len(outline.geoms) == 2


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_geojson_and_back(seed: int) -> None:
    outline = mask_to_outline(blobs(seed), (16.03, 15.97))
    text = outline_to_geojson(outline, slide=SLIDE)
    back = outline_from_geojson(text, where="A1.geojson")
    assert back.symmetric_difference(outline).area < 1e-3 * max(1.0, outline.area)
    assert outline_to_geojson(outline, slide=SLIDE) == text


def test_what_qupath_needs_is_there() -> None:
    value = json.loads(outline_to_geojson(mask_to_outline(blobs(1), (16.0, 16.0)), slide=SLIDE))
    assert value["type"] == "FeatureCollection"
    ids = [feature["id"] for feature in value["features"]]
    assert len(set(ids)) == len(ids) > 1
    for feature in value["features"]:
        assert feature["type"] == "Feature"
        assert feature["geometry"]["type"] == "Polygon"
        assert feature["properties"]["objectType"] == "annotation"
        assert feature["properties"]["classification"]["name"] == "Tissue"
        for ring in feature["geometry"]["coordinates"]:
            assert ring[0] == ring[-1]
            assert all(round(number, 2) == number for place in ring for number in place)


def test_ids_belong_to_a_slide() -> None:
    other = SlideRef("B1", "another", (4000, 3000), (0.5, 0.5), "metadata")
    ids = {
        json.loads(outline_to_geojson(whole_slide(slide), slide=slide))["features"][0]["id"] for slide in (SLIDE, other)
    }
    assert len(ids) == 2


POLYGON: dict[str, Any] = {"type": "Polygon", "coordinates": SQUARE}
FEATURE: dict[str, Any] = {"type": "Feature", "geometry": POLYGON, "properties": {}}


@pytest.mark.parametrize(
    "value",
    [
        POLYGON,
        FEATURE,
        [FEATURE],
        [POLYGON, FEATURE],
        {"type": "FeatureCollection", "features": [FEATURE]},
        {"type": "MultiPolygon", "coordinates": [SQUARE]},
        {"type": "GeometryCollection", "geometries": [POLYGON]},
        {"type": "Feature", "geometry": {"type": "GeometryCollection", "geometries": [POLYGON, POLYGON]}},
        {"type": "Polygon", "coordinates": [[[*place, 7.0] for place in SQUARE[0]]]},
    ],
)
def test_every_form_of_geojson_is_understood(value: Any) -> None:
    outline = outline_from_geojson(json.dumps(value), where="x")
    assert isinstance(outline, MultiPolygon)
    assert outline.area == 100
    assert not outline.has_z


@pytest.mark.parametrize(
    "value", [[], {"type": "FeatureCollection", "features": []}, {"type": "Feature", "geometry": None}]
)
def test_an_outline_of_nothing_is_empty(value: Any) -> None:
    assert outline_from_geojson(json.dumps(value), where="x").is_empty


def test_an_area_that_crosses_itself_is_made_valid() -> None:
    bow_tie = {"type": "Polygon", "coordinates": [[[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]]}
    outline = outline_from_geojson(json.dumps(bow_tie), where="x")
    assert outline.is_valid
    assert outline.area == 50
    assert len(outline.geoms) == 2


def test_areas_that_cross_themselves_and_each_other_are_united() -> None:
    bow_tie = {"type": "Polygon", "coordinates": [[[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]]}
    other = {"type": "Polygon", "coordinates": [[[0, 5], [10, 15], [10, 5], [0, 15], [0, 5]]]}
    outline = outline_from_geojson(json.dumps([bow_tie, other, POLYGON]), where="x")
    assert outline.is_valid
    assert outline.area == pytest.approx(100 + 25)


def test_areas_that_overlap_count_once() -> None:
    moved = {"type": "Polygon", "coordinates": [[[x + 5, y] for x, y in SQUARE[0]]]}
    assert outline_from_geojson(json.dumps([POLYGON, moved]), where="x").area == 150


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not json", "A1.geojson is not GeoJSON"),
        ("", "is not GeoJSON"),
        ("3", "something that is no geometry"),
        ('{"type": "Point", "coordinates": [1, 2]}', "a Point, which has no area"),
        ('{"type": "Feature", "geometry": {"type": "LineString", "coordinates": [[1, 2], [3, 4]]}}', "a LineString"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}', "is broken"),
        ('{"type": "Polygon", "coordinates": "x"}', "is broken"),
        ('{"type": "Polygon"}', "is broken"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [NaN, 1], [1, 1], [0, 0]]]}', "no number"),
    ],
)
def test_what_is_no_outline_is_refused_with_its_place(text: str, words: str) -> None:
    with pytest.raises(SlideError, match=words) as caught:
        outline_from_geojson(text, where="tissue/A1.geojson")
    assert "tissue/A1.geojson" in str(caught.value)


def test_the_whole_slide_is_its_size() -> None:
    assert whole_slide(SLIDE).bounds == (0, 0, 4000, 3000)


def test_an_outline_is_drawn_where_it_is_and_nowhere_else() -> None:
    rgb = np.full((300, 400, 3), 200, np.uint8)
    square = MultiPolygon([shapely.box(1000, 1000, 2000, 2000)])
    drawn = draw_outline(rgb, square, (10.0, 10.0))
    changed = (drawn != rgb).any(axis=2)
    assert (rgb == 200).all()
    assert changed[150, 99:101].any()
    assert changed[100, 150] | changed[99, 150]
    away = np.ones_like(changed)
    away[95:205, 95:205] = False
    away[105:195, 105:195] = True
    assert not changed[away].any()


def test_a_line_is_wide_enough_to_be_seen_on_a_large_picture() -> None:
    drawn = draw_outline(np.full((3000, 4000, 3), 255, np.uint8), whole_slide(SLIDE), (1.0, 1.0))
    assert (drawn[1500] != 255).any(axis=1).sum() >= 10


def test_an_outline_is_cut_to_its_slide() -> None:
    outline = MultiPolygon([shapely.box(-100, -100, 50, 60), shapely.box(3900, 2900, 5000, 5000)])
    assert clipped(outline, slide=SLIDE, where="A1").area == pytest.approx(50 * 60 + 100 * 100)


def test_an_outline_beside_its_slide_or_without_area_is_refused() -> None:
    with pytest.raises(
        SlideError, match=r"A1 lies outside the 4000 x 3000 pixels .*x 5000 to 6000, y 0 to 10.*level-0"
    ):
        clipped(MultiPolygon([shapely.box(5000, 0, 6000, 10)]), slide=SLIDE, where="A1")
    with pytest.raises(SlideError, match="A1 holds no area"):
        clipped(MultiPolygon(), slide=SLIDE, where="A1")


def test_what_two_outlines_share_has_no_lines_or_points() -> None:
    outline = MultiPolygon([shapely.box(0, 0, 10, 10), shapely.box(20, 0, 30, 10)])
    shared = overlap(outline, MultiPolygon([shapely.box(5, 5, 20, 10)]))
    assert shared.area == 25
    assert {part.geom_type for part in shared.geoms} == {"Polygon"}
