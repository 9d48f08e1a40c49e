"""An ensemble of a study's models: weights from the calibrate role alone, and one table like any other."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from studies import open_work, run_stage

from wsi_mil.stages import Work
from wsi_mil.stages.members import weigh_members

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
    assert (decided.kind, decided.facts["source"]) == ("made", "cross-fitted")
    assert {one.kind for one in run_stage(work, "heatmap")} == {"failed"}
    assert run_stage(work, "report")[0].kind == "made"


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
