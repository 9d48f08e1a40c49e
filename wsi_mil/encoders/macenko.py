"""Stain normalisation after Macenko, and stain augmentation, on the tiles of a slide before they are encoded.

Off by default, and for pathology foundation models best left so: they were trained on slides of many laboratories, and
a comparison of more than 8,000 runs (arXiv 2311.11772) found that normalisation can be left out. It may help an
encoder of natural images, or a cohort whose laboratories and labels go together.

torchstain (MIT) does the same for one picture at a time and is the oracle of the tests. It is no dependency: its wheel
installs a top-level package named `tests`, and its estimate is made tile by tile, which fails where a tile holds one
stain only. Here one estimate is made for a slide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt8

from wsi_mil.errors import EncoderError

WHITE = 240.0
"""Grey level of empty glass, as in the published implementations."""

LEAST_DENSITY = 0.15
"""Optical density (natural logarithm) in every channel below which a pixel counts as glass (the paper's beta)."""

TAIL = 1.0
"""Per cent of pixels beyond the two stain directions on either side (the paper's alpha)."""

REFERENCE = ((0.5626, 0.2159), (0.7201, 0.8012), (0.4062, 0.5581))
"""Haematoxylin and eosin (columns) in red, green and blue of the slide that others are brought to."""

REFERENCE_MOST = (1.9705, 1.0308)
"""99th percentile of both amounts on that slide. Both constants are those of the published implementations."""

LEAST_PIXELS = 1000

JITTER_STAINS = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105), (0.268, 0.570, 0.776))
"""Haematoxylin, eosin and the rest after Ruifrok & Johnston 2001, which augmentation changes each for itself."""


_DENSITY = (-np.log((np.arange(256) + 1.0) / WHITE)).astype(np.float32)
"""Optical density of each grey level; one is added, so that black stays finite."""


@dataclass(frozen=True)
class StainMap:
    """A change of colours that is linear in optical density: one matrix [3, 3], and one shift [3]."""

    matrix: Float64[np.ndarray, "3 3"]
    shift: Float64[np.ndarray, "3"]

    def apply(self, pixels: UInt8[np.ndarray, "*any 3"]) -> UInt8[np.ndarray, "*any 3"]:
        """The pixels in their new colours."""
        densities = _DENSITY.take(pixels)
        changed = densities @ self.matrix.T.astype(np.float32) + self.shift.astype(np.float32)
        # In place: a batch of tiles as float32 is large.
        np.negative(changed, out=changed)
        np.exp(changed, out=changed)
        changed *= np.float32(WHITE)
        return np.clip(changed, 0, 255, out=changed).astype(np.uint8)

    def after(self, first: StainMap) -> StainMap:
        """The one map that does what `first` does and then this one, without rounding in between."""
        return StainMap(self.matrix @ first.matrix, self.matrix @ first.shift + self.shift)


def fit_macenko(pixels: UInt8[np.ndarray, "*any 3"], *, where: str) -> StainMap:
    """The map that brings a slide's stains to the reference, estimated from some of its pixels.

    Macenko et al., ISBI 2009: the stained pixels' optical densities lie near a plane, spanned by the first two
    eigenvectors of their covariance; in it the outermost directions (but for TAIL per cent) are the two stains; the
    amounts of both are least squares, and their 99th percentiles are brought to the reference's.
    Raises EncoderError, naming `where`, for a slide with too few stained pixels, or with one stain only.
    """
    densities = _DENSITY.take(pixels.reshape(-1, 3)).astype(np.float64)
    stained = densities[(densities >= LEAST_DENSITY).all(axis=1)]
    if len(stained) < LEAST_PIXELS:
        raise EncoderError(
            f"{where}: only {len(stained)} stained pixels were found, too few to estimate its stains; "
            "set extract.stain to none"
        )
    _, vectors = np.linalg.eigh(np.cov(stained, rowvar=False))
    plane = vectors[:, 1:]
    # Directions into the quadrant of positive densities, so that angles do not wrap.
    plane = plane * np.where(plane.sum(axis=0) < 0, -1, 1)
    angles = np.arctan2(*(stained @ plane).T[::-1])
    low, high = np.percentile(angles, (TAIL, 100 - TAIL))
    first, second = (plane @ (np.cos(angle), np.sin(angle)) for angle in (low, high))
    # Haematoxylin takes more of the red light.
    stains = np.stack((first, second) if first[0] > second[0] else (second, first), axis=1)
    if np.linalg.cond(stains) > 100 or not np.isfinite(stains).all():
        raise EncoderError(f"{where}: its pixels hold one stain only, not two; set extract.stain to none")
    inverse = np.linalg.pinv(stains)
    most = np.percentile(stained @ inverse.T, 99, axis=0)
    if (most <= 0).any():
        raise EncoderError(f"{where}: the amounts of its two stains cannot be told apart; set extract.stain to none")
    scale = np.diag(np.asarray(REFERENCE_MOST) / most)
    return StainMap(np.asarray(REFERENCE) @ scale @ inverse, np.zeros(3))


def draw_jitter(strength: float, random: np.random.Generator) -> StainMap:
    """A random change of the stains: each amount times 1 +- strength, and plus or minus a tenth of that.

    Tellez et al., Medical Image Analysis 2019 ("HED-light" is a strength of 0.05, "HED-strong" of 0.2).
    """
    stains = np.array(JITTER_STAINS).T
    stains = stains / np.linalg.norm(stains, axis=0)
    factors = np.diag(1 + random.uniform(-strength, strength, 3))
    shift = stains @ random.uniform(-strength, strength, 3) / 10
    return StainMap(stains @ factors @ np.linalg.inv(stains), shift)
