"""Pixels to vectors: encoders, the contract each one states, and the table of names they go by."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsi_mil.encoders.batch_size import choose_batch_tiles
    from wsi_mil.encoders.build import build_encoder, entry_of, from_entry, module_encoder, where_installed
    from wsi_mil.encoders.catalogue import CATALOGUE
    from wsi_mil.encoders.device import choose_device, limit_threads, lone_threads
    from wsi_mil.encoders.encoder import Encoder
    from wsi_mil.encoders.entry import Entry
    from wsi_mil.encoders.golden import Comparison, Golden, compare, embed, golden_of, load_golden, save_golden
    from wsi_mil.encoders.macenko import StainMap, draw_jitter, fit_macenko
    from wsi_mil.encoders.network import NetworkEncoder, Transform
    from wsi_mil.encoders.offline import OfflineEncoder
    from wsi_mil.encoders.records import weights_folder
    from wsi_mil.encoders.slide_encoder import SLIDE_ENCODERS, SlideEncoder, build_slide_encoder
    from wsi_mil.encoders.staging import HANDS

_HOME = {
    "CATALOGUE": "catalogue",
    "HANDS": "staging",
    "choose_batch_tiles": "batch_size",
    "build_encoder": "build",
    "entry_of": "build",
    "from_entry": "build",
    "module_encoder": "build",
    "choose_device": "device",
    "limit_threads": "device",
    "lone_threads": "device",
    "Encoder": "encoder",
    "StainMap": "macenko",
    "draw_jitter": "macenko",
    "fit_macenko": "macenko",
    "Entry": "entry",
    "Comparison": "golden",
    "Golden": "golden",
    "compare": "golden",
    "embed": "golden",
    "golden_of": "golden",
    "load_golden": "golden",
    "save_golden": "golden",
    "NetworkEncoder": "network",
    "OfflineEncoder": "offline",
    "SLIDE_ENCODERS": "slide_encoder",
    "SlideEncoder": "slide_encoder",
    "build_slide_encoder": "slide_encoder",
    "weights_folder": "records",
    "where_installed": "build",
    "Transform": "network",
}
"""Which file each public name lives in; loaded when first used, since all of them need torch."""

__all__ = [
    "CATALOGUE",
    "HANDS",
    "SLIDE_ENCODERS",
    "Comparison",
    "Encoder",
    "Entry",
    "Golden",
    "NetworkEncoder",
    "OfflineEncoder",
    "StainMap",
    "SlideEncoder",
    "Transform",
    "build_encoder",
    "build_slide_encoder",
    "choose_batch_tiles",
    "choose_device",
    "compare",
    "draw_jitter",
    "embed",
    "entry_of",
    "fit_macenko",
    "from_entry",
    "golden_of",
    "limit_threads",
    "load_golden",
    "lone_threads",
    "module_encoder",
    "save_golden",
    "weights_folder",
    "where_installed",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
