"""A question that is no classification is told apart by site, group and seed, and its report has the audit."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from bagged import bag_study, through
from scipy.stats import spearmanr
from sklearn.metrics import r2_score
from studies import run_stage

from wsi_mil.stages import Work

SETTINGS = ("task={kind: regression, label: age}", "train.seeds=[0, 1]", "report.groups=[scanner]")


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A regression of three sites and two seeds, reported; not to be changed."""
    work = bag_study(tmp_path_factory.mktemp("apart"), *SETTINGS, slides=30)
    frame = pd.read_csv(work.root.parent / "cohort.csv", dtype=str)
    frame.loc[[0, 1, 2], "scanner"] = "w"
    frame.to_csv(work.root.parent / "cohort.csv", index=False)
    work.check_cohort()
    through(work, "split", "train", "predict", "calibrate")
    run_stage(work, "heatmap")
    through(work, "report")
    return work


def _told(work: Work) -> tuple[dict, pd.DataFrame]:  # type: ignore[type-arg]
    figures = json.loads((work.root / "report" / "figures.json").read_text())["questions"]["regression"]
    slides = pd.read_csv(work.root / "predict" / "abmil" / "slides.csv", dtype={"slide": str}).set_index("slide")
    frame = pd.read_csv(work.root / "cohort.csv", dtype={"slide": str}).set_index("slide")
    return figures, slides[["p_age"]].join(frame[["age", "site", "scanner"]])


def test_groups_are_those_of_scikit_learn(reported: Work) -> None:
    figures, rows = _told(reported)
    assert set(figures["groups"]) == {"site", "scanner"}
    for column, own in figures["groups"].items():
        assert set(own) == set(rows[column])
        for value, told in own.items():
            here = rows[rows[column] == value]
            assert told["cases"] == told["patients"] == len(here)
            if value == "w":  # three patients
                assert "r2" not in told
                continue
            assert told["r2"]["value"] == pytest.approx(r2_score(here["age"], here["p_age"]))
            assert told["spearman"]["value"] == pytest.approx(spearmanr(here["age"], here["p_age"]).statistic)
            assert told["mae"]["low"] < told["mae"]["value"] < told["mae"]["high"]


def test_seeds_are_told_apart(reported: Work) -> None:
    figures, rows = _told(reported)
    models = pd.read_csv(reported.root / "predict" / "abmil" / "models.csv", dtype={"slide": str})
    assert set(figures["seeds"]) == {"seed-0", "seed-1"}
    for seed, value in figures["seeds"].items():
        own = models[models["model"].str.startswith(f"{seed}/")].set_index("slide")["p_age"]
        assert value == pytest.approx(r2_score(rows["age"], own.loc[rows.index]))
    assert np.ptp(list(figures["seeds"].values())) > 0


def test_plain_folds_are_resampled_over_patients_alone(reported: Work) -> None:
    figures, _ = _told(reported)
    one = figures["fold_means"]["mae"]
    assert one["nadeau_bengio"] is None
    assert one["low"] < one["value"] < one["high"]
    assert one["value"] == pytest.approx(np.mean(one["folds"]))


def test_the_page_has_the_audit_and_says_what_does_not_apply(reported: Work) -> None:
    page = (reported.root / "report" / "index.html").read_text()
    for words in ("Leakage audit", "Calibration", "Uncertainty of the figures", "By site", "By scanner"):
        assert f"<h2>{words}</h2>" in page, words
    assert "seed-1/fold-1" in page.partition("<h2>Leakage audit</h2>")[2].partition("<h2>")[0]
    assert "R2, single seeds (2)" in page
    assert "this study asks a question of kind regression" in page
