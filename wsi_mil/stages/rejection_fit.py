"""What a score of unknown slides is fitted on: what a model says of its fit role, and bags of no class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsi_mil import training
from wsi_mil.bags import read_bag
from wsi_mil.errors import EmptyItem, StageError
from wsi_mil.stages.features import bags_of, header_of, usable
from wsi_mil.stages.train import read_folds
from wsi_mil.stages.trained import TrainedModel, answer, load, read_checked_bag
from wsi_mil.stages.units import units_of

if TYPE_CHECKING:
    from wsi_mil.stages.calibrate import Calibrate
    from wsi_mil.stages.work import Work


def fitted(model: TrainedModel, how: Calibrate, work: Work) -> training.Novelty:
    """The score of one model, from its fit role alone: a case for each bag, with the tiles of all its slides.

    Raises ModelError or StageError for negatives that are lacking, of another encoder, or slides of the cohort.
    """
    checkpoint, kind = load(model, work), training.KINDS[how.reject]
    labels = work.cohort.frame.set_index("slide")[work.study.task.label]
    classes, learnt = list(checkpoint.task.names), set(checkpoint.training.slides)
    units = units_of(work, [slide for slide in role_of(model, "fit", work) if slide in learnt])
    bags, truth, before = [], [], 0
    for unit in units if kind.fitted else units[:1]:
        bags.append(_said_of_unit(model, unit, work, tiles=kind.tiles, bags=len(units), before=before))
        truth.append(classes.index(labels[unit[0]]))
        before += len(unit)
    negatives = []
    if kind.negatives and how.negatives is not None:
        for path in negative_files(how.negatives, work):
            training.require_contract(checkpoint, header_of(path).encoder, where=f"calibrate.negatives, {path.name}")
            tiles = _standardised(model, usable(read_bag(path))[0], work)
            negatives.append(training.sampled_tiles(tiles, len(units), 0))
    seed = checkpoint.training.seed
    return training.fit_novelty(how.reject, bags, np.array(truth, np.int64), seed=seed, negatives=negatives)


def _said_of_unit(
    model: TrainedModel, unit: Sequence[str], work: Work, *, tiles: bool, bags: int, before: int
) -> training.Said:
    """What a model says of one of `bags` bags, with tiles of every slide in it; `before` slides stand before it."""
    told, kept = None, []
    for number, slide in enumerate(unit):
        try:
            bag = read_checked_bag(slide, work)
            features = usable(bag)[0]
        except EmptyItem:
            continue  # as in training, where the patient's other slides are read without it
        if told is None:  # all slides of a bag have its logits and its embedding
            told = answer(model, bag, work).inference
        if not tiles:
            break
        kept.append(training.sampled_tiles(_standardised(model, features, work), bags, before + number))
    if told is None:
        raise EmptyItem(f"not one tile of {', '.join(unit)} could be read and is of a quality to be used")
    return training.Said(told.logits, told.embedding, np.concatenate(kept or [np.zeros((0, 0), np.float32)]))


def negative_files(folder: Path, work: Work) -> list[Path]:
    """Bags of no class. Raises StageError where there is none, or where one is a slide of the cohort.

    A score that has learnt from a slide knows it, whether it is judged as a known or as an unknown kind.
    """
    found = sorted(folder.glob("*.h5"))
    if not found:
        raise StageError(f"calibrate.negatives: {folder} holds no bag (*.h5): give a folder of extract/")
    known: dict[str, str] = {}
    for slide, path in bags_of(work, work.cohort.slides)[0].items():
        known |= dict.fromkeys(_marks(path), slide)
    both = {path.name: known[mark] for path in found for mark in _marks(path) if mark in known}
    if both:
        told = ", ".join(f"{name} is slide {slide!r}" for name, slide in list(both.items())[:5])
        raise StageError(
            f"calibrate.negatives: {len(both)} of the bags in {folder} are slides of the cohort ({told}"
            f"{', ...' if len(both) > 5 else ''}), so that they would be both learnt from and judged: take them out"
        )
    return found


def _marks(path: Path) -> tuple[str, str]:
    header = header_of(path)
    return header.slide.fingerprint, header.digest


def said_by(model: TrainedModel, slide: str, work: Work, *, tiles: bool) -> training.Said:
    """What a model says of a slide (of several slides in a bag: of all), with the slide's own tiles if asked for."""
    bag = read_checked_bag(slide, work)
    told = answer(model, bag, work).inference
    read = _standardised(model, usable(bag)[0], work) if tiles else np.zeros((0, 0), np.float32)
    return training.Said(told.logits, told.embedding, read)


def _standardised(model: TrainedModel, features: NDArray[Any], work: Work) -> NDArray[np.float32]:
    """As the model reads them."""
    own = load(model, work).model
    mean, scale, limit = (one.cpu().numpy() for one in (own.feature_mean, own.feature_scale, own.feature_limit))
    return np.asarray(np.clip((features - mean) / scale, -limit, limit), dtype=np.float32)


def role_of(model: TrainedModel, role: str, work: Work) -> list[str]:
    """Slides of a role in the fold of a model."""
    folds = read_folds(work)
    here = (folds["repeat"] == model.repeat) & (folds["fold"] == model.fold) & (folds["role"] == role)
    return list(folds["slide"][here])
