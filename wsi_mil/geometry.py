"""Frames, units, boxes and pyramids: the one place where a length of one frame becomes a length of another.

Frames are the last part of a name, everywhere:

    _l0   level-0 pixels: the finest level of the slide, origin at the top left, x to the right, y down
    _lv   pixels of one pyramid level
    _px   pixels of the tile as it is encoded
    _um   micrometres on the glass

`mpp` is micrometres per pixel, always a pair (x, y) where it belongs to a slide, since scanners exist whose pixels are
not square. A downsample is level-0 pixels per level pixel, per axis, and is rarely a whole number (4.016, 3.9998):
nothing here truncates it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

FINER_LIMIT = 1.5
"""How much finer than native a requested scale may be. Past it, most of a tile's detail would be invented."""

SAME_SCALE = 1e-6
"""Relative difference below which two scales are one; a level is then read as it is."""

NEAR_SCALE = 0.003
"""How much coarser than asked a level may be and still serve: a pyramid of 4.0008 where 4 is asked lacks nothing that
can be seen, and the next finer level costs sixteen times as much."""


@dataclass(frozen=True)
class Box:
    """A rectangle with real corners in one frame: left, top, width, height."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """x of the right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """y of the lower edge."""
        return self.y + self.height

    def scaled(self, by_x: float, by_y: float) -> Box:
        """The same rectangle in a frame whose unit is `1/by` of this one's."""
        return Box(self.x * by_x, self.y * by_y, self.width * by_x, self.height * by_y)

    def moved(self, dx: float, dy: float) -> Box:
        """The rectangle shifted by (dx, dy)."""
        return Box(self.x + dx, self.y + dy, self.width, self.height)

    def outer(self, margin: int = 0) -> tuple[int, int, int, int]:
        """Smallest whole-pixel rectangle around this one, grown by a margin: left, top, width, height."""
        # A corner that is whole but for rounding noise must not cost a pixel more.
        left, top = math.floor(self.x + 1e-6) - margin, math.floor(self.y + 1e-6) - margin
        right, bottom = math.ceil(self.right - 1e-6) + margin, math.ceil(self.bottom - 1e-6) + margin
        return left, top, max(1, right - left), max(1, bottom - top)


@dataclass(frozen=True)
class Level:
    """One level of a pyramid: its size in its own pixels, and level-0 pixels per pixel on each axis."""

    width: int
    height: int
    downsample: tuple[float, float]

    def box(self, box_l0: Box) -> Box:
        """A level-0 rectangle in this level's pixels."""
        return box_l0.scaled(1 / self.downsample[0], 1 / self.downsample[1])


def extent_l0(size_px: int, mpp: float, native_mpp: tuple[float, float]) -> tuple[float, float]:
    """Width and height in level-0 pixels of a tile of `size_px` pixels at `mpp`, per axis, not rounded."""
    return size_px * mpp / native_mpp[0], size_px * mpp / native_mpp[1]


def best_level(levels: Sequence[Level], native_mpp: tuple[float, float], mpp: float) -> int:
    """Index of the coarsest level as fine as `mpp` on both axes (to three in a thousand); 0 if none is."""
    best, best_downsample = 0, 0.0
    for index, level in enumerate(levels):
        finest_enough = all(
            native * downsample <= mpp * (1 + NEAR_SCALE)
            for native, downsample in zip(native_mpp, level.downsample, strict=True)
        )
        if finest_enough and max(level.downsample) > best_downsample:
            best, best_downsample = index, max(level.downsample)
    return best


def too_fine(native_mpp: tuple[float, float], mpp: float) -> bool:
    """Whether `mpp` asks for more detail than the slide has, beyond the allowed factor."""
    return max(native_mpp) / mpp > FINER_LIMIT * (1 + SAME_SCALE)
