"""Calibrators, thresholds and sets are fitted on the calibrate role alone, and laid on the test role."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bagged import bag_study, through, with_settings
from studies import run_stage

from wsi_mil import files
from wsi_mil.stages import Work
from wsi_mil.stages.calibrate import read_predicted
from wsi_mil.stages.calibrated import ALL, load_calibration
from wsi_mil.stages.judgement import judge_study
from wsi_mil.stages.judgement_pages import sets

ROLE = ("split.calibrate=0.4", "calibrate.coverage=0.6")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A study with a calibrate role, predicted and calibrated; not to be changed."""
    work = bag_study(tmp_path_factory.mktemp("calibrate"), *ROLE, slides=40)
    through(work, "split", "train", "predict", "calibrate")
    return work


def _tables(work: Work) -> tuple[pd.DataFrame, pd.DataFrame]:
    place = work.root / "calibrate" / "abmil"
    return read_predicted(place / "slides.csv").set_index("slide"), pd.read_csv(work.root / "split" / "folds.csv")


def test_decisions_follow_from_what_was_fitted_on_the_fold(done: Work) -> None:
    slides, folds = _tables(done)
    calibration = load_calibration(done.root / "calibrate" / "abmil" / "calibration.json")
    assert calibration.source == "the calibrate role"
    for row in folds[folds["role"] == "test"].itertuples():
        own = calibration.levels["slide"][f"0/{row.fold}"]
        case = slides.loc[row.slide]
        raw = case[["p_normal", "p_tumour"]].to_numpy(float)[None]
        made = own.calibrator.apply(raw)[0]
        assert case[["calibrated_normal", "calibrated_tumour"]].to_list() == pytest.approx(list(made))
        assert case["threshold"] == pytest.approx(own.threshold)
        assert case["decision"] == ("tumour" if made[1] >= own.threshold else "normal")
        assert own.conformal is not None
        names = [name for name, one in zip(("normal", "tumour"), own.conformal.sets(raw)[0], strict=True) if one]
        assert case["set"] == ("|".join(names) or "none")
    assert run_stage(done, "calibrate")[0].kind == "found"


def test_only_the_calibrate_role_is_fitted_on(done: Work, tmp_path: Path) -> None:
    """Poison: other labels on the tested slides of fold 0 change nothing that is fitted for fold 0."""
    import shutil

    shutil.copytree(done.root.parent, tmp_path / "copy")
    work = Work(tmp_path / "copy" / "work", done.study)
    path = work.root / "calibrate" / "abmil" / "calibration.json"
    before = files.read_json(path)["levels"]["slide"]["0/0"]
    folds = pd.read_csv(work.root / "split" / "folds.csv")
    frame = pd.read_csv(work.root / "cohort.csv", dtype=str, keep_default_na=False)
    flip = {"normal": "tumour", "tumour": "normal"}
    for role, same in (("test", True), ("calibrate", False)):
        slides = set(folds["slide"][(folds["fold"] == 0) & (folds["role"] == role)])
        poisoned = frame.assign(
            label=[
                flip[label] if slide in slides else label for slide, label in zip(frame.slide, frame.label, strict=True)
            ]
        )
        poisoned.to_csv(work.root / "cohort.csv", index=False)
        fresh = Work(work.root, work.study)
        # the models of fold 0 stay as they are; those of fold 1 learn other labels, which fold 0 must not feel
        for stage in ("train", "predict", "calibrate"):
            assert "failed" not in {one.kind for one in run_stage(fresh, stage)}
        assert (files.read_json(path)["levels"]["slide"]["0/0"] == before) is same


def test_without_the_role_the_other_folds_serve_and_it_is_said(tmp_path: Path) -> None:
    work = bag_study(tmp_path, "split.folds=3", "calibrate.coverage=0.6", slides=36)
    through(work, "split", "train", "predict", "calibrate")
    assert not (work.root / "predict" / "abmil" / "calibrate.csv").exists()
    path = work.root / "calibrate" / "abmil" / "calibration.json"
    calibration = load_calibration(path)
    assert calibration.source == "cross-fitted"
    folds = pd.read_csv(work.root / "split" / "folds.csv")
    for fold in range(3):
        tested = folds[(folds["fold"] == fold) & (folds["role"] == "test")]["slide"].nunique()
        assert calibration.levels["slide"][f"0/{fold}"].cases == 36 - tested
    assert calibration.levels["slide"][ALL].cases == 36
    # another threshold is another configuration, and needs no new prediction
    other = with_settings(
        work, "split.folds=3", "calibrate.coverage=0.6", "calibrate.threshold=cost", "calibrate.cost=4"
    )
    assert run_stage(other, "calibrate", redo=True)[0].kind == "made"
    assert set(_tables(other)[0]["threshold"].round(6)) == {0.2}
    assert run_stage(other, "predict")[0].kind == "found"


