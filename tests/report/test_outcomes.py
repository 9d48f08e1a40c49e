"""Figures of numbers and survival: text that can be searched, the same file each time."""

from __future__ import annotations

import numpy as np

from wsi_mil.report import scatter_figure, survival_figure


def test_scatter() -> None:
    truth, predicted = np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.0, 9.0])
    svg = scatter_figure(truth, predicted, title="Numbers", name="area")
    for words in ("<svg", "true area", "predicted area", "Numbers"):
        assert words in svg
    assert svg == scatter_figure(truth, predicted, title="Numbers", name="area")


def test_survival_curves() -> None:
    steps = np.array([0.0, 1.0, 3.0])
    curve = np.array([1.0, 0.8, 0.5])
    groups = {"low": (steps, curve, curve - 0.1, curve + 0.1, 12), "high": (steps, curve**2, curve**3, curve, 9)}
    svg = survival_figure(groups, title="Survival", time="months", note="log-rank p = 0.01")
    for words in ("low (n = 12)", "high (n = 9)", "months", "log-rank p = 0.01"):
        assert words in svg
