"""Antialiased bicubic resampling of a fractional rectangle: Pillow's filter, compiled where numba is installed.

Both ways give the same bytes (a test holds it), so which of them ran is no part of what a bag is. The compiled one
takes about half the time. The filter is the cubic convolution of Keys (1981) with a = -0.5, stretched by the shrinking
factor, with weights of 22 fractional bits and 8-bit values between the horizontal and the vertical pass.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

FRACTION_BITS = 22
_HALF = 1 << (FRACTION_BITS - 1)
_REACH = 2.0  # source pixels that the filter reaches to either side, when nothing is shrunk

Weights = tuple[Int32[np.ndarray, "out"], Int32[np.ndarray, "out"], Int32[np.ndarray, "out tap"]]


def resample(
    rgb: UInt8[np.ndarray, "h w 3"],
    box: tuple[float, float, float, float],
    size_px: tuple[int, int],
    *,
    gap: float | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """The rectangle (left, top, right, bottom) of a picture as one of a width and height.

    With `gap` a picture that shrinks by more than twice that goes first by a whole factor (Pillow's reducing_gap).
    """
    if gap is not None:
        from PIL import Image

        picture = Image.fromarray(rgb)
        return np.asarray(picture.resize(size_px, Image.Resampling.BICUBIC, box=box, reducing_gap=gap))
    run = _compiled()
    if run is None:
        return _by_pillow(rgb, box, size_px)
    out = np.empty((size_px[1], size_px[0], 3), np.uint8)
    across = weights(rgb.shape[1], box[0], box[2], size_px[0])
    down = weights(rgb.shape[0], box[1], box[3], size_px[1])
    run(np.ascontiguousarray(rgb), *across, *down, out)
    return out


def _by_pillow(
    rgb: UInt8[np.ndarray, "h w 3"], box: tuple[float, float, float, float], size_px: tuple[int, int]
) -> UInt8[np.ndarray, "height width 3"]:
    """One pass a call: which of the two comes first in one call depends on the shapes, and shows in the rounding."""
    from PIL import Image

    height = rgb.shape[0]
    narrow = Image.fromarray(rgb).resize(
        (size_px[0], height), Image.Resampling.BICUBIC, box=(box[0], 0, box[2], height)
    )
    return np.asarray(narrow.resize(size_px, Image.Resampling.BICUBIC, box=(0, box[1], size_px[0], box[3])))


@lru_cache(maxsize=256)
def weights(size: int, start: float, stop: float, out: int) -> Weights:
    """First source pixel, number of taps and fixed-point taps of each output pixel along one axis."""
    # Pillow takes the rectangle, and its side, in single precision.
    scale = float(np.float32(stop) - np.float32(start)) / out
    start = float(np.float32(start))
    stretch = max(scale, 1.0)
    reach = _REACH * stretch
    center = start + (np.arange(out) + 0.5) * scale
    first = np.maximum((center - reach + 0.5).astype(np.int64), 0)
    taps = np.minimum((center + reach + 0.5).astype(np.int64), size) - first
    tap = np.arange(int(np.ceil(reach)) * 2 + 1)
    value = _cubic(np.abs((tap[None, :] + first[:, None] - center[:, None] + 0.5) / stretch))
    value[tap[None, :] >= taps[:, None]] = 0
    value /= value.sum(axis=1, keepdims=True)
    fixed = np.trunc(value * (1 << FRACTION_BITS) + np.where(value < 0, -0.5, 0.5))
    return first.astype(np.int32), taps.astype(np.int32), fixed.astype(np.int32)


def _cubic(x: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    near = (1.5 * x - 2.5) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., None] | None:
    """Both passes as machine code, or None without numba. Compiled once a machine where its cache can be written."""
    try:
        import numba
    except ImportError:
        return None

    # Checks of annotations, where tests wrap functions in them, are no code that can be compiled.
    plain = inspect.unwrap(_one_pass), inspect.unwrap(_flip)
    try:
        one_pass, flip = (numba.njit(nogil=True, cache=True)(function) for function in plain)
    except RuntimeError:  # no place for the compiler's cache
        one_pass, flip = (numba.njit(nogil=True)(function) for function in plain)

    def run(rgb: Any, left: Any, across: Any, x_taps: Any, top: Any, down: Any, y_taps: Any, out: Any) -> None:
        height, width, _ = rgb.shape
        new_height, new_width, _ = out.shape
        # Rows are summed as long vectors, so the horizontal pass works on the picture turned on its side.
        turned = np.empty((width, height, 3), np.uint8)
        flip(rgb, turned)
        narrow = np.empty((new_width, height, 3), np.uint8)
        one_pass(turned.reshape(width, -1), left, across, x_taps, narrow.reshape(new_width, -1))
        upright = np.empty((height, new_width, 3), np.uint8)
        flip(narrow, upright)
        one_pass(upright.reshape(height, -1), top, down, y_taps, out.reshape(new_height, -1))

    return run


def _one_pass(source: Any, first: Any, count: Any, taps: Any, out: Any) -> None:  # pragma: no cover - compiled
    """Weighted sums of whole rows."""
    width = source.shape[1]
    total = np.empty(width, np.int32)
    for row in range(out.shape[0]):
        for at in range(width):
            total[at] = _HALF
        top = first[row]
        for tap in range(count[row]):
            weight = taps[row, tap]
            for at in range(width):
                total[at] += weight * np.int32(source[top + tap, at])
        for at in range(width):
            out[row, at] = min(max(total[at] >> FRACTION_BITS, 0), 255)


def _flip(source: Any, out: Any) -> None:  # pragma: no cover - compiled
    """Rows become columns, in blocks that fit into the fastest cache."""
    for top in range(0, source.shape[0], 32):
        for left in range(0, source.shape[1], 32):
            for y in range(top, min(top + 32, source.shape[0])):
                for x in range(left, min(left + 32, source.shape[1])):
                    out[x, y, 0] = source[y, x, 0]
                    out[x, y, 1] = source[y, x, 1]
                    out[x, y, 2] = source[y, x, 2]
