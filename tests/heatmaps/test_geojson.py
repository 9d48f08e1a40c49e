"""What QuPath reads: by schema, by shapely, by a golden file, and with everything that breaks it left out."""

from __future__ import annotations

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
from wsi_mil.heatmaps import Heatmap, heatmap_to_geojson
from wsi_mil.heatmaps.geojson import _NAMESPACE

GOLDEN = Path(__file__).parents[1] / "golden" / "heatmap.geojson"

POINT = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
COLOUR = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}, "minItems": 3, "maxItems": 3}
SCHEMA = {
    "type": "object",
    "required": ["type", "features"],
    "properties": {
        "type": {"const": "FeatureCollection"},
        "features": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "id", "geometry", "properties"],
                "additionalProperties": False,
                "properties": {
                    "type": {"const": "Feature"},
                    "id": {"type": "string", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"},
                    "geometry": {
                        "type": "object",
                        "required": ["type", "coordinates"],
                        "properties": {
                            "type": {"const": "Polygon"},
                            "coordinates": {
                                "type": "array",
                                "items": {"type": "array", "items": POINT, "minItems": 5, "maxItems": 5},
                                "minItems": 1,
                                "maxItems": 1,
                            },
                        },
                    },
                    "properties": {
                        "type": "object",
                        "required": ["objectType", "measurements"],
                        "additionalProperties": False,
                        "properties": {
                            "objectType": {"const": "tile"},
                            "name": {"type": "string"},
                            "classification": {
                                "type": "object",
                                "required": ["name", "color"],
                                "properties": {"name": {"type": "string"}, "color": COLOUR},
                            },
                            "measurements": {"type": "object", "additionalProperties": {"type": "number"}},
                            "isLocked": {"type": "boolean"},
                        },
                    },
                },
            },
        },
    },
}


def no_constant(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")


def features_of(text: str) -> list[dict[str, Any]]:
    """The features, after the schema has passed and no NaN was found."""
    value = json.loads(text, parse_constant=no_constant)
    jsonschema.validate(value, SCHEMA)
    return list(value["features"])


def test_every_tile_is_a_valid_square_in_its_place(make: Callable[..., Heatmap]) -> None:
    heatmap = make(tiles=300)
    features = features_of(heatmap_to_geojson(heatmap, name="tile", top="attention"))
    assert len(features) == 300
    width, height = heatmap.slide.size_l0
    for feature, (x, y) in zip(features, heatmap.grid.coords_l0.tolist(), strict=True):
        polygon = shapely.geometry.shape(feature["geometry"])
        assert polygon.is_valid
        right, bottom = min(x + heatmap.grid.extent_l0[0], width), min(y + heatmap.grid.extent_l0[1], height)
        assert polygon.bounds == pytest.approx((x, y, right, bottom), abs=0.006)


def test_tiles_end_at_the_slides_edge(make: Callable[..., Heatmap]) -> None:
    heatmap = make()
    shapes = [shapely.geometry.shape(feature["geometry"]) for feature in features_of(heatmap_to_geojson(heatmap))]
    whole = shapely.union_all([shape.buffer(0.51, join_style="mitre") for shape in shapes])
    width, height = heatmap.slide.size_l0
    assert max(shape.bounds[2] for shape in shapes) == width
    assert max(shape.bounds[3] for shape in shapes) == height
    assert whole.covers(shapely.box(0, 0, width, height)), "nothing of the slide is left out"


def test_measurements_are_the_scores_and_only_numbers(make: Callable[..., Heatmap]) -> None:
    heatmap = make(tiles=5)
    heatmap.scores[1, 0], heatmap.scores[2, 1], heatmap.scores[3] = np.nan, -np.inf, np.nan
    heatmap.scores[4] = 1e-30, 3e30
    told = [feature["properties"]["measurements"] for feature in features_of(heatmap_to_geojson(heatmap))]
    assert [sorted(values) for values in told] == [
        ["attention", "contribution_tumour"], ["contribution_tumour"], ["attention"], [],
        ["attention", "contribution_tumour"],
    ]  # fmt: skip
    for values, scores in zip(told, heatmap.scores, strict=True):
        for name, value in values.items():
            assert np.float32(value) == pytest.approx(scores[heatmap.channels.index(name)], rel=1e-6)


def test_strange_names_stay_inside_their_strings(make: Callable[..., Heatmap]) -> None:
    plain, name = make(tiles=2), 'a"b\\ 100 %s {} \n'
    plain.scores[1, 1] = np.nan
    heatmap = Heatmap(plain.slide, plain.grid, plain.scores, (name, "c"), model="", prediction={})
    for feature in features_of(heatmap_to_geojson(heatmap, name=name, top=name, top_share=1.0)):
        assert feature["properties"]["name"] == name
        assert feature["properties"]["classification"]["name"] == f"High {name}"
        assert name in feature["properties"]["measurements"]


def test_ids_are_uuid5_of_slide_and_place(make: Callable[..., Heatmap]) -> None:
    heatmap = make(tiles=40)
    ids = [feature["id"] for feature in features_of(heatmap_to_geojson(heatmap))]
    assert len(set(ids)) == 40
    assert {uuid.UUID(one).version for one in ids} == {5}
    assert ids[0] == str(uuid.uuid5(_NAMESPACE, f"{'f' * 64} 0.0 0.0 256.51 280.03"))
    other = make(np.zeros((40, 1), np.float32), tiles=40)
    assert [feature["id"] for feature in features_of(heatmap_to_geojson(other))] == ids, "scores do not enter"


def test_the_top_tenth_gets_a_class(make: Callable[..., Heatmap]) -> None:
    heatmap = make(tiles=200)
    heatmap.scores[:20, 0] = np.nan
    features = features_of(heatmap_to_geojson(heatmap, top="attention"))
    high = [index for index, feature in enumerate(features) if "classification" in feature["properties"]]
    assert len(high) == 18
    threshold = heatmap.scores[high, 0].min()
    assert (np.delete(heatmap.scores[20:, 0], np.array(high) - 20) < threshold).all()
    assert features[high[0]]["properties"]["classification"]["name"] == "High attention"
    with pytest.raises(StageError, match="did you mean 'attention'"):
        heatmap_to_geojson(heatmap, top="attentio")
    with pytest.raises(StageError, match=r"top_share is 1\.5"):
        heatmap_to_geojson(heatmap, top_share=1.5)


def test_no_tiles_make_an_empty_collection(make: Callable[..., Heatmap]) -> None:
    heatmap = make()
    none = Heatmap(
        heatmap.slide, heatmap.grid.take(np.arange(0)), heatmap.scores[:0], heatmap.channels, model="", prediction={}
    )
    assert features_of(heatmap_to_geojson(none, top="attention")) == []


def test_as_in_the_golden_file(make: Callable[..., Heatmap]) -> None:
    scores = np.array([[0.5, -1.25], [np.nan, 3.0], [2.0, 1e-7]], np.float32)
    assert heatmap_to_geojson(make(scores, tiles=3), name="tile", top="attention") == GOLDEN.read_text(encoding="utf-8")
