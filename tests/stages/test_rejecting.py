"""Slides of no known kind: limits from the calibrate role alone, kept beside the calibrator, and carried to others."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from bagged import bag_study, through, with_settings
from studies import run_stage

from wsi_mil import files
from wsi_mil.errors import ModelError
from wsi_mil.stages import Help, Work, import_bags
from wsi_mil.stages.calibrate import read_predicted
from wsi_mil.training import Novelty

ROLE = ("split.calibrate=0.4", "calibrate.coverage=0.6", "calibrate.reject=combo")
PATIENTS = ("cohort.label_of=patient", "model.bag_of=patient")
NEW = ("cohort.missing_labels=predict",)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A study with a calibrate role, two slides of it strange and without a label; not to be changed."""
    folder = tmp_path_factory.mktemp("reject")
    work = bag_study(folder, *ROLE, *NEW, slides=42)
    for slide in ("S040", "S041"):
        with h5py.File(work.root / "extract" / "phikon" / f"{slide}.h5", "r+") as file:
            rows = file["features"][:]
            rows[:8, 5] += 40
            file["features"][:] = rows
    table = pd.read_csv(folder / "cohort.csv", dtype=str)
    table.loc[table["slide"].isin(["S040", "S041"]), "label"] = ""
    table.to_csv(folder / "cohort.csv", index=False)
    work = with_settings(work, *ROLE, *NEW)
    through(work, "split", "train", "predict", "calibrate")
    return work


def _copy(work: Work, folder: Path, *settings: str) -> Work:
    shutil.copytree(work.root.parent, folder / "copy")
    return with_settings(Work(folder / "copy" / "work", work.study), *NEW, *(settings or ROLE))


def _slides(work: Work) -> pd.DataFrame:
    return read_predicted(work.root / "calibrate" / "abmil" / "slides.csv").set_index("slide")


def test_strange_slides_are_rejected_and_known_ones_mostly_answered(done: Work) -> None:
    slides, limits = _slides(done), files.read_json(done.root / "calibrate" / "abmil" / "reject" / "limits.json")
    assert list(slides["rejected"][["S040", "S041"]]) == ["yes", "yes"]
    assert ((slides["novelty"] > 0) == (slides["rejected"] == "yes")).all()
    assert (slides["rejected"][slides["part"] == "cross-validation"] == "no").mean() > 0.6
    assert limits["source"] == "limits from the calibrate role"
    folds = pd.read_csv(done.root / "split" / "folds.csv")
    for name, one in limits["models"].items():
        own = folds[(folds["fold"] == int(name[-1])) & (folds["role"] == "calibrate")]
        assert one["cases"] == len(own)
        assert one["low"] <= one["limit"] <= one["high"]
        assert len(one["moments"]) == 2
    names = {path.name for path in (done.root / "calibrate" / "abmil" / "reject").iterdir()}
    assert names == {"limits.json", "seed-0-fold-0.safetensors", "seed-0-fold-1.safetensors"}
    assert run_stage(done, "calibrate")[0].kind == "found"


def test_tested_slides_move_no_limit(done: Work, tmp_path: Path) -> None:
    """Poison: other features of the tested slides of fold 0 change nothing that is fitted for fold 0."""
    work = _copy(done, tmp_path)
    folds = pd.read_csv(work.root / "split" / "folds.csv")
    path = work.root / "calibrate" / "abmil" / "reject"
    before = (files.read_json(path / "limits.json")["models"], (path / "seed-0-fold-0.safetensors").read_bytes())
    for slide in folds["slide"][(folds["fold"] == 0) & (folds["role"] == "test")]:
        with h5py.File(work.root / "extract" / "phikon" / f"{slide}.h5", "r+") as file:
            file["features"][:] = file["features"][:] + np.float16(9)
    for item in (work.root / "calibrate" / "abmil").glob("*.csv"):
        item.unlink()
    assert run_stage(work, "calibrate")[0].kind == "made"
    after = (files.read_json(path / "limits.json")["models"], (path / "seed-0-fold-0.safetensors").read_bytes())
    assert after[0]["seed-0/fold-0"] == before[0]["seed-0/fold-0"]
    assert after[1] == before[1]
    assert after[0]["seed-0/fold-1"] != before[0]["seed-0/fold-1"]  # to fold 1 some of them are calibration slides
    assert (_slides(work)["novelty"] != _slides(done)["novelty"]).any()


