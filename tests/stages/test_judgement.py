"""The report says how far a study can be relied on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bagged import bag_study, through, with_settings
from sklearn.metrics import brier_score_loss, precision_score, recall_score, roc_auc_score
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
    """Decisions, coverage and groups by hand from calibrate/abmil/slides.csv and the cohort, with scikit-learn."""
    told = judge_study(reported, columns=("scanner",), draws=100)
    assert told is not None
    frame = reported.cohort.frame.set_index("slide")
    path = reported.root / "calibrate" / "abmil" / "slides.csv"
    rows = pd.read_csv(path, dtype={"slide": str, "set": str}, keep_default_na=False).set_index("slide")
    rows = rows.join(frame[["scanner"]])
    truth, called = rows["label"] == "tumour", rows["decision"] == "tumour"
    assert 0 < called.sum() < len(called)
    assert told.decisions["sensitivity"].value == pytest.approx(recall_score(truth, called))
    assert told.decisions["specificity"].value == pytest.approx(recall_score(~truth, ~called))
    assert told.decisions["ppv"].value == pytest.approx(precision_score(truth, called))
    held = pd.Series(
        [label in names.split("|") for label, names in zip(rows["label"], rows["set"], strict=True)], rows.index
    )
    assert not held.all()
    sizes = rows["set"].map(lambda names: 0 if names == "none" else len(names.split("|")))
    parts = {
        "all patients": truth | ~truth,
        "class tumour": truth,
        "class normal": ~truth,
        "site A": rows["site"] == "A",
    }
    for name, here in parts.items():
        one = told.coverage[name]
        assert (one.patients, one.share) == (here.sum(), pytest.approx(held[here].mean())), name
        assert one.size == pytest.approx(sizes[here].mean())
    groups = {"scanner": rows["scanner"], "site": rows["site"]}
    for column, values in groups.items():
        assert sum(one.cases for one in told.groups[column].values()) == 36
        for value, one in told.groups[column].items():
            here = values == value
            own, said = truth[here], rows["calibrated_tumour"][here]
            assert one.metrics["auroc"].value == pytest.approx(roc_auc_score(own, said)), value
            assert one.metrics["brier"].value == pytest.approx(brier_score_loss(own, said)), value
            assert one.metrics["sensitivity"].value == pytest.approx(recall_score(own, called[here])), value
            assert one.counts == ((~own).sum(), own.sum())
    by_site = {name: one.metrics["auroc"].value for name, one in told.groups["site"].items()}
    assert worst(told.groups["site"]) == min(by_site, key=lambda name: by_site[name])


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
