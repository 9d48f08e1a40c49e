"""Where on a low-power picture the tissue is: thresholds on colour and density, pen dropped, shapes cleaned up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image, ImageFilter
from scipy.ndimage import uniform_filter
from skimage.filters import threshold_otsu

from wsi_mil.errors import SlideError, unknown
from wsi_mil.tissue.morphology import closed, eroded, holes_filled, opened, without_small
from wsi_mil.tissue.pen import extremes, find_pen, strips
from wsi_mil.tissue.saturation import saturated

METHODS = ("otsu", "hsv")
"""What finds tissue on a picture without anything learned or drawn."""

SMOOTH_UM = 6.0
"""Standard deviation of the blur that takes away sensor and JPEG noise and single nuclei, and keeps strands. It moves
the faint edge of tissue outwards, which is taken back."""

LOCAL_UM = 100.0
"""Width of the neighbourhood whose mean shade says how dark the tissue at an edge is."""

SATURATION_LIMITS = (0.03, 0.06)
DENSITY_LIMITS = (0.012, 0.02)
"""Least and greatest threshold that Otsu may choose. The least keep the noise of an empty slide out; the greatest keep
pale tissue in where most of the slide is dark, and Otsu would part dark tissue from pale instead of from glass."""

LEAST_COLOUR = 0.4
"""Saturation per optical density below which something is grey whatever its depth: dust, shadow, the edge of a cover
slip. Stains, a pale counterstain included, have about 1.5."""

LEAST_CHROMA = 0.25
REGION_UM = 32.0
"""Spread of the channels' optical densities over their mean, which by Beer's law a dye keeps at any depth, for the mean
light of squares of REGION_UM (single pale pixels are too noisy). Below it something is a tinted grey: the yellowish
edge of a real slide has 0.1 to 0.24, and of real tissue 99 in 100 squares have more than 0.3."""

LEAST_WHITE = 200
MAX_WHITE_TINT = 30
"""A pixel counts as glass, to set white by, if no channel is darker and channels differ by no more than this."""

TYPICAL_WHITE = 243.0

SAMPLE_PX = 1 << 19
"""Pixels that thresholds and the white of the glass are taken from: more change neither."""


@dataclass(frozen=True)
class TissueFound:
    """Tissue on a picture, and how much of it was left after each step of looking for it."""

    mask: Bool[np.ndarray, "h w"]
    mpp: tuple[float, float]
    """Micrometres per pixel of the mask (x, y)."""
    steps: tuple[tuple[str, float], ...] = ()
    """What was done, in order, and the square micrometres it left."""

    def after(self, step: str, mask: Bool[np.ndarray, "h w"] | None = None) -> TissueFound:
        """The mask that a step left, or this one, with the step remembered."""
        mask = self.mask if mask is None else mask
        left = float(np.count_nonzero(mask)) * self.mpp[0] * self.mpp[1]
        return TissueFound(mask, self.mpp, (*self.steps, (step, left)))

    def explain(self) -> str:
        """What looked like tissue at first, and which step took or gave how much, as one clause."""
        if not self.steps:
            return ""
        (first, before), *rest = self.steps
        told = [f"{first} {_area(before)}"]
        for step, left in rest:
            if abs(left - before) >= 1:
                told.append(f"{step} {'took' if left < before else 'gave'} {_area(abs(left - before))}")
            before = left
        return ", ".join(told)


def find_tissue(
    rgb: UInt8[np.ndarray, "h w 3"],
    *,
    mpp: tuple[float, float],
    method: str = "otsu",
    min_area_um2: float = 10_000.0,
    close_um: float = 40.0,
    open_um: float = 20.0,
    hole_um2: float = 10_000.0,
    saturation: int = 8,
) -> TissueFound:
    """Which pixels of an overview show tissue.

    `mpp` is micrometres per overview pixel (x, y); about 4 to 16 is meant, and all lengths scale with it. Pieces
    smaller than `min_area_um2` are dropped and holes smaller than `hole_um2` filled. otsu: thresholds on colour and
    density, pen dropped, gaps up to `close_um` wide closed, threads up to `open_um` wide dropped. hsv: CLAM's recipe
    with its threshold `saturation` (saturation.py). A slide without tissue gives no pixel.
    """
    if method not in METHODS:
        raise SlideError(unknown("tissue method", method, METHODS))
    if method == "hsv":
        found = TissueFound(saturated(rgb, threshold=saturation), mpp).after("saturated")
        return tidied(found, min_area_um2=min_area_um2, hole_um2=hole_um2)
    light = _on_glass(_smooth(rgb, mpp))
    pen = find_pen(light, mpp=mpp)
    found = TissueFound(_stained(light, pen, mpp), mpp).after("stained")
    found = found.after("pen", found.mask & ~pen)
    if found.mask.any():
        shade = 1 - (light[0] + light[1] + light[2]) / np.float32(3)
        mask = _cleaned(found.mask, shade, mpp, close_um=close_um, open_um=open_um)
        found = found.after("threads and gaps", mask & ~pen)
    return tidied(found, min_area_um2=min_area_um2, hole_um2=hole_um2, never=pen)


def tidied(
    found: TissueFound, *, min_area_um2: float, hole_um2: float, never: Bool[np.ndarray, "h w"] | None = None
) -> TissueFound:
    """Small pieces dropped, then small holes filled, but for the pixels that are `never` tissue."""
    pixel_um2 = found.mpp[0] * found.mpp[1]
    found = found.after(f"pieces under {_area(min_area_um2)}", without_small(found.mask, min_area_um2 / pixel_um2))
    mask = holes_filled(found.mask, hole_um2 / pixel_um2)
    return found.after("holes", mask if never is None else mask & ~never)


def _stained(
    light: Float32[np.ndarray, "3 h w"], pen: Bool[np.ndarray, "h w"], mpp: tuple[float, float]
) -> Bool[np.ndarray, "h w"]:
    """Otsu's threshold on saturation and optical density, both as logarithms, where pale tissue is far from glass."""
    step = max(1, round((pen.size / SAMPLE_PX) ** 0.5))
    free = ~pen[::step, ::step]
    if not free.any():
        return pen
    saturation, density = _saturation_and_density(light[:, ::step, ::step])
    least_saturation = _threshold(saturation[free], SATURATION_LIMITS)
    least_density = _threshold(density[free], DENSITY_LIMITS)
    stained = np.empty_like(pen)
    for rows in strips(len(pen)):
        saturation, density = _saturation_and_density(light[:, rows])
        coloured = (saturation > least_saturation) & (saturation > np.float32(LEAST_COLOUR) * density)
        stained[rows] = coloured & (density > least_density)
    return stained & _dyed(light, mpp)


