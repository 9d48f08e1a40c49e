"""Vectors on disk: one bag of tile features per slide, its file, and batches of bags for models."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsi_mil.bags.bag import Bag, cells
    from wsi_mil.bags.batch import Batch, collate
    from wsi_mil.bags.export import LAYOUTS, export_bag
    from wsi_mil.bags.foreign import ForeignBag, read_foreign
    from wsi_mil.bags.grid_file import grid_to_hdf5, read_grid
    from wsi_mil.bags.hdf5 import (
        BagHeader,
        bag_to_hdf5,
        read_bag,
        read_header,
        read_quality,
        verify_bag,
    )
    from wsi_mil.bags.imported import Given, import_bag
    from wsi_mil.bags.scales import Scale, beside, coarser_grid, times_coarser
    from wsi_mil.bags.store import BagWriter
    from wsi_mil.bags.stored import Draw, StoredBag

_HOME = {
    "Bag": "bag",
    "cells": "bag",
    "Batch": "batch",
    "collate": "batch",
    "BagHeader": "hdf5",
    "bag_to_hdf5": "hdf5",
    "grid_to_hdf5": "grid_file",
    "read_bag": "hdf5",
    "read_grid": "grid_file",
    "read_header": "hdf5",
    "read_quality": "hdf5",
    "verify_bag": "hdf5",
    "BagWriter": "store",
    "Draw": "stored",
    "StoredBag": "stored",
    "LAYOUTS": "export",
    "export_bag": "export",
    "ForeignBag": "foreign",
    "read_foreign": "foreign",
    "Given": "imported",
    "import_bag": "imported",
    "Scale": "scales",
    "beside": "scales",
    "coarser_grid": "scales",
    "times_coarser": "scales",
}
"""Which file each public name lives in; loaded when first used, since some of them need torch or h5py."""

__all__ = [
    "LAYOUTS",
    "Bag",
    "BagHeader",
    "BagWriter",
    "Batch",
    "Draw",
    "ForeignBag",
    "Given",
    "Scale",
    "StoredBag",
    "bag_to_hdf5",
    "beside",
    "cells",
    "coarser_grid",
    "collate",
    "export_bag",
    "grid_to_hdf5",
    "import_bag",
    "read_bag",
    "read_foreign",
    "read_grid",
    "read_header",
    "read_quality",
    "times_coarser",
    "verify_bag",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
