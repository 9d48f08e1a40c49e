"""Nothing that is tested was learnt from: every finding in one report, before anything is trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
from bagged import bag_study, through, with_settings
from studies import run_stage

from wsi_mil import files
from wsi_mil.cohort import ClinicalEncoder
from wsi_mil.stages import Help, Work, import_bags
from wsi_mil.stages.audit import pretrained, site_warning
from wsi_mil.stages.judgement_pages import audit
from wsi_mil.training import fitting


def _roles(work: Work, roles: dict[str, str]) -> None:
    path = work.root / "split" / "folds.csv"
    folds = pd.read_csv(path, dtype=str)
    folds["role"] = [roles.get(slide, role) for slide, role in zip(folds["slide"], folds["role"], strict=True)]
    folds.to_csv(path, index=False)


def _failed(work: Work, stage: str = "train") -> str:
    outcomes = run_stage(work, stage)
    assert {one.kind for one in outcomes} == {"failed"}, outcomes
    return outcomes[0].why


def test_every_finding_is_in_one_report(tmp_path: Path) -> None:
    work = bag_study(tmp_path, slides_each=2)
    source = tmp_path / "features"
    with h5py.File(source / "S004.h5") as file:  # S020 becomes S004 in another order and another precision
        rows = file["features"][:].astype(np.float16).astype(np.float32)[::-1]
    with h5py.File(source / "S020.h5", "w") as file:
        file.create_dataset("features", data=rows, chunks=(1, 8)).attrs["encoder"] = "phikon"
    list(import_bags([source / "S020.h5"], work.root / "extract" / "phikon", Help(), redo=True))
    saw = tmp_path / "saw.csv"
    saw.write_text("patient\nP010\n")
    work = with_settings(work, f"train.encoder_saw={saw}")
    through(work, "split")
    _roles(work, {"S000": "fit", "S001": "test", "S004": "fit", "S005": "fit", "S020": "test", "S021": "test"})
    why = _failed(work)
    assert "leakage, 3 finding(s)" in why
    assert "patient 'P000' is in the roles fit and test" in why
    assert "slide 'S020' (test) and 'S004' (learnt from) are two files of one slide: 100%" in why
    assert "the encoder was pretrained on 2 of the slides to be tested, or on their patients (first 'S020')" in why
    assert not list(work.root.rglob("model.json"))


@pytest.mark.parametrize(
    ("column", "listed", "found"),
    [
        ("slide", "S003.svs", ["S003"]),
        ("slide", "/data/slides/S003.ome.tiff", ["S003"]),
        ("slide", "C:\\slides\\S003.NDPI", ["S003"]),
        ("slide", "S003.1", []),
        ("patient", "P003", ["S003"]),
        ("slide", "TCGA-AA-1234-01Z-00-DX1.0a1b2c3d-99.svs", ["TCGA-AA-1234-01Z-00-DX1"]),
        ("slide", "tcga-aa-1234-11A-01-TS1.svs", ["TCGA-AA-1234-01Z-00-DX1"]),
        ("patient", "TCGA-AA-1234", ["TCGA-AA-1234-01Z-00-DX1"]),
        ("patient", "TCGA-AA-123", []),
    ],
)
def test_what_the_encoder_saw_is_known_under_its_many_names(
    tmp_path: Path, column: str, listed: str, found: list[str]
) -> None:
    saw = tmp_path / "saw.csv"
    pd.DataFrame({column: [listed]}).to_csv(saw, index=False)
    tested = ["S003", "TCGA-AA-1234-01Z-00-DX1", "TCGA-AB-1234-01Z-00-DX1", "S00"]
    rows = pd.DataFrame({"slide": tested, "patient": ["P003", "p1", "p2", "p3"]})
    study = SimpleNamespace(train=SimpleNamespace(encoder_saw=saw))
    told = pretrained(tested, SimpleNamespace(study=study, rows_of=lambda _: rows))  # type: ignore[arg-type]
    assert told == [
        f"the encoder was pretrained on 1 of the slides to be tested, or on their patients (first {one!r})"
        for one in found
    ]


def test_a_list_of_what_the_encoder_saw_that_names_nothing_is_refused(tmp_path: Path) -> None:
    saw = tmp_path / "saw.csv"
    saw.write_text("file\nS003.svs\n")
    work = bag_study(tmp_path / "study", f"train.encoder_saw={saw}")
    through(work, "split")
    assert "has no column 'slide' or 'patient', but ['file']" in _failed(work)


def test_a_list_that_grows_is_read_again_before_prediction(tmp_path: Path) -> None:
    saw = tmp_path / "saw.csv"
    saw.write_text("slide\nother.svs\n")
    work = bag_study(tmp_path / "study", f"train.encoder_saw={saw}")
    through(work, "split", "train", "predict")
    tested = _slide(work, fold=1, role="test")
    saw.write_text(f"slide\n{tested}.svs\n")
    assert "fold 1: the encoder was pretrained on 1 of the slides to be tested" in _failed(work, "predict")


def test_a_clean_fold_says_what_was_checked(tmp_path: Path) -> None:
    work = bag_study(tmp_path)
    through(work, "split", "train")
    record = files.read_json(work.root / "train" / "abmil" / ".made" / "seed-0" / "fold-0.json")
    assert record["facts"]["audit"]["bags"] == 24
    assert "near-duplicate bags" in record["facts"]["audit"]["checked"]


@pytest.mark.parametrize(("field", "words"), [("slides", "learnt from"), ("scaled_on", "its scaler was fitted on")])
def test_what_a_checkpoint_was_fitted_on_is_compared_with_whom_it_tests(tmp_path: Path, field: str, words: str) -> None:
    work = bag_study(tmp_path)
    through(work, "split", "train", "predict")
    path = work.root / "train/abmil/seed-0/fold-0/model.json"
    record = json.loads(path.read_text())
    folds = pd.read_csv(work.root / "split" / "folds.csv", dtype=str)
    tested = folds["slide"][(folds["fold"] == "0") & (folds["role"] == "test")].iloc[0]
    assert tested not in record["training"]["scaled_on"]
    record["training"][field].append(tested)
    path.write_text(json.dumps(record))
    outcome = run_stage(work, "predict", redo=True)[0]
    assert outcome.kind == "failed"
    assert "leakage" in outcome.why
    assert words in outcome.why


def _same_features(work: Work, tested: str, learnt: str) -> None:
    """The features of one slide under the name of another."""
    source = work.root.parent / "features"
    shutil.copy(source / f"{learnt}.h5", source / f"{tested}.h5")
    list(import_bags([source / f"{tested}.h5"], work.root / "extract" / "phikon", Help(), redo=True))


def _slide(work: Work, *, fold: int, role: str) -> str:
    folds = pd.read_csv(work.root / "split" / "folds.csv", dtype=str)
    return str(folds["slide"][(folds["fold"] == str(fold)) & (folds["role"] == role)].iloc[0])


@pytest.mark.parametrize("trained_again", [True, False])
def test_models_that_are_found_are_audited_again(tmp_path: Path, trained_again: bool) -> None:
    """A tested slide gets the features of a fit slide: no checkpoint changes by it, and none may speak any more."""
    work = bag_study(tmp_path)
    through(work, "split", "train", "predict", "calibrate", "report")
    tested, learnt = _slide(work, fold=0, role="test"), _slide(work, fold=0, role="fit")
    _same_features(work, tested, learnt)
    twins = f"slides {learnt!r} and {tested!r} are the same file, one to learn from and one to be tested on"
    for _ in range(2 if trained_again else 0):  # the second run, too, takes nothing for made
        first, _ = run_stage(work, "train")
        assert first.kind == "failed"
        assert twins in first.why
    outcome = run_stage(work, "predict")[0]
    assert outcome.kind == "failed"
    assert twins in outcome.why
    assert ("train: leakage" if trained_again else "fold 0: slides") in outcome.why
    for stage in ("calibrate", "report"):
        outcome = run_stage(work, stage)[0]
        assert outcome.kind == "failed"
        assert "leakage, " in outcome.why


@pytest.mark.parametrize("which", ["scaler", "clinical encoder"])
def test_what_a_fit_has_read_is_compared_with_the_fit_role(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """A fit that reads more than its role says so by itself, whatever the code around it was told to hand over."""
    work = bag_study(tmp_path, "cohort.clinical={age: number}", "model.fusion=concat")
    if which == "scaler":
        moments = fitting.feature_moments
        monkeypatch.setattr(fitting, "feature_moments", lambda source, *_: moments(source, range(len(source))))
    else:
        fit, frame = ClinicalEncoder.fit, work.cohort.frame
        monkeypatch.setattr(ClinicalEncoder, "fit", lambda encoder, _: fit(encoder, frame))
    through(work, "split", "train")
    why = _failed(work, "predict")
    assert f"seed-0/fold-0: its {which} was fitted on" in why
    assert "slide(s) outside the role fit (first " in why


def test_a_checkpoint_of_other_roles_than_the_folds_have_now_is_refused(tmp_path: Path) -> None:
    work = bag_study(tmp_path, "split.calibrate=0.3")
    through(work, "split", "train")
    learnt, spare = _slide(work, fold=0, role="fit"), _slide(work, fold=0, role="calibrate")
    _roles(work, {learnt: "calibrate", spare: "fit"})
    assert f"it learnt from 1 slide(s) outside the role fit and select (first {learnt!r})" in _failed(work, "predict")


def test_poison_on_the_test_fold_changes_no_checkpoint(tmp_path: Path) -> None:
    """Other labels, other features and other sites of the tested slides: the weights are the same to the last bit."""
    work = bag_study(tmp_path)
    through(work, "split", "train")
    place = work.root / "train/abmil/seed-0/fold-0"
    before = {name: (place / name).read_bytes() for name in ("model.safetensors", "model.json", "history.csv")}
    folds = pd.read_csv(work.root / "split" / "folds.csv", dtype=str)
    tested = set(folds["slide"][(folds["fold"] == "0") & (folds["role"] == "test")])
    frame = pd.read_csv(work.root / "cohort.csv", dtype=str, keep_default_na=False)
    here = frame["slide"].isin(tested)
    frame.loc[here, "label"] = frame.loc[here, "label"].map({"normal": "tumour", "tumour": "normal"})
    frame.loc[here, "site"] = "X"
    frame.to_csv(work.root / "cohort.csv", index=False)
    for slide in tested:
        path = tmp_path / "features" / f"{slide}.h5"
        with h5py.File(path, "r+") as file:
            file["features"][:] = np.random.default_rng(len(slide)).normal(size=file["features"].shape) - 50
        list(import_bags([path], work.root / "extract" / "phikon", Help(), redo=True))
    poisoned = Work(work.root, work.study)
    for path in place.iterdir():
        path.unlink()
    place.rmdir()
    assert run_stage(poisoned, "train")[0].kind == "made"
    for name, data in before.items():
        assert (place / name).read_bytes() == data, name


def test_a_site_that_goes_with_the_label_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Folds by patients cannot mend it; the dealing says so, and the report repeats it."""
    work = bag_study(tmp_path, "train.epochs=1", slides=16)
    table = tmp_path / "cohort.csv"
    frame = pd.read_csv(table, dtype=str)
    frame["site"] = ["north" if label == "tumour" else "south" for label in frame["label"]]
    frame.to_csv(table, index=False)
    with caplog.at_level("WARNING", logger="wsi_mil"):
        through(with_settings(work), "split")
    (told,) = [record.getMessage() for record in caplog.records if "site and label" in record.getMessage()]
    assert (
        "Cramer's V 1.00 over 16 patients; 'normal' comes from 'south' alone, 'tumour' comes from 'north' alone" in told
    )
    assert told in audit(with_settings(work)).tables[0].rows[-1]


def test_sites_that_know_nothing_of_the_label_are_none(tmp_path: Path) -> None:
    work = bag_study(tmp_path, "train.epochs=1", slides=24)
    rows = work.labelled().assign(site=list(work.cohort.column("site")))
    assert site_warning(rows) == []
    assert site_warning(rows.assign(site="A")) == []
    assert site_warning(rows.assign(site=["A" if label == "tumour" else "" for label in rows["label"]])) == []