def _saturation_and_density(
    light: Float32[np.ndarray, "3 h w"],
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    top, bottom = extremes(light)
    passed = np.maximum(light[0] * light[1] * light[2], np.float32(1e-6))
    return (top - bottom) / np.maximum(top, np.float32(1e-3)), np.log10(passed) * np.float32(-1 / 3)


def _dyed(light: Float32[np.ndarray, "3 h w"], mpp: tuple[float, float]) -> Bool[np.ndarray, "h w"]:
    """Pixels in squares whose mean light has a dye's colour, however pale."""
    side = max(1, round(REGION_UM / min(mpp)))
    densities = -np.log10(np.maximum([_reduced(plane, side) for plane in light], 1e-3))
    dyed = np.ptp(densities, axis=0) >= LEAST_CHROMA * densities.mean(axis=0)
    _, height, width = light.shape
    return dyed.repeat(side, axis=0)[:height].repeat(side, axis=1)[:, :width]


def _threshold(values: Float32[np.ndarray, "pixel"], limits: tuple[float, float]) -> float:
    low, high = limits
    logs = np.log(values + low / 4)
    if float(np.ptp(logs)) < 1e-3:
        return low
    return float(np.clip(np.exp(threshold_otsu(logs)) - low / 4, low, high))


def _cleaned(
    mask: Bool[np.ndarray, "h w"],
    shade: Float32[np.ndarray, "h w"],
    mpp: tuple[float, float],
    *,
    close_um: float,
    open_um: float,
) -> Bool[np.ndarray, "h w"]:
    """Gaps closed, then what the blur had added taken off all round, then threads dropped."""
    # Continued over the picture's edge, so that tissue which the edge cuts is not eaten from there.
    reach = int(np.ceil((close_um + open_um + 2 * SMOOTH_UM) / min(mpp))) + 1
    wide = closed(np.pad(mask, reach, mode="edge"), close_um, mpp)
    sharp = _at_half_height(wide, np.pad(shade, reach, mode="edge"), mpp)
    return opened(sharp, open_um, mpp)[reach:-reach, reach:-reach]


def _at_half_height(
    mask: Bool[np.ndarray, "h w"], shade: Float32[np.ndarray, "h w"], mpp: tuple[float, float]
) -> Bool[np.ndarray, "h w"]:
    """The mask with its rim cut where it shades the light less than half as much as inside: there the edge was.

    `shade` is the share of the light held back, which a blur keeps half way at an edge. A threshold low enough for pale
    tissue lies far out on the blurred edge of dark tissue, and a fixed shrinking would be right for one darkness only.
    No more than two deviations of the blur are taken off.
    """
    inside = eroded(mask, 2 * SMOOTH_UM, mpp)
    rim = mask & ~inside
    shrink = max(1, round(LOCAL_UM / 4 / min(mpp)))
    # Where tissue is too thin to have an inside, the rim speaks for itself.
    weight = inside.astype(np.float32) + np.float32(0.02) * mask
    size = max(3, round(LOCAL_UM / (shrink * min(mpp))))
    held, weights = (uniform_filter(_reduced(values, shrink), size) for values in (weight * shade, weight))
    half = 0.5 * held / np.maximum(weights, np.float32(1e-6))
    height, width = mask.shape
    spread = Image.fromarray(half.astype(np.float32)).resize(
        (width, height), Image.Resampling.BILINEAR, box=(0, 0, width / shrink, height / shrink)
    )
    return mask & ~(rim & (shade < np.asarray(spread)))


def _reduced(values: Float32[np.ndarray, "h w"], by: int) -> Float32[np.ndarray, "h2 w2"]:
    return np.asarray(Image.fromarray(values).reduce(by))


def _smooth(rgb: UInt8[np.ndarray, "h w 3"], mpp: tuple[float, float]) -> UInt8[np.ndarray, "h w 3"]:
    sigma = (SMOOTH_UM / mpp[0], SMOOTH_UM / mpp[1])
    return np.asarray(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(sigma)))


