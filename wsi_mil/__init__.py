"""Whole-slide images and slide labels in, trustworthy slide predictions and heatmaps out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from wsi_mil.version import __version__ as __version__

if TYPE_CHECKING:
    from wsi_mil.bags import Bag as Bag
    from wsi_mil.bags import read_bag as read_bag
    from wsi_mil.encoders import build_encoder as build_encoder
    from wsi_mil.grid import TileGrid as TileGrid
    from wsi_mil.heatmaps import Heatmap as Heatmap
    from wsi_mil.models import build_model as build_model
    from wsi_mil.slides import Slide as Slide
    from wsi_mil.slides import open_slide as open_slide
    from wsi_mil.training import infer as infer
    from wsi_mil.training import load_checkpoint as load_checkpoint

_ROOMS = {
    "Bag": "bags",
    "Heatmap": "heatmaps",
    "Slide": "slides",
    "TileGrid": "grid",
    "build_encoder": "encoders",
    "build_model": "models",
    "infer": "training",
    "load_checkpoint": "training",
    "open_slide": "slides",
    "read_bag": "bags",
}
"""Public name to the room it lives in; loaded when first asked for, so that importing the package costs nothing."""

__all__ = ["__version__", *sorted(_ROOMS)]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
