"""Whole-slide images and slide labels in, trustworthy slide predictions and heatmaps out."""

from wsi_mil.version import __version__

__all__ = ["__version__"]
