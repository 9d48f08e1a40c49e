"""Deletion and insertion: by hand for a sum, nothing for a random order, and the best order for a mean."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from wsi_mil.evaluation import faithfulness, rank_correlation

VALUES = np.random.default_rng(0).normal(size=40)


def total(kept: np.ndarray) -> float:
    return float(VALUES[kept].sum())


def test_areas_of_a_sum_by_hand() -> None:
    found = faithfulness(total, {"truth": VALUES}, orders=400)["truth"]
    kept = np.array([1, *range(4, 41, 4)])
    highest, lowest = (np.cumsum(values)[kept - 1] for values in (np.sort(VALUES)[::-1], np.sort(VALUES)))
    chance = VALUES.mean() * kept
    for told, difference in ((found.insertion, highest - chance), (found.deletion, chance - lowest)):
        assert told == pytest.approx(np.trapezoid(difference, kept / 40), abs=0.3)
        assert told > 2


def test_the_truth_beats_noise_and_its_opposite() -> None:
    noise = np.random.default_rng(3).normal(size=40)
    found = faithfulness(total, {"truth": VALUES, "noise": noise, "opposite": -VALUES, "flat": np.zeros(40)})
    assert found["truth"].deletion > found["noise"].deletion > found["opposite"].deletion
    assert found["truth"].insertion > found["noise"].insertion > found["opposite"].insertion
    assert found["opposite"].insertion == pytest.approx(-found["truth"].deletion)


def test_equal_scores_are_no_order() -> None:
    rising = np.arange(40.0)
    found = faithfulness(lambda kept: float(rising[kept].mean()), {"flat": np.zeros(40)}, orders=1)
    assert found["flat"].insertion == 0  # the very random order it is compared with


def test_no_model_is_asked_of_an_empty_bag() -> None:
    asked: list[int] = []

    def ask(kept: np.ndarray) -> float:
        asked.append(int(kept.sum()))
        return 0.0

    faithfulness(ask, {"a": VALUES[:3]})
    assert min(asked) == 1
    assert faithfulness(ask, {"a": VALUES[:1]})["a"].deletion == 0


def test_rank_correlation_is_spearmans() -> None:
    other = np.random.default_rng(1).normal(size=40) + VALUES
    other[:5] = other[5]
    assert rank_correlation(VALUES, other) == pytest.approx(spearmanr(VALUES, other).statistic)
    assert rank_correlation(VALUES, np.ones(40)) == 0
