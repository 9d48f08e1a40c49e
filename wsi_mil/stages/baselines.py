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
from wsi_mil.stages.record_baselines import RECORD, SITE, record_baselines
from wsi_mil.stages.train import read_folds
from wsi_mil.tissue import COLOURS

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work

BASELINES = {
    SITE: "logistic regression on the site: nothing of the slide is looked at",
    RECORD: "logistic regression on cohort.clinical, encoded on the fit role: nothing of the slide is looked at",
    "layout of the tiles": "count, mean, spread and range of their places: no pixel is looked at",
    "mean colour": "logistic regression on the mean red, green and blue of a slide's tiles",
    "colour mean and spread": "logistic regression on each tile's RGB mean and standard deviation, averaged over tiles",
    "mean of features": "logistic regression on the mean of the encoder's features",
    "maximum of features": "logistic regression on the largest value of each of the encoder's features",
    "bag statistics": "logistic regression on mean, minimum, maximum and standard deviation of the encoder's features",
}
"""Name and meaning, from the least knowing to the most."""


@dataclass(frozen=True)
class SlideNumbers:
    """What the baselines read of a slide."""

    by_baseline: dict[str, NDArray[np.float64]]
    tile_rgb: NDArray[np.float32]
    """tile 6: RGB mean and standard deviation of each usable tile; tile 0 where the bag has none."""


def numbers_of(bag: Bag) -> SlideNumbers:
    """The numbers of one bag for every baseline."""
    keep = bag.usable
    features = np.asarray(bag.features)[keep]
    statistics = bag_statistics(features)
    dim = features.shape[1]
    found = {"mean of features": statistics[:dim], "bag statistics": statistics}
    found["maximum of features"] = statistics[2 * dim : 3 * dim]
    if bag.grid.placed:
        found["layout of the tiles"] = layout_statistics(bag.grid.coords_l0[keep])
    # Bags of other programs have no colours.
    known = [name for name in COLOURS if name in bag.quality]
    rgb = np.stack([bag.quality[name][keep] for name in known], axis=1) if known else np.zeros((keep.sum(), 0), "f4")
    if known:
        means = rgb.mean(axis=0, dtype=np.float64)
        found |= {"mean colour": means[:3], "colour mean and spread": means}
    return SlideNumbers(found, rgb)


def run_baselines(
    numbers: dict[str, SlideNumbers], labels: pd.Series, classes: list[str], work: Work
) -> dict[str, Baseline]:
    """Out-of-fold predictions of every baseline for the slides (in the order of `numbers`) of the study's folds.

    A baseline that the folds are too small for is left out.
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
        if any(name not in numbers[slide].by_baseline for slide in slides):
            continue
        matrix = np.stack([numbers[slide].by_baseline[name] for slide in slides])
        try:
            found[name] = out_of_fold_logistic(matrix, truth, folds)
        except TaskError:
            continue
    return record_baselines(slides, truth, folds, work) | found


def colour_scores(baseline: Baseline, numbers: SlideNumbers, folds: list[int]) -> NDArray[np.float64]:
    """Score of each tile by the colour baseline of the given folds (positive class): what a heatmap must beat."""
    scores = [baseline.models[fold].scores(numbers.tile_rgb)[:, -1] for fold in folds]
    return np.asarray(np.mean(scores, axis=0), dtype=np.float64)