def _on_glass(smooth: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "3 h w"]:
    """Share of the light that passes each pixel: the picture over the colour of the empty glass, at most 1."""
    step = max(1, round((smooth.size / 3 / SAMPLE_PX) ** 0.5))
    sample = smooth[::step, ::step].reshape(-1, 3)
    high, low = sample.max(axis=1), sample.min(axis=1)
    glass = sample[(low >= LEAST_WHITE) & (high - low <= MAX_WHITE_TINT)]
    # The brighter half: pale tissue may pass for glass too.
    white = np.full(3, TYPICAL_WHITE)
    if len(glass) >= 0.005 * len(sample):
        brightness = glass.sum(axis=1, dtype=np.int32)
        white = np.median(glass[brightness >= np.median(brightness)], axis=0)
    # A table of 256 values a channel, laid out plane by plane: everything after this runs along planes.
    shares = np.minimum(np.arange(256)[:, None] / white, 1).astype(np.float32)
    light = np.empty((3, *smooth.shape[:2]), np.float32)
    for channel in range(3):
        # `clip` only spares a check: a grey level is always in the table.
        np.take(np.ascontiguousarray(shares[:, channel]), smooth[..., channel], out=light[channel], mode="clip")
    return light


def _area(um2: float) -> str:
    return f"{um2 / 1e6:,.4g} mm2" if um2 >= 1e5 else f"{um2:,.0f} um2"
