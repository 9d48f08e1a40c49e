"""What lies over a slide, as a browser takes it: scores of tiles, contours, colour tables."""

from __future__ import annotations

import base64
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from wsi_mil.errors import ScaleError, StageError
from wsi_mil.heatmaps import Heatmap, heatmap_from_hdf5
from wsi_mil.tissue import class_name
from wsi_mil.viewer.cases import Case, Cohort
from wsi_mil.viewer.handles import Opened

COLOUR_MAPS = {
    "viridis": "viridis",
    "cividis": "cividis",
    "inferno": "inferno",
    "blue-red": "RdBu_r",
    "purple-orange": "PuOr_r",
    "brown-teal": "BrBG",
}
"""Even to the eye and safe for the colour-blind, by the names shown; the last three are for signed scores."""

DIVERGING = ("blue-red", "purple-orange", "brown-teal")

PLACE = re.compile(r"[/\\].*[/\\]|^['\"(]*/|[A-Za-z]:\\")
"""A word that looks like a path: two separators, or one in front."""

MOST_TEXT_BYTES = 64 << 20
"""Largest GeoJSON that is read."""


def case_list(cohort: Cohort) -> dict[str, Any]:
    """The slides with what is said of them. No path, patient or property of a file is in it."""
    cases = []
    for case in cohort.cases.values():
        told = {
            model: {
                "predicted": one.predicted,
                "probabilities": one.probabilities,
                "calibrated": one.calibrated,
                "disagreement": one.disagreement,
                "flags": one.flags,
                "note": without_places(one.note),
            }
            for model, one in case.predictions.items()
        }
        cases.append(
            {
                "key": case.key,
                "slide": case.slide,
                "label": case.label,
                "flags": case.flags,
                "predictions": told,
                "maps": list(case.maps),
                "has_truth": cohort.truth_file(case) is not None,
            }
        )
    return {"models": cohort.models, "cases": cases}


def without_places(text: str) -> str:
    """A sentence with the names of files in it, and not where they lie on the disk."""
    return " ".join(
        part.replace("\\", "/").rsplit("/", 1)[-1] if PLACE.search(part) else part for part in text.split(" ")
    )


def slide_told(cohort: Cohort, case: Case, opened: Opened) -> dict[str, Any]:
    """Size, scale (micrometres per level-0 pixel, or null), levels from coarse to fine, and the polygons over it."""
    slide = opened.slide
    mpp: list[float] | None
    try:
        mpp = list(slide.mpp)
    except ScaleError:
        mpp = _scale_of_maps(case)
    levels = [
        {"downsample": one.downsample[0], "tile": one.tile, "grid": one.grid, "size": (one.width, one.height)}
        for one in reversed(opened.levels)
    ]
    return {
        "key": case.key,
        "slide": case.slide,
        "size": slide.size_l0,
        "mpp": mpp,
        "levels": levels,
        "tissue": polygons(cohort.outline_file(case)),
        "truth": polygons(cohort.truth_file(case)),
        "regions": polygons(cohort.regions_file(case)),
    }


def map_told(heatmap: Heatmap) -> dict[str, Any]:
    """What a map is, without its numbers."""
    return {
        "model": heatmap.model,
        "channels": [{"name": name, "kind": heatmap.kinds.get(name, "")} for name in heatmap.channels],
        "tiles": len(heatmap.grid),
        "extent": heatmap.grid.extent_l0,
        "step": heatmap.grid.step_l0,
        "prediction": heatmap.prediction,
    }


def places(heatmap: Heatmap) -> bytes:
    """x and y of each tile in level-0 pixels, as int32, little-endian."""
    return np.ascontiguousarray(heatmap.grid.coords_l0, dtype="<i4").tobytes()


def channel(heatmap: Heatmap, number: int) -> bytes:
    """Scores of one channel as float32, little-endian, NaN where there is none. Raises IndexError for no channel."""
    if not 0 <= number < len(heatmap.channels):
        raise IndexError(f"no channel {number} of {len(heatmap.channels)}")
    return np.ascontiguousarray(heatmap.scores[:, number], dtype="<f4").tobytes()


def read_map(case: Case, model: str) -> Heatmap:
    """The map of a model. Raises KeyError where there is none, StageError where its file is broken."""
    path = case.maps[model]
    return _read_map(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _read_map(path: Path, changed_ns: int) -> Heatmap:
    return heatmap_from_hdf5(path.read_bytes())


def _scale_of_maps(case: Case) -> list[float] | None:
    for model in case.maps:
        mpp = read_map(case, model).slide.mpp
        if all(mpp):
            return list(mpp)
    return None


def polygons(path: Path | None) -> list[dict[str, Any]]:
    """Areas of a GeoJSON with the name of their class: rings of level-0 pixels. Empty where there is no file.

    Raises StageError where the file is no GeoJSON or too large to show.
    """
    if path is None or not path.is_file():
        return []
    if path.stat().st_size > MOST_TEXT_BYTES:
        raise StageError(f"{path.name} has more than {MOST_TEXT_BYTES >> 20} MiB of polygons: too much to show")
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StageError(f"{path.name} is not GeoJSON: {error}") from None
    features = told.get("features", [told]) if isinstance(told, dict) else told
    found = []
    for feature in features if isinstance(features, list) else []:
        geometry = feature.get("geometry", feature) if isinstance(feature, dict) else None
        found += [{"name": _class_name(feature), "rings": rings} for rings in _rings(geometry)]
    return found


def _rings(geometry: Any) -> list[Any]:
    if not isinstance(geometry, dict):
        return []
    if geometry.get("type") == "GeometryCollection":
        return [rings for one in geometry.get("geometries", []) for rings in _rings(one)]
    coordinates = geometry.get("coordinates", [])
    return {"Polygon": [coordinates], "MultiPolygon": coordinates}.get(str(geometry.get("type")), [])


def _class_name(feature: dict[str, Any]) -> str:
    """The class alone: names and metadata that QuPath keeps of an object may be a person's words."""
    return re.sub(r"\s+", " ", class_name(feature))[:64]


@lru_cache(maxsize=1)
def colour_tables() -> dict[str, Any]:
    """256 colours of each map as base64 of RGB bytes, and which maps have a middle."""
    tables = {shown: base64.b64encode(_table(name).tobytes()).decode() for shown, name in COLOUR_MAPS.items()}
    return {"tables": tables, "diverging": DIVERGING}


def _table(name: str) -> UInt8[np.ndarray, "256 3"]:
    import matplotlib

    return np.asarray(np.rint(matplotlib.colormaps[name](np.linspace(0, 1, 256))[:, :3] * 255), dtype=np.uint8)
