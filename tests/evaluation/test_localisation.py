"""Heatmaps against truth, slide by slide."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from wsi_mil.errors import TaskError
from wsi_mil.evaluation import centre_scores, localise, tile_ap, tile_auroc

RANDOM = np.random.default_rng(0)
TRUTH = {"A": RANDOM.random(50) < 0.3, "B": RANDOM.random(90) < 0.1, "none": np.zeros(5, bool), "all": np.ones(5, bool)}
SCORES = {slide: RANDOM.normal(size=len(truth)) + truth for slide, truth in TRUTH.items()}


def test_each_slide_counts_once() -> None:
    found = localise(TRUTH, SCORES)
    assert found.slides == ("A", "B")
    assert found.skipped == ("none", "all")
    aurocs = [roc_auc_score(TRUTH[slide], SCORES[slide]) for slide in "AB"]
    np.testing.assert_allclose(found.auroc, aurocs)
    np.testing.assert_allclose(
        found.average_precision, [average_precision_score(TRUTH[slide], SCORES[slide]) for slide in "AB"]
    )
    np.testing.assert_allclose(found.prevalence, [TRUTH[slide].mean() for slide in "AB"])
    assert found.mean_auroc == pytest.approx(np.mean(aurocs))
    interval = found.interval({"A": "P1", "B": "P2"})
    assert interval.value == pytest.approx(found.mean_auroc)
    assert interval.low == pytest.approx(min(aurocs))
    assert interval.high == pytest.approx(max(aurocs))


def test_nothing_to_find() -> None:
    found = localise({"none": TRUTH["none"]}, {"none": SCORES["none"]})
    assert np.isnan([found.mean_auroc, found.mean_average_precision, found.interval({}).value]).all()


@pytest.mark.parametrize("scores", [{}, {"A": np.zeros(3)}])
def test_tiles_must_match(scores: dict[str, np.ndarray]) -> None:
    with pytest.raises(TaskError, match="slide 'A' has 50 tiles with truth"):
        localise({"A": TRUTH["A"]}, scores)


def test_one_kind_of_tiles_is_not_defined() -> None:
    assert np.isnan(tile_auroc(TRUTH["none"], SCORES["none"]))
    assert np.isnan(tile_auroc(TRUTH["all"], SCORES["all"]))
    assert tile_ap(TRUTH["all"], SCORES["all"]) == 1


def test_the_centre_scores_highest() -> None:
    places = np.array([[0, 0], [10, 0], [5, 5], [0, 10], [10, 10]])
    scores = centre_scores(places)
    assert scores.argmax() == 2
    np.testing.assert_allclose(scores, [-np.sqrt(50)] * 2 + [0] + [-np.sqrt(50)] * 2)
