"""Predictions to decisions: calibrated probabilities, thresholds and conformal sets, fitted on the calibrate role.

It stands after predict and not before it, so that another method or threshold costs a second and leaves predictions and
heatmaps as they are; what it fits on is still the calibrate role alone, which predict writes into a table of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pandas as pd
from pydantic import Field

from wsi_mil import files
from wsi_mil.config import StudyPath
from wsi_mil.evaluation import RULES
from wsi_mil.stages import ledger
from wsi_mil.stages.calibrated import NAME, Calibration, Place, fit_calibration, lay_on, load_calibration
from wsi_mil.stages.rejecting import STATE, Rejection, Unknown, reject_given, reject_own, told_unknown
from wsi_mil.stages.stage import Item, Stage, Tick
from wsi_mil.stages.train import model_label, read_folds
from wsi_mil.stages.trained import load, trained_models

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work

logger = logging.getLogger("wsi_mil")

NOVELTY = "novelty.csv"

TEXT = (
    *("slide", "patient", "label", "predicted", "site", "note", "status", "part", "model"),
    *("decision", "set", "rejected"),
)


class Calibrate(Stage):
    """Calibrate the predictions and decide, on patients of their own."""

    name: ClassVar[str] = "calibrate"
    reads: ClassVar[tuple[str, ...]] = ("task", "model")

    method: Literal["temperature", "platt", "isotonic", "none"] = "temperature"
    """temperature: one number, never changes the order; platt: a line on the log-odds, moves the prevalence too;
    isotonic: any rising curve, for 100 patients or more."""
    threshold: Literal["youden", "sensitivity", "cost"] = "youden"
    """Where the last of two classes is called: youden, highest sensitivity + specificity; sensitivity, highest
    threshold that reaches `sensitivity`; cost, 1 / (1 + `cost`)."""
    sensitivity: float = Field(default=0.95, gt=0, le=1)
    """Asked for by threshold: sensitivity, on the calibration patients."""
    cost: float = Field(default=1.0, gt=0)
    """Of a missed positive, a false alarm costing 1; for threshold: cost."""
    coverage: float = Field(default=0.9, ge=0.5, lt=1)
    """Share of patients whose conformal set holds their class."""
    class_conditional: bool = True
    """Promise the coverage for each class, and not only on the whole, where a rare class may always be missed."""

    reject: Unknown = "none"
    """How a slide of no known kind is noticed, so that the answer is "unknown": none; combo (scores of slide and tiles
    together) is the one to begin with; docs/evaluation.md has them all. It reads all bags again."""
    reject_rate: float = Field(default=0.05, gt=0, lt=0.5)
    """Share of known patients that may be rejected; the limit is their quantile on the calibration patients."""
    negatives: StudyPath | None = None
    """Folder of bags of no class (other organs, pen, folds), of the same encoder; for reject: hybrid and deviation."""

    @property
    def told_rule(self) -> str:
        """How thresholds are chosen, in words."""
        given = {"sensitivity": f" ({self.sensitivity:g})", "cost": f" ({self.cost:g})"}.get(self.threshold, "")
        return f"{RULES[self.threshold]}{given}"

    @property
    def after(self) -> tuple[str, ...]:
        """The predictions."""
        return ("predict",)

    def folder(self, work: Work) -> Path:
        """calibrate/<model>."""
        return work.root / self.name / model_label(work)

    def items(self, work: Work) -> list[Item]:
        """One: the decisions of the study."""
        return [Item("slides")]

    def output(self, item: Item, work: Work) -> Path:
        """slides.csv; calibration.json and patients.csv are put in their places before it."""
        return self.folder(work) / "slides.csv"

    def inputs(self, item: Item, work: Work) -> Sequence[str]:
        """The tables of the predictions, the labels, and the calibration of given models."""
        folder = ledger.require("predict", "slides", work).parent
        names = ("slides.csv", "models.csv", "patients.csv", "calibrate.csv")
        told = [files.digest_file(folder / name) for name in names if (folder / name).exists()]
        given = _given(work)
        return [
            *told,
            *([files.digest_file(given)] if given else []),
            *told_unknown(work, self, given.parent if given else None),
        ]

    def make(self, item: Item, work: Work, draft: Path, tick: Tick) -> dict[str, Any]:
        """Fit, lay on the predictions, and write all as plain tables and JSON."""
        source = work.stage("predict").folder(work)
        slides = read_predicted(source / "slides.csv")
        path = source / "patients.csv"
        patients = read_predicted(path) if path.exists() else None
        skipped, calibration, rows = _skipped(work), None, pd.DataFrame()
        if not skipped:
            rows = said_of(work, slides)
            calibration, skipped = self._calibration(work, rows, patients is not None)
        folder, given = self.folder(work), _given(work)
        rejected: dict[str, Any] = {}
        if calibration is None:
            files.remove(folder / STATE)
            files.remove(folder / NOVELTY)
            logger.warning("not calibrated: %s", skipped)
            files.remove(folder / NAME)
        else:
            slides = lay_on(slides, rows, "slide", calibration)
            patients = lay_on(patients, rows, "patient", calibration) if patients is not None else None
            calibration.save(folder / NAME)
            if work.study.predict.models is None:
                found = reject_own(work, self, folder / STATE, tick)
            else:
                found = reject_given(work, given.parent / STATE if given else None)
            slides, patients = found.on(slides, patients)
            _write_novelty(found, folder)
            rejected = found.facts()
        if patients is None:
            files.remove(folder / "patients.csv")
        else:
            files.write_text(folder / "patients.csv", patients.to_csv(index=False))
        draft.write_text(slides.to_csv(index=False), encoding="utf-8")
        return {"skipped": skipped} if calibration is None else {**_facts(calibration), **rejected}

    def _calibration(self, work: Work, rows: pd.DataFrame, patients: bool) -> tuple[Calibration | None, str]:
        if work.study.predict.models is not None:
            given = _given(work)
            if given is None:
                return None, f"{work.study.predict.models} has no {NAME} of its own: calibrate the study it is from"
            return load_calibration(given), ""
        path = work.stage("predict").folder(work) / "calibrate.csv"
        folds = read_folds(work)
        places: list[Place] = [
            (int(repeat), int(fold))
            for repeat, fold in folds[["repeat", "fold"]].drop_duplicates().itertuples(index=False)
        ]
        classes = [name.removeprefix("p_") for name in rows.columns if name.startswith("p_")]
        if path.exists():
            own, source = read_predicted(path), "the calibrate role"
        else:
            own, source = _crossed(rows[rows["repeat"] >= 0], folds, places), "cross-fitted"
        own = own[own["label"].isin(classes)]
        if own.empty:
            return None, "no patient is left to calibrate on: give split.calibrate a share"
        return fit_calibration(own, places, classes, self, source=source, patients=patients), ""


def _write_novelty(found: Rejection, folder: Path) -> None:
    """novelty.csv: what each model of the study's own says of each slide; none where nothing is rejected."""
    rows = [(slide, model, value) for model, own in found.by_model.items() for slide, value in own.items()]
    if rows:
        table = pd.DataFrame(rows, columns=["slide", "model", "novelty"])
        files.write_text(folder / NOVELTY, table.to_csv(index=False))
    else:
        files.remove(folder / NOVELTY)


