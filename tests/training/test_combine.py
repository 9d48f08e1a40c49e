"""Combined predictions."""

from __future__ import annotations

import numpy as np
import pytest

from wsi_mil.errors import ModelError
from wsi_mil.training import by_patient, mean_prediction, mean_rank


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