def test_without_the_role_limits_are_cross_fitted_and_it_is_said(tmp_path: Path) -> None:
    work = bag_study(tmp_path, "calibrate.reject=maxlogit", "cohort.label_of=patient", slides=24, slides_each=2)
    through(work, "split", "train", "predict")
    outcome = run_stage(work, "calibrate")[0]
    assert outcome.facts["reject"] == "maxlogit, cross-fitted"
    limits = files.read_json(work.root / "calibrate" / "abmil" / "reject" / "limits.json")["models"]
    folds = pd.read_csv(work.root / "split" / "folds.csv")
    assert limits["seed-0/fold-0"]["cases"] == ((folds["fold"] == 1) & (folds["role"] == "test")).sum()
    patients = read_predicted(work.root / "calibrate" / "abmil" / "patients.csv").set_index("patient")
    means = _slides(work).groupby("patient")["novelty"].mean()
    assert patients["novelty"].to_dict() == pytest.approx(means.to_dict())


@pytest.mark.parametrize("reject", ["combo", "knn"])
def test_of_a_patients_bag_every_slide_is_fitted_on(tmp_path: Path, reject: str) -> None:
    """Second slides have something of their own: a score that was shown the first slides alone would not know it."""
    folder = tmp_path / "study"
    work = bag_study(folder, f"calibrate.reject={reject}", *PATIENTS, slides=24, slides_each=2)
    for path in sorted((folder / "features").glob("*.h5"))[1::2]:
        with h5py.File(path, "r+") as file:
            file["features"][:, 5] += 40
    list(import_bags([folder / "features"], work.root / "extract" / "phikon", Help(), redo=True))
    through(work, "split", "train", "predict", "calibrate")
    folds = pd.read_csv(work.root / "split" / "folds.csv")
    fit = list(folds["slide"][(folds["fold"] == 0) & (folds["role"] == "fit")])
    told = files.read_json(work.root / "train" / "abmil" / "seed-0" / "fold-0" / "model.json")["training"]
    assert sorted(told["scaled_on"]) == sorted(fit)
    path = work.root / "calibrate" / "abmil" / "reject" / "seed-0-fold-0.safetensors"
    bank = Novelty.from_bytes(path.read_bytes(), "here").arrays["bank"]
    if reject == "knn":
        assert len(bank) == len(fit) // 2, "a patient's bag is one case"
    else:
        assert 0.3 < (bank[:, 5] > 0).mean() < 0.7


def test_switched_off_again_nothing_is_left(done: Work, tmp_path: Path) -> None:
    from wsi_mil.compute import executor
    from wsi_mil.stages.runner import run

    work = _copy(done, tmp_path, *ROLE[:2], *NEW)
    assert [one.kind for one in run(work.stage("calibrate"), work, executor("here"), redo=True)] == ["made"]
    assert "rejected" not in _slides(work)
    assert not (work.root / "calibrate" / "abmil" / "reject").exists()
    assert not (work.root / "calibrate" / "abmil" / "novelty.csv").exists()


def test_given_models_bring_their_limits(done: Work, tmp_path: Path) -> None:
    models = done.root / "train" / "abmil"
    work = bag_study(tmp_path / "other", f"predict.models={models}", slides=4, prefix="T")
    shutil.copy(done.root / "extract" / "phikon" / "S040.h5", work.root / "extract" / "phikon" / "T000.h5")
    through(work, "predict", "calibrate")
    slides = _slides(work) if (work.root / "calibrate" / "abmil").exists() else pd.DataFrame()
    assert slides["rejected"]["T000"] == "yes"
    assert list(slides["rejected"][1:]).count("no") >= 2
    limits = done.root / "calibrate" / "abmil" / "reject" / "limits.json"
    from wsi_mil.stages.rejecting import reject_given

    shutil.copytree(limits.parent, tmp_path / "reject")
    told = files.read_json(limits)
    told["models"].pop("seed-0/fold-1")
    files.write_json(tmp_path / "reject" / "limits.json", told)
    assert "has no limit for" in reject_given(work, tmp_path / "reject").facts()["reject"]
    files.write_json(tmp_path / "reject" / "limits.json", {"format": 99})
    with pytest.raises(ModelError, match="has format 99"):
        reject_given(work, tmp_path / "reject")


def test_negatives_of_another_encoder_or_none_are_refused(done: Work, tmp_path: Path) -> None:
    settings = (*ROLE[:2], "calibrate.reject=deviation")
    work = _copy(done, tmp_path, *settings)
    shutil.rmtree(work.root / "calibrate")
    assert "give calibrate.negatives" in run_stage(work, "calibrate")[0].why
    (tmp_path / "none").mkdir()
    work = with_settings(work, *NEW, *settings, f"calibrate.negatives={tmp_path / 'none'}")
    shutil.rmtree(work.root / "calibrate")
    assert "holds no bag" in run_stage(work, "calibrate")[0].why
    for slide in ("S040", "S041"):
        shutil.copy(work.root / "extract" / "phikon" / f"{slide}.h5", tmp_path / "none" / f"odd-{slide}.h5")
    why = run_stage(work, "calibrate")[0].why
    assert "2 of the bags in" in why
    assert "are slides of the cohort (odd-S040.h5 is slide 'S040', odd-S041.h5 is slide 'S041')" in why
    shutil.rmtree(tmp_path / "none")
    shutil.copytree(bag_study(tmp_path / "other", slides=4, seed=9).root / "extract" / "phikon", tmp_path / "none")
    assert run_stage(work, "calibrate")[0].kind == "made"
    assert set(_slides(work)["rejected"]) <= {"yes", "no"}


