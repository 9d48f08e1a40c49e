"""Figures are SVG text: the same each time, with the words and the numbers in them."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from wsi_mil.report import Curve, confusion_figure, curve_figure, history_figure, interval_figure, score_figure


def _curve() -> str:
    x = np.linspace(0, 1, 11)
    return curve_figure(
        [Curve("lesion", x, x, x / 2, np.minimum(1, x + 0.1))],
        title="ROC",
        x="a",
        y="b",
        chance=None,
        diagonal="chance",
    )


@pytest.mark.parametrize(
    ("svg", "words"),
    [
        (_curve(), ["ROC", "lesion", "chance"]),
        (confusion_figure(np.array([[8, 2], [1, 9]]), ["no", "yes"], title="Confusion"), ["80%", "90%", "no", "yes"]),
        (interval_figure({"model": (0.9, 0.8, 0.95), "colour": (0.6, 0.5, 0.7)}, title="AUROC"), ["0.900", "colour"]),
        (score_figure(np.array([0.1, 0.9]), ["a", "b"], ["a", "b"], title="Scores", x="p"), ["Scores"]),
        (
            history_figure({"f": {"fit_loss": [1.0, 0.5], "select_loss": [0.9, 0.8]}}, chosen={"f": 2}),
            ["epoch", "select"],
        ),
    ],
)
def test_a_figure_is_svg_with_its_words(svg: str, words: list[str]) -> None:
    ET.fromstring(svg)
    for word in words:
        assert word in svg


def test_the_same_figure_is_the_same_text() -> None:
    assert _curve() == _curve()


def test_a_history_without_a_select_role_is_drawn() -> None:
    assert "fit" in history_figure({"f": {"fit_loss": [1.0]}}, chosen={})


def test_long_names_of_classes_stand_aslant() -> None:
    counts = np.eye(3, dtype=int)
    assert "rotate(-35" in confusion_figure(counts, ["metaplasia of a kind", "normal", "tumour"], title="Confusion")
    assert "rotate(-35" not in confusion_figure(counts, ["low", "normal", "tumour"], title="Confusion")
