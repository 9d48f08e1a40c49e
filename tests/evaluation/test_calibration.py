"""Measures of calibration, thresholds and decision curves against scikit-learn and hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from wsi_mil.evaluation import (
    at_decision,
    bootstrap,
    calibration_intercept,
    calibration_slope,
    choose_threshold,
    decision_curve,
    expected_calibration_error,
    logit,
    reliability,
    score,
    wilson,
)


def _cases(count: int, sharpness: float = 1.0, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.normal(size=count) * 1.5
    truth = (random.uniform(size=count) < 1 / (1 + np.exp(-x))).astype(int)
    p = 1 / (1 + np.exp(-(sharpness * x + shift)))
    return truth, np.stack([1 - p, p], axis=1)


def test_slope_and_intercept_tell_what_was_done_to_the_odds() -> None:
    truth, p = _cases(20000, sharpness=2.0)
    assert score(calibration_slope, truth, p) == pytest.approx(0.5, abs=0.03)
    truth, p = _cases(20000, shift=-1.0)
    assert score(calibration_intercept, truth, p) == pytest.approx(1.0, abs=0.06)
    truth, p = _cases(20000)
    assert score(calibration_slope, truth, p) == pytest.approx(1.0, abs=0.05)
    assert score(expected_calibration_error, truth, p) < 0.02


def test_the_slope_of_weighted_cases_is_that_of_scikit_learn() -> None:
    truth, p = _cases(300)
    weights = np.random.default_rng(1).integers(0, 3, size=(4, 300)).astype(float)
    found = calibration_slope(truth, p, weights)
    for row, slope in zip(weights, found, strict=True):
        oracle = LogisticRegression(C=1e9, tol=1e-10).fit(logit(p[:, 1])[:, None], truth, row)
        assert slope == pytest.approx(oracle.coef_[0, 0], abs=1e-4)
    separated = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.1, 0.9]])
    assert np.isnan(score(calibration_slope, np.array([0, 0, 1, 1]), separated))


def test_expected_error_and_reliability_by_hand() -> None:
    p = np.array([0.1] * 10 + [0.8] * 10)
    truth = np.array([0] * 8 + [1] * 2 + [1] * 6 + [0] * 4)
    both = np.stack([1 - p, p], axis=1)
    one = reliability(truth, p)
    assert one.cases.sum() == 20
    assert np.all((one.low <= one.came) & (one.came <= one.high))
    assert score(expected_calibration_error, truth, both) >= 0.15 - 1e-12  # .1 and .2, each half of the cases
    assert wilson(0, 0) == (0, 1)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_a_model_of_three_classes_has_them_too() -> None:
    random = np.random.default_rng(0)
    p = random.dirichlet(np.ones(3), size=3000)
    truth = np.array([random.choice(3, p=row) for row in p])
    assert score(calibration_slope, truth, p) == pytest.approx(1, abs=0.25)
    interval = bootstrap(expected_calibration_error, truth, p, [str(n // 2) for n in range(3000)], draws=50)
    assert interval.low < interval.high < 0.06


def test_decision_curve_by_hand() -> None:
    hit, said = np.array([1, 1, 0, 0, 0]), np.array([0.9, 0.4, 0.6, 0.2, 0.1])
    one = decision_curve(hit, said, list("abcde"), draws=50)
    place = int(np.argmin(np.abs(one.thresholds - 0.5)))
    assert one.model[place] == pytest.approx((1 - 1) / 5)
    assert one.call_all[place] == pytest.approx((2 - 3) / 5)
    place = int(np.argmin(np.abs(one.thresholds - 0.3)))
    assert one.model[place] == pytest.approx((2 - 1 * 0.3 / 0.7) / 5)


def test_thresholds_by_their_rules() -> None:
    hit = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    said = np.array([0.1, 0.2, 0.3, 0.7, 0.25, 0.6, 0.8, 0.9])
    ones = np.ones(8)
    assert choose_threshold("youden", hit, said, ones) == pytest.approx(0.45)
    assert choose_threshold("sensitivity", hit, said, ones, sensitivity=1.0) == pytest.approx(0.225)
    assert choose_threshold("sensitivity", hit, said, ones, sensitivity=0.5) == pytest.approx(0.75)
    assert choose_threshold("cost", hit, said, ones, cost=4) == pytest.approx(0.2)
    assert choose_threshold("youden", np.zeros(8), said, ones) is None


def test_youden_is_the_best_point_of_scikit_learns_curve() -> None:
    from sklearn.metrics import roc_curve

    truth, p = _cases(500)
    cut = choose_threshold("youden", truth, p[:, 1], np.ones(500))
    assert cut is not None
    x, y, _ = roc_curve(truth, p[:, 1])
    called = p[:, 1] >= cut
    found = {name: score(metric, truth, p) for name, metric in at_decision(called).items()}
    assert found["sensitivity"] + found["specificity"] - 1 == pytest.approx((y - x).max())
    assert found["ppv"] == pytest.approx(truth[called].mean())
    assert found["npv"] == pytest.approx(1 - truth[~called].mean())


def test_very_overconfident_odds_still_have_a_slope() -> None:
    truth, p = _cases(2000, sharpness=6.0)
    weights = np.random.default_rng(1).multinomial(2000, np.full(2000, 1 / 2000), size=20).astype(float)
    assert np.isfinite(calibration_slope(truth, p, weights)).all()
    assert score(calibration_slope, truth, p) < 0.3
