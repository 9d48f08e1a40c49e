"""Survival numbers against lifelines, against hand-made cases, and without censoring against what everybody knows."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.stats import chi2
from sklearn.metrics import roc_auc_score

from wsi_mil.evaluation import kaplan_meier, log_rank, survival_measures
from wsi_mil.evaluation.survival import auc_at, brier_at, c_index

RANDOM = np.random.default_rng(1)
ONE = np.ones((1, 60))
RISK = np.round(RANDOM.normal(size=60), 1)
DEATH = RANDOM.exponential(np.exp(-RISK) * 5)
LAST = RANDOM.exponential(8, 60)
TIMES = np.minimum(DEATH, LAST)
EVENTS = DEATH <= LAST
ROUND = np.ceil(TIMES)  # with ties


def lifelines() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lifelines as library
        import lifelines.statistics
        import lifelines.utils
    return library


def test_the_c_index_is_lifelines_with_ties_of_times_and_of_risks() -> None:
    wanted = lifelines().utils.concordance_index(ROUND, -RISK, EVENTS)  # type: ignore[attr-defined]
    assert c_index(ROUND, EVENTS, RISK, ONE)[0] == pytest.approx(wanted)
    weights = RANDOM.integers(0, 3, size=(2, 60)).astype(float)
    for row, value in zip(weights.astype(int), c_index(ROUND, EVENTS, RISK, weights), strict=True):
        own = [np.repeat(one, row) for one in (ROUND, -RISK, EVENTS)]
        assert value == pytest.approx(lifelines().utils.concordance_index(*own))  # type: ignore[attr-defined]
    assert np.isnan(c_index(TIMES, np.zeros(60, dtype=bool), RISK, ONE)[0])


def test_kaplan_meier_by_hand() -> None:
    curve = kaplan_meier(np.array([1.0, 2, 2, 3, 4]), np.array([True, True, False, True, False]))
    assert curve.times.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(curve.survival, [1, 0.8, 0.6, 0.3, 0.3])
    assert curve.at_risk.tolist() == [5, 5, 4, 2, 1]
    # Greenwood on the log-log scale after the first death: var = 1/5 / 4.
    spread = 1.959964 * np.sqrt(1 / 20) / abs(np.log(0.8))
    assert curve.low[1] == pytest.approx(0.8 ** np.exp(spread), abs=1e-4)
    assert curve.high[1] == pytest.approx(0.8 ** np.exp(-spread), abs=1e-4)


def test_nobody_dies_or_everybody_does() -> None:
    for events in (np.zeros(3, bool), np.ones(3, bool)):
        curve = kaplan_meier(np.array([1.0, 2, 3]), events)
        assert np.isfinite([curve.survival, curve.low, curve.high]).all()
        assert curve.survival[-1] == (0.0 if events.any() else 1.0)


def test_the_log_rank_test_by_hand() -> None:
    """Deaths at 1 and 3 against 2 and 4: observed 2, expected 1/2 + 1/3 + 1/2, variance 1/4 + 2/9 + 1/4."""
    times, groups = np.array([1.0, 3, 2, 4]), np.array([0, 0, 1, 1])
    statistic = (2 - 4 / 3) ** 2 / (13 / 18)
    assert log_rank(times, np.ones(4, bool), groups) == pytest.approx(chi2.sf(statistic, 1))
    assert np.isnan(log_rank(times, np.ones(4, bool), groups * 0))
    assert np.isnan(log_rank(times, np.zeros(4, bool), groups))


def test_without_censoring_they_are_mean_square_and_auroc() -> None:
    everybody = np.ones(60, dtype=bool)
    survival = RANDOM.random(60)
    wanted = ((survival - (DEATH > 3)) ** 2).mean()
    assert brier_at(DEATH, everybody, survival, 3.0, ONE)[0] == pytest.approx(wanted)
    assert auc_at(DEATH, everybody, RISK, 3.0, ONE)[0] == pytest.approx(roc_auc_score(DEATH <= 3, RISK))


def test_censoring_by_hand() -> None:
    times, events = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([True, False, True, False, True])
    survival, risk = np.array([0.1, 0.5, 0.3, 0.8, 0.9]), np.array([5.0, 9.0, 1.0, 2.0, 0.0])
    # one of the four left is censored at 2: G = 3/4 from there on, 3/8 from 4 on
    terms = [0.1**2, 0, 0.3**2 / 0.75, 0.2**2 / 0.75, 0.1**2 / 0.75]
    five = np.ones((1, 5))
    assert brier_at(times, events, survival, 3.0, five)[0] == pytest.approx(sum(terms) / 5)
    # dead by 3: cases 0 (weight 1) and 2 (weight 4/3); alive: 3 and 4; 0 beats both, 2 beats the last alone
    assert auc_at(times, events, risk, 3.0, five)[0] == pytest.approx((2 + 4 / 3) / (2 * (1 + 4 / 3)))


def test_who_dies_at_a_time_is_gone_before_the_censored_of_that_time() -> None:
    times, events = np.array([1.0, 2.0, 2.0, 3.0]), np.array([True, True, False, True])
    survival = np.array([0.1, 0.5, 0.3, 0.8])
    # two are left for the censoring at 2, one of whom leaves: G = 1/2 from 2 on, and 1 just before
    wanted = (0.1**2 + 0.5**2 + 0.2**2 / 0.5) / 4
    assert brier_at(times, events, survival, 2.0, np.ones((1, 4)))[0] == pytest.approx(wanted)


def test_weights_are_resampled_lists_with_their_own_censoring() -> None:
    weights = RANDOM.integers(0, 3, size=(3, 60)).astype(float)
    survival = RANDOM.random((60, 3))
    horizons = (1.0, 3.0, 6.0)
    whole = survival_measures(ROUND, EVENTS, RISK, survival, horizons)
    assert list(whole) == ["c_index", "integrated_brier", "auc_at_1", "auc_at_3", "auc_at_6"]
    for row in range(3):
        own = [np.repeat(one, weights[row].astype(int), axis=0) for one in (ROUND, EVENTS, RISK, survival)]
        alone = survival_measures(*own, horizons)
        for name, statistic in whole.items():
            wanted = alone[name](np.ones((1, len(own[0]))))[0]
            assert statistic(weights)[row] == pytest.approx(wanted), name


def test_the_truth_beats_the_curve_of_all_and_that_beats_nonsense() -> None:
    horizons = (1.0, 2.0, 4.0)
    truth = np.exp(-np.array(horizons) * np.exp(RISK)[:, None] / 5)
    curve = kaplan_meier(TIMES, EVENTS)
    middle = np.tile(curve.survival[np.searchsorted(curve.times, horizons, side="right") - 1], (60, 1))
    scores = [
        survival_measures(TIMES, EVENTS, RISK, one, horizons)["integrated_brier"](ONE)[0]
        for one in (truth, middle, 1 - truth)
    ]
    assert scores == sorted(scores)
