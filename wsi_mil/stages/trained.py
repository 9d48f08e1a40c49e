"""The trained models of a study, or those given for new slides, and which of them may speak of a slide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_mil import encoders, files, models, training
from wsi_mil.bags import Bag
from wsi_mil.errors import ModelError, StageError
from wsi_mil.stages import ledger
from wsi_mil.stages.features import read_whole
from wsi_mil.stages.train import read_folds
from wsi_mil.stages.units import cut, first_slide, read_unit, region_of, with_siblings

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work


@dataclass(frozen=True)
class TrainedModel:
    """A checkpoint by its name and place."""

    name: str
    """Such as "seed-0/fold-1"."""
    folder: Path
    repeat: int | None
    fold: int | None
    """None for a model that is given for new slides."""


@dataclass(frozen=True)
class Answer:
    """What one model says of one bag: the one forward pass that both the table and the heatmap come from."""

    names: tuple[str, ...]
    """Of the columns of the answer, such as the classes."""
    values: NDArray[np.float64]
    """answer"""
    tiles: NDArray[np.float64] | None
    """tile answer: what each tile speaks for, where the model allows it."""
    inference: training.Inference


@dataclass(frozen=True)
class Question:
    """What a model is given to read: the tiles of a slide, or of all slides of its patient, with their record."""

    checkpoint: training.Checkpoint
    features: NDArray[Any]
    cells: NDArray[Any]
    here: slice
    """Which of the tiles are those of the slide's own bag."""
    record: models.Clinical | None

    def infer(self) -> training.Inference:
        """The one forward pass, over all tiles."""
        return training.infer(self.checkpoint.model, self.features, self.cells, record=self.record)

    def answer(self, whole: training.Inference) -> Answer:
        """The pass as the task's answer, and what it says of the slide's own tiles."""
        task, said = self.checkpoint.task, cut(whole, self.here)
        scores = None if said.contributions is None else task.scores(said.contributions)
        return Answer(tuple(task.names), task.predict(said.logits[None])[0], scores, said)


def trained_models(work: Work) -> list[TrainedModel]:
    """The models of the study's folds, or those that `predict.models` names. Raises StageError where there is none."""
    if work.study.predict.members:
        raise StageError("an ensemble has no models of its own: ask this of its members")
    given = work.study.predict.models
    if given is not None:
        folders = sorted(path.parent for path in given.rglob("model.json"))
        if not folders:
            raise ModelError(f"{given} holds no trained model (no model.json in it or below): give a folder of train/")
        names = [folder.relative_to(given).as_posix() for folder in folders]
        return [
            TrainedModel(given.name if name == "." else name, folder, None, None)
            for name, folder in zip(names, folders, strict=True)
        ]
    stage, found = work.stage("train"), []
    for item in stage.items(work):
        assert item.fold is not None
        folder = ledger.require("train", item.name, work)
        found.append(TrainedModel(item.name, folder, item.fold[1], item.fold[2]))
    return found


def speakers(models: Sequence[TrainedModel], work: Work) -> dict[str, list[TrainedModel]]:
    """For each slide the models that may predict it: those it tests, or all for a slide that takes part in no fold."""
    if work.study.predict.models is not None:
        return {slide: list(models) for slide in work.cohort.slides}
    folds = read_folds(work)
    tested = folds[folds["role"] == "test"]
    by_fold: dict[tuple[int, int], list[TrainedModel]] = {}
    for model in models:
        assert model.repeat is not None
        assert model.fold is not None
        by_fold.setdefault((model.repeat, model.fold), []).append(model)
    tests: dict[str, list[TrainedModel]] = {}
    for repeat, fold, slide in zip(tested["repeat"], tested["fold"], tested["slide"], strict=True):
        tests.setdefault(str(slide), []).extend(by_fold.get((int(repeat), int(fold)), []))
    learning = set(folds["slide"])
    return {slide: tests.get(slide, []) if slide in learning else list(models) for slide in work.cohort.slides}


def answer(model: TrainedModel, bag: Bag, work: Work, *, without: Sequence[str] = ()) -> Answer:
    """Read a bag with a model. Raises ModelError where the bag was made otherwise than those it was trained on.

    Clinical factors named by `without` are taken as missing.
    """
    asked = question(model, bag, work, without=without)
    return asked.answer(asked.infer())


