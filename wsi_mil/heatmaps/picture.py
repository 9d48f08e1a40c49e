"""The picture of a heatmap: the slide, its tiles coloured, the tissue's contour, a legend and a scale bar."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from wsi_mil.grid import TileGrid
from wsi_mil.heatmaps.colours import COLOURS, Colouring, Limits, colouring
from wsi_mil.heatmaps.heatmap import Heatmap
from wsi_mil.heatmaps.raster import muted, paint

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont
    from shapely import MultiPolygon

FRAME_KEY = "wsi_mil"
"""Text chunk of the PNG that says, as JSON, where on it the slide lies: left, top, width, height (pixels of the PNG)
and downsample (level-0 pixels per pixel of the PNG, x and y)."""

SMALLEST_PX = 640
"""A picture whose longer side is shorter is enlarged by a whole factor."""

NARROWEST_PX = 760
"""Width that the words need."""

MARGIN, HEADER, FOOTER = 28, 92, 118
INK, FAINT, PAPER, LINE = (28, 30, 34), (104, 108, 116), (255, 255, 255), (214, 216, 220)
CONTOUR = (20, 20, 24)

BAR_SHARE = 0.22
"""Longest scale bar, as a share of the slide's width."""

LEGEND_PX = (300, 16)

SHOWN_ANSWERS = 4
"""Classes named in the header."""


def overlay(
    rgb_overview: UInt8[np.ndarray, "h w 3"],
    downsample: tuple[float, float],
    heatmap: Heatmap,
    channel: str,
    *,
    scale: str = "rank",
    alpha: float = 0.6,
    limits: Limits = None,
    outline: MultiPolygon | None = None,
    title: str = "",
) -> bytes:
    """A PNG of one channel over the slide.

    `downsample` is level-0 pixels per overview pixel (x, y), `scale` and `limits` are those of `colouring`, `outline`
    is in level-0 pixels, `title` stands in place of the slide's id. FRAME_KEY tells how to find a place on the PNG.
    """
    from PIL import Image, PngImagePlugin

    factor = max(1, math.ceil(SMALLEST_PX / max(rgb_overview.shape[:2])))
    ratio = downsample[0] / factor, downsample[1] / factor
    colours = colouring(heatmap.column(channel), scale, limits=limits)
    picture = _painted(rgb_overview, factor, heatmap.grid, ratio, colours, alpha=alpha)
    if outline is not None:
        _draw_outline(picture, outline, ratio)
    width = max(picture.width + 2 * MARGIN, NARROWEST_PX)
    page = Image.new("RGB", (width, HEADER + picture.height + FOOTER), PAPER)
    left = (width - picture.width) // 2
    page.paste(picture, (left, HEADER))
    um_per_px = ratio[0] * heatmap.slide.mpp[0]
    _Page(page, left, picture, alpha=alpha).write(heatmap, channel, colours, title=title, um_per_px=um_per_px)
    frame = {"left": left, "top": HEADER, "width": picture.width, "height": picture.height, "downsample": ratio}
    info = PngImagePlugin.PngInfo()
    info.add_text(FRAME_KEY, json.dumps(frame))
    buffer = io.BytesIO()
    page.save(buffer, format="PNG", pnginfo=info, compress_level=4)
    return buffer.getvalue()


def _painted(
    rgb_overview: UInt8[np.ndarray, "h w 3"],
    factor: int,
    grid: TileGrid,
    ratio: tuple[float, float],
    colours: Colouring,
    *,
    alpha: float,
) -> Image:
    """The overview, enlarged by a whole factor and with its colours muted, under the coloured tiles."""
    from PIL import Image

    base = Image.fromarray(muted(rgb_overview))
    enlarged = base.resize((base.width * factor, base.height * factor), Image.Resampling.BICUBIC)
    # Places are rounded to whole level-0 pixels, so neighbours may lie a pixel apart: half a pixel more on each side
    # closes the seams, and where two tiles then overlap their colours are averaged.
    places = (grid.coords_l0 - 0.5) / np.asarray(ratio)
    extent = (grid.extent_l0[0] + 1) / ratio[0], (grid.extent_l0[1] + 1) / ratio[1]
    return Image.fromarray(paint(np.asarray(enlarged), places, extent, colours, alpha=alpha))


