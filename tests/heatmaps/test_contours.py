"""Contours as QuPath reads them: valid, of the right area, in classes with a colour, by schema and golden file."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import shapely

from wsi_mil.errors import StageError
from wsi_mil.heatmaps import Heatmap, heatmap_to_contours, top_thresholds
from wsi_mil.heatmaps.contours import contour

GOLDEN = Path(__file__).parents[1] / "golden" / "contours.geojson"

POINT = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
COLOUR = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}, "minItems": 3, "maxItems": 3}
RINGS = {"type": "array", "minItems": 1, "items": {"type": "array", "items": POINT, "minItems": 4}}
PROPERTIES = {
    "objectType": {"const": "annotation"},
    "name": {"type": "string"},
    "classification": {
        "type": "object",
        "required": ["name", "color"],
        "properties": {"name": {"type": "string"}, "color": COLOUR},
    },
    "measurements": {"type": "object", "additionalProperties": {"type": "number"}},
    "isLocked": {"type": "boolean"},
}
FEATURE = {
    "type": "object",
    "required": ["type", "id", "geometry", "properties"],
    "additionalProperties": False,
    "properties": {
        "type": {"const": "Feature"},
        "id": {"type": "string", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"},
        "geometry": {
            "type": "object",
            "required": ["type", "coordinates"],
            "properties": {"type": {"const": "Polygon"}, "coordinates": RINGS},
        },
        "properties": {
            "type": "object",
            "required": ["objectType", "classification"],
            "additionalProperties": False,
            "properties": PROPERTIES,
        },
    },
}
SCHEMA = {
    "type": "object",
    "required": ["type", "features"],
    "properties": {"type": {"const": "FeatureCollection"}, "features": {"type": "array", "items": FEATURE}},
}

Cells = Callable[..., Heatmap]


@pytest.fixture
def cells(make: Callable[..., Heatmap]) -> Cells:
    """Makes a heatmap whose scores are given as a map, row by row from the corner, and nought elsewhere."""

    def made(*rows: list[float]) -> Heatmap:
        heatmap = make(np.zeros((len(make().grid), 1), np.float32))
        place = np.rint(heatmap.grid.coords_l0 / np.array(heatmap.grid.step_l0)).astype(int)
        for number, row in enumerate(rows):
            for column, value in enumerate(row):
                heatmap.scores[(place == (column, number)).all(axis=1), 0] = value
        return heatmap

    return made


def features_of(text: str) -> list[dict[str, Any]]:
    """The features, after the schema has passed and shapely found each valid."""
    value = json.loads(text)
    jsonschema.validate(value, SCHEMA)
    for feature in value["features"]:
        assert shapely.geometry.shape(feature["geometry"]).is_valid
    return list(value["features"])


def test_a_ring_of_tiles_is_a_polygon_with_a_hole(cells: Cells) -> None:
    heatmap = cells([1, 1, 1], [1, 0, 1], [1, 1, 1])
    (feature,) = features_of(heatmap_to_contours(heatmap, "attention", [0.5]))
    polygon = shapely.geometry.shape(feature["geometry"])
    assert polygon.equals(shapely.box(0, 0, 770, 840).difference(shapely.box(257, 280, 513, 560)))
    assert [len(ring) for ring in feature["geometry"]["coordinates"]] == [5, 5], "no corners on straight lines"
    measured = feature["properties"]["measurements"]
    assert measured["attention threshold"] == 0.5
    assert measured["area mm2"] == pytest.approx(polygon.area * 0.499 * 0.4571 * 1e-6, rel=1e-5)


def test_tiles_that_touch_at_a_corner_are_two_pieces(cells: Cells) -> None:
    features = features_of(heatmap_to_contours(cells([1, 0], [0, 1]), "attention", [0.5]))
    assert len(features) == 2
    assert len({feature["id"] for feature in features}) == 2


def test_random_maps_have_exactly_the_area_of_their_tiles(make: Callable[..., Heatmap]) -> None:
    heatmap = make()
    heatmap.scores[::17] = np.nan
    high = heatmap.column("attention") >= 0.3
    first = heatmap.grid.coords_l0[high]
    step = np.array(heatmap.grid.step_l0)
    last = np.minimum(np.rint((np.rint(first / step) + 1) * step), heatmap.slide.size_l0)
    whole = contour(heatmap, "attention", 0.3)
    assert whole.is_valid
    assert whole.area == np.prod(last - first, axis=1).sum()
    boxes = shapely.box(first[:, 0], first[:, 1], last[:, 0], last[:, 1])
    assert whole.equals(shapely.union_all(boxes))
    for piece in whole.geoms:
        for ring in (piece.exterior, *piece.interiors):
            sides = np.diff(np.asarray(ring.coords), axis=0)
            straight = (sides != 0) & (np.roll(sides, 1, axis=0) != 0)
            assert not straight.any(), "every corner is one, the first too"


def test_overlapping_tiles_are_averaged_first(make: Callable[..., Heatmap]) -> None:
    """Nine tiles of one among noughts: the middle, where only they are, and nothing as far out as they reach."""
    heatmap = make(np.zeros((len(make(overlap_px=128).grid), 1), np.float32), overlap_px=128)
    place = np.rint(heatmap.grid.coords_l0 / np.array(heatmap.grid.step_l0))
    block = ((place >= 20) & (place <= 24)).all(axis=1)
    heatmap.scores[block] = 1
    first, last = heatmap.grid.coords_l0[block].min(axis=0), heatmap.grid.coords_l0[block].max(axis=0)
    reach = np.array(heatmap.grid.step_l0)
    whole = contour(heatmap, "attention", 0.9)
    assert whole.bounds == pytest.approx((*(first + reach), *(last + reach)), abs=reach.max() / 4)
    assert whole.is_valid


def test_thresholds_are_classes_the_highest_last_and_red(cells: Cells) -> None:
    heatmap = cells([1, 2, 3])
    features = features_of(heatmap_to_contours(heatmap, "attention", [2.5, 0.5, 0.5]))
    classes = [feature["properties"]["classification"] for feature in features]
    assert [one["name"] for one in classes] == ["attention >= 0.5", "attention >= 2.5"]
    assert [one["color"] for one in classes] == [[255, 127, 14], [214, 39, 40]]
    low, high = (shapely.geometry.shape(feature["geometry"]) for feature in features)
    assert low.covers(high)
    assert uuid.UUID(features[0]["id"]).version == 5


def test_a_score_at_the_threshold_is_inside(cells: Cells) -> None:
    assert contour(cells([2]), "attention", 2.0).area == 257 * 280
    assert contour(cells([2]), "attention", 2.0001).is_empty


def test_shares_become_the_score_that_so_many_tiles_reach(make: Callable[..., Heatmap]) -> None:
    heatmap = make(tiles=200)
    heatmap.scores[:100] = np.nan
    tenth, everything = top_thresholds(heatmap, "attention", [0.1, 1.0])
    assert (heatmap.column("attention") >= tenth).sum() == 10
    assert everything == heatmap.scores[100:, 0].min()
    heatmap.scores[:] = np.nan
    assert top_thresholds(heatmap, "attention", [0.1]) == []


def test_no_score_and_no_tile_make_an_empty_collection(make: Callable[..., Heatmap]) -> None:
    heatmap = make()
    nothing = dataclasses.replace(heatmap, grid=heatmap.grid.take(np.arange(0)), scores=heatmap.scores[:0])
    heatmap.scores[:] = np.nan
    for one in (heatmap, nothing):
        assert features_of(heatmap_to_contours(one, "attention", [0.5])) == []


def test_a_threshold_must_be_a_number(make: Callable[..., Heatmap]) -> None:
    with pytest.raises(StageError, match="at nan: a threshold must be a finite number"):
        heatmap_to_contours(make(tiles=3), "attention", [float("nan")])


def test_as_in_the_golden_file(cells: Cells) -> None:
    heatmap = cells([1, 1, 1, 0, 2], [1, 0, 1], [1, 1, 3])
    text = heatmap_to_contours(heatmap, "attention", [0.5, 1.5])
    features_of(text)
    assert text == GOLDEN.read_text(encoding="utf-8")
