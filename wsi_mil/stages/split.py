"""Cohort to folds: who trains, who chooses the epoch, who is tested."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from wsi_mil import files
from wsi_mil.cohort import files_of, folds_by_column, make_folds, read_brought
from wsi_mil.config import StudyPath
from wsi_mil.errors import StageError
from wsi_mil.stages.audit import site_warning
from wsi_mil.stages.question import check_events
from wsi_mil.stages.stage import Item, Stage, Tick

if TYPE_CHECKING:
    import pandas as pd

    from wsi_mil.stages.work import Work


logger = logging.getLogger("wsi_mil")


class Split(Stage):
    """Deal the patients into folds: who trains, who chooses, who is tested."""

    name: ClassVar[str] = "split"
    reads: ClassVar[tuple[str, ...]] = ("task",)
    editable: ClassVar[bool] = True

    by: Literal["patients", "sites", "leave_one_site_out"] = "patients"
    """What is never both learnt from and tested: patients; sites: whole sites too (site-preserved folds);
    leave_one_site_out: each site (column `site`) is the test fold once."""
    folds: int = Field(default=5, ge=1)
    """Parts; each is the test fold once. 1: a single test set, of the share `test`, that nothing else touches."""
    test: float = Field(default=0.2, gt=0, le=0.5)
    """Share of the patients in the single test set; read where `folds` is 1."""
    repeats: int = Field(default=1, ge=1)
    """How often the patients are dealt anew."""
    select: float = Field(default=0.2, ge=0, le=0.5)
    """Share of the patients outside the test fold that chooses the epoch; 0 takes the last epoch."""
    calibrate: float = Field(default=0.0, ge=0, le=0.5)
    """Share of the patients outside the test fold kept for calibration, thresholds and conformal sets; where it is 0
    they are cross-fitted."""
    seed: int = 0
    """Of the dealing."""
    where: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Which slides take part, as column: value or values; the others are predicted by the models of all folds."""
    table: StudyPath | None = None
    """Bring your own folds: CSV with repeat, fold, slide, patient, role; CLAM's splits_<i>.csv or a folder of them;
    STAMP's splits.json."""
    column: str = ""
    """Column of the cohort that says who is tested: words for roles (train, val, calibration, test) are one fold, any
    other values a fold each."""

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
        brought = [files.digest_file(path) for path in files_of(self.table)] if self.table else []
        return [files.digest(self._rows(work).to_csv(index=False)), *brought]

    def make(self, item: Item, work: Work, draft: Path, tick: Tick) -> dict[str, Any]:
        """Deal the folds, or check those that are brought."""
        if self.table is not None and self.column:
            raise StageError("split.table and split.column both bring folds: leave one out")
        rows, shares = self._rows(work), {"select": self.select, "calibrate": self.calibrate}
        if self.table is not None:
            folds = read_brought(self.table, rows, label="label", shares=shares, seed=self.seed)
        elif self.column:
            row_of = {slide: row + 2 for row, slide in enumerate(work.cohort.slides)}
            folds = folds_by_column(rows, self.column, label="label", shares=shares, seed=self.seed, row_of=row_of)
        else:
            folds = make_folds(
                rows,
                label="label",
                by=self.by,
                folds=self.folds,
                test=self.test,
                repeats=self.repeats,
                select=self.select,
                calibrate=self.calibrate,
                seed=self.seed,
                classes=work.study.task.kind == "classification",
            )
        check_events(work.study.task, folds, work.cohort.frame)
        draft.write_text(folds.to_csv(index=False), encoding="utf-8")
        warnings = self._warnings(work)
        for warning in warnings:
            logger.warning("%s", warning)
        return {"slides": folds["slide"].nunique(), "patients": folds["patient"].nunique(), "warnings": warnings}

    @property
    def patients_needed(self) -> int:
        """Of each class, for the folds to be dealt; brought folds have been dealt."""
        if self.table is not None or self.column:
            return 1
        return max(2, self.folds if self.by == "patients" else 2)

    def taking_part(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows of a table within `where`."""
        for name, wanted in self.where.items():
            if name in frame.columns:
                frame = frame[frame[name].isin(wanted)]
        return frame

    def _warnings(self, work: Work) -> list[str]:
        """What the folds cannot mend: a site that goes with the label."""
        rows = work.labelled()
        sites = work.cohort.column("site").loc[list(rows["slide"])].to_numpy()
        return site_warning(rows.assign(site=sites)) if self.by == "patients" else []

    def _rows(self, work: Work) -> pd.DataFrame:
        """The rows that take part, with their sites or the column where folds are made from them."""
        rows = work.labelled()
        for name in [*(["site"] if self.by != "patients" else []), *([self.column] if self.column else [])]:
            rows = rows.assign(**{name: work.cohort.column(name).loc[list(rows["slide"])].to_numpy()})
        return rows
