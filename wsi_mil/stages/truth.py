"""Where the lesions are, tile by tile, from a table of tiles or from polygons: read for evaluation and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_mil.cohort import read_table
from wsi_mil.errors import CohortError
from wsi_mil.grid import TileGrid
from wsi_mil.tissue import class_name, outline_from_geojson, tissue_share

INSIDE = 0.5
"""Share of a tile within the polygons from which it counts as lesion."""


class Truth:
    """Truth of tiles: CSV with slide, x, y, label (0 or 1), a folder with a GeoJSON of polygons for each slide, or one
    GeoJSON that is named as its slide."""

    def __init__(self, path: Path, *, of: str = "") -> None:
        """`of` keeps only polygons of that classification. Raises CohortError where the path is neither."""
        if not path.exists():
            raise CohortError(f"{path} is not there: the truth is a table, a folder of GeoJSON, or one SLIDE.geojson")
        self._path, self._of = path, of
        self._single = path.suffix.lower() in (".geojson", ".json")
        self._table = None if path.is_dir() or self._single else _read_labels(path)

    def tiles(self, grid: TileGrid) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
        """For each tile whether it is lesion, and whether that is known; None where the slide has no truth."""
        if self._table is not None:
            known = self._table.get(grid.slide.id)
            if known is None:
                return None
            found = [known.get((int(x), int(y))) for x, y in grid.coords_l0]
            return np.array([bool(one) for one in found]), np.array([one is not None for one in found])
        path = self._path if self._single else self._path / f"{grid.slide.id}.geojson"
        if not path.exists() or path.stem != grid.slide.id:
            return None
        return self._share(path, grid) >= INSIDE, np.ones(len(grid), dtype=bool)

    def _share(self, path: Path, grid: TileGrid) -> NDArray[np.float32]:
        text = path.read_text(encoding="utf-8")
        if self._of:
            features = [one for one in _features(text, path) if class_name(one) == self._of]
            text = json.dumps({"type": "FeatureCollection", "features": features})
            if not features:
                return np.zeros(len(grid), np.float32)
        return tissue_share(outline_from_geojson(text, where=str(path)), grid.coords_l0, grid.extent_l0)


def _features(text: str, path: Path) -> list[dict[str, Any]]:
    """The features of a collection, of a bare list, or one alone: QuPath writes all three."""
    try:
        told = json.loads(text)
    except ValueError as error:
        raise CohortError(f"{path} is no GeoJSON: {error}") from error
    found = told.get("features", [told]) if isinstance(told, dict) else told
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _read_labels(path: Path) -> dict[str, dict[tuple[int, int], bool]]:
    frame = read_table(path)
    lacking = [name for name in ("slide", "x", "y", "label") if name not in frame.columns]
    if lacking:
        raise CohortError(f"{path}: no column {', '.join(lacking)}: the truth of tiles has slide, x, y and label")
    strange = sorted(set(frame["label"]) - {"0", "1"})
    if strange:
        raise CohortError(f"{path}: label {strange[0]!r}: the truth of a tile is 0 or 1")
    known: dict[str, dict[tuple[int, int], bool]] = {}
    for slide, x, y, label in zip(frame["slide"], frame["x"], frame["y"], frame["label"], strict=True):
        known.setdefault(slide, {})[(int(float(x)), int(float(y)))] = label == "1"
    return known
