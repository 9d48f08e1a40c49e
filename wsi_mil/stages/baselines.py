"""What can be had without attention, in the model's own folds: layout, colour and bag statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
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
    cases: Sequence[Sequence[str]], numbers: Mapping[str, SlideNumbers], truth: NDArray[np.int64], work: Work
) -> dict[str, Baseline]:
    """Out-of-fold predictions of classes by every baseline; `cases` has the slides of each case.

    A baseline that the folds are too small for is left out.
    """
    folds, found = fold_rows(cases, work), {}
    for name in BASELINES:
        features = case_numbers(name, cases, numbers)
        if features is None:
            continue
        try:
            found[name] = out_of_fold_logistic(features, truth, folds)
        except TaskError:
            continue
    return record_baselines([slides[0] for slides in cases], truth, folds, work) | found


def fold_rows(cases: Sequence[Sequence[str]], work: Work) -> list[Fold]:
    """Which cases have which role in each fold; a case of several slides is there once."""
    place = {slide: row for row, slides in enumerate(cases) for slide in slides}
    folds = []
    for _, rows in read_folds(work).groupby(["repeat", "fold"], sort=True):
        by_role = {}
        for role in ("fit", "select", "test"):
            own = [place[slide] for slide in rows["slide"][rows["role"] == role] if slide in place]
            by_role[role] = np.array(list(dict.fromkeys(own)), dtype=np.int64)
        folds.append(Fold(**by_role))
    return folds


def case_numbers(
    name: str, cases: Sequence[Sequence[str]], numbers: Mapping[str, SlideNumbers]
) -> NDArray[np.float64] | None:
    """What a baseline reads of each case, the mean over its slides; None where a slide has no such numbers."""
    read = [[numbers[slide].by_baseline.get(name) for slide in slides] for slides in cases]
    if any(one is None for own in read for one in own):
        return None
    return np.stack([np.mean([one for one in own if one is not None], axis=0) for own in read])


def colour_scores(baseline: Baseline, numbers: SlideNumbers, folds: list[int]) -> NDArray[np.float64]:
    """Score of each tile by the colour baseline of the given folds (positive class): what a heatmap must beat."""
    scores = [baseline.models[fold].scores(numbers.tile_rgb)[:, -1] for fold in folds]
    return np.asarray(np.mean(scores, axis=0), dtype=np.float64)
