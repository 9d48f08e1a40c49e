"""Pixels to vectors: encoders, the contract each one states, and the table of names they go by."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsi_mil.encoders.catalogue import ENCODERS, build_encoder
    from wsi_mil.encoders.device import choose_device, limit_threads
    from wsi_mil.encoders.encoder import Encoder
    from wsi_mil.encoders.macenko import StainMap, draw_jitter, fit_macenko
    from wsi_mil.encoders.offline import OfflineEncoder
    from wsi_mil.encoders.timm_hub import TimmEncoder

_HOME = {
    "ENCODERS": "catalogue",
    "build_encoder": "catalogue",
    "choose_device": "device",
    "limit_threads": "device",
    "Encoder": "encoder",
    "StainMap": "macenko",
    "draw_jitter": "macenko",
    "fit_macenko": "macenko",
    "OfflineEncoder": "offline",
    "TimmEncoder": "timm_hub",
}
"""Which file each public name lives in; loaded when first used, since all of them need torch."""

__all__ = [
    "ENCODERS",
    "Encoder",
    "OfflineEncoder",
    "StainMap",
    "TimmEncoder",
    "build_encoder",
    "choose_device",
    "draw_jitter",
    "fit_macenko",
    "limit_threads",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