def test_the_report_tells_what_is_not_answered(done: Work) -> None:
    from wsi_mil.stages.rejection_page import curves_of, part

    told = part(done)[0]
    rows = {row[0]: row[1:] for row in told.tables[0].rows}
    slides = _slides(done)
    assert rows["without a label"] == ["2", "2", "100%"]
    assert rows["all"][1] == str((slides["rejected"] == "yes").sum())
    assert {"class normal", "class tumour", "site A", "new", "cross-validation"} <= set(rows)
    assert "too few to tell their highest 5%" in told.text
    tested = slides[slides["label"] != ""]
    right = (tested["decision"] == tested["label"]).to_numpy()
    curves = curves_of(tested, right)
    assert curves["novelty"].accuracy[-1] == pytest.approx(right.mean())
    assert told.tables[1].rows[0][1] == str(len(tested))
    assert "share answered" in told.figures[0].svg


def _scored_fold_by_fold(root: Path, told: pd.Series) -> None:
    """By hand: under each fold's model the tested slides against all of the class left out, then the mean."""
    novelty = pd.read_csv(root / "calibrate" / "abmil" / "novelty.csv", dtype={"slide": str})
    slides = read_predicted(root / "calibrate" / "abmil" / "slides.csv").set_index("slide")
    folds = pd.read_csv(root / "split" / "folds.csv", dtype={"slide": str})
    auroc, fpr = [], []
    for fold in (0, 1):
        own = novelty[novelty["model"] == f"seed-0/fold-{fold}"].set_index("slide")["novelty"]
        known = own[folds["slide"][(folds["fold"] == fold) & (folds["role"] == "test")]]
        unknown = own[slides.index[slides["label"] == "a"]]
        assert len(own) == len(known) + len(unknown)
        auroc.append(np.mean(unknown.to_numpy()[:, None] > known.to_numpy()))
        limit = np.sort(known)[int(np.ceil(0.95 * len(known))) - 1]
        fpr.append(np.mean(unknown <= limit))
    assert told["auroc"] == pytest.approx(np.mean(auroc))
    assert told["fpr_at_95"] == pytest.approx(np.mean(fpr))
    assert slides["novelty"].to_dict() == pytest.approx(novelty.groupby("slide")["novelty"].mean().to_dict())


def test_each_class_is_left_out_in_turn_by_the_command(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from wsi_mil.cli import app
    from wsi_mil.stages.rejection_page import part

    work = bag_study(tmp_path, slides=36)
    table = pd.read_csv(tmp_path / "cohort.csv", dtype=str)
    table["label"] = ["a", "b", "c"] * 12
    table.to_csv(tmp_path / "cohort.csv", index=False)
    for number, slide in enumerate(table["slide"]):
        with h5py.File(work.root / "extract" / "phikon" / f"{slide}.h5", "r+") as file:
            rows = np.random.default_rng(number).normal(size=file["features"].shape)
            rows[:10, 2 + number % 3] += 9
            file["features"][:] = rows
    study, settings = tmp_path / "study.yaml", ["calibrate.reject=combo", "split.calibrate=0.3", "train.epochs=10"]
    told = CliRunner().invoke(app, ["unknown", str(study), "--work", str(work.root), *settings])
    assert told.exit_code == 0, told.output
    scores = pd.read_csv(work.root / "unknown" / "table.csv").set_index("left_out")
    assert list(scores.index) == ["a", "b", "c", "mean"]
    assert (scores["auroc"] >= 0.9).all()
    assert (scores["unknown"] == 12).all()
    _scored_fold_by_fold(work.root / "unknown" / "a", scores.loc["a"])
    asked = with_settings(work, *settings)
    through(asked, "split", "train", "predict", "calibrate")
    told = part(asked)[0].tables[-1]
    assert "left out in turn" in told.caption
    assert [row[:2] for row in told.rows] == [["a", "12"], ["b", "12"], ["c", "12"], ["mean", "12"]]
    assert told.rows[0][2] == f"{scores['auroc']['a']:.3f}"
    assert told.rows[0][3] == f"{scores['rejected_unknown']['a']:.0%}"
    folds = pd.read_csv(work.root / "unknown" / "a" / "split" / "folds.csv")
    assert not set(folds["slide"]) & set(table["slide"][table["label"] == "a"])
    for wrong, why in (("task.label=site", "nothing is rejected"), ("task.label=scanner", "three are needed")):
        more = settings if "scanner" in wrong else settings[1:]
        told = CliRunner().invoke(app, ["unknown", str(study), "--work", str(work.root), wrong, *more])
        assert why in str(told.exception) + told.output
