"""Models and bags to tables: each slide is predicted by models that never saw it or its patient."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from wsi_mil import files, tasks, training
from wsi_mil.bags import Bag
from wsi_mil.config import StudyPath
from wsi_mil.errors import EmptyItem, ModelError, StageError
from wsi_mil.stages import question
from wsi_mil.stages.audit import tcga_warning
from wsi_mil.stages.features import bags_of, digests_of
from wsi_mil.stages.learnt import audit_own, overlap_warning
from wsi_mil.stages.members import (
    calibrating_rows,
    hear_members,
    joined,
    member_models,
    member_works,
    predict_members,
    weigh_members,
)
from wsi_mil.stages.stage import Item, Stage, Tick
from wsi_mil.stages.train import model_label, read_folds
from wsi_mil.stages.trained import (
    TrainedModel,
    answer,
    hashes,
    load,
    read_checked_bag,
    require_one_question,
    speakers,
    trained_models,
    unknown_factors,
)

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work


logger = logging.getLogger("wsi_mil")


class Predict(Stage):
    """Predict every slide and patient with models that never saw them."""

    name: ClassVar[str] = "predict"
    reads: ClassVar[tuple[str, ...]] = ("model",)

    models: StudyPath | None = None
    """Folder of one trained model, or of several (their mean is the prediction), for slides of another cohort."""
    members: tuple[str, ...] = ()
    """Ensemble: labels of models that this study has trained (folders of train/). Their weighted mean is the
    prediction, with weights from the calibrate role (`split.calibrate`), equal where it is empty."""
    any_scale: bool = False
    """Take tiles of another scale or size than the model was trained on; each such prediction is marked."""

    @property
    def after(self) -> tuple[str, ...]:
        """The bags, and the models where none are given; members are known by the digests of their weights."""
        if self.members:
            return ("extract", "split")
        return ("extract",) if self.models is not None else ("train",)

    def folder(self, work: Work) -> Path:
        """predict/<model>."""
        return work.root / self.name / model_label(work)

    def items(self, work: Work) -> list[Item]:
        """One: the predictions of the study."""
        return [Item("slides")]

    def output(self, item: Item, work: Work) -> Path:
        """slides.csv; models.csv and patients.csv are put in their places before it."""
        return self.folder(work) / "slides.csv"

    def inputs(self, item: Item, work: Work) -> Sequence[str]:
        """The models, the bags, and who is tested by whom."""
        if self.members:
            return self._inputs_of_members(work)
        models = trained_models(work)
        paths, lacking = bags_of(work, work.cohort.slides)
        folds = [] if self.models is not None else [files.digest(read_folds(work).to_csv(index=False)), *_saw(work)]
        table = work.cohort.frame.drop(columns=["path", "mpp"]).to_csv(index=False)
        digests = digests_of(paths.values(), work.study.model.beside)
        return [*hashes(models), *paths, *digests, *lacking, *folds, files.digest(table)]

    def _inputs_of_members(self, work: Work) -> list[str]:
        if self.models is not None:
            raise StageError("predict.models and predict.members exclude each other: leave one out")
        told = [files.digest(read_folds(work).to_csv(index=False)), files.digest(work.labelled().to_csv(index=False))]
        told += _saw(work)
        for label, one in member_works(work).items():
            paths, lacking = bags_of(one, work.cohort.slides)
            digests = digests_of(paths.values(), one.study.model.beside)
            told += [label, *hashes(trained_models(one)), *paths, *digests, *lacking]
        return told

    def make(self, item: Item, work: Work, draft: Path, tick: Tick) -> dict[str, Any]:
        """Predict each slide with each model that may speak of it, and average."""
        rows: list[dict[str, Any]] = []
        told: dict[str, tuple[str, str]] = {}
        slides = work.cohort.slides
        for one in self._own(work):
            audit_own(one)
        if self.members:
            members, heard = member_models(work), hear_members(work)
            weights = weigh_members(work, heard)
        else:
            models = trained_models(work)
            require_one_question(models, work)
            by_slide = speakers(models, work)
        for number, slide in enumerate(slides):
            tick(number, len(slides))
            if self.members:
                told[slide] = self._predict_members(slide, members, weights, work, rows)
            else:
                told[slide] = self._predict(slide, by_slide[slide], work, rows)
        if not rows:
            reasons = sorted({f"{kind}: {why}" for kind, why in told.values()})
            raise StageError(f"not one slide could be predicted; {reasons[0]}")
        models_table = pd.DataFrame(rows)
        slides_table = self._slides(models_table, told, work)
        folder = self.folder(work)
        files.write_text(folder / "models.csv", models_table.to_csv(index=False))
        self._write_calibrating(calibrating_rows(heard) if self.members else self._calibrating(work, tick), folder)
        if work.study.cohort.label_of == "patient":
            files.write_text(folder / "patients.csv", self._patients(slides_table, work).to_csv(index=False))
        else:
            files.remove(folder / "patients.csv")
        draft.write_text(slides_table.to_csv(index=False), encoding="utf-8")
        counts = slides_table["status"].value_counts()
        warning = " ".join(filter(None, [self._seen_in_pretraining(slides_table, work), self._learnt(work)]))
        if warning:
            logger.warning("%s", warning)
        return {
            **({"warning": warning} if warning else {}),
            "predicted": int(counts.get("predicted", 0)),
            "not_predicted": int(counts.sum() - counts.get("predicted", 0)),
        }

    def _calibrating(self, work: Work, tick: Tick) -> list[dict[str, Any]]:
        """What each fold's models say of its calibrate role."""
        asked = self.models is None and work.study.task.kind == "classification"
        return _said_in_role("calibrate", work, tick) if asked else []

    def _write_calibrating(self, rows: list[dict[str, Any]], folder: Path) -> None:
        """calibrate.csv, for the calibrate stage; none where no patient has the role."""
        path = folder / "calibrate.csv"
        if rows:
            files.write_text(path, pd.DataFrame(rows).to_csv(index=False))
        else:
            files.remove(path)

    def _seen_in_pretraining(self, table: pd.DataFrame, work: Work) -> str:
        """A warning where slides of TCGA are read through an encoder that was pretrained on TCGA."""
        found = bags_of(work, table["slide"][table["status"] == "predicted"])[0]
        return " ".join(tcga_warning(list(found.items())))

    def _own(self, work: Work) -> Sequence[Work]:
        """The study as its own models were trained in it; none where models are given."""
        if self.members:
            return list(member_works(work).values())
        return [work] if self.models is None else []

    def _learnt(self, work: Work) -> str:
        return "" if self.models is None else overlap_warning(work)

    def _predict_members(
        self, slide: str, members: Any, weights: Any, work: Work, rows: list[dict[str, Any]]
    ) -> tuple[str, str]:
        """Append a row for each member; return the slide's status and, where it has no prediction, the reason."""
        try:
            found = predict_members(slide, members, weights, work)
        except EmptyItem as empty:
            return "empty", str(empty)
        except (StageError, ModelError) as error:
            return "failed", str(error)
        rows += found
        return ("predicted", "") if found else ("untested", "it is in no test fold: it only trains")

    def _predict(
        self, slide: str, models: Sequence[TrainedModel], work: Work, rows: list[dict[str, Any]]
    ) -> tuple[str, str]:
        """Append a row for each model; return the slide's status and, where it has no prediction, the reason."""
        try:
            bag = read_checked_bag(slide, work)
            if not models:
                return "untested", "it is in no test fold: it only trains"
            for model in models:
                said = answer(model, bag, work)
                row: dict[str, Any] = {"slide": slide, "model": model.name}
                row |= {f"p_{name}": value for name, value in zip(said.names, said.values, strict=True)}
                rows.append(row)
        except EmptyItem as empty:
            return "empty", str(empty)
        except (StageError, ModelError) as error:
            return "failed", str(error)
        return "predicted", self._note(bag, models, work)

    def _note(self, bag: Bag, models: Sequence[TrainedModel], work: Work) -> str:
        trained = load(models[0], work).contract
        if (trained.tile_mpp, trained.tile_px) == (bag.encoder.tile_mpp, bag.encoder.tile_px):
            lacking = unknown_factors(models[0], bag.slide.id, work)
            return f"nothing is known of {', '.join(lacking)}" if lacking else ""
        return (
            f"tiles of {bag.encoder.tile_px} px at {bag.encoder.tile_mpp:g} um per pixel, but the model was trained on "
            f"{trained.tile_px} px at {trained.tile_mpp:g}: do not trust this prediction"
        )

    def _slides(self, rows: pd.DataFrame, told: dict[str, tuple[str, str]], work: Work) -> pd.DataFrame:
        """One row a slide of the cohort: the mean over its models, how far they differ, and its status."""
        answers = [name for name in rows.columns if name.startswith("p_")]
        grouped = rows.groupby("slide", sort=False)[answers]
        means, spread, counts = grouped.mean(), grouped.std(ddof=0).max(axis=1), grouped.size()
        if self.members:
            both = joined(rows)
            means, spread = both[answers], both["spread"]
        frame = work.cohort.frame
        learning = set() if self.models is not None else set(read_folds(work)["slide"])
        table = pd.DataFrame({"slide": frame["slide"], "patient": frame["patient"], "site": frame["site"]})
        table["label"] = question.told(work.study.task, frame)
        table["part"] = ["cross-validation" if slide in learning else "new" for slide in frame["slide"]]
        for name in answers:
            table[name] = frame["slide"].map(means[name])
        called = speaking_task(work).called(means.to_numpy(np.float64))
        best = pd.Series(called, index=means.index, dtype=object)
        table["predicted"] = frame["slide"].map(best).fillna("")
        table["disagreement"] = frame["slide"].map(spread)
        if self.members:
            table["mutual_information"] = frame["slide"].map(both["information"])
        table["models"] = frame["slide"].map(counts).fillna(0).astype(int)
        table["status"] = [told[slide][0] for slide in frame["slide"]]
        table["note"] = [told[slide][1] for slide in frame["slide"]]
        return table

    def _patients(self, slides: pd.DataFrame, work: Work) -> pd.DataFrame:
        """One row a patient: the mean over the slides that have a prediction."""
        known = slides[slides["status"] == "predicted"]
        answers = [name for name in slides.columns if name.startswith("p_")]
        means = training.by_patient(known[answers].to_numpy(np.float64), list(known["patient"]))
        table = pd.DataFrame(list(means.values()), columns=answers)
        table.insert(0, "patient", list(means))
        labels = known.groupby("patient", sort=False)["label"].max()
        table.insert(1, "label", [labels[patient] for patient in means])
        table.insert(2, "slides", [int((known["patient"] == patient).sum()) for patient in means])
        table["predicted"] = speaking_task(work).called(table[answers].to_numpy(np.float64))
        return table


