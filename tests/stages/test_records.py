"""Clinical records on their way from the table to a model: fitted on one role, kept, told when missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from studies import open_work, run_stage

from wsi_mil.errors import CohortError
from wsi_mil.stages import Work
from wsi_mil.training import load_checkpoint

PERSAM = (
    "model={name: persam, options: {hidden: 16, heads: 2}}",
    "train.epochs=1",
    "cohort.clinical={age: number, sex: category, wait: [biopsy, surgery]}",
)


@pytest.fixture
def table(cohort: Path, tmp_path: Path) -> Path:
    """The cohort's table with a record beside each slide."""
    frame = pd.read_csv(cohort / "cohort" / "cohort.csv", dtype=str, keep_default_na=False)
    count = len(frame)
    frame["age"] = [str(40 + 3 * row) for row in range(count)]
    frame["sex"] = [("f", "m", "")[row % 3] for row in range(count)]
    frame["biopsy"] = "2020-01-01"
    frame["surgery"] = [f"2020-02-{row + 1:02}" for row in range(count)]
    path = tmp_path / "with_record.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture
def root(copy_of: Callable[..., Work]) -> Path:
    return copy_of("tissue", "tile", "extract", "split").root


def _change(table: Path, slide: str, column: str, value: str) -> None:
    frame = pd.read_csv(table, dtype=str, keep_default_na=False)
    frame.loc[frame["slide"] == slide, column] = value
    frame.to_csv(table, index=False)


def test_a_record_goes_the_whole_way(table: Path, root: Path, cohort: Path) -> None:
    work = open_work(cohort, root, f"cohort.table={table}", *PERSAM)
    for stage in ("train", "predict", "heatmap"):
        assert {one.kind for one in run_stage(work, stage)} == {"made"}
    folds = pd.read_csv(root / "split" / "folds.csv", dtype=str)
    checkpoint = load_checkpoint(root / "train" / "persam" / "seed-0" / "fold-0")
    fitted = folds["slide"][(folds["fold"] == "0") & (folds["role"] == "fit")]
    told = pd.read_csv(table, dtype={"slide": str}).set_index("slide").loc[list(fitted)]
    assert checkpoint.clinical.factors[0].mean == pytest.approx(told["age"].mean()), "the fit role alone"
    assert checkpoint.model.spec.factors == (1, told["sex"].nunique(), 1)
    before = pd.read_csv(root / "predict" / "persam" / "slides.csv", dtype={"slide": str}).set_index("slide")

    slide = str(folds["slide"][(folds["fold"] == "0") & (folds["role"] == "test")].iloc[0])
    for column in ("age", "sex", "surgery"):
        _change(table, slide, column, "")
    work = open_work(cohort, root, f"cohort.table={table}", *PERSAM)
    kinds = {one.item: one.kind for one in run_stage(work, "train")}
    assert kinds["seed-0/fold-0"] == "found", "its test slides are nothing to it"
    assert kinds["seed-0/fold-1"] == "made", "there the slide is learnt from"
    run_stage(work, "predict")
    after = pd.read_csv(root / "predict" / "persam" / "slides.csv", dtype={"slide": str}).set_index("slide")
    assert after.loc[slide, "p_lesion"] != before.loc[slide, "p_lesion"]
    assert after.loc[slide, "note"] == "nothing is known of age, sex, wait"


def test_any_model_reads_a_record_with_fusion(table: Path, root: Path, cohort: Path) -> None:
    told = (f"cohort.table={table}", "cohort.clinical={age: number, sex: category}", "train.epochs=1")
    work = open_work(cohort, root, *told, "model.fusion=film")
    for stage in ("train", "predict", "heatmap"):
        assert {one.kind for one in run_stage(work, stage)} == {"made"}
    model = load_checkpoint(root / "train" / "abmil" / "seed-0" / "fold-0").model
    assert model.spec.fusion == "film"
    assert model.exact_contributions


def test_models_without_a_use_for_records_say_so(table: Path, root: Path, cohort: Path) -> None:
    work = open_work(cohort, root, f"cohort.table={table}", PERSAM[2])
    outcome = run_stage(work, "train")[0]
    assert outcome.kind == "failed"
    assert "set fusion to concat, gated or film" in outcome.why


def test_faults_of_the_record_are_told_before_any_work(table: Path, root: Path, cohort: Path) -> None:
    _change(table, "S01", "age", "old")
    with pytest.raises(CohortError, match="'age' is 'old', not a number"):
        open_work(cohort, root, f"cohort.table={table}", *PERSAM)
    with pytest.raises(CohortError, match="'label' is the label and no clinical factor"):
        open_work(cohort, root, f"cohort.table={table}", "cohort.clinical={label: category}")
