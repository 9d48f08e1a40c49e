"""An ensemble of a study's models: weights from the calibrate role alone, and one table like any other."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from studies import open_work, run_stage

from wsi_mil.heatmaps import Heatmap, heatmap_from_hdf5
from wsi_mil.stages import Work, study_of_model
from wsi_mil.stages.members import Heard, hear_members, weigh_members

JOINT = ("model.label=joint", "predict.members=[abmil, mean]")


@pytest.fixture
def members(cohort: Path, copy_of: Callable[..., Work]) -> Path:
    """A work folder in which abmil and mean are trained, on folds with a calibrate role."""
    root = copy_of("tissue", "tile", "extract").root
    for number, name in enumerate(("abmil", "mean")):
        work = open_work(cohort, root, f"model={{name: {name}}}", "train.epochs=2", "split.calibrate=0.3")
        for stage in ["split", "train"][number and 1 :]:
            assert {one.kind for one in run_stage(work, stage)} == {"made"}
    return root


def test_an_ensemble_is_the_weighted_mean_of_its_members(members: Path, cohort: Path) -> None:
    work = open_work(cohort, members, *JOINT, "split.calibrate=0.3")
    outcome = run_stage(work, "predict")[0]
    assert outcome.kind == "made", outcome.why
    folder = members / "predict" / "joint"
    rows = pd.read_csv(folder / "models.csv", dtype={"slide": str})
    slides = pd.read_csv(folder / "slides.csv", dtype={"slide": str}).set_index("slide")
    assert set(rows["model"]) == {"abmil", "mean"}
    for slide, part in rows.groupby("slide"):
        assert part["weight"].sum() == pytest.approx(1)
        assert slides.loc[slide, "p_lesion"] == pytest.approx(np.dot(part["weight"], part["p_lesion"]))
    assert (slides["mutual_information"] >= 0).all()
    assert (slides["models"] == 2).all()
    assert (folder / "patients.csv").exists()
    assert run_stage(work, "predict")[0].kind == "found"
    decided = run_stage(work, "calibrate")[0]
    assert (decided.kind, decided.facts["source"]) == ("made", "the calibrate role")
    assert run_stage(work, "report")[0].kind == "made"


def test_the_calibrate_role_is_told_with_weights_from_other_patients(members: Path, cohort: Path) -> None:
    work = open_work(cohort, members, *JOINT, "split.calibrate=0.3")
    assert run_stage(work, "predict")[0].kind == "made"
    told = pd.read_csv(members / "predict" / "joint" / "calibrate.csv", dtype={"slide": str, "patient": str})
    folds = pd.read_csv(members / "split" / "folds.csv", dtype={"slide": str})
    role = folds[folds["role"] == "calibrate"]
    assert set(zip(told["fold"], told["slide"], strict=True)) == set(zip(role["fold"], role["slide"], strict=True))
    assert list(told["label"]) == list(work.labelled().set_index("slide")["label"][told["slide"]])
    for fold, one in hear_members(work).items():
        weights = weigh_members(work)[fold]
        before = one.joint()
        assert before.shape == one.values.shape[1:]
        same = told[told["fold"] == fold[1]]
        np.testing.assert_allclose(same[[f"p_{name}" for name in one.names]], before)
        assert not np.allclose(before, np.tensordot(weights, one.values, axes=1)), "the weights suit the very patients"
        first = one.slides["patient"] == one.slides["patient"][0]
        turned = one.slides.assign(label=one.slides["label"].where(~first, "none of them"))
        turned["label"] = turned["label"].where(
            ~first, [name for name in one.names if name != one.slides["label"][0]][0]
        )
        after = replace(one, slides=turned).joint()
        np.testing.assert_array_equal(after[first], before[first])


def test_parts_of_a_calibrate_role_are_weighed_by_the_others() -> None:
    """Two members, of which one is right about half of the patients only: each part is weighed by the rest."""
    random = np.random.default_rng(0)
    slides = pd.DataFrame({"slide": [f"s{n}" for n in range(40)], "patient": [f"p{n // 2}" for n in range(40)]})
    slides["label"] = ["ab"[n // 2 % 2] for n in range(40)]
    right = random.uniform(0.6, 0.9, 40)
    truth = np.stack([np.where(slides["label"] == name, right, 1 - right) for name in "ab"], axis=1)
    heard = Heard(slides, ["a", "b"], np.stack([truth, 1 - truth]))
    assert heard.joint() == pytest.approx(truth, abs=1e-6)
    alone = Heard(slides[:1], ["a", "b"], np.stack([truth[:1], 1 - truth[:1]]))
    assert alone.joint() == pytest.approx(np.full((1, 2), 0.5))


def test_weights_hang_on_the_calibrate_role_alone(members: Path, cohort: Path) -> None:
    work = open_work(cohort, members, *JOINT, "split.calibrate=0.3")
    before = weigh_members(work)
    assert any(not np.allclose(weights, 0.5) for weights in before.values())
    path = members / "split" / "folds.csv"
    folds = pd.read_csv(path, dtype=str)
    table = members / "cohort.csv"
    cohort_table = pd.read_csv(table, dtype=str, keep_default_na=False)

    def flipped(roles: tuple[str, ...]) -> dict[tuple[int, int], np.ndarray]:
        """Weights after the labels of slides that only ever have these roles in fold 0 are turned round."""
        here = set(folds["slide"][(folds["fold"] == "0") & folds["role"].isin(roles)])
        turned = cohort_table.copy()
        rows = turned["slide"].isin(here)
        turned.loc[rows, "label"] = turned.loc[rows, "label"].map({"lesion": "benign", "benign": "lesion"})
        turned.to_csv(table, index=False)
        return weigh_members(Work(work.root, work.study))

    np.testing.assert_array_equal(flipped(("test", "fit", "select"))[0, 0], before[0, 0])
    assert not np.array_equal(flipped(("calibrate",))[0, 0], before[0, 0])


def test_without_a_calibrate_role_members_weigh_alike(
    cohort: Path, copy_of: Callable[..., Work], caplog: pytest.LogCaptureFixture
) -> None:
    root = copy_of("tissue", "tile", "extract", "split", "train").root
    work = open_work(cohort, root, "model.label=joint", "predict.members=[abmil]")
    with caplog.at_level(logging.WARNING, logger="wsi_mil"):
        assert run_stage(work, "predict")[0].kind == "made"
    assert "no slide in the calibrate role" in caplog.text
    alone = pd.read_csv(root / "predict" / "joint" / "slides.csv")
    work = open_work(cohort, root)
    run_stage(work, "predict")
    same = pd.read_csv(root / "predict" / "abmil" / "slides.csv")
    np.testing.assert_allclose(alone["p_lesion"], same["p_lesion"])


def test_members_that_are_not_there_are_named(cohort: Path, copy_of: Callable[..., Work]) -> None:
    root = copy_of("tissue", "tile", "extract", "split", "train").root
    work = open_work(cohort, root, "model.label=joint", "predict.members=[abmil, clam]")
    outcome = run_stage(work, "predict")[0]
    assert outcome.kind == "failed"
    assert "'clam' of predict.members has no models" in outcome.why


def test_the_map_of_an_ensemble_is_the_weighted_mean_of_ranks(members: Path, cohort: Path) -> None:
    for name in ("abmil", "mean"):
        settings = (f"model={{name: {name}}}", "train.epochs=2", "split.calibrate=0.3", "heatmap.export=[]")
        own = open_work(cohort, members, *settings)
        run_stage(own, "predict")
        assert "made" in {one.kind for one in run_stage(own, "heatmap")}
    work = open_work(cohort, members, *JOINT, "split.calibrate=0.3")
    run_stage(work, "predict")
    outcomes = run_stage(work, "heatmap")
    assert {one.kind for one in outcomes} <= {"made", "empty"}, [one.why for one in outcomes]
    rows = pd.read_csv(members / "predict" / "joint" / "models.csv", dtype={"slide": str})
    slide = str(rows["slide"].iloc[0])
    weights = rows[rows["slide"] == slide].set_index("model")["weight"]
    wanted = 0.0
    for name in ("abmil", "mean"):
        one = _map(members / "heatmap" / name / slide)
        values = one.column("contribution_lesion")
        ranks = (values[:, None] > values).sum(1) + ((values[:, None] == values).sum(1) - 1) / 2
        wanted = wanted + weights[name] * ranks / (len(values) - 1)
    found = _map(members / "heatmap" / "joint" / slide)
    np.testing.assert_allclose(found.column("contribution_lesion"), wanted, atol=1e-5)
    assert found.model.startswith("weighted mean rank of abmil (")
    assert set(found.kinds.values()) == {"mean rank"}
    said = pd.read_csv(members / "predict" / "joint" / "slides.csv", dtype={"slide": str}).set_index("slide")
    assert found.prediction["lesion"] == pytest.approx(said.loc[slide, "p_lesion"])
    assert {one.kind for one in run_stage(work, "heatmap")} <= {"found", "empty"}
    assert run_stage(work, "report")[0].kind == "made"


def test_a_member_without_contributions_is_left_out_of_the_map(cohort: Path, copy_of: Callable[..., Work]) -> None:
    root = copy_of("tissue", "tile", "extract", "split", "train").root
    small = "model={name: gtp, options: {hidden: 16, clusters: 4, depth: 1, heads: 2}}"
    run_stage(open_work(cohort, root, small, "train.epochs=1"), "train")
    slide = ""
    for told in ("[abmil, gtp]", "[gtp]"):
        work = open_work(cohort, root, "model.label=joint", f"predict.members={told}")
        run_stage(work, "predict", redo=True)
        outcomes = run_stage(work, "heatmap", redo=True)
        if told == "[gtp]":
            assert {one.kind for one in outcomes} == {"empty"}
            assert "no member tells what a tile contributes (gtp)" in outcomes[0].why
        else:
            slide = next(one.item for one in outcomes if one.kind == "made")
            assert "abmil (1.00), without gtp" in _map(root / "heatmap" / "joint" / slide).model


def test_new_slides_are_predicted_by_models_of_several_kinds(members: Path, cohort: Path, tmp_path: Path) -> None:
    study = study_of_model(
        members / "train", slides=str(cohort / "cohort/slides/S02*"), overrides=["runtime.threads=1"]
    )
    assert study.model.label == "abmil+mean"
    work = Work(tmp_path / "new", study)
    work.root.mkdir()
    work.check_cohort()
    for name in ("tissue", "tile", "extract", "predict", "calibrate", "heatmap"):
        assert [one.kind for one in run_stage(work, name)] == ["made"], name
    rows = pd.read_csv(work.root / "predict" / "abmil+mean" / "models.csv")
    said = pd.read_csv(work.root / "predict" / "abmil+mean" / "slides.csv")
    assert {name.split("/")[0] for name in rows["model"]} == {"abmil", "mean"}
    assert said["p_lesion"][0] == pytest.approx(rows["p_lesion"].mean())
    shown = _map(work.root / "heatmap" / "abmil+mean" / "S02")
    assert "contribution_lesion" in shown.channels
    assert "attention" not in shown.channels  # the mean has none
    assert shown.model == f"mean rank of {len(rows)} models"


def _map(folder: Path) -> Heatmap:
    return heatmap_from_hdf5((folder / f"{folder.name}.h5").read_bytes())
