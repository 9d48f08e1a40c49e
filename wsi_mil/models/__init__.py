"""How a bag is read: every aggregator behind one interface, ragged and padded alike."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsi_mil.models.abmil import ABMIL as ABMIL
    from wsi_mil.models.aggregator import Aggregator as Aggregator
    from wsi_mil.models.aggregator import Clinical as Clinical
    from wsi_mil.models.aggregator import Padded as Padded
    from wsi_mil.models.aggregator import Pooled as Pooled
    from wsi_mil.models.mil import MIL as MIL
    from wsi_mil.models.mil import MODELS as MODELS
    from wsi_mil.models.mil import ModelSpec as ModelSpec
    from wsi_mil.models.mil import build_model as build_model
    from wsi_mil.models.pooling import MaxPool as MaxPool
    from wsi_mil.models.pooling import MeanPool as MeanPool

# torch takes a second to load: it is loaded with the first name that needs it.
_FILES = {
    "ABMIL": "abmil",
    "Aggregator": "aggregator",
    "Clinical": "aggregator",
    "MIL": "mil",
    "MODELS": "mil",
    "MaxPool": "pooling",
    "MeanPool": "pooling",
    "ModelSpec": "mil",
    "Padded": "aggregator",
    "Pooled": "aggregator",
    "build_model": "mil",
}
__all__ = sorted(_FILES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
