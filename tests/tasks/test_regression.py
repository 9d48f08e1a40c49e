"""Regression: learnt in spreads of the training fold, told in the label's own unit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contracts.task import TaskContract

from wsi_mil.errors import TaskError
from wsi_mil.tasks import Regression

LABELS = {f"S{row}": {"area": text} for row, text in enumerate(["1.5", "3", "-2", "1e1"])}


class TestSquared(TaskContract):
    configured = Regression("area")
    labels = LABELS


class TestHuber(TaskContract):
    configured = Regression("area", objective="huber")
    labels = LABELS


def test_the_training_fold_has_mean_0_and_spread_1_and_answers_are_in_the_unit() -> None:
    task = Regression("area").fit(LABELS)
    target = task.target(LABELS, list(LABELS))
    assert target.mean().item() == pytest.approx(0, abs=1e-6)
    assert target.std(unbiased=False).item() == pytest.approx(1, rel=1e-6)
    np.testing.assert_allclose(task.predict(target[:, None].numpy())[:, 0], [1.5, 3, -2, 10], rtol=1e-6)
    scores = task.scores(np.array([[0.5], [0.25]], dtype=np.float32))
    assert scores.sum() == pytest.approx(0.75 * task.spread)


def test_huber_is_linear_beyond_one_spread() -> None:
    task = Regression("area", objective="huber").fit(LABELS)
    losses = [task.loss(torch.tensor([[float(value)]]), torch.zeros(1)).item() for value in (0.5, 1, 3, 4)]
    assert losses == pytest.approx([0.125, 0.5, 2.5, 3.5])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["2", "2.0"], r"same 'area' \(2\)"),
        (["2", "", "3,5", "inf"], "S1: '', S2: '3,5', S3: 'inf'"),
    ],
)
def test_labels_that_do_not_fit_are_refused(values: list[str], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        Regression("area").fit({f"S{row}": {"area": value} for row, value in enumerate(values)})
