"""Marker pen on the glass, by colours that no stain has: green, blue, red and black."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Shaped
from skimage.morphology import isotropic_dilation, isotropic_opening

STROKE_UM = 50.0
"""A pen's core is at least this wide; red cells and dense nuclei of the same colour lie in finer patches."""

REACH_UM = 150.0
"""How far from its core a stroke may fade; beyond it the loose rules would run into tissue of a like colour."""

HALO_UM = 16.0
"""Width of the rim where ink and what lies beside it blur into each other; a pixel and a half at least."""

BLACK_LIGHT = 0.36
"""Share of light that black ink lets pass at most in its brightest channel; at low power no stain is as dense."""


def find_pen(clear: Float32[np.ndarray, "h w 3"], *, mpp: tuple[float, float]) -> Bool[np.ndarray, "h w"]:
    """Which pixels are ink, from the share of light each channel lets pass and the picture's scale (x, y).

    A strict rule finds the core of a stroke, a loose one follows its fading edge a little way. Stains keep to the hues
    of their dyes: haematoxylin and eosin 240 to 345 degrees, DAB 10 to 50, a pale counterstain 200 to 240 but weakly.
    """
    hue, saturation, light = _hue(clear)
    is_red = (hue > 346) | (hue < 15)
    core = (
        ((hue > 75) & (hue < 195) & (saturation > 0.22))
        | ((hue >= 195) & (hue < 232) & (saturation > 0.42))
        | (is_red & (saturation > 0.50))
        | (light < BLACK_LIGHT)
    )
    loose = (
        ((hue > 75) & (hue < 200) & (saturation > 0.06))
        | ((hue >= 195) & (hue < 236) & (saturation > 0.15))
        | (is_red & (saturation > 0.12))
        | ((hue > 338) & (saturation > 0.40))
        | (light < BLACK_LIGHT * 1.4)
    )
    if not core.any():
        return core
    # Lengths are measured around the core only: most slides have little ink, or none.
    pixel_um = max(mpp)
    reach_um, halo_um = max(REACH_UM, 3 * pixel_um), max(HALO_UM, 1.5 * pixel_um)
    part = _around(core, int(np.ceil((reach_um + halo_um) / min(mpp))))
    spacing = mpp[1], mpp[0]
    stroke = isotropic_opening(core[part], STROKE_UM / 2, spacing=spacing)
    pen = np.zeros_like(core)
    if stroke.any():
        near = isotropic_dilation(stroke, reach_um, spacing=spacing)
        pen[part] = isotropic_dilation(stroke | (near & loose[part]), halo_um, spacing=spacing)
    return pen


def extremes(pixels: Shaped[np.ndarray, "h w 3"]) -> tuple[Shaped[np.ndarray, "h w"], Shaped[np.ndarray, "h w"]]:
    """The greatest and the least channel of each pixel."""
    red, green, blue = (pixels[..., channel] for channel in range(3))
    return np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)


def _around(mask: Bool[np.ndarray, "h w"], margin: int) -> tuple[slice, slice]:
    """The rows and columns that hold the true pixels, and some more."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + margin + 1),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + margin + 1),
    )


def _hue(
    clear: Float32[np.ndarray, "h w 3"],
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """Hue in degrees, saturation and brightest channel."""
    red, green, blue = (clear[..., channel] for channel in range(3))
    top, bottom = extremes(clear)
    spread = np.maximum(top - bottom, np.float32(1e-6))
    sector = np.where(
        top == red,
        (green - blue) / spread,
        np.where(top == green, 2 + (blue - red) / spread, 4 + (red - green) / spread),
    )
    hue = np.mod(sector * np.float32(60), np.float32(360)).astype(np.float32)
    return hue, spread / np.maximum(top, np.float32(1e-3)), top
