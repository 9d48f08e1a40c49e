"""Calibrators: what was distorted is put right, plain numbers, and oracles of scikit-learn."""

from __future__ import annotations

import json

import numpy as np
import pytest

from wsi_mil.errors import TaskError
from wsi_mil.evaluation import METHODS, Calibrator, fit_calibrator, logit, score


def _cases(
    count: int, *, classes: int = 2, temperature: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities that are right, their distorted form, and the truth."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(count, classes)) * 2
    right = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = np.array([random.choice(classes, p=row) for row in right])
    told = np.exp(logits * temperature)
    return right, told / told.sum(axis=1, keepdims=True), truth


@pytest.mark.parametrize("classes", [2, 3])
def test_the_temperature_that_was_put_in_is_found(classes: int) -> None:
    _, told, truth = _cases(8000, classes=classes, temperature=3.0)
    found = fit_calibrator("temperature", told, truth, np.ones(8000))
    assert found.curves[0][0] == pytest.approx(3.0, rel=0.1)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("method", ["temperature", "platt", "isotonic"])
def test_overconfident_probabilities_are_put_right_on_other_cases(method: str, classes: int) -> None:
    _, told, truth = _cases(4000, classes=classes, temperature=3.0)
    right, new, new_truth = _cases(4000, classes=classes, temperature=3.0, seed=1)
    made = fit_calibrator(method, told, truth, np.ones(4000)).apply(new)  # type: ignore[arg-type]
    assert np.allclose(made.sum(axis=1), 1)
    assert np.abs(made - right).mean() < 0.04 < np.abs(new - right).mean()
    assert score("log_loss", new_truth, made) < score("log_loss", new_truth, new) - 0.1


def test_platt_and_isotonic_are_those_of_scikit_learn() -> None:
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression

    _, told, truth = _cases(400, temperature=2.0)
    weights = np.random.default_rng(2).choice([0.5, 1.0], size=400)
    x = logit(told[:, 1])[:, None]
    positives, negatives = weights[truth == 1].sum(), weights[truth == 0].sum()
    soft = np.where(truth == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    # a soft target is a case of each class, weighed
    oracle = LogisticRegression(C=1e9, tol=1e-10, max_iter=1000).fit(
        np.concatenate([x, x]), np.repeat([1, 0], 400), np.concatenate([weights * soft, weights * (1 - soft)])
    )
    slope, intercept = fit_calibrator("platt", told, truth, weights).curves[0]
    assert (slope, intercept) == pytest.approx((oracle.coef_[0, 0], oracle.intercept_[0]), abs=1e-4)
    free = IsotonicRegression(out_of_bounds="clip").fit(told[:, 1], truth, weights)
    made = fit_calibrator("isotonic", told, truth, weights).apply(told)[:, 1]
    inner = (free.predict(told[:, 1]) > 0.01) & (free.predict(told[:, 1]) < 0.99)
    assert np.allclose(made[inner], free.predict(told[:, 1])[inner])


@pytest.mark.parametrize("method", ["temperature", "platt", "isotonic"])
def test_a_dozen_separated_cases_make_no_certainty(method: str) -> None:
    p = np.array([0.4] * 6 + [0.6] * 6)
    told = np.stack([1 - p, p], axis=1)
    made = fit_calibrator(method, told, np.array([0] * 6 + [1] * 6), np.ones(12)).apply(told)  # type: ignore[arg-type]
    assert 0.8 < made[-1, 1] < 0.95


@pytest.mark.parametrize("method", METHODS)
def test_round_trip_as_json(method: str) -> None:
    _, told, truth = _cases(60, classes=3)
    one = fit_calibrator(method, told, truth, np.ones(60))  # type: ignore[arg-type]
    again = Calibrator.from_json(json.loads(json.dumps(one.to_json())))
    assert again == one
    assert np.array_equal(again.apply(told), one.apply(told))
    assert ("isotonic needs 100" in one.note) == (method == "isotonic")


def test_what_cannot_be_fitted_or_read() -> None:
    told = np.array([[0.2, 0.8], [0.4, 0.6]])
    one = fit_calibrator("platt", told, np.array([1, 1]), np.ones(2))
    assert one.method == "none"
    assert "no case of class number 0" in one.note
    assert np.array_equal(one.apply(told), told)
    with pytest.raises(TaskError, match="unknown calibrator 'plat'"):
        Calibrator.from_json({"method": "plat", "curves": []})
    with pytest.raises(TaskError, match="no calibrator"):
        Calibrator.from_json({"method": "platt"})
