"""Where things lie on a synthetic slide: tissue, lesions, benign patches, folds, pen and dust, as areas."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
import shapely.ops
from shapely.geometry import LineString, Point, Polygon, mapping
from shapely.geometry.base import BaseGeometry

LESION_SHARE = (0.02, 0.15)
"""Least and greatest part of the tissue that the lesions of a positive slide take together."""

PEN_COLOURS = ((28, 120, 92), (45, 100, 200), (200, 25, 40), (38, 36, 42))

GLASS_MARGIN_PX = 150
"""Between tissue and the slide's edge."""

Rng = np.random.Generator


@dataclass(frozen=True)
class Scene:
    """What is to be drawn, as areas in level-0 pixels."""

    size: tuple[int, int]
    tissue: BaseGeometry
    lesions: Sequence[Polygon] = ()
    patches: Sequence[BaseGeometry] = ()
    """Dense benign patches of small nuclei: on slides of either label."""
    folds: Sequence[BaseGeometry] = ()
    pens: Sequence[tuple[BaseGeometry, tuple[int, int, int]]] = ()
    dust: Sequence[Polygon] = ()

    @property
    def lesion_share(self) -> float:
        """Part of the tissue that is lesion."""
        return float(sum(lesion.area for lesion in self.lesions) / self.tissue.area)


def draw_scene(rng: Rng, side_px: tuple[int, int], *, is_positive: bool, artefact: int) -> Scene:
    """A slide with sides in a range; `artefact` 0 has pen on it, 1 a fold, any other neither."""
    width, height = (int(rng.integers(side_px[0], side_px[1] + 1)) for _ in range(2))
    tissue = _tissue(rng, width, height)
    lesions: list[Polygon] = []
    scene = Scene((width, height), tissue)
    while is_positive and not LESION_SHARE[0] <= scene.lesion_share <= LESION_SHARE[1]:
        share, count = rng.uniform(0.04, 0.13), int(rng.integers(1, 4))
        lesions = []
        for _ in range(count):
            free = tissue.difference(shapely.union_all(lesions).buffer(60)) if lesions else tissue
            area = _blob_inside(rng, free, math.sqrt(share / count * tissue.area / math.pi))
            lesions += [area] if isinstance(area, Polygon) and not area.is_empty else []
        scene = Scene((width, height), tissue, lesions)
    quiet = tissue.difference(shapely.union_all(lesions).buffer(40)) if lesions else tissue
    radius = 0.04 * math.sqrt(tissue.area)
    patches = [_blob_inside(rng, quiet, rng.uniform(0.6, 1.6) * radius) for _ in range(int(rng.integers(0, 5)))]
    folds = [_fold(rng, quiet)] if artefact == 1 else []
    pens = [_pen(rng, tissue, width, height)] if artefact == 0 else []
    dust = [
        _blob(rng, (rng.uniform(0, width), rng.uniform(0, height)), rng.uniform(3, 14))
        for _ in range(rng.integers(4, 12))
    ]
    return Scene((width, height), tissue, lesions, patches, folds, pens, dust)


def _tissue(rng: Rng, width: int, height: int) -> BaseGeometry:
    """One or two pieces with a few holes."""
    pieces = int(rng.integers(1, 3))
    step = width / pieces
    radius = 0.36 * min(step, height) if pieces == 1 else 0.34 * min(step * 1.1, height)
    blobs = [
        _blob(rng, ((piece + 0.5) * step, height / 2), radius, stretch=(1, min(1.5, 0.42 * height / radius)))
        for piece in range(pieces)
    ]
    inside = shapely.box(0, 0, width, height).buffer(-GLASS_MARGIN_PX)
    tissue = shapely.intersection(shapely.union_all(blobs), inside)
    holes = [_blob_inside(rng, tissue, rng.uniform(0.05, 0.14) * radius) for _ in range(int(rng.integers(1, 5)))]
    return tissue.difference(shapely.union_all(holes))


def _blob(rng: Rng, centre: tuple[float, float], radius: float, stretch: tuple[float, float] = (1, 1)) -> Polygon:
    """A closed, wavy curve around a point."""
    angle = np.linspace(0, 2 * np.pi, 160, endpoint=False)
    wave = sum(
        rng.uniform(0, 0.22 / order) * np.cos(order * angle + rng.uniform(0, 2 * np.pi)) for order in range(2, 8)
    )
    reach = radius * (1 + wave)
    x = centre[0] + stretch[0] * reach * np.cos(angle)
    y = centre[1] + stretch[1] * reach * np.sin(angle)
    return Polygon(np.stack([x, y], axis=1)).buffer(0)


def _blob_inside(rng: Rng, area: BaseGeometry, radius: float) -> BaseGeometry:
    """A blob whose centre lies well inside an area, cut to it; the largest piece."""
    core: BaseGeometry = area.buffer(-radius)
    core = core if not core.is_empty else area.buffer(-radius / 3)
    core = core if not core.is_empty else area
    low_x, low_y, high_x, high_y = core.bounds
    while not core.contains(centre := Point(rng.uniform(low_x, high_x), rng.uniform(low_y, high_y))):
        pass
    blob = _blob(rng, (centre.x, centre.y), radius)
    return max(shapely.get_parts(shapely.intersection(blob, area)), key=lambda part: part.area)


def _fold(rng: Rng, area: BaseGeometry) -> BaseGeometry:
    """A band across the tissue where it lies double."""
    low_x, low_y, high_x, high_y = area.bounds
    width, height = high_x - low_x, high_y - low_y
    band: BaseGeometry = Polygon()
    while band.area < 20 * height:
        x = low_x + width * rng.uniform(0.2, 0.8) + np.cumsum(rng.normal(0, 0.02 * width, 12))
        line = LineString(np.stack([x, low_y + height * np.linspace(0, 1, 12)], axis=1))
        band = line.buffer(rng.uniform(22, 40)).intersection(area)
    return band


def _pen(rng: Rng, tissue: BaseGeometry, width: int, height: int) -> tuple[BaseGeometry, tuple[int, int, int]]:
    """A stroke of marker along the edge of the largest piece, a little of it on the tissue."""
    piece = max(shapely.get_parts(tissue), key=lambda part: part.area)
    ring = piece.buffer(rng.uniform(70, 110)).exterior
    start = rng.uniform(0, 0.6)
    stroke = shapely.ops.substring(ring, start, start + rng.uniform(0.2, 0.4), normalized=True)
    ink = stroke.buffer(rng.uniform(80, 110)).intersection(shapely.box(0, 0, width, height))
    return ink, PEN_COLOURS[int(rng.integers(len(PEN_COLOURS)))]


TRUTH_COLOURS = {"Tissue": (38, 166, 91), "Lesion": (200, 0, 0), "Pen": (45, 100, 200), "Fold": (140, 140, 140)}
"""Of the classes of the truth: QuPath opens no classification without a colour."""


def truth_geojson(scene: Scene) -> str:
    """The areas of a scene as a GeoJSON FeatureCollection of classes Tissue, Lesion, Pen and Fold, level-0 pixels."""
    named = [("Tissue", scene.tissue), *(("Lesion", area) for area in scene.lesions)]
    named += [("Pen", area) for area, _ in scene.pens] + [("Fold", area) for area in scene.folds]
    features = [
        {
            "type": "Feature",
            "geometry": mapping(shapely.set_precision(area, 0.01)),
            "properties": {"objectType": "annotation", "classification": {"name": name, "color": TRUTH_COLOURS[name]}},
        }
        for name, area in named
        if not area.is_empty
    ]
    return json.dumps({"type": "FeatureCollection", "features": features}) + "\n"
