"""Tissue as polygons in level-0 pixels: from a mask, to and from the GeoJSON that QuPath edits, onto a picture."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
import shapely
from jaxtyping import Bool, UInt8
from shapely.geometry import MultiPolygon, Polygon, shape
from shapely.geometry.base import BaseGeometry

from wsi_mil.errors import SlideError
from wsi_mil.grid import SlideRef
from wsi_mil.tissue.trace import borders

TISSUE_COLOUR = (0, 160, 70)

DECIMALS = 2
"""Of a level-0 pixel in GeoJSON: a few nanometres."""

SMOOTHING_PX = 0.3
"""How far, in mask pixels, a line may be moved to save corners: less than half the least distance of two contours, so
that each may be simplified alone (which is many times faster than all together) and none meets another."""

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "wsi_mil/tissue")


def whole_slide(slide: SlideRef) -> MultiPolygon:
    """The outline of a slide that is tissue from edge to edge."""
    width, height = slide.size_l0
    return MultiPolygon([shapely.box(0, 0, width, height)])


def mask_to_outline(mask: Bool[np.ndarray, "h w"], downsample: tuple[float, float]) -> MultiPolygon:
    """The outline, with holes, of the true pixels; `downsample` is level-0 pixels per mask pixel (x, y)."""
    found = borders(mask)
    if not len(found.line):
        return MultiPolygon()
    # Of the mask, pixel (0, 0) has its centre at (0.5, 0.5).
    closed = shapely.linearrings(found.corners + 0.5, indices=found.line)
    rings: Any = shapely.simplify(closed, SMOOTHING_PX)
    holes: dict[int, list[Any]] = {}
    for number in np.flatnonzero(~found.is_outside):
        holes.setdefault(int(found.piece[number]), []).append(rings[number])
    outside = np.flatnonzero(found.is_outside)
    pieces = [Polygon(rings[number], holes.get(int(found.piece[number]))) for number in outside]
    return _polygons(shapely.transform(MultiPolygon(pieces), lambda xy: xy * np.array(downsample)))


def outline_to_geojson(outline: MultiPolygon, *, slide: SlideRef) -> str:
    """The outline as a GeoJSON FeatureCollection that QuPath opens: one annotation of class Tissue a piece."""
    features = []
    for polygon in outline.geoms:
        rings = [_ring(ring) for ring in (polygon.exterior, *polygon.interiors)]
        geometry = {"type": "Polygon", "coordinates": rings}
        # The same slide and place give the same id, so that two runs write the same file.
        name = f"{slide.fingerprint} {json.dumps(geometry)}"
        features.append(
            {
                "type": "Feature",
                "id": str(uuid.uuid5(_NAMESPACE, name)),
                "geometry": geometry,
                "properties": {
                    "objectType": "annotation",
                    "classification": {"name": "Tissue", "color": list(TISSUE_COLOUR)},
                },
            }
        )
    return json.dumps({"type": "FeatureCollection", "features": features}, indent=None) + "\n"


def outline_from_geojson(text: str, *, where: str) -> MultiPolygon:
    """The union of all areas in a GeoJSON, as this package or QuPath wrote it.

    A collection, a bare list of features or geometries, or one of them. Areas that touch or cross themselves are made
    valid. Raises SlideError, naming `where`, for text that is no GeoJSON and for points and lines, which have no area.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise SlideError(f"{where} is not GeoJSON: {error}") from None
    areas = [_area(geometry, where) for geometry in _geometries(value, where)]
    return _polygons(shapely.union_all(areas)) if areas else MultiPolygon()


def class_name(feature: Mapping[str, Any]) -> str:
    """The class of a GeoJSON feature, or ""; QuPath shows the `names` of derived classes with colons between."""
    properties = feature.get("properties")
    told = properties.get("classification") if isinstance(properties, dict) else None
    if isinstance(told, dict):
        return str(told.get("name") or ": ".join(map(str, told.get("names") or [])))
    return str(told or "")


