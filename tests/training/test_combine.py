"""Combined predictions."""

from __future__ import annotations

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from wsi_mil.errors import ModelError
from wsi_mil.training import by_patient, fit_weights, mean_prediction, mean_rank, weighted_prediction


def test_models() -> None:
    mean, spread = mean_prediction([np.array([[0.2, 0.8]]), np.array([[0.4, 0.6]])])
    np.testing.assert_allclose(mean, [[0.3, 0.7]])
    np.testing.assert_allclose(spread, [[0.1, 0.1]])
    with pytest.raises(ModelError, match="nothing to combine"):
        mean_prediction([])


def test_patients() -> None:
    answers = np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    combined = by_patient(answers, ["P2", "P1", "P2"])
    assert list(combined) == ["P2", "P1"]
    np.testing.assert_allclose(combined["P2"], [0.5, 0.5])
    with pytest.raises(ModelError, match="each slide needs its patient"):
        by_patient(answers, ["P1"])


def test_maps() -> None:
    ranks = mean_rank([np.array([0.1, 5.0, 3.0]), np.array([-100.0, -1.0, -1.0])])
    np.testing.assert_allclose(ranks, [0, 0.875, 0.625])
    np.testing.assert_allclose(mean_rank([np.array([4.0])]), [0])
    with pytest.raises(ModelError, match="nothing to combine"):
        mean_rank([])


def _members(*, slides: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three members, the first good, the second fair, the last at chance: probabilities and classes."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 3, slides)
    members = []
    for knows in (3.0, 1.0, 0.0):
        logits = random.normal(size=(slides, 3))
        logits[np.arange(slides), truth] += knows
        exponentials = np.exp(logits)
        members.append(exponentials / exponentials.sum(axis=1, keepdims=True))
    return np.stack(members), truth


def _log_loss(probabilities: np.ndarray, truth: np.ndarray) -> float:
    return float(-np.log(probabilities[np.arange(len(truth)), truth]).mean())


def test_one_member_alone_is_that_member() -> None:
    members, _ = _members()
    mean, disagreement = weighted_prediction(members, np.array([0.0, 1.0, 0.0]))
    np.testing.assert_array_equal(mean, members[1])
    np.testing.assert_allclose(disagreement, 0, atol=1e-12)


def test_an_ensemble_is_no_worse_than_its_members_on_average() -> None:
    members, truth = _members()
    for weights in np.random.default_rng(1).dirichlet(np.ones(3), size=20):
        mean, disagreement = weighted_prediction(members, weights)
        np.testing.assert_allclose(mean.sum(axis=1), 1)
        assert _log_loss(mean, truth) <= np.dot(weights, [_log_loss(member, truth) for member in members])
        assert ((disagreement >= 0) & (disagreement <= np.log(3))).all()


def test_disagreement_is_about_members_and_not_about_doubt() -> None:
    unsure = np.full((2, 1, 2), 0.5)
    opposed = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    half = np.array([0.5, 0.5])
    assert weighted_prediction(unsure, half)[1] == pytest.approx([0])
    assert weighted_prediction(opposed, half)[1] == pytest.approx([np.log(2)])


def test_fitted_weights_beat_all_others() -> None:
    members, truth = _members()
    weights = fit_weights(members, truth)
    assert weights.sum() == pytest.approx(1)
    assert weights.argmax() == 0
    best = _log_loss(np.tensordot(weights, members, axes=1), truth)
    for other in np.random.default_rng(1).dirichlet(np.ones(3), size=200):
        assert best <= _log_loss(np.tensordot(other, members, axes=1), truth) + 1e-9


def test_without_slides_the_weights_are_equal() -> None:
    np.testing.assert_allclose(fit_weights(np.empty((4, 0, 2)), np.empty(0, np.int64)), 0.25)


def test_bad_weights_are_refused() -> None:
    members, _ = _members()
    for weights in ([0.5, 0.5], [0.5, 0.5, 0.5], [1.5, -0.5, 0.0]):
        with pytest.raises((ModelError, TypeCheckError), match=r"they sum to 1|f64.2."):
            weighted_prediction(members, np.array(weights))
    with pytest.raises(ModelError, match="nothing to weigh"):
        fit_weights(np.empty((0, 3, 2)), np.zeros(3, np.int64))
