"""Whether a heatmap finds lesions: pointing game, Dice at a fixed area, and FROC as CAMELYON16 defines it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

RATES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives a slide at which CAMELYON16 reads the sensitivity."""

RADIUS = 1
"""Cells around a detection in which there is no other one."""


def pointing(positive: Bool[np.ndarray, "tile"], scores: Float[np.ndarray, "tile"]) -> float:
    """1 where the highest tile is a positive one, 0 where not; of several equally high tiles, the share of positives.

    Zhang et al.: Top-down Neural Attention by Excitation Backprop, IJCV 2018.
    """
    return float(positive[scores == scores.max()].mean())


def dice_at(positive: Bool[np.ndarray, "tile"], scores: Float[np.ndarray, "tile"], *, share: float) -> float:
    """Dice of the positive tiles with the highest `share` of all; tiles equal at the edge count in part.

    A lesion of another size than the share cannot reach 1: this says how useful a map is that always marks so much.
    """
    marked = max(1.0, round(share * len(scores)))
    order = np.argsort(-scores, kind="stable")
    edge = scores[order[int(marked) - 1]]
    above, level = scores > edge, scores == edge
    hits = positive[above].sum() + positive[level].mean() * (marked - above.sum())
    return float(2 * hits / (marked + positive.sum()))


def lesions(cells: Int64[np.ndarray, "tile 2"], positive: Bool[np.ndarray, "tile"]) -> Int64[np.ndarray, "tile"]:
    """Number of each tile's lesion from 1 on, 0 for negative tiles: positive tiles that touch, corners included."""
    from scipy.ndimage import label

    places = cells - cells.min(axis=0)
    picture = np.zeros(places.max(axis=0) + 1, dtype=bool)
    picture[tuple(places[positive].T)] = True
    pieces, _ = label(picture, structure=np.ones((3, 3)))
    return np.where(positive, pieces[tuple(places.T)], 0).astype(np.int64)


def detections(
    cells: Int64[np.ndarray, "tile 2"], scores: Float[np.ndarray, "tile"], *, radius: int = RADIUS
) -> Int64[np.ndarray, "detection"]:
    """Tiles from the highest down, without those within `radius` cells of one that was taken before."""
    taken: list[int] = []
    blocked: set[tuple[int, int]] = set()
    around = [(x, y) for x in range(-radius, radius + 1) for y in range(-radius, radius + 1)]
    for tile in np.argsort(-scores, kind="stable"):
        column, row = cells[tile].tolist()
        if (column, row) not in blocked:
            taken.append(int(tile))
            blocked.update((column + x, row + y) for x, y in around)
    return np.array(taken, dtype=np.int64)


@dataclass(frozen=True)
class Found:
    """The detections of one slide."""

    confidences: Float[np.ndarray, "detection"]
    lesion: Int64[np.ndarray, "detection"]
    """The lesion that each lies in, from 1 on; 0: a false positive."""
    lesions: int
    """That the slide has."""


@dataclass(frozen=True)
class Froc:
    """Sensitivity over lesions against false positives a slide."""

    sensitivities: Float64[np.ndarray, "rate"]
    """At RATES."""

    @property
    def score(self) -> float:
        """Their mean, by which CAMELYON16 ranked."""
        return float(self.sensitivities.mean())


def froc(slides: Sequence[Found]) -> Froc | None:
    """FROC of slides whose confidences share one scale; None without a lesion.

    As in the evaluation of CAMELYON16 (Ehteshami Bejnordi et al., JAMA 2017): a lesion is found with the highest
    confidence of the detections in it, further ones in it count for nothing, and false positives are counted on all
    slides. The curve is read between its points, and beyond its end as at its end. Here no lesion is left out for being
    isolated tumour cells, which tiles cannot tell.
    """
    total = sum(slide.lesions for slide in slides)
    if not total:
        return None
    false = np.concatenate([slide.confidences[slide.lesion == 0] for slide in slides])
    found = np.array(
        [
            slide.confidences[slide.lesion == number].max()
            for slide in slides
            for number in np.unique(slide.lesion[slide.lesion > 0])
        ]
    )
    thresholds = np.unique(np.concatenate([false, found]))[::-1]
    rates = [0.0, *((false >= threshold).sum() / len(slides) for threshold in thresholds)]
    sensitivities = [0.0, *((found >= threshold).sum() / total for threshold in thresholds)]
    return Froc(_read(np.array(rates, dtype=np.float64), np.array(sensitivities, dtype=np.float64)))


def _read(
    rates: Float64[np.ndarray, "point"], sensitivities: Float64[np.ndarray, "point"]
) -> Float64[np.ndarray, "rate"]:
    """The curve at RATES; of points at one rate the highest."""
    places, first = np.unique(rates, return_index=True)
    last = np.concatenate([first[1:], [len(rates)]]) - 1
    return np.interp(RATES, places, sensitivities[last])
