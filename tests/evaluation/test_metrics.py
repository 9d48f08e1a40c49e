"""Metrics against scikit-learn, with weights as repeated cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from sklearn import metrics as sk

from wsi_mil.errors import TaskError
from wsi_mil.evaluation import LOWER_IS_BETTER, METRICS, confusion, score


def _oracle(name: str, truth: np.ndarray, probabilities: np.ndarray) -> float:
    """The metric by scikit-learn; all classes are present."""
    count = probabilities.shape[1]
    called, positive = probabilities.argmax(1), probabilities[:, -1]
    onehot = np.eye(count)[truth]
    average = "binary" if count == 2 else "macro"
    oracles = {
        "auroc": lambda: np.mean(
            [sk.roc_auc_score(onehot[:, c], probabilities[:, c]) for c in ([1] if count == 2 else range(count))]
        ),
        "average_precision": lambda: np.mean(
            [
                sk.average_precision_score(onehot[:, c], probabilities[:, c])
                for c in ([1] if count == 2 else range(count))
            ]
        ),
        "balanced_accuracy": lambda: sk.balanced_accuracy_score(truth, called),
        "accuracy": lambda: sk.accuracy_score(truth, called),
        "f1": lambda: sk.f1_score(truth, called, average=average),
        "sensitivity": lambda: sk.recall_score(truth == count - 1, called == count - 1),
        "specificity": lambda: sk.recall_score(truth != count - 1, called != count - 1),
        "brier": lambda: (
            sk.brier_score_loss(truth, positive)
            if count == 2
            else sk.brier_score_loss(truth, probabilities, labels=range(count), scale_by_half=False)
        ),
        "log_loss": lambda: sk.log_loss(truth, probabilities, labels=range(count)),
    }
    return float(oracles[name]())


def _cases(classes: int, seed: int, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(classes), random.integers(0, classes, count - classes)])
    # Few distinct values, so that scores tie.
    raw = random.integers(1, 6, size=(count, classes)).astype(float)
    raw[np.arange(count), truth] += random.integers(0, 3, count)
    return truth, raw / raw.sum(1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("name", sorted(METRICS))
@pytest.mark.parametrize("seed", range(4))
def test_metrics_are_those_of_scikit_learn(name: str, classes: int, seed: int) -> None:
    truth, probabilities = _cases(classes, seed)
    assert score(name, truth, probabilities) == pytest.approx(_oracle(name, truth, probabilities), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), classes=st.integers(2, 4), name=st.sampled_from(sorted(METRICS)))
def test_a_weight_is_a_repeated_case(seed: int, classes: int, name: str) -> None:
    truth, probabilities = _cases(classes, seed, count=25)
    weights = np.random.default_rng(seed).integers(0, 4, size=(3, 25))
    values = METRICS[name](truth, probabilities, weights.astype(float))
    for row in range(3):
        index = np.repeat(np.arange(25), weights[row])
        if len(index):
            repeated = METRICS[name](truth[index], probabilities[index], np.ones((1, len(index))))
            np.testing.assert_allclose(values[row], repeated[0], atol=1e-12)


def test_by_hand() -> None:
    truth = np.array([0, 0, 1, 1])
    positive = np.array([0.1, 0.6, 0.6, 0.9])
    probabilities = np.stack([1 - positive, positive], axis=1)
    assert score("auroc", truth, probabilities) == pytest.approx(3.5 / 4)
    assert score("average_precision", truth, probabilities) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert score("accuracy", truth, probabilities) == 0.75
    assert score("brier", truth, probabilities) == pytest.approx((0.01 + 0.36 + 0.16 + 0.01) / 4)
    assert confusion(truth, probabilities).tolist() == [[1, 1], [0, 2]]


def test_confusion_is_that_of_scikit_learn() -> None:
    truth, probabilities = _cases(4, 0)
    np.testing.assert_array_equal(confusion(truth, probabilities), sk.confusion_matrix(truth, probabilities.argmax(1)))


@pytest.mark.parametrize("name", ["auroc", "average_precision", "balanced_accuracy", "sensitivity", "f1"])
def test_what_is_not_defined_is_nan(name: str) -> None:
    probabilities = np.array([[0.8, 0.2], [0.7, 0.3]])
    assert np.isnan(score(name, np.array([0, 0]), probabilities))


def test_a_sure_mistake_costs_much_but_not_everything() -> None:
    loss = score("log_loss", np.array([1, 0]), np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert 10 < loss < 40


def test_which_way_is_better() -> None:
    truth, probabilities = _cases(2, 1)
    good = 0.8 * np.eye(2)[truth] + 0.2 * probabilities
    for name in METRICS:
        gain = score(name, truth, good) - score(name, truth, probabilities)
        assert (gain < 0) == (name in LOWER_IS_BETTER), name


@pytest.mark.parametrize(
    ("truth", "probabilities", "message"),
    [
        (np.array([0, 1]), np.full((3, 2), 0.5), "2 true classes stand beside 3|f64.3,2."),
        (np.zeros(0, dtype=int), np.zeros((0, 2)), "0 true classes"),
        (np.array([0, 1]), np.array([[0.5, 0.5], [np.nan, 0.5]]), "prediction of case 1 is not finite"),
        (np.array([0, 2]), np.full((2, 2), 0.5), "run from 0 to 2 and there are 2 columns"),
        (np.array([0, -1]), np.full((2, 2), 0.5), "run from -1"),
        (np.array([0, 0]), np.ones((2, 1)), "1 columns"),
    ],
)
def test_cases_that_do_not_fit_are_refused(truth: np.ndarray, probabilities: np.ndarray, message: str) -> None:
    with pytest.raises((TaskError, TypeCheckError), match=message):
        score("accuracy", truth, probabilities)


def test_an_unknown_metric_is_suggested() -> None:
    with pytest.raises(TaskError, match="unknown metric 'aurok': did you mean 'auroc'"):
        score("aurok", np.array([0, 1]), np.full((2, 2), 0.5))