def test_patients_are_cases_of_their_own(tmp_path: Path) -> None:
    work = bag_study(tmp_path, "cohort.label_of=patient", "calibrate.coverage=0.6", slides=48, slides_each=2)
    through(work, "split", "train", "predict", "calibrate")
    place = work.root / "calibrate" / "abmil"
    patients = read_predicted(place / "patients.csv")
    assert len(patients) == 24
    assert set(patients["decision"]) <= {"normal", "tumour"}
    calibration = load_calibration(place / "calibration.json")
    assert calibration.levels["patient"][ALL].cases == 24
    assert calibration.levels["slide"][ALL].cases == 48
    assert calibration.levels["slide"][ALL].patients == (12, 12)


def test_new_slides_are_judged_by_the_frozen_calibration(done: Work, tmp_path: Path) -> None:
    new = bag_study(tmp_path, slides=12, seed=5)
    for given, place in (("train/abmil", ALL), ("train/abmil/seed-0/fold-1", "0/1")):
        work = with_settings(new, f"predict.models={done.root / given}", f"model.label={place.replace('/', '-')}")
        through(work, "predict", "calibrate")
        slides = read_predicted(work.stage("calibrate").output(work.stage("calibrate").items(work)[0], work))
        own = load_calibration(done.root / "calibrate" / "abmil" / "calibration.json").levels["slide"][place]
        raw = slides[["p_normal", "p_tumour"]].to_numpy(float)
        assert np.allclose(slides[["calibrated_normal", "calibrated_tumour"]], own.calibrator.apply(raw))
        assert np.allclose(slides["threshold"], own.threshold)


def test_few_patients_are_refused_sets_and_a_study_without_calibration_says_so(tmp_path: Path) -> None:
    work = bag_study(tmp_path, slides=24)
    through(work, "split", "train", "predict")
    outcome = run_stage(work, "calibrate")[0]
    assert "need 9 calibration patients of each class: 'normal' has 6, 'tumour' has 6" in outcome.facts["refused"]
    assert set(_tables(work)[0]["set"]) == {""}
    bare = with_settings(work, f"predict.models={work.root / 'train' / 'abmil' / 'seed-0'}", "model.label=given")
    (work.root / "calibrate" / "abmil" / "calibration.json").unlink()
    through(bare, "predict")
    outcome = run_stage(bare, "calibrate")[0]
    assert "has no calibration.json of its own" in outcome.facts["skipped"]
    assert "decision" not in read_predicted(work.root / "calibrate" / "given" / "slides.csv").columns


def test_classes_that_a_set_could_not_name_have_no_sets_and_it_is_said(tmp_path: Path) -> None:
    """A set that is empty is written none: a class of that name would count as covered by it."""
    work = bag_study(tmp_path, "calibrate.coverage=0.6", slides=32)
    path = tmp_path / "cohort.csv"
    text = path.read_text()
    for name, told in (("none", "'none'"), ("a|b", r"'a\|b'")):
        path.write_text(text.replace("normal", name))
        work = with_settings(work, "calibrate.coverage=0.6")
        for stage in ("split", "train", "predict", "calibrate"):
            outcomes = run_stage(work, stage)
            assert {one.kind for one in outcomes} <= {"made", "found"}, outcomes
        assert re.search(f"no sets can be written with a class called {told}: a set is", outcomes[0].facts["refused"])
        assert set(_tables(work)[0]["set"]) == {""}
        assert set(_tables(work)[0]["decision"]) <= {name, "tumour"}
        told_all = judge_study(work, columns=(), draws=100)
        assert told_all is not None
        assert told_all.coverage == {}
        assert "no sets can be written" in sets(told_all).text


def test_a_task_without_classes_is_skipped_with_the_reason(tmp_path: Path) -> None:
    work = bag_study(tmp_path, "task={kind: regression, label: age}", "split.calibrate=0.3")
    through(work, "split", "train", "predict")
    outcome = run_stage(work, "calibrate")[0]
    assert outcome.kind == "made"
    assert "the task is regression" in outcome.facts["skipped"]
    assert not (work.root / "predict" / "abmil" / "calibrate.csv").exists()
    columns = list(read_predicted(work.root / "calibrate" / "abmil" / "slides.csv").columns)
    assert "decision" not in columns
    run_stage(work, "heatmap")
    through(work, "report")
