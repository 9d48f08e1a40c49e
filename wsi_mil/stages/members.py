"""An ensemble: trained models of other names as members, weighted on the calibrate role, and their joint prediction.

After the weighted fusion of a transformer and a convolutional network (Jiang et al., ViT-CNN, 2021): the mechanism, not
the published accuracy, which is of single pictures of cells; members are whatever the study has trained.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

CROSSED = 5
"""Parts of a calibrate role that are weighed apart for the calibrate stage."""


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


@dataclass(frozen=True)
class Heard:
    """What the members of one fold say of the slides of its calibrate role."""

    slides: pd.DataFrame
    """slide, patient and label, a row each."""
    names: list[str]
    values: NDArray[np.float64]
    """[member slide answer]"""

    @property
    def truth(self) -> NDArray[np.int64]:
        """Number of each slide's label among the answers."""
        return np.array([self.names.index(str(label)) for label in self.slides["label"]], dtype=np.int64)

    def weights(self, of: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Weights of the members, fitted on some of the slides."""
        return training.fit_weights(self.values[:, of], self.truth[of])

    def joint(self) -> NDArray[np.float64]:
        """The weighted mean of each slide [slide answer], with weights from other patients than its own.

        The patients are dealt into CROSSED parts, and those of each part are weighed as the others ask for: a
        calibrator or a conformal set must not see the very patients that the weights were made to suit.
        """
        places = {patient: place for place, patient in enumerate(sorted(set(self.slides["patient"])))}
        part = self.slides["patient"].map(places).to_numpy() % CROSSED
        mean = np.empty(self.values.shape[1:])
        for own in (part == number for number in range(CROSSED)):
            mean[own] = np.tensordot(self.weights(~own), self.values[:, own], axes=1)
        return mean


def hear_members(work: Work) -> dict[Fold, Heard]:
    """By fold what its members say of its calibrate role; folds without such slides are left out."""
    works, labels = member_works(work), work.labelled().set_index("slide")["label"]
    models = {label: trained_models(one) for label, one in works.items()}
    folds = read_folds(work)
    found: dict[Fold, Heard] = {}
    calibrate = folds[folds["role"] == "calibrate"]
    for repeat, fold in calibrate[["repeat", "fold"]].drop_duplicates().itertuples(index=False):
        here = (int(repeat), int(fold))
        part = calibrate[(calibrate["repeat"] == repeat) & (calibrate["fold"] == fold)]
        own = {label: [one for one in models[label] if (one.repeat, one.fold) == here] for label in works}
        said: list[list[NDArray[np.float64]]] = []
        names: list[str] = []
        kept = []
        for slide in part["slide"]:
            try:
                answers = [mean_answer(own[label], slide, one) for label, one in works.items()]
            except EmptyItem:
                continue
            kept.append(slide)
            names = answers[0][0]
            said.append([values for _, values in answers])
        if kept:
            slides = part[part["slide"].isin(kept)][["slide", "patient"]].assign(label=labels[kept].to_numpy())
            found[here] = Heard(slides.reset_index(drop=True), names, np.array(said).swapaxes(0, 1))
    return found


def weigh_members(work: Work, heard: Mapping[Fold, Heard] | None = None) -> dict[Fold, NDArray[np.float64]]:
    """Weights of the members in each fold, from the slides of its calibrate role and nothing else.

    `heard` is what `hear_members` gives. Equal weights, which is said, where the role is empty.
    """
    heard = hear_members(work) if heard is None else heard
    count, found = len(work.study.predict.members), {}
    for repeat, fold in read_folds(work)[["repeat", "fold"]].drop_duplicates().itertuples(index=False):
        one = heard.get((int(repeat), int(fold)))
        if one is None:
            logger.warning("fold %d: no slide in the calibrate role; the members weigh alike", int(fold))
        weights = np.full(count, 1 / count) if one is None else one.weights(np.ones(len(one.slides), dtype=bool))
        found[int(repeat), int(fold)] = weights
    return found


def calibrating_rows(heard: Mapping[Fold, Heard]) -> list[dict[str, Any]]:
    """Rows (repeat, fold, slide, patient, label, answers) of the calibrate role of each fold, as the ensemble says."""
    rows = []
    for (repeat, fold), one in heard.items():
        for told, values in zip(one.slides.to_dict("records"), one.joint(), strict=True):
            answers = {f"p_{name}": value for name, value in zip(one.names, values, strict=True)}
            rows.append({"repeat": repeat, "fold": fold} | {str(name): cell for name, cell in told.items()} | answers)
    return rows


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