def clipped(outline: MultiPolygon, *, slide: SlideRef, where: str) -> MultiPolygon:
    """The part of an outline that lies on the slide.

    Raises SlideError, naming `where`, for an outline without area and for one that lies elsewhere: its coordinates are
    then another image's, or not level-0 pixels.
    """
    if outline.is_empty:
        raise SlideError(f"{where} holds no area: draw at least one polygon, or remove the file")
    inside = _polygons(shapely.intersection(outline, whole_slide(slide)))
    if inside.is_empty:
        low_x, low_y, high_x, high_y = outline.bounds
        raise SlideError(
            f"{where} lies outside the {slide.size_l0[0]} x {slide.size_l0[1]} pixels of slide {slide.id!r} (its areas "
            f"span x {low_x:.0f} to {high_x:.0f}, y {low_y:.0f} to {high_y:.0f}): coordinates are level-0 pixels"
        )
    return inside


def overlap(outline: MultiPolygon, regions: MultiPolygon) -> MultiPolygon:
    """What two outlines have in common."""
    return _polygons(shapely.intersection(outline, regions))


def draw_outline(
    rgb: UInt8[np.ndarray, "h w 3"], outline: MultiPolygon, downsample: tuple[float, float]
) -> UInt8[np.ndarray, "h w 3"]:
    """A copy of a picture with the outline drawn on it in green; `downsample` is level-0 pixels per picture pixel."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(rgb)
    draw = ImageDraw.Draw(picture)
    width = max(2, round(max(picture.size) / 350))
    for polygon in outline.geoms:
        for ring in (polygon.exterior, *polygon.interiors):
            places = np.asarray(ring.coords)[:, :2] / np.array(downsample) - 0.5
            draw.line([(float(x), float(y)) for x, y in places], fill=TISSUE_COLOUR, width=width, joint="curve")
    return np.asarray(picture)


def _ring(ring: Any) -> list[list[float]]:
    return [[round(float(x), DECIMALS), round(float(y), DECIMALS)] for x, y in np.asarray(ring.coords)[:, :2]]


def _geometries(value: Any, where: str) -> list[dict[str, Any]]:
    """The geometries in any of the forms a GeoJSON takes."""
    if isinstance(value, list):
        return [geometry for item in value for geometry in _geometries(item, where)]
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "FeatureCollection":
        return _geometries(value.get("features") or [], where)
    if kind == "Feature":
        return _geometries(value["geometry"], where) if value.get("geometry") else []
    if kind == "GeometryCollection":
        return _geometries(value.get("geometries") or [], where)
    if kind in ("Polygon", "MultiPolygon"):
        return [value]
    raise SlideError(
        f"{where} holds {f'a {kind}' if isinstance(kind, str) else 'something that is no geometry'}, which has no "
        f"area: an outline is made of Polygons and MultiPolygons"
    )


def _area(geometry: dict[str, Any], where: str) -> BaseGeometry:
    try:
        with np.errstate(invalid="ignore"):  # said below, in words
            area = shape(geometry)
        is_finite = bool(np.isfinite(shapely.get_coordinates(area)).all())
    except (ValueError, TypeError, KeyError, IndexError, shapely.errors.ShapelyError) as error:
        raise SlideError(f"{where} holds a {geometry['type']} that is broken: {error}") from None
    if not is_finite:
        raise SlideError(f"{where} holds a {geometry['type']} with a coordinate that is no number")
    return shapely.make_valid(shapely.force_2d(area))


def _polygons(geometry: BaseGeometry) -> MultiPolygon:
    """The areas in a geometry, whatever else making it valid left there."""
    if not geometry.is_valid:
        geometry = shapely.make_valid(geometry)
    parts = shapely.get_parts(shapely.get_parts(geometry))
    return MultiPolygon([part for part in parts if isinstance(part, Polygon) and part.area > 0])
