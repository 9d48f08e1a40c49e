"""Classification: order of classes, weights, loss and probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contracts.task import TaskContract
from scipy.special import softmax

from wsi_mil.errors import TaskError
from wsi_mil.tasks import TASKS, Classification, build_task, classification, task_from_json


def _labels(*values: str) -> dict[str, dict[str, str]]:
    return {f"S{number}": {"label": value} for number, value in enumerate(values)}


class TestBinary(TaskContract):
    configured = Classification()
    labels = _labels("tumour", "normal", "normal", "tumour")


class TestThreeBalanced(TaskContract):
    configured = Classification(class_weights="balanced")
    labels = _labels("a", "b", "b", "c", "c", "c", "c")


class TestFocal(TaskContract):
    configured = Classification(objective="focal")
    labels = _labels("a", "b", "c")


class TestSymmetric(TaskContract):
    configured = Classification(objective="symmetric", class_weights="balanced")
    labels = _labels("a", "b", "c", "c")


def test_focal_and_symmetric_losses_by_hand() -> None:
    labels = _labels("a", "b")
    target = torch.tensor([1])
    logits = torch.tensor([[0.0, 2.0]])
    right = 1 / (1 + np.exp(-2.0))
    focal = Classification(objective="focal").fit(labels).loss(logits, target).item()
    assert focal == pytest.approx((1 - right) ** 2 * -np.log(right), rel=1e-5)
    symmetric = Classification(objective="symmetric").fit(labels).loss(logits, target).item()
    assert symmetric == pytest.approx(0.5 * -np.log(right) + 4 * (1 - right), rel=1e-5)


def test_the_symmetric_loss_is_cross_entropy_and_its_reverse(monkeypatch: pytest.MonkeyPatch) -> None:
    """-sum_c p_c log q_c with log 0 = -4 for the true distribution q; with beta = 0 cross-entropy is left."""
    labels = _labels("a", "b", "c")
    logits = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0, 2, 1, 1, 0])
    symmetric = Classification(objective="symmetric").fit(labels)
    log_truth = torch.full((5, 3), -4.0, dtype=torch.float64)
    log_truth[torch.arange(5), target] = 0.0
    reverse = -(logits.softmax(1) * log_truth).sum(1).mean()
    plain = torch.nn.functional.cross_entropy(logits, target)
    torch.testing.assert_close(symmetric.loss(logits, target), 0.5 * plain + reverse)
    monkeypatch.setattr(classification, "SYMMETRIC", (1.0, 0.0, 4.0))
    torch.testing.assert_close(symmetric.loss(logits, target), plain)


def test_classes_are_sorted_and_the_positive_one_is_last() -> None:
    labels = _labels("normal", "tumour")
    assert Classification().fit(labels).names == ("normal", "tumour")
    assert Classification(positive="normal").fit(labels).names == ("tumour", "normal")
    assert Classification(classes=("tumour", "normal")).fit(labels).names == ("tumour", "normal")
    assert Classification(classes=("tumour", "normal"), positive="tumour").fit(labels).names == ("normal", "tumour")


def test_classes_that_are_numbers_are_sorted_as_numbers() -> None:
    assert Classification().fit(_labels("10", "2", "1")).names == ("1", "2", "10")


def test_targets_follow_the_slides_asked_for() -> None:
    labels = _labels("b", " a ", "b")
    task = Classification().fit(labels)
    assert task.target(labels, ["S2", "S1"]).tolist() == [1, 0]


def test_balanced_weights_give_classes_equal_say() -> None:
    labels = _labels("a", "a", "a", "b")
    task = Classification(class_weights="balanced").fit(labels)
    assert task.weights == pytest.approx((2 / 3, 2))
    target = task.target(labels, list(labels))
    logits = torch.zeros(4, 2, requires_grad=True)
    task.loss(logits, target).backward()
    torch.testing.assert_close(logits.grad.sum(0), torch.zeros(2))


def test_the_loss_is_cross_entropy() -> None:
    labels = _labels("a", "b", "c")
    task = Classification().fit(labels)
    logits = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    wanted = -np.log(softmax(logits.numpy(), axis=1)[[0, 1, 2], [0, 1, 2]]).mean()
    assert task.loss(logits, task.target(labels, list(labels))).item() == pytest.approx(wanted, rel=1e-5)
    np.testing.assert_allclose(task.predict(logits.numpy()), softmax(logits.numpy(), axis=1), rtol=1e-6)


def test_scores_ignore_what_all_classes_share() -> None:
    task = Classification().fit(_labels("a", "b"))
    contributions = np.array([[1.0, 3.0], [11.0, 13.0]], dtype=np.float32)
    np.testing.assert_allclose(task.scores(contributions), [[-1, 1], [-1, 1]])


@pytest.mark.parametrize(
    ("task", "values", "message"),
    [
        (Classification(), ["a", "a"], "same 'label'"),
        (Classification(), ["a", "b", ""], "S2: ''"),
        (Classification(classes=("a", "b")), ["a", "b", "d"], "S2: 'd'"),
        (Classification(classes=("a", "b", "c")), ["a", "b"], r"no training slide has 'label' = \['c'\]"),
        (Classification(positive="tumor"), ["normal", "tumour"], "did you mean 'tumour'"),
    ],
)
def test_labels_that_do_not_fit_are_refused(task: Classification, values: list[str], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        task.fit(_labels(*values))


def test_many_bad_labels_are_counted() -> None:
    task = Classification(classes=("a", "b"))
    with pytest.raises(TaskError, match="and 3 more"):
        task.target(_labels(*["x"] * 8), [f"S{number}" for number in range(8)])


def test_before_fit_there_are_no_classes() -> None:
    with pytest.raises(TaskError, match="not known before fit"):
        _ = Classification().n_out


def test_a_test_slide_of_an_unknown_class_is_named() -> None:
    task = Classification().fit(_labels("a", "b"))
    with pytest.raises(TaskError, match="T1: 'c'"):
        task.target({"T1": {"label": "c"}}, ["T1"])


def test_tasks_by_name() -> None:
    assert build_task("classification", label="grade").columns == ("grade",)
    assert set(TASKS) == {"classification", "multilabel", "regression", "ordinal", "survival", "joint"}
    with pytest.raises(TaskError, match="did you mean 'classification'"):
        build_task("clasification")
    with pytest.raises(TaskError, match="did you mean 'positive'"):
        build_task("classification", positiv="a")
    with pytest.raises(TaskError, match="unknown kind of task 'None'"):
        task_from_json({})
    with pytest.raises(TaskError, match="cannot be read"):
        task_from_json({"kind": "classification", "colour": "red"})
