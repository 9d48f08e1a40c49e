"""Measures of unknown against known cases, checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from wsi_mil.errors import TaskError
from wsi_mil.evaluation import fpr_at_tpr, limit_interval, limit_of, open_f1, open_set, oscr, risk_coverage

RIGHT = np.ones(2, dtype=bool)


def test_four_samples_by_hand() -> None:
    known, unknown = np.array([0.1, 0.3]), np.array([0.2, 0.4])
    told = open_set(known, RIGHT, unknown)
    assert told.auroc == 0.75
    # limits .1 .2 .3 .4: answered and right .5 .5 1 1, unknown answered 0 .5 .5 1
    assert told.oscr == pytest.approx(0.5 * 0.5 + 0.5 * 1)
    assert told.fpr_at_95 == 0.5
    assert oscr(known, np.array([True, False]), unknown) == pytest.approx(0.5)
    assert (told.known, told.unknown) == (2, 2)


def test_measures_keep_under_monotone_transforms() -> None:
    random = np.random.default_rng(0)
    known, unknown, right = random.normal(size=50), random.normal(1, 1, 40), random.random(50) < 0.8
    assert vars(open_set(known, right, unknown)) == vars(open_set(np.exp(known), right, np.exp(unknown)))


def test_apart_is_one_and_a_wrong_answer_is_never_won_back() -> None:
    known, unknown = np.arange(10.0), np.arange(20.0, 25)
    told = open_set(known, np.arange(10) < 8, unknown)
    assert (told.auroc, told.fpr_at_95, told.oscr) == (1, 0, pytest.approx(0.8))
    with pytest.raises(TaskError, match="0 unknown"):
        open_set(known, np.ones(10, bool), unknown[:0])
    with pytest.raises(TaskError, match="not finite"):
        open_set(known, np.ones(10, bool), np.array([np.nan]))


@pytest.mark.parametrize("count", [7, 20, 101])
def test_the_limit_lets_the_asked_share_through(count: int) -> None:
    scores = np.random.default_rng(count).normal(size=count)
    limit = limit_of(scores, np.ones(count), 0.05)
    assert 0.95 <= (scores <= limit).mean() + 1e-9 <= 0.95 + 1 / count + 1e-9
    low, high = limit_interval(scores, [str(one) for one in range(count)], 0.05)
    assert low <= limit <= high
    assert fpr_at_tpr(scores, np.array([limit, limit + 1]), 0.95) == 0.5


def test_every_patient_counts_once_in_the_limit() -> None:
    scores = np.array([1.0, 2.0, 3.0, 4.0, 4.0, 4.0, 4.0])
    assert limit_of(scores, np.array([1, 1, 1, 0.25, 0.25, 0.25, 0.25]), 0.25) == 3
    assert limit_of(scores, np.ones(7), 0.25) == 4


def test_risk_and_coverage_by_hand() -> None:
    told = risk_coverage(np.array([0.1, 0.2, 0.2, 0.9]), np.array([True, True, False, False]))
    np.testing.assert_allclose(told.share, [0.25, 0.75, 1])
    np.testing.assert_allclose(told.accuracy, [1, 2 / 3, 0.5])
    assert told.area == pytest.approx(0.25 * 0 + 0.5 / 3 + 0.25 * 0.5)


def test_f1_has_a_class_for_the_unknown() -> None:
    assert open_f1(["a", "b", "unknown"], ["a", "b", "unknown"]) == 1
    assert open_f1(["a", "b", "unknown"], ["a", "b", "a"]) == pytest.approx((2 / 3 + 1 + 0) / 3)
