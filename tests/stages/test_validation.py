"""A frozen model on another cohort: nothing is fitted on it, and what moved is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from bagged import bag_study, through
from sklearn.metrics import brier_score_loss, f1_score, log_loss, roc_auc_score
from typer.testing import CliRunner

from wsi_mil.cli import app
from wsi_mil.errors import StageError
from wsi_mil.stages import Help, Work, import_bags, study_of_model, validate_study
from wsi_mil.stages.learnt import require_new
from wsi_mil.stages.ledger import read_record


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models of a calibrated study."""
    work = bag_study(tmp_path_factory.mktemp("frozen"), "calibrate.coverage=0.6", slides=48, signal=3)
    through(work, "split", "train", "predict", "calibrate")
    return work.root / "train" / "abmil"


def _other(folder: Path, model: Path, **how: object) -> Work:
    """Another cohort with its bags; the study is the model's."""
    other = bag_study(folder, seed=7, prefix="X", **how)  # type: ignore[arg-type]
    return Work(other.root, _study(folder, model))


def _study(folder: Path, model: Path, *settings: str):  # type: ignore[no-untyped-def]
    given = ["task.label=label", "cohort.missing_labels=predict", *settings]
    return study_of_model(model, slides="none", table=folder / "cohort.csv", overrides=given)


def _run(work: Work) -> dict:  # type: ignore[type-arg]
    work.check_cohort()
    through(work, "predict", "calibrate")
    return validate_study(work, columns=["site"], local=[8, 20], draws=100)


def test_a_like_cohort_is_told_as_like_and_a_shifted_one_as_shifted(model: Path, tmp_path: Path) -> None:
    like = _run(_other(tmp_path / "like", model, slides=42, signal=3))
    _is_that_of_scikit_learn(like["metrics"], tmp_path / "like" / "work", "slides")
    _is_that_of_scikit_learn(like["development"], model.parents[1], "slides")
    assert set(like["decisions"]) == {"sensitivity", "specificity", "ppv", "npv"}
    assert set(like["groups"]["site"]) == {"A", "B", "C"}
    assert like["drift"]["told_apart"] < 0.75
    assert [one["k"] for one in like["recalibration"]] == [8, 20]
    shifted = _run(_other(tmp_path / "shifted", model, slides=42, signal=3, site_shift=9.0))
    assert shifted["drift"]["told_apart"] > like["drift"]["told_apart"]
    median = pd.Series(shifted["drift"]["distance"]).quantile(0.9)
    assert median > 2 * like["drift"]["reference"][1]
    page = (tmp_path / "shifted" / "work" / "validate" / "index.html").read_text()
    for words in ("Performance", "Calibration", "Drift of the inputs", "Recalibration with local cases", "By site"):
        assert f"<h2>{words}</h2>" in page, words


def _is_that_of_scikit_learn(told: dict, root: Path, level: str) -> None:  # type: ignore[type-arg]
    """AUROC, Brier score, log loss and F1 of the calibrated probabilities in a table."""
    table = pd.read_csv(root / "calibrate" / "abmil" / f"{level}.csv", dtype=str, keep_default_na=False)
    truth, said = table["label"] == "tumour", table["calibrated_tumour"].astype(float)
    assert told["auroc"]["value"] == pytest.approx(roc_auc_score(truth, said))
    assert told["brier"]["value"] == pytest.approx(brier_score_loss(truth, said))
    assert told["log_loss"]["value"] == pytest.approx(log_loss(truth, said))
    assert told["f1"]["value"] == pytest.approx(f1_score(truth, said > 0.5))
    assert brier_score_loss(truth, table["p_tumour"].astype(float)) != pytest.approx(told["brier"]["value"])


def test_patients_stand_beside_patients(tmp_path: Path) -> None:
    """A model of patients on other patients: both columns are of patients, calibrated."""
    settings = ("cohort.label_of=patient", "calibrate.coverage=0.6", "train.epochs=2")
    own = bag_study(tmp_path / "own", *settings, slides=48, slides_each=2, signal=1.5)
    through(own, "split", "train", "predict", "calibrate")
    other = bag_study(tmp_path / "other", seed=7, prefix="X", slides=36, slides_each=3, signal=1.5)
    study = _study(tmp_path / "other", own.root / "train" / "abmil", "cohort.label_of=patient")
    told = _run(Work(other.root, study))
    _is_that_of_scikit_learn(told["development"], own.root, "patients")
    _is_that_of_scikit_learn(told["metrics"], other.root, "patients")
    assert set(told["development"]) == set(told["metrics"])
    assert "calibrated probabilities of patients" in (other.root / "validate" / "index.html").read_text()