def question(model: TrainedModel, bag: Bag, work: Work, *, without: Sequence[str] = ()) -> Question:
    """What a model reads to answer for a bag. Raises ModelError where it was made otherwise than in training."""
    checkpoint = load(model, work)
    wanted = bag.encoder
    if work.study.predict.any_scale:
        # Asked for in so many words; the table marks every such prediction.
        own = checkpoint.contract
        wanted = replace(wanted, tile_mpp=own.tile_mpp, tile_px=own.tile_px, input_px=own.input_px)
    training.require_contract(checkpoint, wanted, where=f"slide {bag.slide.id!r}")
    if checkpoint.model.spatial and not bag.grid.placed:
        raise ModelError(f"slide {bag.slide.id!r}: the model reads the places of tiles, and its bag has none")
    bags, place = with_siblings(bag, work)
    for sibling in bags:
        if sibling is not bag and not work.study.predict.any_scale:
            training.require_contract(checkpoint, sibling.encoder, where=f"slide {sibling.slide.id!r}")
    tiles, here = read_unit(bags, place, region=region_of(work))
    record = _record(checkpoint, first_slide(work, bag.slide.id, bags), work, without)
    return Question(checkpoint, *tiles, here, record)


def require_one_question(models: Sequence[TrainedModel], work: Work) -> None:
    """Refuse models of different tasks or classes, whose answers no mean could be taken of, with both named."""
    told = {one.name: load(one, work).task for one in models}
    asked = {name: f"{task.kind} of {', '.join(task.names)}" for name, task in told.items()}
    first = next(iter(asked))
    other = next((name for name in asked if asked[name] != asked[first]), None)
    if other is not None:
        raise ModelError(
            f"the models do not answer one question: {first} is {asked[first]}, and {other} is {asked[other]}; give "
            "models of one study, or train again"
        )
    kind = told[first].kind
    if work.study.predict.models is None and kind != work.study.task.kind:
        raise ModelError(
            f"{first} answers a task of {kind}, and the study asks for {work.study.task.kind}; train again"
        )


def unknown_factors(model: TrainedModel, slide: str, work: Work) -> list[str]:
    """Clinical factors that a model reads and of which the table tells nothing for a slide."""
    clinical = load(model, work).clinical
    return [] if clinical is None else clinical.unknown(work.rows_of([slide]))


def factors_of(model: TrainedModel, slide: str, work: Work) -> dict[str, bool]:
    """Clinical factors that a model reads, and whether the table tells them for a slide."""
    clinical = load(model, work).clinical
    if clinical is None:
        return {}
    lacking = clinical.unknown(work.rows_of([slide]))
    return {factor.name: factor.name not in lacking for factor in clinical.factors}


def _record(checkpoint: training.Checkpoint, slide: str, work: Work, without: Sequence[str]) -> models.Clinical | None:
    import torch

    if checkpoint.clinical is None:
        return None
    record = checkpoint.clinical.encode(work.rows_of([slide]))
    values, missing, start = record.values.copy(), record.missing.copy(), 0
    for factor in checkpoint.clinical.factors:
        if factor.name in without:
            values[:, start : start + factor.size], missing[:, start : start + factor.size] = 0, True
        start += factor.size
    return models.Clinical(torch.from_numpy(values), torch.from_numpy(missing))


def read_checked_bag(slide: str, work: Work) -> Bag:
    """The bag of a slide, as its models read it. Raises EmptyItem or StageError where it has none."""
    return read_whole(ledger.require("extract", slide, work), work.study.model.beside)


def load(model: TrainedModel, work: Work) -> training.Checkpoint:
    """The checkpoint, on the study's device, loaded once as long as it stays the same."""
    device = encoders.choose_device(work.study.runtime.device)
    return _load(model.folder, (model.folder / "model.json").stat().st_mtime_ns, device)


def hashes(models: Sequence[TrainedModel]) -> list[str]:
    """Digests of the weights of models, with their names."""
    return [files.digest(model.name, _hash(model.folder, _changed(model.folder))) for model in models]


def read_predictions(work: Work) -> pd.DataFrame:
    """models.csv of the predict stage: one row for each slide and model. Raises StageError where it is not there."""
    path = ledger.require("predict", "slides", work).parent / "models.csv"
    return pd.read_csv(path, dtype={"slide": str, "model": str}, keep_default_na=False)


def _changed(folder: Path) -> int:
    return (folder / "model.json").stat().st_mtime_ns


@lru_cache(maxsize=256)
def _hash(folder: Path, changed_ns: int) -> str:
    return training.model_hash(folder)


@lru_cache(maxsize=64)
def _load(folder: Path, changed_ns: int, device: str) -> training.Checkpoint:
    checkpoint = training.load_checkpoint(folder)
    checkpoint.model.to(device)
    return checkpoint
