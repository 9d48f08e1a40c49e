"""Baselines keep to their folds."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from wsi_mil.errors import TaskError
from wsi_mil.evaluation import Fold, bag_statistics, layout_statistics, out_of_fold_logistic, score
from wsi_mil.evaluation.baselines import STRENGTHS

RANDOM = np.random.default_rng(0)


def _cohort(classes: int = 2, count: int = 60) -> tuple[np.ndarray, np.ndarray, list[Fold]]:
    truth = np.arange(count) % classes
    features = RANDOM.normal(size=(count, 5)) * [1, 10, 0.1, 1, 1] + [0, 100, 0, 5, 0]
    features[:, 0] += truth
    parts = np.array_split(np.random.default_rng(1).permutation(count), 5)
    folds = [
        Fold(np.concatenate([parts[(k + j) % 5] for j in (2, 3, 4)]), parts[(k + 1) % 5], parts[k]) for k in range(5)
    ]
    return features, truth, folds


@pytest.mark.parametrize("classes", [2, 3])
def test_a_fixed_strength_is_a_scikit_learn_pipeline(classes: int) -> None:
    features, truth, folds = _cohort(classes)
    found = out_of_fold_logistic(features, truth, folds, strength=0.5)
    for fold in folds:
        pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=10_000, tol=1e-8))
        pipeline.fit(features[fold.fit], truth[fold.fit])
        np.testing.assert_allclose(
            found.probabilities[fold.test], pipeline.predict_proba(features[fold.test]), atol=1e-4
        )
    assert score("auroc", truth, found.probabilities) > 0.6


def test_the_strength_is_chosen_on_the_select_role() -> None:
    features, truth, folds = _cohort()
    found = out_of_fold_logistic(features, truth, folds)
    for fold, model in zip(folds, found.models, strict=True):
        losses = []
        for strength in STRENGTHS:
            one = out_of_fold_logistic(features, truth, [fold], strength=strength).models[0]
            losses.append(score("log_loss", truth[fold.select], one.predict(features[fold.select])))
        assert model.strength == STRENGTHS[int(np.argmin(losses))]


def test_without_a_select_role_the_strength_is_fixed() -> None:
    features, truth, folds = _cohort()
    empty = [fold._replace(select=np.zeros(0, dtype=np.int64)) for fold in folds]
    assert {model.strength for model in out_of_fold_logistic(features, truth, empty).models} == {0.1}


def test_the_test_role_changes_nothing() -> None:
    features, truth, folds = _cohort()
    clean = out_of_fold_logistic(features, truth, folds[:1])
    poisoned, changed = truth.copy(), features.copy()
    poisoned[folds[0].test] = 1 - poisoned[folds[0].test]
    changed[folds[0].test] = 1e3
    after = out_of_fold_logistic(changed, poisoned, folds[:1])
    np.testing.assert_array_equal(after.models[0].weights, clean.models[0].weights)
    np.testing.assert_array_equal(after.models[0].mean, clean.models[0].mean)


def test_repeats_are_averaged_and_untested_slides_have_no_answer() -> None:
    features, truth, folds = _cohort()
    once = out_of_fold_logistic(features, truth, folds[:1])
    twice = out_of_fold_logistic(features, truth, [folds[0], folds[0]])
    np.testing.assert_allclose(twice.probabilities, once.probabilities)
    tested = np.isin(np.arange(60), folds[0].test)
    assert np.isnan(once.probabilities[~tested]).all()
    np.testing.assert_allclose(once.probabilities[tested].sum(1), 1)


def test_tiles_are_scored_on_the_slide_s_own_scale() -> None:
    """The score of a slide whose numbers are means over its tiles is the mean of its tiles' scores."""
    features, truth, folds = _cohort()
    model = out_of_fold_logistic(features, truth, folds).models[0]
    tiles = RANDOM.normal(size=(9, 5))
    np.testing.assert_allclose(model.scores(tiles).mean(0), model.scores(tiles.mean(0, keepdims=True))[0], atol=1e-12)


def test_a_number_that_never_varies_is_harmless() -> None:
    features, truth, folds = _cohort()
    features[:, 3] = 5.3
    assert np.isfinite(out_of_fold_logistic(features, truth, folds).probabilities).all()


def test_faults_are_named() -> None:
    features, truth, folds = _cohort()
    with pytest.raises(TaskError, match=r"fit role of fold 0 has no slide of class \[1\]"):
        out_of_fold_logistic(features, truth, [folds[0]._replace(fit=np.arange(0, 60, 2))])
    features[4, 2] = np.inf
    with pytest.raises(TaskError, match="number 2 of slide 4 is inf"):
        out_of_fold_logistic(features, truth, folds)


def test_statistics_of_a_bag_and_of_its_layout() -> None:
    tiles = np.array([[1.0, 10.0], [3.0, 10.0]], dtype=np.float32)
    np.testing.assert_allclose(bag_statistics(tiles), [2, 10, 1, 10, 3, 10, 1, 0])
    places = np.array([[0, 0], [100, 0], [200, 300]])
    np.testing.assert_allclose(layout_statistics(places), [3, 100, 100, 81.649658, 141.421356, 200, 300])
