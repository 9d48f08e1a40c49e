"""A folder that opens from disk: the page, and each slide as a script, since such pages may not fetch."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from wsi_mil import files
from wsi_mil.errors import SlideError, StageError, unknown
from wsi_mil.geometry import Box
from wsi_mil.heatmaps import Heatmap
from wsi_mil.viewer import layers
from wsi_mil.viewer.cases import Case, Cohort
from wsi_mil.viewer.handles import Handles
from wsi_mil.viewer.listen import LIBRARY, require_library
from wsi_mil.viewer.pyramid import crop_jpeg

MODULES = ("source.js", "heat.js", "pane.js", "cases.js", "tools.js", "picture.js", "side.js", "main.js")
"""In an order in which each finds what it imports; as one script, for pages from disk may not load modules."""

TILES_SHOWN, THUMB_PX = 6, 112
"""Highest and lowest tiles of each layer that come along, as the page asks for them."""

QUALITY = 60
"""Of WebP. On slides of the demo it takes 48 % of the JPEG (85) that the server sends; JPEG would take 63 % at 60."""

EMPTY_STYLE = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
"""Digest of nothing, as in the server's policy."""

CONTENT_POLICY = (
    f"default-src 'none'; script-src 'self' file:; style-src 'self' file: {EMPTY_STYLE}; img-src data: blob: file:"
)


@dataclass
class Exported:
    """What was written."""

    slides: int = 0
    bytes: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    """Slides that could not be read, and why."""


def export_viewer(
    cohort: Cohort, folder: Path, *, only: Sequence[str] = (), max_px: int = 2048, quality: int = QUALITY
) -> Exported:
    """Write the page with all slides, or `only` some, the longest side of each at most `max_px` pixels.

    `quality` is that of WebP, 1 to 100: pictures of the slides are nearly all that the folder weighs.
    Raises StageError where the folder exists, or a slide of `only` is not in the cohort, or none can be read.
    """
    if folder.exists():
        raise StageError(f"{folder} exists already: name a folder to be made")
    known = {case.slide: case for case in cohort.cases.values()}
    for slide in only:
        if slide not in known:
            raise StageError(unknown("slide", slide, known))
    cases = [known[slide] for slide in only] or list(known.values())
    told, handles, written = Exported(), Handles(), []
    library = require_library()
    with files.drafted(folder) as draft:
        (draft / "static").mkdir(parents=True)
        (draft / "data").mkdir()
        for case in cases:
            try:
                data = _slide_script(cohort, case, handles, max_px=max_px, quality=quality)
            except SlideError as error:
                told.left_out[case.slide] = str(error)
                continue
            (draft / "data" / f"{case.key}.js").write_text(data, encoding="utf-8")
            written.append(case)
        if not written:
            raise StageError(f"not one slide can be read; {next(iter(told.left_out.items()))}")
        _write_page(draft, replace(cohort, cases={case.key: case for case in written}), library)
        told.bytes = sum(path.stat().st_size for path in draft.rglob("*") if path.is_file())
    handles.close()
    told.slides = len(written)
    return told


def bundled() -> str:
    """The page's modules as one script: imports dropped, exports made plain. Top-level names differ."""
    folder = resources.files("wsi_mil.viewer") / "static"
    parts = []
    for name in MODULES:
        text = (folder / name).read_text(encoding="utf-8")
        text = re.sub(r"^import [^;]*;\n", "", text, flags=re.MULTILINE)
        parts.append(re.sub(r"^export ", "", text, flags=re.MULTILINE))
    return '"use strict";\n(() => {\n' + "\n".join(parts) + "})();\n"


def _write_page(draft: Path, cohort: Cohort, library: str) -> None:
    folder = resources.files("wsi_mil.viewer") / "static"
    page = (folder / "index.html").read_text(encoding="utf-8")
    policy = f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_POLICY}">'
    page = page.replace('<meta charset="utf-8">', f'<meta charset="utf-8">\n{policy}')
    script = '<script type="module" src="static/main.js"></script>'
    page = page.replace(script, '<script src="data/cohort.js"></script>\n<script src="static/viewer.js"></script>')
    (draft / "index.html").write_text(page, encoding="utf-8")
    (draft / "static" / LIBRARY).write_text(library, encoding="utf-8")
    for name in ("viewer.css", "openseadragon.LICENSE.txt"):
        (draft / "static" / name).write_bytes((folder / name).read_bytes())
    (draft / "static" / "viewer.js").write_text(bundled(), encoding="utf-8")
    told = {"cases": layers.case_list(cohort), "colours": layers.colour_tables(), "slides": {}}
    (draft / "data" / "cohort.js").write_text(f"window.WSI_MIL = {_script(told)};\n", encoding="utf-8")


def _slide_script(cohort: Cohort, case: Case, handles: Handles, *, max_px: int, quality: int) -> str:
    opened = handles.get(case)
    told = layers.slide_told(cohort, case, opened)
    fits = [number for number, one in enumerate(told["levels"]) if max(one["size"]) <= max_px]
    told["levels"] = [told["levels"][number] for number in fits or [0]]
    tiles = {}
    for number in fits or [0]:
        columns, rows = told["levels"][number]["grid"]
        for row in range(rows):
            for column in range(columns):
                tiles[f"{number}/{column}_{row}"] = _text(_webp(handles.tile(case, number, column, row), quality))
    maps, crops = {}, {}
    for model in case.maps:
        heatmap = layers.read_map(case, model)
        maps[model] = {
            "told": layers.map_told(heatmap),
            "places": _text(layers.places(heatmap)),
            "scores": [_text(layers.channel(heatmap, number)) for number in range(len(heatmap.channels))],
        }
        for x, y in _outstanding(heatmap):
            # Rounded as the page does.
            width, height = (int(value + 0.5) for value in heatmap.grid.extent_l0)
            box = Box(float(x), float(y), float(width), float(height))
            crop = crop_jpeg(opened.slide, box, max_px=THUMB_PX)
            crops[f"{x}_{y}_{width}_{height}_{THUMB_PX}"] = _text(_webp(crop, quality))
    value = {"slide": told, "tiles": tiles, "maps": maps, "crops": crops}
    return f"window.WSI_MIL.slides[{json.dumps(case.key)}] = {_script(value)};\n"


def _webp(jpeg: bytes, quality: int) -> bytes:
    """A picture as the server has it, encoded anew: half as large where nobody sees the difference."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.open(io.BytesIO(jpeg)).convert("RGB").save(buffer, format="WEBP", quality=quality)
    return buffer.getvalue()


def _outstanding(heatmap: Heatmap) -> list[tuple[int, int]]:
    """Places of the highest and lowest tiles of each layer."""
    tiles: set[int] = set()
    for number in range(len(heatmap.channels)):
        scores = heatmap.scores[:, number]
        order = np.argsort(-scores, kind="stable")[: int(np.isfinite(scores).sum())]
        tiles |= set(order[:TILES_SHOWN].tolist()) | set(order[-TILES_SHOWN:].tolist())
    return [(int(x), int(y)) for x, y in heatmap.grid.coords_l0[sorted(tiles)].tolist()]


def _script(value: Any) -> str:
    """JSON that may stand in a script."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("</", "<\\/").replace("\u2028", "\\u2028")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