def _crossed(rows: pd.DataFrame, folds: pd.DataFrame, places: Sequence[Place]) -> pd.DataFrame:
    """For each fold what the models of the other folds of its repeat said of the patients that they test."""
    parts = []
    for repeat, fold in places:
        here = folds[(folds["repeat"] == repeat) & (folds["fold"] == fold) & (folds["role"] == "test")]
        others = rows[(rows["repeat"] == repeat) & (rows["fold"] != fold) & ~rows["patient"].isin(here["patient"])]
        parts.append(others.assign(fold=fold))
    return pd.concat(parts, ignore_index=True)


def said_of(work: Work, slides: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds of what each fold's models said of each slide that they may speak of: repeat, fold, slide ...

    Slides of no fold, and those of given models of several folds, have one row with repeat and fold -1.
    """
    models = pd.read_csv(work.stage("predict").folder(work) / "models.csv", dtype={"slide": str, "model": str})
    answers = [name for name in models.columns if name.startswith("p_")]
    known = slides[slides["status"] == "predicted"].set_index("slide")
    if work.study.predict.members:
        folds = read_folds(work)
        tested = folds[folds["role"] == "test"].groupby("slide")[["repeat", "fold"]].first()
        rows = known[answers].join(tested).fillna({"repeat": -1, "fold": -1}).reset_index()
    else:
        places = _places(work)
        new = set(known.index[known["part"] == "new"])
        where = [
            places[model] if slide not in new or work.study.predict.models else (-1, -1)
            for slide, model in zip(models["slide"], models["model"], strict=True)
        ]
        models[["repeat", "fold"]] = pd.DataFrame(where, index=models.index, columns=["repeat", "fold"])
        models = models[models["slide"].isin(known.index)]
        rows = models.groupby(["repeat", "fold", "slide"], sort=False)[answers].mean().reset_index()
    rows = rows.astype({"repeat": int, "fold": int})
    return rows.assign(patient=rows["slide"].map(known["patient"]), label=rows["slide"].map(known["label"]))


def _places(work: Work) -> dict[str, Place]:
    """Repeat and fold of each model; of given models their own, where all are of one fold, else -1."""
    models = trained_models(work)
    if work.study.predict.models is None:
        return {one.name: (one.repeat or 0, one.fold or 0) for one in models}
    told = {(load(one, work).training.repeat, load(one, work).training.fold) for one in models}
    return dict.fromkeys([one.name for one in models], told.pop() if len(told) == 1 else (-1, -1))


def read_predicted(path: Path) -> pd.DataFrame:
    """A table of the predict or calibrate stage: words stay words, an empty cell of a number is NaN."""
    columns = path.read_text(encoding="utf-8").partition("\n")[0].split(",")
    numbers = {name: [""] for name in columns if name not in TEXT}
    return pd.read_csv(path, dtype=dict.fromkeys(TEXT, str), keep_default_na=False, na_values=numbers)


def _skipped(work: Work) -> str:
    kind: str = work.study.task.kind
    if kind != "classification":
        return f"the task is {kind}; calibration, thresholds and sets are of classes"
    if work.study.predict.members and work.study.split.repeats > 1:
        return "an ensemble over repeated folds has no answer of a single fold to calibrate"
    return ""


def given_study(work: Work) -> tuple[Path, str] | None:
    """Work folder and model label of the study that `predict.models` is from; None where it is a folder by itself."""
    given = work.study.predict.models
    for folder in [] if given is None else [given, *given.parents]:
        if folder.parent.name == "train":
            return folder.parent.parent, folder.name
    return None


def _given(work: Work) -> Path | None:
    """The calibration that belongs to `predict.models`: in that folder, or in calibrate/ beside the folder train/."""
    given, home = work.study.predict.models, given_study(work)
    if given is None:
        return None
    places = [given / NAME, *([home[0] / "calibrate" / home[1] / NAME] if home else [])]
    return next((place for place in places if place.exists()), None)


def _facts(calibration: Calibration) -> dict[str, Any]:
    own = calibration.levels["patient" if "patient" in calibration.levels else "slide"]
    notes = sorted({one.calibrator.note for one in own.values() if one.calibrator.note})
    refused = next((one.refused for one in own.values() if one.refused), "")
    return {"source": calibration.source, "notes": notes, "refused": refused}
