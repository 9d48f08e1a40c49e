"""Slide: a pyramid of pixels with a scale, read at any place and any physical resolution."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np
from jaxtyping import UInt8

from wsi_mil.errors import ScaleError, SlideError
from wsi_mil.geometry import FINER_LIMIT, SAME_SCALE, Box, Level, best_level, extent_l0, too_fine
from wsi_mil.grid import SlideRef
from wsi_mil.slides.fingerprint import fingerprint

if TYPE_CHECKING:
    import dask.array

MppSource = Literal["metadata", "cohort", "flag", "missing"]

WHITE = 255
"""Value of every channel where there is no slide."""

BLOCK_PX = 1 << 24
"""Most level pixels read at once (64 MiB as RGBA); a larger rectangle is read and shrunk in parts."""

MAX_OVERVIEW_PX = 1 << 35
"""Most pixels of the one level an overview may have to read: past it a picture takes many minutes."""

MAX_SIZE_PX = 1 << 41
"""Most level-0 pixels of a slide. The largest real ones have about 2**37; a header that claims more is broken."""

OVERVIEW_GAP = 3.0
"""An overview that shrinks by twice this or more goes first by a whole factor, then by the rest: many times faster, and
different by less than a grey level on average. Tiles are always resampled in one step."""

DASK_CHUNK_PX = 1024

_WHOLE = 1e-4  # of a level pixel: a box this near to whole pixels is cropped, not resampled


@dataclass(frozen=True)
class SlideInfo:
    """What a reader learns when it opens a file: all that a slide is besides its pixels."""

    levels: tuple[Level, ...]
    mpp: tuple[float, float] | None
    """Micrometres per level-0 pixel as the file says it, or None where it does not."""
    vendor: str
    properties: Mapping[str, str] = field(default_factory=dict)
    """From an allow-list: nothing here can name a patient."""
    associated: tuple[str, ...] = ()
    """Names of the pictures beside the pyramid: label, macro, thumbnail."""


class Slide(ABC):
    """A pyramid of RGB pixels with a scale. Its readers are final; it is pickled by path and opens where it lands.

    Frames: level 0 has its origin at the top left of the whole scanned area, x to the right, y down. Everything
    outside a slide is white.
    """

    def __init__(
        self, path: Path, info: SlideInfo, *, id: str, mpp: tuple[float, float] | None, mpp_source: MppSource
    ) -> None:
        """A given `mpp` wins over the file's; `mpp_source` says who gave it."""
        self.path = path
        self.id = id
        self.levels = info.levels
        self.vendor = info.vendor
        self.properties = dict(info.properties)
        self.associated = info.associated
        self.metadata_mpp = info.mpp
        self._mpp = mpp or info.mpp
        self.mpp_source: MppSource = mpp_source if mpp else "metadata" if info.mpp else "missing"
        self._check_size()

    @abstractmethod
    def _read(self, box: tuple[int, int, int, int], level: int) -> UInt8[np.ndarray, "h w 3"]:
        """Pixels of a rectangle (left, top, width, height in whole level pixels) of one level.

        The one thing a format must do. The rectangle always lies inside the level and holds a pixel at least. May be
        called from several threads at once. Raises SlideError with slide and region where the file is damaged.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the file. Reading afterwards raises SlideError."""

    @final
    @property
    def size_l0(self) -> tuple[int, int]:
        """Width and height in level-0 pixels."""
        return self.levels[0].width, self.levels[0].height

    @final
    @property
    def mpp(self) -> tuple[float, float]:
        """Micrometres per level-0 pixel in x and y; raises ScaleError where nobody said it, for it is never guessed."""
        if self._mpp is None:
            raise ScaleError(
                f"slide {self.id!r} does not say its scale: give micrometres per pixel in a column `mpp` "
                f"of the cohort table, or with --mpp"
            )
        return self._mpp

    @final
    @cached_property
    def fingerprint(self) -> str:
        """Digest of the file's content, the same under any name and in any place."""
        return fingerprint(self.path)

    @final
    def ref(self) -> SlideRef:
        """Which slide this is, as the records made from it remember it; raises ScaleError without a scale."""
        return SlideRef(
            id=self.id,
            fingerprint=self.fingerprint,
            size_l0=self.size_l0,
            mpp=self.mpp,
            mpp_source=self.mpp_source,
        )

    @final
    def check_scale(self, mpp: float) -> None:
        """Raise ScaleError where tiles at `mpp` cannot be had: the slide's scale is missing, or it is too coarse."""
        if not (math.isfinite(mpp) and mpp > 0):
            raise ScaleError(f"tiles of slide {self.id!r} cannot be read at {mpp} um/px: give a scale above 0")
        if too_fine(self.mpp, mpp):
            native = " x ".join(f"{value:g}" for value in self.mpp)
            raise ScaleError(
                f"slide {self.id!r} has {native} um/px and cannot be read at {mpp:g}: more than {FINER_LIMIT} times "
                f"finer than it is; ask for {max(self.mpp) / FINER_LIMIT:.3g} um/px or more"
            )

    @final
    def read(self, x_l0: float, y_l0: float, *, size_px: int, mpp: float) -> UInt8[np.ndarray, "size size 3"]:
        """The square of `size_px` pixels at `mpp` whose top left lies at (x_l0, y_l0); white outside the slide.

        Resampled with an antialiasing bicubic filter from the coarsest level that is fine enough, at its fractional
        place and with each axis at its own scale; a plain crop where the level has that very scale and place.
        Raises ScaleError (no scale, or too fine) and SlideError (damaged here).
        """
        self.check_scale(mpp)
        width_l0, height_l0 = extent_l0(size_px, mpp, self.mpp)
        level = best_level(self.levels, self.mpp, mpp)
        box = self.levels[level].box(Box(x_l0, y_l0, width_l0, height_l0))
        return self._resample(box, level, (size_px, size_px), gap=None)

    @final
    def read_level(self, box: tuple[int, int, int, int], *, level: int) -> UInt8[np.ndarray, "h w 3"]:
        """A rectangle (left, top, width, height in whole level pixels) of one level as it is stored; white outside.

        Raises SlideError where the file is damaged.
        """
        left, top, width, height = box
        right = min(left + width, self.levels[level].width)
        bottom = min(top + height, self.levels[level].height)
        inner = x, y, _, _ = max(left, 0), max(top, 0), right - max(left, 0), bottom - max(top, 0)
        if inner == box:
            return self._read(inner, level)
        pixels = np.full((height, width, 3), WHITE, np.uint8)
        if right > x and bottom > y:
            pixels[y - top : bottom - top, x - left : right - left] = self._read(inner, level)
        return pixels

    @final
    def overview(self, *, max_px: int) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[float, float]]:
        """The whole slide as a picture with no side longer than `max_px`, and level-0 pixels per picture pixel (x, y).

        Needs no scale. Reads the coarsest level that is fine enough, a block at a time, so that a slide without a
        pyramid costs time but no memory. Raises SlideError where that level is beyond all bounds.
        """
        width, height = self.size_l0
        shrink = max(1.0, max(width, height) / max_px)
        out = max(1, round(width / shrink)), max(1, round(height / shrink))
        downsample = width / out[0], height / out[1]
        level = best_level(self.levels, (1.0, 1.0), min(downsample))
        size_lv = self.levels[level].width, self.levels[level].height
        if size_lv[0] * size_lv[1] > MAX_OVERVIEW_PX:
            raise SlideError(
                f"slide {self.id!r} has no overview: its nearest level has {size_lv[0]} x {size_lv[1]} pixels; "
                f"write it as a pyramid (for example with `vips tiffsave --pyramid`)"
            )
        box = Box(0.0, 0.0, float(size_lv[0]), float(size_lv[1]))
        return self._resample(box, level, out, gap=OVERVIEW_GAP), downsample

    @final
    def _resample(
        self, box_lv: Box, level: int, size_px: tuple[int, int], *, gap: float | None
    ) -> UInt8[np.ndarray, "h w 3"]:
        """A fractional rectangle of one level as a picture of a given width and height."""
        from PIL import Image

        width_px, height_px = size_px
        scale_x, scale_y = box_lv.width / width_px, box_lv.height / height_px
        if _is_crop(box_lv, scale_x, scale_y):
            return self.read_level((round(box_lv.x), round(box_lv.y), width_px, height_px), level=level)
        # Bicubic reaches two output pixels far; when enlarging, level pixels count instead.
        margin = math.ceil(2.5 * max(scale_x, scale_y, 1.0)) + 1
        outer = left, top, width, height = self._with_margin(box_lv, margin, level)
        if width * height > BLOCK_PX:
            return self._resample_halves(box_lv, level, size_px, gap=gap)
        inner = (box_lv.x - left, box_lv.y - top, box_lv.right - left, box_lv.bottom - top)
        picture = Image.fromarray(self.read_level(outer, level=level))
        return np.asarray(picture.resize(size_px, Image.Resampling.BICUBIC, box=inner, reducing_gap=gap))

    @final
    def _with_margin(self, box_lv: Box, margin: int, level: int) -> tuple[int, int, int, int]:
        """The whole pixels of a rectangle, and a margin as far as the level has pixels: no white is mixed in."""
        left, top, width, height = box_lv.outer(margin)
        least_left, least_top, inner_width, inner_height = box_lv.outer()
        right = min(left + width, max(self.levels[level].width, least_left + inner_width))
        bottom = min(top + height, max(self.levels[level].height, least_top + inner_height))
        left, top = max(left, min(0, least_left)), max(top, min(0, least_top))
        return left, top, right - left, bottom - top

    @final
    def _resample_halves(
        self, box_lv: Box, level: int, size_px: tuple[int, int], *, gap: float | None
    ) -> UInt8[np.ndarray, "h w 3"]:
        """The same picture from two halves, each with its own margin, so that the seam is not seen."""
        width_px, height_px = size_px
        if max(size_px) == 1:
            raise ScaleError(
                f"slide {self.id!r} has no level coarse enough for one pixel of {box_lv.width:.0f} x "
                f"{box_lv.height:.0f} level-{level} pixels: ask for a finer scale"
            )
        if width_px >= height_px:
            half = width_px // 2
            cut = box_lv.width * half / width_px
            first = Box(box_lv.x, box_lv.y, cut, box_lv.height)
            second = Box(box_lv.x + cut, box_lv.y, box_lv.width - cut, box_lv.height)
            sizes, axis = ((half, height_px), (width_px - half, height_px)), 1
        else:
            half = height_px // 2
            cut = box_lv.height * half / height_px
            first = Box(box_lv.x, box_lv.y, box_lv.width, cut)
            second = Box(box_lv.x, box_lv.y + cut, box_lv.width, box_lv.height - cut)
            sizes, axis = ((width_px, half), (width_px, height_px - half)), 0
        parts = [self._resample(box, level, size, gap=gap) for box, size in zip((first, second), sizes, strict=True)]
        return np.concatenate(parts, axis=axis)

    @final
    def as_dask(self, level: int = 0) -> dask.array.Array:
        """One level as a lazy array [height width 3] for notebooks; a chunk is read when it is computed."""
        import dask.array as da
        from dask.delayed import delayed

        width, height = self.levels[level].width, self.levels[level].height
        read = delayed(self.read_level, pure=False)
        rows = []
        for top in range(0, height, DASK_CHUNK_PX):
            row = []
            for left in range(0, width, DASK_CHUNK_PX):
                box = left, top, min(DASK_CHUNK_PX, width - left), min(DASK_CHUNK_PX, height - top)
                row.append(da.from_delayed(read(box, level=level), shape=(box[3], box[2], 3), dtype=np.uint8))
            rows.append(da.concatenate(row, axis=1))
        return da.concatenate(rows, axis=0)

    @final
    def _check_size(self) -> None:
        width, height = self.size_l0
        if width < 1 or height < 1:
            raise SlideError(f"slide {self.id!r} has no pixels: its size is {width} x {height}")
        if width * height > MAX_SIZE_PX:
            raise SlideError(
                f"slide {self.id!r} claims {width} x {height} pixels, more than any slide has: it is broken"
            )

    @final
    def __enter__(self) -> Slide:
        return self

    @final
    def __exit__(self, *_: Any) -> None:
        self.close()

    @final
    def __repr__(self) -> str:
        width, height = self.size_l0
        scale = " x ".join(f"{value:g}" for value in self._mpp) if self._mpp else "unknown"
        return f"<{type(self).__name__} {self.id!r} {width} x {height} px, {len(self.levels)} levels, {scale} um/px>"


def _is_crop(box_lv: Box, scale_x: float, scale_y: float) -> bool:
    """Whether a rectangle is whole level pixels at the level's own scale."""
    same_scale = abs(scale_x - 1) <= SAME_SCALE and abs(scale_y - 1) <= SAME_SCALE
    return same_scale and max(abs(box_lv.x - round(box_lv.x)), abs(box_lv.y - round(box_lv.y))) <= _WHOLE
