"""A work folder: one study on disk, with the cohort that was checked for it."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_mil import files
from wsi_mil.cohort import ClinicalEncoder, Cohort, count_faults, read_cohort
from wsi_mil.errors import CohortError, StageError
from wsi_mil.slides import Slide, open_slide, same_files
from wsi_mil.stages import question

logger = logging.getLogger("wsi_mil")

if TYPE_CHECKING:
    import pandas as pd

    from wsi_mil.stages.stage import Item, Stage
    from wsi_mil.stages.study import Study


@dataclass(frozen=True)
class Work:
    """A study and the folder it is made in; small enough to travel to any worker, which reads the rest from disk."""

    root: Path
    study: Study

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "study": self.study}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def stage(self, name: str) -> Stage:
        """The study's own record of a stage."""
        stage: Stage = getattr(self.study, name)
        return stage

    def check_cohort(self, *, folds: bool = True) -> Cohort:
        """Read and check the cohort table, and keep it as cohort.csv in the work folder. Raises CohortError.

        With `folds=False` classes with too few patients for the folds are a warning: a few slides may be looked at.
        """
        section, task = self.study.cohort, self.study.task
        several = task.kind in ("multilabel", "joint")  # where one label may be missing beside others
        cohort = read_cohort(
            section.table,
            slides=section.slides,
            patient=section.patient,
            labels=task.columns,
            label_of=section.label_of,
            classes=task.classes,
            missing_labels="predict" if several else section.missing_labels,
            further=partial(self._further_faults, folds=folds),
        )
        self._check_clinical(cohort)
        text = cohort.frame.to_csv(index=False)
        path = self.root / "cohort.csv"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            files.write_text(path, text)
        return cohort

    def _further_faults(self, frame: pd.DataFrame, *, folds: bool) -> list[str]:
        """Of the label columns as the task reads them, and of the classes as the folds need them."""
        task, split = self.study.task, self.study.split
        faults = question.faults(task, frame, missing_labels=self.study.cohort.missing_labels)
        twins = _same_files(frame) if "path" in frame.columns else []
        if folds and task.columns and self.study.predict.models is None:
            faults += twins
        else:
            for twin in twins:
                logger.warning("%s", twin)
        if task.kind != "classification" or task.label not in frame.columns or self.study.predict.models is not None:
            return faults
        few = count_faults(split.taking_part(frame), task.label, task.classes, least=split.patients_needed)
        if folds:
            return [*faults, *few]
        for fault in few:
            logger.warning("%s", fault)
        return faults

    def _check_clinical(self, cohort: Cohort) -> None:
        told = self.study.cohort.clinical
        clinical = ClinicalEncoder.of(told)
        faults = clinical.problems(cohort.frame)
        columns = [column for factor in clinical.factors for column in factor.columns]
        labels = [column for column in self.study.task.columns if column in columns]
        faults += [f"{label!r} is the label and no clinical factor" for label in labels]
        if faults:
            more = f" ... and {len(faults) - 40} more" if len(faults) > 40 else ""
            raise CohortError(f"cohort.clinical: {len(faults)} fault(s): {'; '.join(faults[:40])}{more}")

    def rows_of(self, slides: Sequence[str]) -> pd.DataFrame:
        """Rows of the cohort table for some slides, in their order."""
        return self.cohort.frame.set_index("slide", drop=False).loc[list(slides)].reset_index(drop=True)

    @cached_property
    def cohort(self) -> Cohort:
        """The cohort as it was last checked."""
        import pandas as pd

        path = self.root / "cohort.csv"
        if not path.exists():
            raise StageError(f"{self.root} holds no cohort.csv: check the cohort first")
        text = path.read_text(encoding="utf-8")
        kinds = {name: str for name in text.partition("\n")[0].split(",") if name != "mpp"}
        frame = pd.read_csv(io.StringIO(text), dtype=kinds, keep_default_na=False, na_values={"mpp": [""]})
        return Cohort(frame.astype({"mpp": float}))

    def slide_items(self) -> list[Item]:
        """One item for each slide of the cohort."""
        from wsi_mil.stages.stage import Item

        frame, given, reader = self.cohort.frame, self.study.cohort.mpp, self.study.cohort.reader
        item = partial(Item, reader=reader, memory_map=self.study.runtime.memory_map)
        return [
            item(slide, path=path, mpp=given, mpp_source="flag") if mpp != mpp else item(slide, path=path, mpp=mpp)
            for slide, path, mpp in zip(frame["slide"], frame["path"], frame["mpp"], strict=True)
        ]

    def labelled(self) -> pd.DataFrame:
        """Rows (slide, patient, label) that take part in the folds: labelled, and within `split.where`.

        The label is the class; for questions that are no classification, the group that folds are balanced by.
        """
        frame, task = self.cohort.frame, self.study.task
        if not task.columns:
            raise StageError("no label to learn: name the label column in task.label, or those that task.kind reads")
        for column in task.columns:
            self.cohort.column(column)
        rows = frame[question.known(task, frame).to_numpy()]
        for name in self.study.split.where:
            self.cohort.column(name)
        rows = self.study.split.taking_part(rows)
        label = question.strata(task, rows, least=self.study.split.folds)
        return rows[["slide", "patient"]].assign(label=label).reset_index(drop=True)


def _same_files(frame: pd.DataFrame) -> list[str]:
    """Slides of several patients that are one file, at one place or copied: one could be learnt and one tested."""
    rows = [row for row, path in enumerate(frame["path"]) if path and "://" not in path]
    faults = []
    for group in same_files([Path(frame["path"].iloc[row]) for row in rows]):
        own = frame.iloc[[rows[place] for place in group]]
        if own["patient"].nunique() > 1:
            told, names = (" and ".join(map(repr, own[name])) for name in ("slide", "path"))
            faults.append(
                f"rows {', '.join(str(row + 2) for row in own.index)}: slides {told} of {own['patient'].nunique()} "
                f"patients are the same file ({names}): leave one out, or give them one patient"
            )
    return faults


def open_item(item: Item, *, shrink: bool = False) -> Slide:
    """The slide of an item, with the scale that was given for it."""
    given = item.mpp, item.mpp_source
    how = item.reader or None, item.memory_map
    return open_slide(
        item.path, mpp=given[0], mpp_source=given[1], id=item.name, reader=how[0], memory_map=how[1], shrink=shrink
    )
