"""Pictures that are stored turned or mirrored: TIFF 6.0, tag Orientation."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

UPRIGHT = 1
TURNS = range(2, 9)
"""TIFF orientations; further numbers mean nothing and are taken as upright."""

AXES_SWAPPED = range(5, 9)


def stored_box(box: tuple[int, int, int, int], size: tuple[int, int], orientation: int) -> tuple[int, int, int, int]:
    """The rectangle of the stored picture that an upright one comes from (TIFF 6.0, tag Orientation)."""
    left, top, width, height = box
    right_gap, bottom_gap = size[0] - left - width, size[1] - top - height
    match orientation:
        case 2:
            return right_gap, top, width, height
        case 3:
            return right_gap, bottom_gap, width, height
        case 4:
            return left, bottom_gap, width, height
        case 5:
            return top, left, height, width
        case 6:
            return top, right_gap, height, width
        case 7:
            return bottom_gap, right_gap, height, width
        case _:
            return bottom_gap, left, height, width


def upright(pixels: UInt8[np.ndarray, "h w 3"], orientation: int) -> UInt8[np.ndarray, "a b 3"]:
    """Stored pixels as they are to be seen."""
    match orientation:
        case 2:
            return pixels[:, ::-1]
        case 3:
            return pixels[::-1, ::-1]
        case 4:
            return pixels[::-1]
        case 5:
            return pixels.transpose(1, 0, 2)
        case 6:
            return pixels.transpose(1, 0, 2)[:, ::-1]
        case 7:
            return pixels[::-1, ::-1].transpose(1, 0, 2)
        case _:
            return pixels.transpose(1, 0, 2)[::-1]