def _saw(work: Work) -> list[str]:
    """Digest of the list of what the encoder saw, which the audit before prediction reads."""
    listed = work.study.train.encoder_saw
    return [files.digest_file(listed)] if listed else []


def _said_in_role(role: str, work: Work, tick: Tick) -> list[dict[str, Any]]:
    """Rows (repeat, fold, slide, patient, label, answers): the mean over seeds of what a fold's models say."""
    folds, labels = read_folds(work), work.labelled().set_index("slide")["label"]
    by_fold: dict[tuple[int, int], list[TrainedModel]] = {}
    for model in trained_models(work):
        by_fold.setdefault((model.repeat or 0, model.fold or 0), []).append(model)
    found, wanted = [], folds[folds["role"] == role]
    columns = (wanted[name] for name in ("repeat", "fold", "slide", "patient"))
    for number, (repeat, fold, slide, patient) in enumerate(zip(*columns, strict=True)):
        tick(number, len(wanted))
        try:
            bag = read_checked_bag(slide, work)
        except EmptyItem:
            continue
        said = [answer(model, bag, work) for model in by_fold[(int(repeat), int(fold))]]
        means = np.mean([each.values for each in said], axis=0)
        row = {"repeat": repeat, "fold": fold, "slide": slide, "patient": patient, "label": labels.get(slide, "")}
        found.append(row | {f"p_{name}": value for name, value in zip(said[0].names, means, strict=True)})
    return found


def speaking_task(work: Work) -> tasks.Task:
    """The question that the models answer, as the first of them knows it."""
    one = next(iter(member_works(work).values())) if work.study.predict.members else work
    return load(trained_models(one)[0], one).task
