"""Whether a heatmap finds what it should: per slide, tiles against their truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from wsi_mil.errors import TaskError
from wsi_mil.evaluation.intervals import DRAWS, Interval, bootstrap_mean
from wsi_mil.evaluation.metrics import binary_auroc, binary_average_precision


@dataclass(frozen=True)
class Localisation:
    """Per slide with both kinds of tiles, how well scores tell them apart; slides of one kind only have no answer."""

    slides: tuple[str, ...]
    auroc: Float64[np.ndarray, "slide"]
    average_precision: Float64[np.ndarray, "slide"]
    prevalence: Float64[np.ndarray, "slide"]
    """Share of positive tiles: the average precision of a random score."""
    skipped: tuple[str, ...]
    """Slides whose tiles are all positive or all negative."""

    @property
    def mean_auroc(self) -> float:
        """Mean over slides, each counting once; NaN where there is none."""
        return float(self.auroc.mean()) if self.slides else float("nan")

    @property
    def mean_average_precision(self) -> float:
        """Mean over slides, each counting once; NaN where there is none."""
        return float(self.average_precision.mean()) if self.slides else float("nan")

    def interval(self, patients: Mapping[str, str], *, draws: int = DRAWS, seed: int = 0) -> Interval:
        """Patient-bootstrap interval of the mean AUROC; `patients` names each slide's patient."""
        if not self.slides:
            return Interval(float("nan"), float("nan"), float("nan"), 0, draws, 0.95)
        return bootstrap_mean(self.auroc, [patients[slide] for slide in self.slides], draws=draws, seed=seed)


def localise(truth: Mapping[str, Bool[np.ndarray, "_"]], scores: Mapping[str, Float[np.ndarray, "_"]]) -> Localisation:
    """Compare each slide's scores with the truth of its tiles, in the same order; TaskError where they do not match."""
    rows, skipped = [], []
    for slide, positive in truth.items():
        if slide not in scores or len(scores[slide]) != len(positive):
            raise TaskError(
                f"slide {slide!r} has {len(positive)} tiles with truth and {len(scores.get(slide, ()))} with scores; "
                "give both for the same tiles"
            )
        if positive.all() or not positive.any():
            skipped.append(slide)
        else:
            prevalence = float(positive.mean())
            rows.append((slide, tile_auroc(positive, scores[slide]), tile_ap(positive, scores[slide]), prevalence))
    return Localisation(
        slides=tuple(row[0] for row in rows),
        auroc=np.array([row[1] for row in rows], dtype=np.float64),
        average_precision=np.array([row[2] for row in rows], dtype=np.float64),
        prevalence=np.array([row[3] for row in rows], dtype=np.float64),
        skipped=tuple(skipped),
    )


def tile_auroc(positive: Bool[np.ndarray, "tile"], scores: Float[np.ndarray, "tile"]) -> float:
    """Probability that a positive tile scores above a negative one; NaN where one kind is missing."""
    return float(binary_auroc(positive, scores, np.ones((1, len(scores))))[0])


def tile_ap(positive: Bool[np.ndarray, "tile"], scores: Float[np.ndarray, "tile"]) -> float:
    """Average precision of the tiles' scores; NaN without positive tiles."""
    return float(binary_average_precision(positive, scores, np.ones((1, len(scores))))[0])


def centre_scores(
    places: Float[np.ndarray, "tile 2"] | Int[np.ndarray, "tile 2"],
) -> Float64[np.ndarray, "tile"]:
    """Minus the distance from the centre of a slide's tiles: a score that knows nothing of the picture.

    A lesion often lies in the middle of its tissue, so that a heatmap must beat this to have found anything.
    """
    values = places.astype(np.float64)
    return np.asarray(-np.hypot(*(values - values.mean(axis=0)).T))
