"""Slides and their heatmaps in a browser: a local server, its static page, and a folder that opens without one."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsi_mil.viewer.cases import Case, Cohort, read_cases
    from wsi_mil.viewer.export import export_viewer
    from wsi_mil.viewer.listen import Address, address_of, new_token, serve
    from wsi_mil.viewer.server import make_app

_HOME = {
    "Case": "cases",
    "Cohort": "cases",
    "read_cases": "cases",
    "export_viewer": "export",
    "Address": "listen",
    "address_of": "listen",
    "serve": "listen",
    "new_token": "listen",
    "make_app": "server",
}
"""Which file each public name lives in; loaded when first used, since the server's libraries are an extra."""

__all__ = ["Address", "Case", "Cohort", "address_of", "export_viewer", "make_app", "new_token", "read_cases", "serve"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