def test_the_labels_of_the_cohort_move_nothing_that_was_frozen(model: Path, tmp_path: Path) -> None:
    work = _other(tmp_path, model, slides=24)
    _run(work)
    before = pd.read_csv(work.root / "calibrate" / "abmil" / "slides.csv").drop(columns="label")
    path = tmp_path / "cohort.csv"
    path.write_text(path.read_text().replace("normal", "x").replace("tumour", "normal").replace("x", "tumour"))
    poisoned = Work(work.root, work.study)
    _run(poisoned)
    pd.testing.assert_frame_equal(
        pd.read_csv(work.root / "calibrate" / "abmil" / "slides.csv").drop(columns="label"), before
    )


def test_what_is_no_other_cohort_is_refused(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model.parents[1], tmp_path / "own")
    same = Work(tmp_path / "own", _study(model.parents[2], model, "model.label=again"))
    with pytest.raises(StageError, match=r"48 slide\(s\) have names of slides that the model has learnt from"):
        _run(same)
    work = _other(tmp_path, model, slides=12)
    path = tmp_path / "cohort.csv"
    path.write_text(path.read_text().replace("tumour", "tumor"))
    with pytest.raises(StageError, match=r"the labels 'tumor' are none of the model's classes \(normal, tumour\)"):
        _run(work)


def _renamed(tmp_path: Path, model: Path, *, patient: str = "Q") -> Work:
    """A cohort of eight slides, four of which are the model's own under other names."""
    work, home = bag_study(tmp_path, seed=7, prefix="X", slides=8), model.parents[2]
    for number in range(4):
        shutil.copy(home / "features" / f"S{number:03}.h5", tmp_path / "features" / f"X{number:03}.h5")
    names = [tmp_path / "features" / f"X{number:03}.h5" for number in range(4)]
    list(import_bags(names, work.root / "extract" / "phikon", Help(), redo=True))
    path = tmp_path / "cohort.csv"
    path.write_text(path.read_text().replace("XP", patient))
    return Work(work.root, _study(tmp_path, model))


def test_slides_learnt_from_are_known_again_under_other_names(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    work = _renamed(tmp_path, model)
    with pytest.raises(StageError, match=r"4 slide\(s\) are those that the model has learnt from under other names"):
        _run(work)
    assert "learnt from 4 of the 8 slides (first 'X000', learnt from as 'S000': the same file" in caplog.text
    assert "say nothing" in read_record(work.stage("predict"), "slides", work)["facts"]["warning"]  # type: ignore[index]


def test_patients_of_the_same_id_are_warned_of(model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    work = _renamed(tmp_path, model, patient="P")
    path = tmp_path / "cohort.csv"
    rows = path.read_text().splitlines()
    path.write_text("\n".join([rows[0], *rows[5:]]) + "\n")
    work = Work(work.root, _study(tmp_path, model))
    work.check_cohort()
    require_new(work)
    told = json.loads(next(model.rglob("model.json")).read_text())["training"]["patients"]
    assert len(told) == len(set(told)) > 0
    assert not any("P0" in one for one in told)  # digests of ids, not ids
    assert "4 slide(s) are of patients with ids that the model has learnt from (first 'X004' of patient 'P004')" in (
        caplog.text
    )


def test_a_checkpoint_that_kept_no_fingerprints_still_answers(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "old")
    for path in (tmp_path / "old").rglob("model.json"):
        record = json.loads(path.read_text())
        for name in ("patients", "fingerprints", "digests", "recorded_on"):
            record["training"].pop(name)
        path.write_text(json.dumps(record))
    work = _other(tmp_path / "new", tmp_path / "old", slides=4)
    work.check_cohort()
    through(work, "predict")


def test_both_commands(model: Path, tmp_path: Path) -> None:
    work = bag_study(tmp_path, seed=7, prefix="X", slides=24, signal=3)
    given = ["validate", "--model", str(model), "--table", str(tmp_path / "cohort.csv"), "--label", "label"]
    ended = CliRunner().invoke(app, [*given, "--work", str(work.root), "--draws", "100", "--local", "8"])
    assert ended.exit_code == 0, ended.output
    assert "On this cohort, 95 % intervals" in ended.output
    told = json.loads((work.root / "validate" / "validation.json").read_text())
    assert told["thresholds"]
    ended = CliRunner().invoke(app, ["compare", str(model.parents[1]), f"{model.parent}/.."])
    assert isinstance(ended.exception, StageError)
    assert "is given twice" in str(ended.exception)
