"""Pictures as a page embeds them: scaled down, as JPEG, and heatmaps without the words around them."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

from wsi_mil.heatmaps import FRAME_KEY

if TYPE_CHECKING:
    from PIL.Image import Image

LEGEND_PX = 560
"""Width of the lower right corner of a heatmap's picture, in which its legend is."""

QUALITY = 80


def jpeg(data: bytes, width: int, *, framed: bool = False) -> bytes:
    """A picture scaled down to a width, as JPEG: a page of many must stay small enough to mail.

    `framed`: of a heatmap only the slide, without the words, the legend and the scale bar around it.
    """
    from PIL import Image

    with Image.open(io.BytesIO(data)) as opened:
        picture = _inner(opened) if framed else opened
        # Halved by the decoder where it can be: a thumbnail needs no more.
        picture.draft("RGB", (2 * width, 2 * width))
        return _saved(picture.convert("RGB"), width)


def legend(data: bytes) -> bytes | None:
    """The legend of a heatmap's picture, or None where the picture is of another program."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as opened:
        frame = _frame(opened)
        if frame is None:
            return None
        top = frame["top"] + frame["height"] + 1
        corner = opened.crop((max(0, opened.width - LEGEND_PX), top, opened.width, opened.height))
        return _saved(corner.convert("RGB"), LEGEND_PX)


def _inner(opened: Image) -> Image:
    frame = _frame(opened)
    if frame is None:
        return opened
    left, top = frame["left"], frame["top"]
    return opened.crop((left, top, left + frame["width"], top + frame["height"]))


def _frame(opened: Image) -> dict[str, int] | None:
    told = getattr(opened, "text", {}).get(FRAME_KEY)
    return {name: int(value) for name, value in json.loads(told).items() if name != "downsample"} if told else None


def _saved(picture: Image, width: int) -> bytes:
    from PIL import Image

    if picture.width > width:
        height = max(1, round(picture.height * width / picture.width))
        picture = picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)
    out = io.BytesIO()
    picture.save(out, format="jpeg", quality=QUALITY, optimize=True)
    return out.getvalue()
