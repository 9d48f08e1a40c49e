"""The OpenSlide reader: every format that OpenSlide knows."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from jaxtyping import UInt8

from wsi_mil.errors import SlideError
from wsi_mil.geometry import Level
from wsi_mil.slides.slide import MppSource, Slide, SlideInfo
from wsi_mil.slides.sniff import head_of
from wsi_mil.slides.tiff_layout import believable
from wsi_mil.slides.tile_codecs import over_white

if TYPE_CHECKING:
    import openslide

CACHE_BYTES = 128 << 20
"""Of decoded tiles: a row of 256 px tiles across the widest slide, each needed again by the row below it."""

TURNED = range(2, 9)
"""TIFF orientations other than upright; further numbers mean nothing and are ignored."""

KEPT_PROPERTIES = (
    "openslide.vendor",
    "openslide.objective-power",
    "openslide.bounds-x",
    "openslide.bounds-y",
    "openslide.bounds-width",
    "openslide.bounds-height",
)
"""Everything else may name a patient or a place (comments, bar codes, file names), so it is not even read."""


@final
class OpenSlideReader(Slide):
    """A slide read through OpenSlide.

    OpenSlide takes whole level-0 pixels as places. On a level whose downsample is no whole number it moves the picture
    by the missing fraction, at most half a level-0 pixel, with bilinear interpolation; the error does not add up.
    """

    def __init__(self, path: Path, *, id: str, mpp: tuple[float, float] | None, mpp_source: MppSource) -> None:
        """Open a file; raises SlideError with OpenSlide's own reason where it refuses."""
        _refuse_rotated(path, id)
        self._handle = _Handle(path)
        info, self._downsamples = _metadata(self._handle.get())
        super().__init__(path, info, id=id, mpp=mpp, mpp_source=mpp_source)

    def _read(self, box: tuple[int, int, int, int], level: int) -> UInt8[np.ndarray, "h w 3"]:
        import openslide

        left, top, width, height = box
        place_l0 = round(left * self._downsamples[level]), round(top * self._downsamples[level])
        handle = self._handle.get()
        try:
            return _on_white(handle.read_region(place_l0, level, (width, height)))
        except openslide.OpenSlideError:
            # An error stays in the handle and fails every later read, also those of other threads: whether this very
            # region is damaged is known only from a new one.
            self._handle.drop(handle)
        try:
            with _open(self.path) as fresh:
                return _on_white(fresh.read_region(place_l0, level, (width, height)))
        except openslide.OpenSlideError as error:
            raise SlideError(
                f"slide {self.id!r} is damaged at level {level}, x {left}, y {top}, {width} x {height} px: {error}"
            ) from None

    def close(self) -> None:
        """Let go of the file. Reading afterwards raises SlideError."""
        self._handle.close()


@final
class _Handle:
    """OpenSlide's handle: opened when first needed in each process, and again after an error."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._handle: openslide.OpenSlide | None = None
        self._process = 0
        self._is_closed = False

    def get(self) -> openslide.OpenSlide:
        with self._lock:
            if self._is_closed:
                raise SlideError(f"slide file {self._path} was closed: open it again to read")
            # A forked process must not share its parent's file position and locks.
            if self._handle is None or self._process != os.getpid():
                self._handle, self._process = _open(self._path), os.getpid()
            return self._handle

    def drop(self, handle: openslide.OpenSlide) -> None:
        """Forget a handle that failed. Python closes it when the last thread that reads through it lets go."""
        with self._lock:
            if self._handle is handle:
                self._handle = None

    def close(self) -> None:
        with self._lock:
            self._handle, self._is_closed = None, True

    def __reduce__(self) -> tuple[Any, ...]:
        return _Handle, (self._path,)


def _open(path: Path) -> openslide.OpenSlide:
    import openslide

    try:
        handle = openslide.OpenSlide(path)
    except openslide.OpenSlideError as error:
        raise SlideError(f"OpenSlide says {str(error)!r}") from None
    handle.set_cache(openslide.OpenSlideCache(CACHE_BYTES))
    return handle


def _refuse_rotated(path: Path, id: str) -> None:
    head = None if path.is_dir() else head_of(path)
    if head and head.orientation in TURNED:
        raise SlideError(
            f"slide {id!r} is stored turned or mirrored (TIFF orientation {head.orientation}), which OpenSlide "
            f"scrambles tile by tile: write it again upright"
        )


def _metadata(handle: openslide.OpenSlide) -> tuple[SlideInfo, tuple[float, ...]]:
    """What the handle says of the slide, and OpenSlide's own downsamples, by which it places what is read."""
    width, height = handle.dimensions
    levels = tuple(
        Level(width_lv, height_lv, (width / width_lv, height / height_lv))
        for width_lv, height_lv in handle.level_dimensions
    )
    properties = dict(handle.properties)
    info = SlideInfo(
        levels=levels,
        mpp=_mpp(properties),
        vendor=properties.get("openslide.vendor", "unknown"),
        properties={key: properties[key] for key in KEPT_PROPERTIES if key in properties},
        associated=tuple(sorted(handle.associated_images)),
    )
    return info, tuple(handle.level_downsamples)


def _mpp(properties: Mapping[str, str]) -> tuple[float, float] | None:
    """Micrometres per pixel in x and y; None where they are missing, impossible, or a screen's and no scanner's."""
    try:
        pair = float(properties["openslide.mpp-x"]), float(properties["openslide.mpp-y"])
    except (KeyError, ValueError):
        return None
    return believable(pair)


def _on_white(picture: Any) -> UInt8[np.ndarray, "h w 3"]:
    """RGBA as RGB over white: OpenSlide leaves transparent what the slide does not have."""
    rgba = np.asarray(picture)
    if rgba[..., 3].min() == 255:
        return np.ascontiguousarray(rgba[..., :3])
    return over_white(rgba, multiplied=False)
