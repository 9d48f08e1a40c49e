"""The report says how far a study can be relied on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bagged import bag_study, through, with_settings
from studies import run_stage

from wsi_mil.evaluation import Fold, score
from wsi_mil.stages import Work
from wsi_mil.stages.judgement import judge_study, worst
from wsi_mil.stages.record_baselines import RECORD, SITE, record_baselines

SETTINGS = (
    "split.folds=2",
    "calibrate.coverage=0.6",
    "report.groups=[site, scanner]",
    "train.seeds=[0, 1]",
)


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A study of three sites, reported; not to be changed."""
    work = bag_study(tmp_path_factory.mktemp("judged"), *SETTINGS, slides=36)
    through(work, "split", "train", "predict", "calibrate")
    run_stage(work, "heatmap")
    through(work, "report")
    return work


def test_the_page_has_every_part(reported: Work) -> None:
    page = (reported.root / "report" / "index.html").read_text()
    for words in (
        "Leakage audit",
        "Calibration",
        "Conformal sets",
        "By site",
        "By scanner",
        "Uncertainty of the figures",
    ):
        assert f"<h2>{words}</h2>" in page, words
    for words in ("Decision curve", "Reliability", "cross-fitted", "mostly chance", "Nothing is promised for other"):
        assert words in page, words
    assert "AUROC, single seeds (2)" in page
    figures = json.loads((reported.root / "report" / "figures.json").read_text())
    assert set(figures["judgement"]["groups"]) == {"site", "scanner"}
    assert set(figures["judgement"]["decisions"]) == {"sensitivity", "specificity", "ppv", "npv"}
    assert figures["judgement"]["calibration"]["calibrated"]["calibration_slope"]["value"] > 0
    assert figures["baselines_auroc"]["site alone"]["value"] < 0.75


def test_numbers_are_those_of_the_tables(reported: Work) -> None:
    told = judge_study(reported, columns=("scanner",), draws=100)
    assert told is not None
    assert sum(one.cases for one in told.groups["scanner"].values()) == 36
    called = told.calibrated[:, 1]
    assert told.decisions["sensitivity"].value <= 1
    assert told.coverage["all patients"].patients == 36
    assert {"class normal", "class tumour", "site A"} <= set(told.coverage)
    lowest = worst(told.groups["site"])
    values = {name: one.metrics["auroc"].value for name, one in told.groups["site"].items()}
    assert lowest == min(values, key=lambda name: values[name])
    assert len(called) == 36


def test_the_record_alone_is_a_baseline(reported: Work) -> None:
    """Age goes with the label in this cohort, and the site does not."""
    work = with_settings(reported, *SETTINGS, "cohort.clinical={age: number, scanner: category}")
    slides = work.cohort.slides
    truth = (work.cohort.frame["label"] == "tumour").to_numpy().astype(np.int64)
    place = np.arange(36)
    folds = [Fold(place[place % 3 != n], place[:0], place[place % 3 == n]) for n in range(3)]
    found = record_baselines(slides, truth, folds, work)
    assert score("auroc", truth, found[RECORD].probabilities) > 0.9
    assert score("auroc", truth, found[SITE].probabilities) < 0.7


def test_a_study_that_is_not_calibrated_says_why(tmp_path: Path) -> None:
    work = bag_study(tmp_path, slides=24)
    through(work, "split", "train", "predict")
    run_stage(work, "heatmap")
    through(work, "report")
    page = (work.root / "report" / "index.html").read_text()
    assert "Not calibrated: run <code>wsi-mil calibrate</code>" in page
    assert "One seed was trained" in page
