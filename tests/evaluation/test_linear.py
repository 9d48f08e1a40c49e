"""Baselines for numbers and survival: against scikit-learn and lifelines, chosen on the select role, blind to test."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from wsi_mil.errors import TaskError
from wsi_mil.evaluation import Fold, out_of_fold_cox, out_of_fold_ridge
from wsi_mil.evaluation.linear import FIXED_PENALTY, _cox

RANDOM = np.random.default_rng(2)
X = RANDOM.normal(size=(60, 5)) * [1, 10, 0.1, 1, 1] + 3
SLOPE = X @ [1, 0.1, 0, 0, -1]
DEATH = RANDOM.exponential(np.exp(-SLOPE + SLOPE.mean()))
EVENTS = RANDOM.random(60) < 0.7
NONE = np.zeros(0, dtype=np.int64)
FOLD = Fold(np.arange(40), NONE, np.arange(40, 60))


def test_ridge_is_scikit_learns() -> None:
    truth = SLOPE + RANDOM.normal(size=60)
    own = X[:40]
    numbers = (X - own.mean(0)) / own.std(0)
    wanted = Ridge(alpha=FIXED_PENALTY).fit(numbers[:40], truth[:40]).predict(numbers[40:])
    found = out_of_fold_ridge(X, truth, [FOLD])
    np.testing.assert_allclose(found[40:], wanted)
    assert np.isnan(found[:40]).all()


def test_the_cox_model_is_lifelines() -> None:
    numbers = (X - X.mean(0)) / X.std(0, ddof=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lifelines import CoxPHFitter

        # lifelines brings each number to spread 1 itself, by n - 1, and divides the likelihood by the number of cases
        frame = pd.DataFrame(numbers, columns=list("abcde")).assign(time=DEATH, event=EVENTS)
        fitter = CoxPHFitter(penalizer=6.0 / 60, l1_ratio=0.0).fit(frame, "time", "event")
    np.testing.assert_allclose(_cox(numbers, DEATH, EVENTS, 6.0), fitter.params_.to_numpy(), atol=2e-3)


def test_more_numbers_than_slides() -> None:
    wide = np.concatenate([X, RANDOM.normal(size=(60, 300))], axis=1)
    risk = out_of_fold_cox(wide, DEATH, EVENTS, [FOLD])
    assert np.isfinite(risk[40:]).all()
    assert np.corrcoef(out_of_fold_cox(X, DEATH, EVENTS, [FOLD])[40:], SLOPE[40:])[0, 1] > 0.8


def test_the_penalty_is_chosen_on_the_select_role_and_the_test_role_is_not_read() -> None:
    fold = Fold(np.arange(30), np.arange(30, 40), np.arange(40, 60))
    truth = SLOPE.copy()
    found = out_of_fold_ridge(X, truth, [fold])
    risk = out_of_fold_cox(X, DEATH, EVENTS, [fold])
    truth[40:], death = 99, np.where(np.arange(60) < 40, DEATH, 99.0)
    np.testing.assert_array_equal(out_of_fold_ridge(X, truth, [fold]), found)
    np.testing.assert_array_equal(out_of_fold_cox(X, death, EVENTS, [fold]), risk)
    assert np.abs(found[40:] - SLOPE[40:]).max() < 0.2  # without noise the weakest penalty is best


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(TaskError, match="fold 0 has no event"):
        out_of_fold_cox(X, DEATH, np.zeros(60, dtype=bool), [FOLD])
    with pytest.raises(TaskError, match="number 1 of slide 2"):
        out_of_fold_ridge(np.where(np.arange(300).reshape(60, 5) == 11, np.nan, X), SLOPE, [FOLD])
