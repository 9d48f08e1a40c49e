"""Where on a low-power picture the tissue is: thresholds on colour and density, pen dropped, shapes cleaned up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image, ImageFilter
from skimage.filters import threshold_otsu
from skimage.measure import label
from skimage.morphology import isotropic_closing, isotropic_dilation, isotropic_erosion

from wsi_mil.errors import SlideError, unknown
from wsi_mil.tissue.pen import extremes, find_pen

SMOOTH_UM = 6.0
"""Standard deviation of the blur that takes away sensor and JPEG noise and single nuclei, and keeps strands. It moves
the faint edge of tissue outwards by about as much, which is taken back."""

SATURATION_LIMITS = (0.03, 0.06)
DENSITY_LIMITS = (0.012, 0.02)
"""Least and greatest threshold that Otsu may choose. The least keep the noise of an empty slide out; the greatest keep
pale tissue in where most of the slide is dark, and Otsu would part dark tissue from pale instead of from glass."""

LEAST_COLOUR = 0.4
"""Saturation per optical density below which something is grey whatever its depth: dust, shadow, the edge of a cover
slip. Stains, a pale counterstain included, have about 1.5."""

LEAST_WHITE = 200
MAX_WHITE_TINT = 30
"""A pixel counts as glass, to set white by, if no channel is darker and channels differ by no more than this."""

TYPICAL_WHITE = 243.0


def find_tissue(
    rgb: UInt8[np.ndarray, "h w 3"],
    *,
    mpp: tuple[float, float],
    method: str = "otsu",
    min_area_um2: float = 10_000.0,
    close_um: float = 40.0,
    open_um: float = 20.0,
    hole_um2: float = 10_000.0,
) -> Bool[np.ndarray, "h w"]:
    """Which pixels of an overview show tissue.

    `mpp` is micrometres per overview pixel (x, y); about 4 to 16 is meant, and all lengths scale with it. Gaps up to
    `close_um` wide are closed and threads up to `open_um` wide dropped; pieces smaller than `min_area_um2` are dropped
    and holes smaller than `hole_um2` filled. A slide without tissue gives no pixel.
    """
    if method not in METHODS:
        raise SlideError(unknown("tissue method", method, METHODS))
    smooth = _smooth(rgb, mpp)
    clear = _on_glass(smooth)
    pen = find_pen(clear, mpp=mpp)
    mask = METHODS[method](clear, pen)
    if not mask.any():
        return mask
    mask = _cleaned(mask, mpp, close_um=close_um, open_um=open_um) & ~pen
    pixel_um2 = mpp[0] * mpp[1]
    return _holes_filled(_without_small(mask, min_area_um2 / pixel_um2), hole_um2 / pixel_um2) & ~pen


def _cleaned(
    mask: Bool[np.ndarray, "h w"], mpp: tuple[float, float], *, close_um: float, open_um: float
) -> Bool[np.ndarray, "h w"]:
    """Gaps closed, then threads dropped, then what the blur had added taken off all round."""
    # Continued over the picture's edge, so that tissue which the edge cuts is not eaten from there.
    reach = int(np.ceil((close_um + open_um + SMOOTH_UM) / min(mpp))) + 1
    spacing = mpp[1], mpp[0]
    wide = isotropic_closing(np.pad(mask, reach, mode="edge"), close_um / 2, spacing=spacing)
    core = isotropic_erosion(wide, open_um / 2 + SMOOTH_UM, spacing=spacing)
    return np.asarray(isotropic_dilation(core, open_um / 2, spacing=spacing)[reach:-reach, reach:-reach])


def _otsu(clear: Float32[np.ndarray, "h w 3"], pen: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Otsu's threshold on saturation and optical density, both as logarithms, where pale tissue is far from glass."""
    top, bottom = extremes(clear)
    saturation = (top - bottom) / np.maximum(top, 1e-3)
    density = np.log10(np.maximum(clear, np.float32(1 / 255))) @ np.full(3, -1 / 3, np.float32)
    use = ~pen
    if not use.any():
        return use
    by_colour = saturation > _threshold(saturation[use], SATURATION_LIMITS)
    by_density = density > _threshold(density[use], DENSITY_LIMITS)
    return by_colour & by_density & (saturation > LEAST_COLOUR * density) & use


METHODS: dict[str, Callable[[Float32[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]], Bool[np.ndarray, "h w"]]] = {
    "otsu": _otsu
}
"""From the transmittance of each pixel and the pen on it to the pixels that look like tissue."""


def _threshold(values: Float32[np.ndarray, "pixel"], limits: tuple[float, float]) -> float:
    low, high = limits
    logs = np.log(values + low / 4)
    if float(np.ptp(logs)) < 1e-3:
        return low
    return float(np.clip(np.exp(threshold_otsu(logs)) - low / 4, low, high))


def _smooth(rgb: UInt8[np.ndarray, "h w 3"], mpp: tuple[float, float]) -> UInt8[np.ndarray, "h w 3"]:
    sigma = (SMOOTH_UM / mpp[0], SMOOTH_UM / mpp[1])
    return np.asarray(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(sigma)))


def _on_glass(smooth: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
    """Share of the light that passes each pixel: the picture over the colour of the empty glass, at most 1."""
    high, low = extremes(smooth)
    glass = smooth[(low >= LEAST_WHITE) & (high - low <= MAX_WHITE_TINT)]
    # The brighter half: pale tissue may pass for glass too.
    white = np.full(3, TYPICAL_WHITE)
    if len(glass) >= 0.005 * low.size:
        brightness = glass.sum(axis=1, dtype=np.int32)
        white = np.median(glass[brightness >= np.median(brightness)], axis=0)
    return np.minimum(smooth / white.astype(np.float32), np.float32(1))


def _without_small(mask: Bool[np.ndarray, "h w"], least_px: float) -> Bool[np.ndarray, "h w"]:
    """The mask without its connected pieces of fewer pixels."""
    pieces = label(mask, connectivity=1)
    keep = np.bincount(pieces.ravel()) >= least_px
    keep[0] = False
    return np.asarray(keep[pieces])


def _holes_filled(mask: Bool[np.ndarray, "h w"], most_px: float) -> Bool[np.ndarray, "h w"]:
    """The mask with its holes of fewer pixels filled; glass that reaches the picture's edge is no hole."""
    pieces = label(np.pad(~mask, 1, constant_values=True), connectivity=1)
    fill = np.bincount(pieces.ravel()) < most_px
    fill[[0, pieces[0, 0]]] = False
    return mask | np.asarray(fill[pieces[1:-1, 1:-1]])
