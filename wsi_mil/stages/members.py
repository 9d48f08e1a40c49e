"""An ensemble: trained models of other names as members, weighted on the calibrate role, and their joint prediction.

After the weighted fusion of a transformer and a convolutional network (Jiang et al., ViT-CNN, 2021): the mechanism, not
the published accuracy, which is of single pictures of cells; members are whatever the study has trained.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_mil import files, training
from wsi_mil.errors import EmptyItem, ModelError, StageError
from wsi_mil.layout import folder_name
from wsi_mil.stages.train import STUDY_JSON, read_folds
from wsi_mil.stages.trained import TrainedModel, answer, read_checked_bag, speakers, trained_models

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work

logger = logging.getLogger("wsi_mil")

Fold = tuple[int, int]
"""Repeat and fold."""


def member_works(work: Work) -> dict[str, Work]:
    """The study as each member of `predict.members` was trained in: its model, tiles and encoder, all else as here.

    Raises StageError where a member was never trained, or asks another question than this study.
    """
    from wsi_mil.stages.work import Work as AWork

    kind = work.study.task.kind
    if kind != "classification":
        raise StageError(
            f"predict.members weighs members by the log loss of classes, and the task is {kind}: leave it empty; the "
            "models of several seeds are averaged without it"
        )
    works = {}
    for label in work.study.predict.members:
        folder = work.root / "train" / folder_name(label)
        found = sorted(folder.rglob(STUDY_JSON))
        if not found:
            raise StageError(f"{label!r} of predict.members has no models in {folder}: train it first")
        told = files.read_json(found[0])
        study = work.study
        sections = {name: type(getattr(study, name)).model_validate(told[name]) for name in ("tile", "extract", "task")}
        if sections.pop("task") != study.task:
            raise StageError(f"{label!r} of predict.members was trained on another task: ensembles answer one question")
        # where the tiles were taken from, and the file of weights, are told by this study: a record has their names
        sections["tile"] = sections["tile"].model_copy(update={"table": study.tile.table})
        sections["model"] = type(study.model).model_validate({**told["model"], "label": label})
        sections["predict"] = study.predict.model_copy(update={"members": ()})
        works[label] = AWork(work.root, study.model_copy(update=sections))
    return works


def member_models(work: Work) -> dict[str, list[TrainedModel]]:
    """The trained models of each member."""
    return {label: trained_models(one) for label, one in member_works(work).items()}


def weigh_members(work: Work) -> dict[Fold, NDArray[np.float64]]:
    """Weights of the members in each fold, from the slides of its calibrate role and nothing else.

    Equal weights, which is said, where the role is empty.
    """
    works, labels = member_works(work), work.labelled().set_index("slide")["label"]
    models = {label: trained_models(one) for label, one in works.items()}
    folds = read_folds(work)
    found: dict[Fold, NDArray[np.float64]] = {}
    calibrate = folds[folds["role"] == "calibrate"]
    for repeat, fold in folds[["repeat", "fold"]].drop_duplicates().itertuples(index=False):
        here = (int(repeat), int(fold))
        slides = calibrate["slide"][(calibrate["repeat"] == repeat) & (calibrate["fold"] == fold)]
        said: list[list[NDArray[np.float64]]] = [[] for _ in works]
        truth: list[int] = []
        for slide in slides:
            own = {label: [model for model in models[label] if (model.repeat, model.fold) == here] for label in works}
            try:
                answers = [mean_answer(own[label], slide, one) for label, one in works.items()]
            except EmptyItem:
                continue
            truth.append(answers[0][0].index(str(labels[slide])))
            for member, (_, values) in zip(said, answers, strict=True):
                member.append(values)
        if not truth:
            logger.warning("fold %d: no slide in the calibrate role; the members weigh alike", here[1])
        predictions = np.array(said) if truth else np.empty((len(works), 0, 1))
        found[here] = training.fit_weights(predictions, np.array(truth, dtype=np.int64))
    return found


def predict_members(
    slide: str, models: dict[str, list[TrainedModel]], weights: dict[Fold, NDArray[np.float64]], work: Work
) -> list[dict[str, Any]]:
    """A row for each member: the mean answer of its models that may speak of the slide, and its weight there.

    A slide of no fold is read by all models, with the mean weights of all folds. Raises EmptyItem, StageError or
    ModelError as predicting with one model does.
    """
    rows = []
    for number, (label, one) in enumerate(member_works(work).items()):
        able = speakers(models[label], one)[slide]
        if not able:
            return []
        names, values = mean_answer(able, slide, one)
        places = {(model.repeat or 0, model.fold or 0) for model in able}
        share = float(np.mean([weights[place][number] for place in places]))
        rows.append(
            {"slide": slide, "model": label, "weight": share}
            | {f"p_{name}": value for name, value in zip(names, values, strict=True)}
        )
    return rows


def mean_answer(models: Sequence[TrainedModel], slide: str, work: Work) -> tuple[list[str], NDArray[np.float64]]:
    """Names and mean of the answers of one member's models for a slide."""
    bag = read_checked_bag(slide, work)
    said = [answer(model, bag, work) for model in models]
    if not said:
        raise ModelError(f"no model may speak of slide {slide!r}")
    return list(said[0].names), np.mean([one.values for one in said], axis=0)


def joined(rows: pd.DataFrame) -> pd.DataFrame:
    """From rows a slide and member to one a slide: weighted mean, spread over members, mutual information."""
    answers = [name for name in rows.columns if name.startswith("p_")]
    told = {}
    for slide, part in rows.groupby("slide", sort=False):
        stack, share = part[answers].to_numpy(np.float64), part["weight"].to_numpy(np.float64)
        mean, information = training.weighted_prediction(stack[:, None], share / share.sum())
        spread = np.sqrt(np.tensordot(share / share.sum(), (stack - mean) ** 2, axes=1)).max()
        told[slide] = {**dict(zip(answers, mean[0], strict=True)), "spread": spread, "information": information[0]}
    return pd.DataFrame.from_dict(told, orient="index")
