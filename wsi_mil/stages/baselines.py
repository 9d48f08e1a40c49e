"""What can be had without attention, in the model's own folds: layout, colour and bag statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_mil.bags import Bag
from wsi_mil.errors import TaskError
from wsi_mil.evaluation import Baseline, Fold, bag_statistics, layout_statistics, out_of_fold_logistic
from wsi_mil.stages.train import read_folds
from wsi_mil.tissue import COLOURS

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work

BASELINES = {
    "layout of the tiles": "count, mean, spread and range of their places: no pixel is looked at",
    "mean colour": "logistic regression on the mean red, green and blue of a slide's tiles",
    "colour mean and spread": "logistic regression on each tile's RGB mean and standard deviation, averaged over tiles",
    "mean of features": "logistic regression on the mean of the encoder's features",
    "bag statistics": "logistic regression on mean, minimum, maximum and standard deviation of the encoder's features",
}
"""Name and meaning, from the least knowing to the most."""


@dataclass(frozen=True)
class SlideNumbers:
    """What the baselines read of a slide."""

    by_baseline: dict[str, NDArray[np.float64]]
    tile_rgb: NDArray[np.float32]
    """tile 6: RGB mean and standard deviation of each usable tile; tile 0 of a bag that does not hold them."""


def numbers_of(bag: Bag) -> SlideNumbers:
    """The numbers of one bag for every baseline."""
    keep = bag.usable
    features = np.asarray(bag.features)[keep]
    statistics = bag_statistics(features)
    numbers = {
        "layout of the tiles": layout_statistics(bag.grid.coords_l0[keep]),
        "mean of features": statistics[: features.shape[1]],
        "bag statistics": statistics,
    }
    # A bag that another program made has no colours.
    if not set(COLOURS) <= set(bag.quality):
        return SlideNumbers(numbers, np.empty((len(features), 0), np.float32))
    rgb = np.stack([bag.quality[name][keep] for name in COLOURS], axis=1)
    means = rgb.mean(axis=0, dtype=np.float64)
    return SlideNumbers({**numbers, "mean colour": means[:3], "colour mean and spread": means}, rgb)


def run_baselines(
    numbers: dict[str, SlideNumbers], labels: pd.Series, classes: list[str], work: Work
) -> dict[str, Baseline]:
    """Out-of-fold predictions of every baseline for the slides (in the order of `numbers`) of the study's folds.

    A baseline that the folds are too small for, or that a bag has no numbers for, is left out.
    """
    slides = list(numbers)
    place = {slide: row for row, slide in enumerate(slides)}
    truth = np.array([classes.index(labels[slide]) for slide in slides], dtype=np.int64)
    folds = []
    for _, rows in read_folds(work).groupby(["repeat", "fold"], sort=True):
        by_role = {
            role: np.array(
                [place[slide] for slide in rows["slide"][rows["role"] == role] if slide in place], dtype=np.int64
            )
            for role in ("fit", "select", "test")
        }
        folds.append(Fold(**by_role))
    found = {}
    for name in BASELINES:
        if not all(name in numbers[slide].by_baseline for slide in slides):
            continue
        matrix = np.stack([numbers[slide].by_baseline[name] for slide in slides])
        try:
            found[name] = out_of_fold_logistic(matrix, truth, folds)
        except TaskError:
            continue
    return found


def colour_scores(baseline: Baseline, numbers: SlideNumbers, folds: list[int]) -> NDArray[np.float64]:
    """Score of each tile by the colour baseline of the given folds (positive class): what a heatmap must beat."""
    scores = [baseline.models[fold].scores(numbers.tile_rgb)[:, -1] for fold in folds]
    return np.asarray(np.mean(scores, axis=0), dtype=np.float64)
