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
from wsi_mil.geometry import FINER_LIMIT, Box, Level, best_level, extent_l0, too_fine
from wsi_mil.grid import SlideRef
from wsi_mil.slides.clock import Clock
from wsi_mil.slides.fingerprint import fingerprint
from wsi_mil.slides.regions import is_crop, lazy_level, picture_of

if TYPE_CHECKING:
    import dask.array

MppSource = Literal["metadata", "cohort", "flag", "missing"]

WHITE = 255
"""Value of every channel where there is no slide."""

MAX_OVERVIEW_PX = 1 << 35
"""Most pixels of the one level an overview may have to read: past it a picture takes many minutes."""

MAX_SIZE_PX = 1 << 41
"""Most level-0 pixels of a slide. The largest real ones have about 2**37; a header that claims more is broken."""

OVERVIEW_GAP = 3.0
"""An overview that shrinks by twice this or more goes first by a whole factor, then by the rest: many times faster, and
different by less than a grey level on average. Tiles are always resampled in one step."""


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
        self.clock = Clock()
        """Where the time of reading goes."""
        self._mpp = mpp or info.mpp
        self.mpp_source: MppSource = mpp_source if mpp else "metadata" if info.mpp else "missing"
        self._check_size()

    @abstractmethod
    def _read(self, box: tuple[int, int, int, int], level: int) -> UInt8[np.ndarray, "h w 3"]:
        """Pixels of a rectangle (left, top, width, height in whole level pixels) of one level.

        The one thing a format must do. The rectangle always lies inside the level and holds a pixel at least. May be
        called from several threads at once. Raises SlideError with slide and region where the file is damaged.
        """

    def _read_into(self, out: UInt8[np.ndarray, "h w 3"], box: tuple[int, int, int, int], level: int) -> None:
        """The same into an array of the rectangle's size; a reader that can decode in place does so."""
        out[...] = self._read(box, level)

    def tile_px(self, level: int) -> tuple[int, int] | None:
        """Width and height of the tiles that a level is stored in, or None where the reader does not know them."""
        return None

    def expect(self, box: tuple[int, int, int, int], level: int) -> None:
        """A rectangle inside a level will be read soon: a reader may have it fetched from disk meanwhile."""
        return

    def stored_jpeg(self, level: int, column: int, row: int) -> bytes | None:
        """A stored tile that lies wholly inside its level, as a JPEG file that says its own colours.

        None where the level is not stored so, or the file would tell more than pixels. Raises SlideError where the
        tile is cut off.
        """
        return None

    def keep(self, budget_bytes: int) -> None:
        """How many bytes of decoded tiles are kept for later reads, where the reader keeps any."""
        return

    def _fingerprint(self) -> str:
        return fingerprint(self.path)

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
        return self._fingerprint()

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
    def read(
        self,
        x_l0: float,
        y_l0: float,
        *,
        size_px: int,
        mpp: float,
        out: UInt8[np.ndarray, "size size 3"] | None = None,
    ) -> UInt8[np.ndarray, "size size 3"]:
        """The square of `size_px` pixels at `mpp` whose top left lies at (x_l0, y_l0); white outside the slide.

        Resampled with an antialiasing bicubic filter from the coarsest level that is fine enough, at its fractional
        place and with each axis at its own scale; a plain crop where the level has that very scale and place.
        Written to `out` where that is given.
        Raises ScaleError (no scale, or too fine) and SlideError (damaged here).
        """
        self.check_scale(mpp)
        level, box = self.place(x_l0, y_l0, size_px=size_px, mpp=mpp)
        if out is not None and self._is_inner_crop(box, level, size_px):
            self._read_into(out, (round(box.x), round(box.y), size_px, size_px), level)
            return out
        pixels = picture_of(self, box, level, (size_px, size_px))
        if out is None:
            return pixels
        out[...] = pixels
        return out

    @final
    def place(self, x_l0: float, y_l0: float, *, size_px: int, mpp: float) -> tuple[int, Box]:
        """The level that a tile is read from, and where it lies there, in that level's pixels."""
        width_l0, height_l0 = extent_l0(size_px, mpp, self.mpp)
        level = best_level(self.levels, self.mpp, mpp)
        return level, self.levels[level].box(Box(x_l0, y_l0, width_l0, height_l0))

    @final
    def _is_inner_crop(self, box_lv: Box, level: int, size_px: int) -> bool:
        left, top = round(box_lv.x), round(box_lv.y)
        inside = left >= 0 and top >= 0
        inside = inside and left + size_px <= self.levels[level].width and top + size_px <= self.levels[level].height
        return inside and is_crop(box_lv, (size_px, size_px))

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
    def overview(self, *, max_px: int, patch: bool = False) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[float, float]]:
        """The whole slide as a picture with no side longer than `max_px`, and level-0 pixels per picture pixel (x, y).

        Needs no scale. Reads the coarsest level that is fine enough, a block at a time, so that a slide without a
        pyramid costs time but no memory. Raises SlideError where that level is beyond all bounds, or damaged; with
        `patch` what is damaged is grey, which is logged, and SlideError is raised where nothing can be read.
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
        return picture_of(self, box, level, out, gap=OVERVIEW_GAP, patch=patch), downsample

    @final
    def as_dask(self, level: int = 0) -> dask.array.Array:
        """One level as a lazy array [height width 3] for notebooks; a chunk is read when it is computed."""
        return lazy_level(self, level)

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
