"""Marker pen on the glass, by colours that no stain has: green, blue, red and black."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float32, Shaped

from wsi_mil.tissue.morphology import dilated, opened

STRIP_ROWS = 64

STROKE_UM = 50.0
"""A pen's core is at least this wide; red cells and dense nuclei of the same colour lie in finer patches."""

REACH_UM = 150.0
"""How far from its core a stroke may fade; beyond it the loose rules would run into tissue of a like colour."""

HALO_UM = 16.0
"""Width of the rim where ink and what lies beside it blur into each other; a pixel and a half at least."""

BLACK_LIGHT = 0.36
"""Share of light that black ink lets pass at most in its brightest channel; at low power only crowded or folded nuclei
are as dense, and those stay blue to purple and saturated, which ink this thin is not."""

CRIMSON_STROKE_UM = 150.0
"""Least width of a stroke of crimson ink. Its colour is near that of eosin; on real slides without pen no tissue of
its colour is wider than 100 um."""


def find_pen(light: Float32[np.ndarray, "3 h w"], *, mpp: tuple[float, float]) -> Bool[np.ndarray, "h w"]:
    """Which pixels are ink, from the share of light each channel lets pass and the picture's scale (x, y).

    A strict rule finds the core of a stroke, a loose one follows its fading edge a little way. Stains keep to the hues
    of their dyes: haematoxylin and eosin 240 to 345 degrees, DAB 10 to 50, a pale counterstain 200 to 240 but weakly.
    """
    marks = np.empty((4, *light.shape[1:]), dtype=bool)
    for rows in strips(light.shape[1]):
        marks[:, rows] = _ink_colours(light[:, rows])
    core, loose, crimson, pale_crimson = marks
    return _strokes(core, loose, STROKE_UM, mpp) | _strokes(crimson, pale_crimson, CRIMSON_STROKE_UM, mpp)


def strips(height: int) -> Iterator[slice]:
    """Some rows at a time, so that what is computed of them on the way stays in the processor's cache."""
    return (slice(top, top + STRIP_ROWS) for top in range(0, height, STRIP_ROWS))


def _ink_colours(light: Float32[np.ndarray, "3 h w"]) -> tuple[Bool[np.ndarray, "h w"], ...]:
    """Core and fading edge of ink, then the same of crimson ink."""
    hue, saturation, brightest = _hue(light)
    is_red = (hue > 346) | (hue < 15)
    is_dense_tissue = (hue > 235) & (hue < 300) & (saturation > 0.60) & (brightest > 0.2)
    core = (
        ((hue > 75) & (hue < 195) & (saturation > 0.22))
        | ((hue >= 195) & (hue < 232) & (saturation > 0.42))
        | (is_red & (saturation > 0.50))
        | ((brightest < BLACK_LIGHT) & ~is_dense_tissue)
    )
    loose = (
        ((hue > 75) & (hue < 200) & (saturation > 0.06))
        | ((hue >= 195) & (hue < 236) & (saturation > 0.15))
        | (is_red & (saturation > 0.12))
        | ((hue > 338) & (saturation > 0.40))
        | ((brightest < BLACK_LIGHT * 1.4) & ~is_dense_tissue)
    )
    return core, loose, *_crimson(light, (hue > 332) & (hue < 352) & (saturation > 0.12))


def _crimson(
    light: Float32[np.ndarray, "3 h w"], reddish: Bool[np.ndarray, "h w"]
) -> tuple[Bool[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Which of the reddish pixels have the colour of crimson ink, strictly and loosely.

    Crimson ink and eosin share hues, but not the ratios of their optical densities, which by Beer's law hold at any
    depth: the ink takes a tenth as much of the red as of the green light, and two thirds as much of the blue; tissue,
    with nuclei in every neighbourhood, takes a fifth as much of the red at least.
    """
    core, loose = np.zeros_like(reddish), np.zeros_like(reddish)
    red, green, blue = -np.log10(np.maximum(light[:, reddish], np.float32(1 / 255)))
    core[reddish] = (green > 0.08) & (red < 0.16 * green) & (blue > 0.56 * green) & (blue < 0.80 * green)
    loose[reddish] = (green > 0.03) & (red < 0.20 * green) & (blue > 0.45 * green) & (blue < green)
    return core, loose


def _strokes(
    core: Bool[np.ndarray, "h w"], loose: Bool[np.ndarray, "h w"], width_um: float, mpp: tuple[float, float]
) -> Bool[np.ndarray, "h w"]:
    """The parts of a core at least so wide, with what is loosely of their colour near them, and a rim all round."""
    if not core.any():
        return core
    # Lengths are measured around the core only: most slides have little ink, or none.
    pixel_um = max(mpp)
    reach_um, halo_um = max(REACH_UM, 3 * pixel_um), max(HALO_UM, 1.5 * pixel_um)
    part = _around(core, int(np.ceil((reach_um + halo_um) / min(mpp))))
    stroke = opened(core[part], width_um, mpp)
    pen = np.zeros_like(core)
    if stroke.any():
        near = dilated(stroke, reach_um, mpp)
        pen[part] = dilated(stroke | (near & loose[part]), halo_um, mpp)
    return pen


def extremes(planes: Shaped[np.ndarray, "3 h w"]) -> tuple[Shaped[np.ndarray, "h w"], Shaped[np.ndarray, "h w"]]:
    """The greatest and the least channel of each pixel."""
    red, green, blue = planes
    return np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)


def _around(mask: Bool[np.ndarray, "h w"], margin: int) -> tuple[slice, slice]:
    """The rows and columns that hold the true pixels, and some more."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + margin + 1),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + margin + 1),
    )


def _hue(
    light: Float32[np.ndarray, "3 h w"],
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """Hue in degrees, saturation and brightest channel."""
    red, green, blue = light
    top, bottom = extremes(light)
    spread = np.maximum(top - bottom, np.float32(1e-6))
    sector = np.where(
        top == red,
        (green - blue) / spread,
        np.where(top == green, 2 + (blue - red) / spread, 4 + (red - green) / spread),
    )
    # Not np.mod, which is ten times as slow.
    hue = sector * np.float32(60) + np.where(sector < 0, np.float32(360), np.float32(0))
    return hue, spread / np.maximum(top, np.float32(1e-3)), top
