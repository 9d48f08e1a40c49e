"""Cohort to folds: who trains, who chooses the epoch, who is tested."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

from wsi_mil import files
from wsi_mil.cohort import check_folds, make_folds, read_table
from wsi_mil.config import StudyPath
from wsi_mil.stages.question import check_events
from wsi_mil.stages.stage import Item, Stage, Tick

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work


class Split(Stage):
    """Deal the patients into folds: fit, select, calibrate and test."""

    name: ClassVar[str] = "split"
    reads: ClassVar[tuple[str, ...]] = ("task",)
    editable: ClassVar[bool] = True

    folds: int = Field(default=5, ge=2)
    """Parts; each is the test fold once."""
    repeats: int = Field(default=1, ge=1)
    """How often the patients are dealt anew."""
    select: float = Field(default=0.2, ge=0, le=0.5)
    """Share of the patients outside the test fold that chooses the epoch; 0 takes the last epoch."""
    calibrate: float = Field(default=0.0, ge=0, le=0.5)
    """Share kept for thresholds and calibration."""
    seed: int = 0
    """Of the dealing."""
    where: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Which slides take part, as column: value or values; the others are predicted by the models of all folds."""
    table: StudyPath | None = None
    """Bring your own folds: CSV with repeat, fold, slide, patient, role."""

    @field_validator("where", mode="before")
    @classmethod
    def _as_values(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {
            str(key): tuple(str(one) for one in (wanted if isinstance(wanted, (list, tuple)) else [wanted]))
            for key, wanted in value.items()
        }

    @property
    def after(self) -> tuple[str, ...]:
        """Nothing: it starts from the cohort."""
        return ()

    def folder(self, work: Work) -> Path:
        """split/."""
        return work.root / self.name

    def items(self, work: Work) -> list[Item]:
        """One: the folds of the study."""
        return [Item("folds")]

    def output(self, item: Item, work: Work) -> Path:
        """folds.csv."""
        return self.folder(work) / "folds.csv"

    def inputs(self, item: Item, work: Work) -> Sequence[str]:
        """Slides, patients and labels that take part, and the folds brought."""
        brought = [files.digest(read_table(self.table).to_csv())] if self.table else []
        return [files.digest(work.labelled().to_csv(index=False)), *brought]

    def make(self, item: Item, work: Work, draft: Path, tick: Tick) -> dict[str, Any]:
        """Deal the folds."""
        rows = work.labelled()
        if self.table is not None:
            folds = check_folds(read_table(self.table), slides=work.cohort.slides, where=self.table)
        else:
            folds = make_folds(
                rows,
                label="label",
                folds=self.folds,
                repeats=self.repeats,
                select=self.select,
                calibrate=self.calibrate,
                seed=self.seed,
                classes=work.study.task.kind == "classification",
            )
        check_events(work.study.task, folds, work.cohort.frame)
        draft.write_text(folds.to_csv(index=False), encoding="utf-8")
        return {"slides": folds["slide"].nunique(), "patients": folds["patient"].nunique()}
