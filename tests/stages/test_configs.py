"""Every study file that is shipped for the synthetic cohort goes from the folds to the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from studies import run_stage

from wsi_mil.stages import Work, load_study

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = sorted(path for path in CONFIGS.glob("*.yaml") if "demo/cohort/cohort.csv" in path.read_text())

SHORT = (
    "tissue.thumbnail_px=300", "tissue.mpp=2.0", "tile.mpp=1.0", "tile.size_px=64", "split.folds=2", "train.epochs=2",
    "report.heatmaps=0", "report.tiles=0", "report.faults=0", "report.thumbnails=0", "report.draws=100",
    "runtime.threads=1", "runtime.readers=1",
)  # fmt: skip
"""The tiles of the tests' small cohort, and little of everything; the question and how it is asked stay the file's."""

FURTHER = {"multilabel": ("split.select=0",)}
"""Two of the eight patients have the rarer finding: one to learn from and one to be tested on."""


def test_a_study_is_shipped_for_each_kind_of_question() -> None:
    kinds = {load_study(path).task.kind for path in SHIPPED}
    assert kinds == {"classification", "multilabel", "regression", "ordinal", "survival", "joint"}


@pytest.mark.slow
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_study_goes_from_the_folds_to_the_report(
    path: Path, cohort: Path, copy_of: Callable[..., Work]
) -> None:
    drawn = cohort / "cohort"
    further = FURTHER.get(path.stem, ())
    places = (f"cohort.table={drawn / 'cohort.csv'}", f"cohort.slides={drawn / 'slides'}", "report.truth=null")
    work = Work(copy_of("tissue", "tile", "extract").root, load_study(path, [*SHORT, *places, *further]))
    work.check_cohort()
    for name in ("split", "train", "predict", "calibrate", "report"):
        outcomes = run_stage(work, name)
        assert {one.kind for one in outcomes} == {"made"}, (name, [one.why for one in outcomes])
    slides = pd.read_csv(next((work.root / "predict").glob("*/slides.csv")), dtype=str)
    assert (slides["status"] == "predicted").all()
    assert json.loads((work.root / "report" / "figures.json").read_text())["headlines"]
