"""Random regions of one slide through several readers: do they see the same?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from wsi_mil.errors import SlideError
from wsi_mil.slides.slide import Slide


@dataclass(frozen=True)
class Difference:
    """How two readers differ on one level."""

    level: int
    """Number of the level in the first reader."""
    regions: int
    worst: int
    """Largest difference of any colour of any pixel, grey levels."""
    mean: float
    """Over all regions, grey levels."""
    differing: float
    """Share of pixels that differ at all."""
    fault: str = ""
    """Why the level could not be compared."""


def compare(
    slides: Mapping[str, Slide], *, regions: int = 16, side_px: int = 256, seed: int = 0
) -> dict[tuple[str, str], list[Difference]]:
    """Differences between the first slide and each of the others, level by level, on the same random regions.

    Levels are matched by size; one that the other reader does not have is said to be missing. OpenSlide interpolates
    where a place on a level is no whole level-0 pixel: there the two differ a little, and both are right.
    """
    (first_name, first), *others = slides.items()
    return {
        (first_name, name): [_difference(first, other, number, regions, side_px, seed) for number in _numbers(first)]
        for name, other in others
    }


def _numbers(slide: Slide) -> range:
    return range(len(slide.levels))


def _difference(first: Slide, other: Slide, number: int, regions: int, side_px: int, seed: int) -> Difference:
    level = first.levels[number]
    size = level.width, level.height
    twin = next((n for n, one in enumerate(other.levels) if (one.width, one.height) == size), None)
    if twin is None:
        return Difference(number, 0, 0, 0.0, 0.0, f"no level of {size[0]} x {size[1]} px")
    random = np.random.default_rng(seed)
    worst, total, differing = 0, 0.0, 0.0
    for _ in range(regions):
        width, height = min(side_px, size[0]), min(side_px, size[1])
        left, top = (
            int(random.integers(0, whole - part + 1)) for whole, part in zip(size, (width, height), strict=True)
        )
        box = left, top, width, height
        try:
            one, two = first.read_level(box, level=number), other.read_level(box, level=twin)
        except SlideError as error:
            return Difference(number, 0, 0, 0.0, 0.0, str(error))
        gap = np.abs(one.astype(np.int16) - two)
        worst, total = max(worst, int(gap.max())), total + float(gap.mean())
        differing += float(gap.any(axis=2).mean())
    return Difference(number, regions, worst, total / regions, differing / regions)
