"""Masks grown and shrunk by round distances in micrometres, and cleaned by the area of their pieces."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool
from skimage.measure import label


def dilated(mask: Bool[np.ndarray, "h w"], radius_um: float, mpp: tuple[float, float]) -> Bool[np.ndarray, "h w"]:
    """All pixels within `radius_um` of a true one, centre to centre; `mpp` is micrometres per pixel (x, y).

    The disc is built from its rows: the mask is widened along x a pixel at a time, from the disc's top row to its
    middle one, and each row's width is laid on above and below. That is some four passes a pixel of radius, each a few
    hundred microseconds a megapixel, where a distance transform takes half a second.
    """
    height, width = mask.shape
    wide, out, reach = mask.copy(), mask.copy(), 0
    for dy in range(min(int(radius_um / mpp[1]), height - 1), -1, -1):
        half = min(int(math.sqrt(max(radius_um**2 - (dy * mpp[1]) ** 2, 0)) / mpp[0]), width - 1)
        for dx in range(reach + 1, half + 1):
            wide[:, dx:] |= mask[:, :-dx]
            wide[:, :-dx] |= mask[:, dx:]
        reach = max(reach, half)
        out[dy:] |= wide[: height - dy]
        out[: height - dy] |= wide[dy:]
    return out


def eroded(mask: Bool[np.ndarray, "h w"], radius_um: float, mpp: tuple[float, float]) -> Bool[np.ndarray, "h w"]:
    """The pixels with no false one within `radius_um`; what lies outside the picture takes nothing away."""
    return ~dilated(~mask, radius_um, mpp)


def closed(mask: Bool[np.ndarray, "h w"], width_um: float, mpp: tuple[float, float]) -> Bool[np.ndarray, "h w"]:
    """The mask with gaps up to a width closed."""
    return eroded(dilated(mask, width_um / 2, mpp), width_um / 2, mpp)


def opened(mask: Bool[np.ndarray, "h w"], width_um: float, mpp: tuple[float, float]) -> Bool[np.ndarray, "h w"]:
    """The mask without its threads up to a width."""
    return dilated(eroded(mask, width_um / 2, mpp), width_um / 2, mpp)


def square_closed(mask: Bool[np.ndarray, "h w"], side_px: int) -> Bool[np.ndarray, "h w"]:
    """The mask with gaps narrower than a square of `side_px` pixels closed; nothing outside the picture counts."""
    padded = np.pad(mask, side_px)
    for axis in (0, 1):
        padded = _run(padded, side_px, axis=axis)
    for axis in (0, 1):
        # The mirrored square, so that the mask stays where it is though the side may be even.
        padded = np.flip(~_run(np.flip(~padded, axis), side_px, axis=axis), axis)
    return padded[side_px:-side_px, side_px:-side_px]


def _run(mask: Bool[np.ndarray, "h w"], length: int, *, axis: int) -> Bool[np.ndarray, "h w"]:
    """True where one of the `length` pixels that end here along an axis is."""
    out = mask.copy()
    ahead, behind = (out, mask) if axis == 0 else (out.T, mask.T)
    for shift in range(1, length):
        ahead[shift:] |= behind[:-shift]
    return out


def without_small(mask: Bool[np.ndarray, "h w"], least_px: float) -> Bool[np.ndarray, "h w"]:
    """The mask without its connected pieces of fewer pixels."""
    pieces = label(mask, connectivity=1)
    keep = np.bincount(pieces.ravel()) >= least_px
    keep[0] = False
    return np.asarray(keep[pieces])


def holes_filled(mask: Bool[np.ndarray, "h w"], most_px: float) -> Bool[np.ndarray, "h w"]:
    """The mask with its holes of fewer pixels filled; background that reaches the picture's edge is no hole."""
    pieces = label(np.pad(~mask, 1, constant_values=True), connectivity=1)
    fill = np.bincount(pieces.ravel()) < most_px
    fill[[0, pieces[0, 0]]] = False
    return mask | np.asarray(fill[pieces[1:-1, 1:-1]])
