"""Answers on the slide: scores a tile as one value, and its pictures, pyramids, shapes and tables. No file access."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsi_mil.heatmaps.colours import SCALES, Colouring, Limits, Shared, colouring, score_colours
    from wsi_mil.heatmaps.contours import heatmap_to_contours, top_thresholds
    from wsi_mil.heatmaps.deepzoom import heatmap_to_deepzoom
    from wsi_mil.heatmaps.geojson import heatmap_to_geojson
    from wsi_mil.heatmaps.heatmap import Heatmap, heatmap_from_hdf5, heatmap_to_hdf5
    from wsi_mil.heatmaps.picture import FRAME_KEY, overlay
    from wsi_mil.heatmaps.raster import paint
    from wsi_mil.heatmaps.smooth import smoothed
    from wsi_mil.heatmaps.table import heatmap_to_csv, heatmap_to_h5ad, heatmap_to_parquet
    from wsi_mil.heatmaps.tiff import heatmap_to_ome_tiff, heatmap_to_tiff

_HOME = {
    "SCALES": "colours",
    "Colouring": "colours",
    "Limits": "colours",
    "Shared": "colours",
    "colouring": "colours",
    "score_colours": "colours",
    "heatmap_to_contours": "contours",
    "top_thresholds": "contours",
    "heatmap_to_deepzoom": "deepzoom",
    "heatmap_to_geojson": "geojson",
    "Heatmap": "heatmap",
    "heatmap_from_hdf5": "heatmap",
    "heatmap_to_hdf5": "heatmap",
    "FRAME_KEY": "picture",
    "overlay": "picture",
    "paint": "raster",
    "smoothed": "smooth",
    "heatmap_to_csv": "table",
    "heatmap_to_h5ad": "table",
    "heatmap_to_parquet": "table",
    "heatmap_to_ome_tiff": "tiff",
    "heatmap_to_tiff": "tiff",
}
"""Which file each public name lives in; loaded when first used, since some need h5py, scipy or matplotlib."""

__all__ = [
    "FRAME_KEY",
    "SCALES",
    "Colouring",
    "Heatmap",
    "Limits",
    "Shared",
    "colouring",
    "heatmap_from_hdf5",
    "heatmap_to_contours",
    "heatmap_to_csv",
    "heatmap_to_deepzoom",
    "heatmap_to_geojson",
    "heatmap_to_h5ad",
    "heatmap_to_hdf5",
    "heatmap_to_ome_tiff",
    "heatmap_to_parquet",
    "heatmap_to_tiff",
    "overlay",
    "paint",
    "score_colours",
    "smoothed",
    "top_thresholds",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
