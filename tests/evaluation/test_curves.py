"""Curves against scikit-learn, and bands that contain them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from wsi_mil.evaluation import Curve, pr_curve, roc_curve

RANDOM = np.random.default_rng(0)
POSITIVE = RANDOM.integers(0, 2, 80).astype(bool)
SCORES = np.round(POSITIVE * 0.5 + RANDOM.normal(size=80), 1)
PATIENTS = [f"P{number // 2}" for number in range(80)]


def test_roc() -> None:
    curve = roc_curve(POSITIVE, SCORES, PATIENTS)
    x, y, thresholds = sk.roc_curve(POSITIVE, SCORES, drop_intermediate=False)
    np.testing.assert_allclose(curve.x, x)
    np.testing.assert_allclose(curve.y, y)
    np.testing.assert_allclose(curve.thresholds, thresholds)


def test_precision_recall() -> None:
    curve = pr_curve(POSITIVE, SCORES, PATIENTS)
    precision, recall, thresholds = sk.precision_recall_curve(POSITIVE, SCORES)
    np.testing.assert_allclose(curve.x, recall[::-1])
    np.testing.assert_allclose(curve.y[1:], precision[::-1][1:])
    np.testing.assert_allclose(curve.thresholds[1:], thresholds[::-1])


@pytest.mark.parametrize("draw", [roc_curve, pr_curve])
def test_the_band_holds_the_curve(draw: object) -> None:
    curve: Curve = draw(POSITIVE, SCORES, PATIENTS)
    assert (curve.low <= curve.high).all()
    line = (
        np.interp(curve.grid, curve.x, curve.y) if draw is roc_curve else curve.y[np.searchsorted(curve.x, curve.grid)]
    )
    inside = (curve.low - 1e-9 <= line) & (line <= curve.high + 1e-9)
    assert inside.mean() > 0.95
    assert 0.05 < (curve.high - curve.low).mean() < 0.5


@pytest.mark.parametrize("draw", [roc_curve, pr_curve])
def test_one_class_alone_has_no_curve(draw: object) -> None:
    curve: Curve = draw(np.zeros(80, dtype=bool), SCORES, PATIENTS)
    assert np.isnan(curve.y).all() or np.isnan(curve.x).all()
    assert np.isnan(curve.low).all()
