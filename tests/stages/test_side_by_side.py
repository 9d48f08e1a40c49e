"""Studies of numbers, survival and several questions side by side: the same cases, paired, fold by fold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bagged import bag_study, through, with_settings
from sklearn.metrics import mean_absolute_error, r2_score
from typer.testing import CliRunner

from wsi_mil.cli import app
from wsi_mil.errors import StageError
from wsi_mil.evaluation import corrected_interval
from wsi_mil.stages import Work, compare_works
from wsi_mil.stages.rivals import rivals

JOINT = "task={kind: joint, parts: {age: {kind: regression, label: age}, what: {label: label}}}"


def _noisy(work: Work, folder: Path, columns: list[str]) -> Path:
    """A copy of a study whose answers in some columns are noise about their mean."""
    shutil.copytree(work.root, folder)
    random = np.random.default_rng(0)
    for name in ("slides", "models", "patients"):
        path = folder / "predict" / "abmil" / f"{name}.csv"
        if path.exists():
            table = pd.read_csv(path, dtype={"slide": str, "patient": str}, keep_default_na=False)
            table[columns] = random.normal(50, 5, size=(len(table), len(columns)))
            table.to_csv(path, index=False)
    return folder


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> tuple[Work, Path]:
    """A regression on three folds, and a copy whose answers are noise; not to be changed."""
    folder = tmp_path_factory.mktemp("beside")
    settings = ("task={kind: regression, label: age}", "split.folds=3", "train.epochs=8")
    work = bag_study(folder, *settings, slides=36, signal=4)
    through(work, "split", "train", "predict")
    return work, _noisy(work, folder / "noisy", ["p_age"])


def _table(root: Path, name: str = "slides") -> pd.DataFrame:
    table = pd.read_csv(root / "predict" / "abmil" / f"{name}.csv", dtype={"slide": str})
    cohort = pd.read_csv(root / "cohort.csv", dtype={"slide": str}).set_index("slide")
    return table.assign(truth=table["slide"].map(cohort["age"]))


def test_a_regression_is_compared_in_its_own_measure(works: tuple[Work, Path]) -> None:
    """By hand with scikit-learn: values, their difference, and the differences fold by fold."""
    work, noisy = works
    (told,) = compare_works([noisy, work.root], draws=200)
    assert (told.level, told.cases, told.patients, told.metric) == ("slide", 36, 36, "r2")
    first, second = told.studies
    own, other = _table(noisy), _table(work.root)
    assert first.metrics["r2"].value == pytest.approx(r2_score(own["truth"], own["p_age"]))
    assert second.metrics["mae"].value == pytest.approx(mean_absolute_error(other["truth"], other["p_age"]))
    assert second.difference is not None
    gap = r2_score(other["truth"], other["p_age"]) - r2_score(own["truth"], own["p_age"])
    assert second.difference.value == pytest.approx(gap)
    assert 0 < second.difference.low < gap < second.difference.high
    values = []
    left, right = _table(work.root, "models"), _table(noisy, "models")
    for model, rows in left.groupby("model"):
        beside = right[right["model"] == model]
        values.append(r2_score(rows["truth"], rows["p_age"]) - r2_score(beside["truth"], beside["p_age"]))
    expected = corrected_interval(values, tested=12, fitted=24)
    assert second.by_folds is not None
    assert (second.by_folds.value, second.by_folds.low) == pytest.approx((expected.value, expected.low))
    assert told.notes == []


def test_another_measure_is_asked_for_by_name(works: tuple[Work, Path]) -> None:
    work, noisy = works
    (told,) = compare_works([work.root, noisy], metric="mae", draws=100)
    assert told.metric == next(iter(told.studies[0].metrics)) == "mae"
    assert told.studies[1].difference is not None
    assert told.studies[1].difference.value > 0
    with pytest.raises(StageError, match="unknown measure 'auroc': these questions have r2, mae, rmse"):
        compare_works([work.root, noisy], metric="auroc", draws=100)


def test_cases_that_one_lacks_are_left_out_and_other_labels_refused(works: tuple[Work, Path], tmp_path: Path) -> None:
    work, noisy = works
    shutil.copytree(noisy, tmp_path / "few")
    path = tmp_path / "few" / "predict" / "abmil" / "slides.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.drop(index=[4]).to_csv(path, index=False)
    (told,) = compare_works([work.root, tmp_path / "few"], draws=100)
    assert told.cases == 35
    assert "work has predicted 36 slides" in told.notes[0]
    cohort = tmp_path / "few" / "cohort.csv"
    frame = pd.read_csv(cohort, dtype=str, keep_default_na=False)
    frame.loc[2, "age"] = "99"
    frame.to_csv(cohort, index=False)
    with pytest.raises(StageError, match=r"1 slide\(s\) have another label in another study, first 'S002'"):
        compare_works([work.root, tmp_path / "few"], draws=100)


def test_the_report_sets_the_models_of_a_folder_side_by_side(works: tuple[Work, Path], tmp_path: Path) -> None:
    work, noisy = works
    shutil.copytree(work.root, tmp_path / "both")
    for room in ("predict", "train"):
        shutil.copytree(noisy / room / "abmil", tmp_path / "both" / room / "other")
    path = tmp_path / "both" / "predict" / "other" / "stage.json"
    path.write_text(path.read_text().replace('"label": ""', '"label": "other"'))
    (part,) = rivals(Work(tmp_path / "both", work.study), draws=100)
    (told,) = compare_works([work.root, noisy], draws=100)
    headers, (first, second) = part.tables[0].headers, part.tables[0].rows
    assert headers[-2:] == ["R2 less abmil", "fold by fold"]
    assert (first[0], second[0]) == ("abmil", "other")
    assert told.studies[1].difference is not None
    assert second[-2].startswith(f"{told.studies[1].difference.value:.3f}")
    assert told.studies[1].by_folds is not None
    assert second[-1].startswith(f"{told.studies[1].by_folds.value:.3f}")


def test_several_questions_of_patients_and_the_command(works: tuple[Work, Path], tmp_path: Path) -> None:
    work = bag_study(tmp_path, slides=32, slides_each=2)
    frame = pd.read_csv(tmp_path / "cohort.csv", dtype=str)
    frame["age"] = frame.groupby("patient")["age"].transform("first")
    frame.to_csv(tmp_path / "cohort.csv", index=False)
    work = with_settings(work, JOINT, "cohort.label_of=patient", "train.epochs=1")
    through(work, "split", "train", "predict")
    noisy = _noisy(work, tmp_path / "noisy", ["p_age_age"])
    given = ["compare", str(work.root), str(noisy), "--draws", "100", "--output", str(tmp_path / "told.json")]
    ended = CliRunner().invoke(app, given)
    assert ended.exit_code == 0, ended.output
    told = json.loads((tmp_path / "told.json").read_text())
    assert set(told) == {"age", "what"}
    assert (told["age"]["level"], told["age"]["cases"], told["what"]["metric"]) == ("patient", 16, "auroc")
    assert told["age"]["studies"][1]["difference"]["value"] != 0
    assert told["what"]["studies"][1]["difference"]["value"] == 0
    patients = pd.read_csv(work.root / "predict" / "abmil" / "patients.csv").set_index("patient")["p_age_age"]
    truth = frame.drop_duplicates("patient").set_index("patient")["age"].astype(float)
    value = r2_score(truth, patients.loc[truth.index])
    assert told["age"]["studies"][0]["metrics"]["r2"]["value"] == pytest.approx(value)
    with pytest.raises(StageError, match="ask different kinds of question"):
        compare_works([work.root, works[0].root])