class _Page:
    """The words, the legend and the scale bar around a picture."""

    def __init__(self, page: Image, left: int, picture: Image, *, alpha: float) -> None:
        from PIL import ImageDraw

        self._page = page
        self._alpha = alpha
        self._draw = ImageDraw.Draw(page)
        self._left, self._right = MARGIN, page.width - MARGIN
        self._below = HEADER + picture.height
        self._picture_width = picture.width
        self._draw.rectangle((left - 1, HEADER - 1, left + picture.width, self._below), outline=LINE)

    def write(self, heatmap: Heatmap, channel: str, colours: Colouring, *, title: str, um_per_px: float) -> None:
        """Everything that is said about the picture."""
        room = self._right - self._left
        self._draw.text((self._left, 18), _fitted(title or heatmap.slide.id, 24, "Bold", room), INK, _font(24, "Bold"))
        lap = "   ·   overlapping tiles" if heatmap.overlapping else ""
        said = f"{_prediction(heatmap)}   ·   {heatmap.model}{lap}"
        self._draw.text((self._left, 54), _fitted(said, 15, "", room), FAINT, _font(15))
        self._scale_bar(um_per_px)
        missing = bool(np.isnan(colours.positions).any())
        note = "; tiles without colour could not be read" if missing else ""
        self._legend(_words(channel) + _smoothing(heatmap, channel), colours, note=note)

    def _scale_bar(self, um_per_px: float) -> None:
        length_um = _round_length(BAR_SHARE * self._picture_width * um_per_px)
        length_px = length_um / um_per_px
        x, y = self._left, self._below + 40
        self._draw.rectangle((x, y, x + round(length_px) - 1, y + 5), fill=INK)
        text = f"{length_um / 1000:g} mm" if length_um >= 100 else f"{length_um:g} µm"
        self._draw.text((x, y + 12), text, INK, _font(14))

    def _legend(self, words: str, colours: Colouring, *, note: str) -> None:
        from PIL import Image

        width, height = LEGEND_PX
        x, y = self._right - width, self._below + 36
        self._draw.text((self._right, y - 8), words, INK, _font(14, "Bold"), anchor="rb")
        # As the colours look over bare glass, or nobody finds them again in the picture.
        strip = colours.table()[np.linspace(0, COLOURS - 1, width).round().astype(int)]
        blended = np.rint(strip * self._alpha + 255 * (1 - self._alpha)).astype(np.uint8)
        self._page.paste(Image.fromarray(np.tile(blended, (height, 1, 1))), (x, y))
        self._draw.rectangle((x - 1, y - 1, x + width, y + height), outline=LINE)
        for position, text in colours.ticks:
            at = x + position * (width - 1)
            self._draw.line((at, y + height, at, y + height + 4), fill=FAINT)
            anchor = {0.0: "la", 1.0: "ra"}.get(position, "ma")
            self._draw.text((at, y + height + 6), text, INK, _font(13), anchor=anchor)
        self._draw.text((self._right, y + height + 28), colours.meaning + note, FAINT, _font(12), anchor="ra")


def _words(channel: str) -> str:
    """A channel's name as a person says it; attention is called what it is."""
    if channel.startswith("contribution_"):
        return f"contribution to “{channel.removeprefix('contribution_')}”"
    if channel.startswith(("attention", "rollout")):
        return f"{channel.replace('_', ' ')} (where the model looked, no explanation)"
    for name, words in _WORDS.items():
        if channel.startswith(f"{name}_"):
            return f"{words} “{channel.removeprefix(f'{name}_')}”"
    return channel.replace("_", " ")


_WORDS = {
    "alone": "what the model says of each tile alone:",
    "occlusion": "what is lost without the tile:",
    "integrated_gradients": "integrated gradients:",
    "gradient_input": "gradient x input:",
    "graphcam": "GraphCAM:",
    "global": "contribution of the global stream to",
    "local": "contribution of the local stream to",
    "low": "contribution of the low magnification to",
    "high": "contribution of the high magnification to",
}
"""Of the other channels with an answer in their names."""


def _smoothing(heatmap: Heatmap, channel: str) -> str:
    """What was done to the channel for the picture, which its kind tells after a comma."""
    _, comma, told = heatmap.kinds.get(channel, "").partition(", ")
    return comma + told


def _prediction(heatmap: Heatmap) -> str:
    answers = sorted(heatmap.prediction.items(), key=lambda pair: -pair[1])[:SHOWN_ANSWERS]
    told = "   ".join(f"{name} {value:.3g}" for name, value in answers)
    return f"prediction: {told}" if told else "no prediction"


def _round_length(longest_um: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that is not longer."""
    power: float = 10.0 ** math.floor(math.log10(longest_um))
    return next(step * power for step in (5, 2, 1) if step * power <= longest_um * (1 + 1e-9))


def _draw_outline(picture: Image, outline: MultiPolygon, ratio: tuple[float, float]) -> None:
    """Lines drawn at twice the size and shrunk, which smooths them."""
    from PIL import Image, ImageDraw

    mask = Image.new("L", (picture.width * 2, picture.height * 2), 0)
    draw = ImageDraw.Draw(mask)
    for ring in _rings(outline):
        points = np.asarray(ring.coords)[:, :2] / np.asarray(ratio) * 2
        draw.line([tuple(point) for point in points.tolist()], fill=255, width=4, joint="curve")
    picture.paste(CONTOUR, mask=mask.resize(picture.size, Image.Resampling.BOX))


def _rings(outline: MultiPolygon) -> Iterator[Any]:
    for polygon in outline.geoms:
        yield polygon.exterior
        yield from polygon.interiors


def _font(size: int, weight: str = "") -> FreeTypeFont:
    import matplotlib
    from PIL import ImageFont

    name = f"DejaVuSans-{weight}.ttf" if weight else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def _fitted(text: str, size: int, weight: str, room: int) -> str:
    """The text, cut where the room ends."""
    font = _font(size, weight)
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + "…") > room:
        text = text[:-1]
    return text + "…"
