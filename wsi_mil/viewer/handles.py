"""Slides kept open for the next tile, a few at a time, and their tiles that were costly to make."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from wsi_mil.errors import SlideError
from wsi_mil.slides import Slide, open_slide
from wsi_mil.viewer.cases import Case
from wsi_mil.viewer.pyramid import ViewLevel, encode, tile_jpeg, view_levels

MOST_OPEN = 8

DECODED_BYTES = 32 << 20
"""Of decoded tiles an open slide: enough for the neighbours of a view, and with eight slides far below a gigabyte."""

ENCODED_BYTES = 96 << 20
"""Of finished tiles of all slides: those of coarse levels are asked for at every start."""

UNREADABLE = 200
"""Grey of a tile that cannot be read, crossed by a line."""


@dataclass(frozen=True)
class Opened:
    """An open slide, its levels as they are shown, and the state of its file when it was opened."""

    slide: Slide
    levels: tuple[ViewLevel, ...]
    state: tuple[int, int]


@final
class Handles:
    """Open slides by the keys of their cases. Safe to use from many threads."""

    def __init__(self, *, most_open: int = MOST_OPEN) -> None:
        self._most = most_open
        self._opened: OrderedDict[str, Opened] = OrderedDict()
        self._lock = threading.Lock()
        self._opening: dict[str, threading.Lock] = {}
        self._encoded: OrderedDict[tuple[Any, ...], bytes] = OrderedDict()
        self._encoded_bytes = 0

    def get(self, case: Case) -> Opened:
        """The open slide of a case, opened again where its file was replaced. Raises SlideError where it cannot be."""
        state = _state(case)
        with self._lock:
            found = self._opened.get(case.key)
            if found is not None and found.state == state:
                self._opened.move_to_end(case.key)
                return found
            gate = self._opening.setdefault(case.key, threading.Lock())
        with gate:
            with self._lock:
                found = self._opened.get(case.key)
            if found is not None and found.state == state:
                return found
            return self._open(case, state)

    def tile(self, case: Case, level: int, column: int, row: int) -> bytes:
        """A tile as JPEG; grey where the slide is damaged. Levels count from the coarsest, as browsers do.

        Raises IndexError for a tile that is not there, SlideError where the slide cannot be opened.
        """
        opened = self.get(case)
        if not 0 <= level < len(opened.levels):
            raise IndexError(f"no level {level} of {len(opened.levels)}")
        shown = opened.levels[len(opened.levels) - 1 - level]
        if shown.stored is not None and opened.slide.tile_px(shown.stored) == shown.tile:
            return _tile_or_grey(opened.slide, shown, column, row)
        key = (case.key, opened.state, level, column, row)
        return self.kept(key, lambda: _tile_or_grey(opened.slide, shown, column, row))

    def kept(self, key: tuple[Any, ...], make: Callable[[], bytes]) -> bytes:
        """Bytes of a key, made where they are not kept."""
        with self._lock:
            if key in self._encoded:
                self._encoded.move_to_end(key)
                return self._encoded[key]
        data = make()
        with self._lock:
            if key not in self._encoded:
                self._encoded[key] = data
                self._encoded_bytes += len(data)
            while self._encoded_bytes > ENCODED_BYTES:
                self._encoded_bytes -= len(self._encoded.popitem(last=False)[1])
        return data

    def close(self) -> None:
        """Let go of all files."""
        with self._lock:
            for opened in self._opened.values():
                opened.slide.close()
            self._opened.clear()

    def _open(self, case: Case, state: tuple[int, int]) -> Opened:
        slide = open_slide(case.path, mpp=case.mpp, mpp_source="cohort", id=case.slide, shrink=True)
        slide.keep(DECODED_BYTES)
        opened = Opened(slide, view_levels(slide), state)
        with self._lock:
            self._opened[case.key] = opened
            self._opened.move_to_end(case.key)
            # Not closed here: another thread may be reading. Python closes the file when the last one lets go.
            while len(self._opened) > self._most:
                self._opened.popitem(last=False)
        return opened


def _state(case: Case) -> tuple[int, int]:
    if not case.path:
        raise SlideError(f"slide {case.slide!r} has no file: the study was made from bags alone")
    if "://" in case.path:
        return 0, 0
    try:
        told = os.stat(case.path)
    except OSError as error:
        raise SlideError(
            f"slide {case.slide!r} is not where the cohort says ({error.strerror}): give its folder with --slides"
        ) from None
    return told.st_mtime_ns, told.st_size


def _tile_or_grey(slide: Slide, level: ViewLevel, column: int, row: int) -> bytes:
    try:
        return tile_jpeg(slide, level, column, row)
    except SlideError:
        _, _, width, height = level.box(column, row)
        grey = np.full((height, width, 3), UNREADABLE, np.uint8)
        ends = np.arange(max(width, height))
        grey[ends * height // len(ends), ends * width // len(ends)] = UNREADABLE // 2
        return encode(grey)
