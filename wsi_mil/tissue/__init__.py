"""Which pixels of a slide are worth reading: mask, outline, and the share of each tile that is tissue."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsi_mil.tissue.mask import METHODS, TissueFound, find_tissue, tidied
    from wsi_mil.tissue.network import TissueNetwork, load_network
    from wsi_mil.tissue.outline import (
        class_name,
        clipped,
        draw_outline,
        mask_to_outline,
        outline_from_geojson,
        outline_to_geojson,
        overlap,
        whole_slide,
    )
    from wsi_mil.tissue.pen import find_pen
    from wsi_mil.tissue.quality import COLOURS, MEASURES, measure_tiles
    from wsi_mil.tissue.share import tissue_share

__all__ = [
    "COLOURS",
    "MEASURES",
    "METHODS",
    "TissueFound",
    "TissueNetwork",
    "class_name",
    "clipped",
    "draw_outline",
    "find_pen",
    "find_tissue",
    "load_network",
    "mask_to_outline",
    "measure_tiles",
    "outline_from_geojson",
    "outline_to_geojson",
    "overlap",
    "tidied",
    "tissue_share",
    "whole_slide",
]

_HOME = {
    "METHODS": "mask",
    "TissueFound": "mask",
    "tidied": "mask",
    "TissueNetwork": "network",
    "load_network": "network",
    "class_name": "outline",
    "clipped": "outline",
    "find_tissue": "mask",
    "find_pen": "pen",
    "COLOURS": "quality",
    "MEASURES": "quality",
    "measure_tiles": "quality",
    "tissue_share": "share",
    "draw_outline": "outline",
    "mask_to_outline": "outline",
    "outline_from_geojson": "outline",
    "outline_to_geojson": "outline",
    "overlap": "outline",
    "whole_slide": "outline",
}


def __getattr__(name: str) -> Any:
    """Load a part when it is first asked for: scikit-image and shapely take longer than `--help` may."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
