"""Several columns of 0 and 1: what is unknown has no loss, and nothing else is changed by it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contracts.task import TaskContract

from wsi_mil.errors import TaskError
from wsi_mil.tasks import Multilabel

LABELS = {
    "S0": {"a": "1", "b": "0"},
    "S1": {"a": "0", "b": ""},
    "S2": {"a": "", "b": "1.0"},
    "S3": {"a": "1", "b": "1"},
}


class TestTwoColumns(TaskContract):
    configured = Multilabel(labels=("a", "b"))
    labels = LABELS


class TestBalancedFocal(TaskContract):
    configured = Multilabel(labels=("a", "b"), class_weights="balanced", objective="focal")
    labels = LABELS


def test_what_is_missing_has_no_loss_and_no_gradient() -> None:
    task = Multilabel(labels=("a", "b")).fit(LABELS)
    logits = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    target = task.target(LABELS, list(LABELS))
    assert target.isnan().tolist() == [[False, False], [False, True], [True, False], [False, False]]
    task.loss(logits, target).backward()
    assert (logits.grad == 0).tolist() == target.isnan().tolist()
    with torch.no_grad():
        other = logits.clone()
        other[1, 1] += 100
        assert task.loss(other, target) == task.loss(logits, target)


def test_balanced_weights_give_yes_and_no_equal_say() -> None:
    labels = {f"S{row}": {"a": "1" if row == 0 else "0"} for row in range(4)}
    task = Multilabel(labels=("a",), class_weights="balanced").fit(labels)
    logits = torch.zeros(4, 1, requires_grad=True)
    task.loss(logits, task.target(labels, list(labels))).backward()
    assert logits.grad.sum().item() == pytest.approx(0, abs=1e-7)


def test_what_is_called() -> None:
    task = Multilabel(labels=("a", "b"))
    assert task.called(np.array([[0.9, 0.6], [0.1, 0.7], [0.2, 0.3]])) == ["a+b", "b", "none"]
    assert task.shown(np.array([0.1, 0.7])) == "b"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"S0": {"a": "yes"}, "S1": {"a": "2"}}, "S0: 'yes', S1: '2'"),
        ({"S0": {"a": "1"}, "S1": {"a": "1"}}, r"both 0 and 1 in \['a'\]"),
        ({"S0": {"a": ""}, "S1": {"a": ""}}, r"both 0 and 1 in \['a'\]"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: dict[str, dict[str, str]], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        Multilabel(labels=("a",)).fit(labels)
    with pytest.raises(TaskError, match="no columns"):
        Multilabel().fit(labels)
