"""Paired tests against scipy and simulations in which the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, ttest_1samp

from wsi_mil.errors import TaskError
from wsi_mil.evaluation import (
    Interval,
    bootstrap,
    corrected_interval,
    cramers_v,
    delong,
    holm,
    paired_difference,
    paired_permutation,
    seed_spread,
)


def _models(count: int, seed: int, better: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = random.integers(2, size=count)
    shared = random.normal(size=count)
    first, second = (truth * one + shared + 0.7 * random.normal(size=count) for one in (1.0 + better, 1.0))
    both = [1 / (1 + np.exp(-one)) for one in (first, second)]
    return truth, *(np.stack([1 - p, p], axis=1) for p in both)


def test_delong_is_the_bootstrap_where_both_may_be_used() -> None:
    truth, first, second = _models(400, 0, 0.6)
    names = [str(number) for number in range(400)]
    one = delong(truth, first[:, 1], second[:, 1], names)
    drawn = paired_difference("auroc", truth, first, second, names, draws=1000)
    assert one.value == pytest.approx(drawn.value)
    assert (one.low, one.high) == pytest.approx((drawn.low, drawn.high), abs=0.006)
    oracle = mannwhitneyu(first[truth == 1, 1], first[truth == 0, 1]).statistic / (
        (truth == 1).sum() * (truth == 0).sum()
    )
    half = np.full(400, 0.5)
    assert delong(truth, first[:, 1], half, names).value == pytest.approx(oracle - 0.5)
    assert delong(truth, half, half, names).p == 1
    with pytest.raises(TaskError, match="one case a patient"):
        delong(truth, first[:, 1], second[:, 1], ["p"] * 400)


def test_p_is_small_where_there_is_a_difference_and_even_where_there_is_none() -> None:
    names = [str(number) for number in range(120)]
    truth, first, second = _models(120, 1, 1.2)
    assert paired_permutation("auroc", truth, first, second, names, draws=300) < 0.02
    nulls = []
    for seed in range(40):
        truth, first, second = _models(120, seed, 0.0)
        nulls.append((paired_permutation("auroc", truth, first, second, names, draws=60, seed=seed),
                      delong(truth, first[:, 1], second[:, 1], names).p))  # fmt: skip
    assert np.all(np.abs(np.mean(nulls, axis=0) - 0.5) < 0.17)


def test_patients_swap_whole() -> None:
    """Twenty slides of each of two patients are no evidence."""
    truth = np.array([0] * 20 + [1] * 20)
    good = np.stack([1 - truth, truth], axis=1) * 0.8 + 0.1
    assert paired_permutation("brier", truth, good, 1 - good, ["a"] * 20 + ["b"] * 20, draws=200) > 0.3
    assert paired_permutation("brier", truth, good, 1 - good, [str(n) for n in range(40)], draws=200) < 0.02


def test_repeats_do_not_make_an_interval_ever_narrower() -> None:
    values = [0.80, 0.84, 0.78, 0.88, 0.82]
    plain = ttest_1samp(values, 0).confidence_interval()
    assert corrected_interval(values, tested=0, fitted=1).low == pytest.approx(plain.low)
    five = corrected_interval(values, tested=20, fitted=80)
    fifty = corrected_interval(values * 10, tested=20, fitted=80)
    assert five.low < plain.low
    s = np.std(values * 10, ddof=1)
    assert fifty.high - fifty.value > 1.95 * s * np.sqrt(0.25)
    assert np.isnan(corrected_interval([0.8], tested=1, fitted=4).low)


def test_holm_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})


def test_seeds_and_patients_apart() -> None:
    truth, first, _ = _models(200, 0, 0.5)
    interval = bootstrap("auroc", truth, first, [str(n) for n in range(200)], draws=200)
    one = seed_spread({"seed-0": 0.8, "seed-1": 0.9}, interval)
    assert one is not None
    assert one.seeds == pytest.approx(0.0707, abs=1e-3)
    assert 0.01 < one.patients < 0.05
    assert seed_spread({"seed-0": 0.8}, Interval(0.8, 0.7, 0.9, 1, 1, 0.95)) is None


def test_association_of_sites_and_labels() -> None:
    sites = ["A", "B"] * 30
    v, p = cramers_v(sites, ["x", "y"] * 30, draws=200)
    assert v == pytest.approx(1, abs=0.02)
    assert p < 0.01
    v, p = cramers_v(sites, list(np.random.default_rng(0).choice(["x", "y"], 60)), draws=200)
    assert v < 0.3
    assert p > 0.05
    assert np.isnan(cramers_v(["A"] * 4, ["x", "y"] * 2)[0])
