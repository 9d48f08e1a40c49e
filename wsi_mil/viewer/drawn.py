"""What a person draws in the browser: checked, and kept as the GeoJSON that `tissue` and `report.truth` read."""

from __future__ import annotations

import json
import math
import shutil
import uuid
from typing import Any

import shapely
from shapely.geometry import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from wsi_mil import files
from wsi_mil.errors import StageError
from wsi_mil.grid import SlideRef
from wsi_mil.layout import id_problem
from wsi_mil.slides import Slide
from wsi_mil.tissue import clipped, outline_from_geojson, outline_to_geojson
from wsi_mil.viewer.cases import ANNOTATIONS, Case, Cohort

MOST_POLYGONS, MOST_CORNERS = 10_000, 200_000
"""Of one request."""

SLIVER = 0.01
"""Share of the largest part of an area below which another part of it is dropped."""

COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233))
"""Okabe and Ito's colours, told apart by all; a class has always the same one."""

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "wsi_mil/annotations")


def save_regions(cohort: Cohort, case: Case, slide: Slide, told: Any) -> int:
    """Keep drawn regions as annotations/SLIDE.geojson and return how many; none removes the file.

    `told` is a list of {"name": class, "rings": [[[x, y], ...], ...]} in level-0 pixels. Raises StageError, naming the
    region, for what is no polygon on the slide.
    """
    regions = [(name, area) for name, areas in _regions(told, slide) for area in areas]
    path = _file(cohort, case)
    if not regions:
        files.remove(path)
        return 0
    features = []
    for name, area in regions:
        geometry = json.loads(shapely.to_geojson(area))
        features.append(
            {
                "type": "Feature",
                "id": str(uuid.uuid5(_NAMESPACE, f"{case.slide} {name} {json.dumps(geometry)}")),
                "geometry": geometry,
                "properties": {
                    "objectType": "annotation",
                    "classification": {"name": name, "color": list(colour_of(name))},
                },
            }
        )
    files.write_text(path, json.dumps({"type": "FeatureCollection", "features": features}) + "\n")
    return len(features)


def edit_tissue(cohort: Cohort, case: Case, slide: Slide, told: Any) -> None:
    """Add areas to the tissue of a slide or take them out, in order, and write tissue/SLIDE.geojson.

    `told` is a list of {"keep": true or false, "rings": ...}. The outline as it was found is kept once, in
    annotations/tissue-before/. Raises StageError where an area is no polygon, or nothing would be left.
    """
    path = cohort.outline_file(case)
    outline: BaseGeometry = MultiPolygon()
    if path.is_file():
        outline = outline_from_geojson(path.read_text(encoding="utf-8"), where=path.name)
    for number, edit in enumerate(_list(told)):
        area = shapely.union_all(_areas(edit, slide, f"edit {number + 1} of slide {case.slide!r}"))
        keep = edit.get("keep")
        if not isinstance(keep, bool):
            raise StageError(f"edit {number + 1} of slide {case.slide!r} does not say whether it keeps tissue")
        outline = shapely.union(outline, area) if keep else shapely.difference(outline, area)
    parts = [part for part in shapely.get_parts(outline) if isinstance(part, Polygon) and part.area > 0]
    if not parts:
        raise StageError(f"slide {case.slide!r} would have no tissue left: keep some of it")
    ref = SlideRef(case.slide, slide.fingerprint, slide.size_l0, (0.0, 0.0), slide.mpp_source)
    before = cohort.root / ANNOTATIONS / "tissue-before" / path.name
    if path.is_file() and not before.exists():
        before.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, before)
    edited = clipped(MultiPolygon(parts), slide=ref, where=f"the tissue of slide {case.slide!r}")
    files.write_text(path, outline_to_geojson(edited, slide=ref))


def colour_of(name: str) -> tuple[int, int, int]:
    """The colour of a class."""
    return COLOURS[int(files.digest(name)[:8], 16) % len(COLOURS)]


def _file(cohort: Cohort, case: Case) -> Any:
    problem = id_problem(case.slide)
    if problem:
        raise StageError(f"slide {case.slide!r} can have no file of its own: its name {problem}")
    return cohort.regions_file(case)


def _regions(told: Any, slide: Slide) -> list[tuple[str, list[Polygon]]]:
    found = []
    for number, region in enumerate(_list(told)):
        name = str(region.get("name", "")).strip()
        if not name or len(name) > 64 or not name.isprintable():
            raise StageError(f"region {number + 1} needs a class of 1 to 64 printable characters")
        found.append((name, _areas(region, slide, f"region {number + 1} ({name!r})")))
    return found


def _list(told: Any) -> list[dict[str, Any]]:
    if not isinstance(told, list) or not all(isinstance(one, dict) for one in told):
        raise StageError("expected a list of areas")
    if len(told) > MOST_POLYGONS:
        raise StageError(f"{len(told)} areas at once: {MOST_POLYGONS} at most")
    return told


def _areas(told: dict[str, Any], slide: Slide, where: str) -> list[Polygon]:
    """The valid polygons of rings, cut to the slide."""
    rings = told.get("rings")
    if not isinstance(rings, list) or not rings or sum(len(ring) for ring in rings) > MOST_CORNERS:
        raise StageError(f"{where} has no rings, or more than {MOST_CORNERS} corners")
    for ring in rings:
        for point in ring:
            numbers = isinstance(point, list) and len(point) == 2 and all(_is_number(value) for value in point)
            if not numbers:
                raise StageError(f"{where} has a corner that is no pair of numbers")
        if len(ring) < 3:
            raise StageError(f"{where} has a ring of {len(ring)} corners: an area needs three")
    area = shapely.make_valid(Polygon(rings[0], rings[1:]))
    inside = shapely.intersection(area, shapely.box(0, 0, *slide.size_l0))
    parts = [part for part in shapely.get_parts(shapely.get_parts(inside)) if isinstance(part, Polygon) and part.area]
    if not parts:
        raise StageError(f"{where} has no area on the slide")
    # Where a stroke crosses itself it leaves slivers, which nobody meant.
    least = SLIVER * max(part.area for part in parts)
    parts = [part for part in parts if part.area >= least]
    return [Polygon(_rounded(part.exterior.coords), [_rounded(one.coords) for one in part.interiors]) for part in parts]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _rounded(coordinates: Any) -> list[tuple[float, float]]:
    """Corners to a hundredth of a pixel, as QuPath writes them."""
    return [(round(x, 2), round(y, 2)) for x, y, *_ in coordinates]
