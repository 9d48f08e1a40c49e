"""Ordered grades: both links give probabilities of the grades, and their loss is minus the log of the true one's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contracts.task import TaskContract

from wsi_mil.errors import TaskError
from wsi_mil.tasks import Ordinal

GRADES = ["1", "2", "10", "2", "1", "1"]
LABELS = {f"S{row}": {"grade": grade} for row, grade in enumerate(GRADES)}


class TestCorn(TaskContract):
    configured = Ordinal("grade", objective="corn")
    labels = LABELS


class TestCumulative(TaskContract):
    configured = Ordinal("grade", objective="cumulative")
    labels = LABELS


class TestFourNamed(TaskContract):
    configured = Ordinal("grade", classes=("none", "mild", "bad", "worst"), objective="cumulative")
    labels = {"S0": {"grade": "mild"}, "S1": {"grade": "worst"}, "S2": {"grade": "bad"}}  # noqa: RUF012


@pytest.mark.parametrize("objective", ["corn", "cumulative"])
def test_the_loss_is_the_log_of_the_predicted_probability(objective: str) -> None:
    task = Ordinal("grade", objective=objective).fit(LABELS)  # type: ignore[arg-type]
    target = task.target(LABELS, list(LABELS))
    logits = torch.randn(len(target), task.n_out, generator=torch.Generator().manual_seed(3))
    answers = task.predict(logits.numpy())
    np.testing.assert_allclose(answers[:, :3].sum(1), 1)
    assert (answers[:, :3] > 0).all()
    np.testing.assert_allclose(answers[:, 3], answers[:, :3] @ [0, 1, 2])
    wanted = -np.log(answers[np.arange(len(target)), target.numpy()]).mean()
    assert task.loss(logits, target).item() == pytest.approx(wanted, rel=1e-5)


def test_grades_that_are_numbers_are_ordered_as_numbers() -> None:
    assert Ordinal("grade").fit(LABELS).names == ("1", "2", "10", "expected")


def test_the_cumulative_link_starts_at_the_shares_of_the_training_fold() -> None:
    task = Ordinal("grade", objective="cumulative").fit(LABELS)
    shares = task.predict(np.zeros((1, 1), np.float32))[0, :3]
    np.testing.assert_allclose(shares, (np.array([3, 2, 1]) + 0.5) / 7.5)


def test_a_loss_far_off_is_finite_and_pulls() -> None:
    task = Ordinal("grade", objective="cumulative").fit(LABELS)
    for far in (-200.0, 200.0):
        logits = torch.full((3, 1), far, requires_grad=True)
        task.loss(logits, torch.tensor([0, 1, 2])).backward()
        assert torch.isfinite(logits.grad).all()
        assert (logits.grad.abs() > 0.1).sum() == 2


def test_the_median_grade_is_called() -> None:
    task = Ordinal("grade").fit(LABELS)
    answers = np.array([[0.6, 0.2, 0.2, 0.6], [0.4, 0.2, 0.4, 1.0], [0.1, 0.3, 0.6, 1.5]])
    assert task.called(answers) == ["1", "2", "10"]


def test_tiles_that_raise_the_grade_speak_against_the_lowest() -> None:
    task = Ordinal("grade", objective="corn").fit(LABELS)
    scores = task.scores(np.array([[1.0, 0.5]], dtype=np.float32))
    np.testing.assert_allclose(scores, [[-1.5, 0, 1.5, 1.5]])


@pytest.mark.parametrize(
    ("task", "values", "message"),
    [
        (Ordinal("grade"), ["low", "mid", "high"], "order is not known"),
        (Ordinal("grade"), ["1", "2"], "three or more"),
        (Ordinal("grade", classes=("1", "2", "3")), ["1", "4"], "S1: '4'"),
        (Ordinal("grade", classes=("1", "2", "3")), ["1", "1"], "same 'grade'"),
    ],
)
def test_labels_that_do_not_fit_are_refused(task: Ordinal, values: list[str], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        task.fit({f"S{row}": {"grade": value} for row, value in enumerate(values)})
    with pytest.raises(TaskError, match="not known before fit"):
        _ = Ordinal(objective="corn").n_out
