"""Bootstrap intervals: patients are the unit, degenerate resamples are counted, pairs share their resamples."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from wsi_mil.errors import TaskError
from wsi_mil.evaluation import bootstrap, bootstrap_mean, paired_difference
from wsi_mil.evaluation import intervals as module


def _two(positive: np.ndarray) -> np.ndarray:
    return np.stack([1 - positive, positive], axis=1)


def _cohort(patients: int, slides: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Slides of one patient share their label and nearly their score."""
    random = np.random.default_rng(seed)
    label = np.arange(patients) % 2
    base = np.clip(0.5 + 0.15 * (label - 0.5) + 0.2 * random.normal(size=patients), 0.01, 0.99)
    truth = np.repeat(label, slides)
    names = np.repeat([f"P{number}" for number in range(patients)], slides).tolist()
    return truth, _two(np.repeat(base, slides)), names


def test_it_is_the_bootstrap_of_a_loop() -> None:
    truth, probabilities, patients = _cohort(20, 2)
    found = bootstrap("auroc", truth, probabilities, patients, draws=200, seed=1)
    weights = module.patient_weights(patients, draws=200, random=np.random.default_rng(1)).astype(int)
    samples = [np.repeat(np.arange(40), row) for row in weights]
    values = [roc_auc_score(truth[index], probabilities[index, 1]) for index in samples if len(set(truth[index])) == 2]
    assert found.value == pytest.approx(roc_auc_score(truth, probabilities[:, 1]))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))
    assert found.draws_used == len(values)


def test_a_resample_draws_as_many_patients_as_there_are() -> None:
    patients = ["b", "a", "b", "c"]
    weights = module.patient_weights(patients, draws=3000, random=np.random.default_rng(0))
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(1), 3)
    np.testing.assert_allclose(weights.mean(0), 1, atol=0.05)
    np.testing.assert_allclose((weights == 0).mean(0), (2 / 3) ** 3, atol=0.04)


def test_more_slides_of_the_same_patients_make_nothing_surer() -> None:
    once = bootstrap("auroc", *_cohort(30, 1), seed=2)
    tenfold = bootstrap("auroc", *_cohort(30, 10), seed=2)
    assert tenfold.low == pytest.approx(once.low)
    assert tenfold.high == pytest.approx(once.high)
    truth, probabilities, _ = _cohort(30, 10)
    as_if_free = bootstrap("auroc", truth, probabilities, [str(number) for number in range(300)], seed=2)
    assert as_if_free.high - as_if_free.low < 0.6 * (tenfold.high - tenfold.low)


def test_it_covers() -> None:
    random = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        values = random.normal(size=40)
        interval = bootstrap_mean(values, [str(number) for number in range(40)], draws=400, seed=seed)
        hits += interval.low <= 0 <= interval.high
    assert 0.88 <= hits / 200 <= 0.99


def test_degenerate_resamples_are_counted() -> None:
    truth = np.array([1, 0, 0, 0, 0])
    found = bootstrap("auroc", truth, _two(np.linspace(0.1, 0.9, 5)), list("abcde"), draws=1000)
    # The one positive patient is in a resample with probability 1 - (4/5)^5.
    assert found.draws == 1000
    assert found.draws_used == pytest.approx(1000 * (1 - 0.8**5), abs=60)


def test_one_patient_has_no_interval() -> None:
    truth, probabilities, _ = _cohort(4, 1)
    found = bootstrap("auroc", truth, probabilities, ["P"] * 4)
    assert np.isfinite(found.value)
    assert np.isnan([found.low, found.high]).all()
    assert found.draws_used == 0


def test_the_seed_decides_and_the_size_of_chunks_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bootstrap("brier", *_cohort(20, 2), seed=3)
    monkeypatch.setattr(module, "_CHUNK", 40 * 7)
    chunked = bootstrap("brier", *_cohort(20, 2), seed=3)
    assert (chunked.low, chunked.high) == pytest.approx((whole.low, whole.high), abs=1e-12)
    assert bootstrap("brier", *_cohort(20, 2), seed=4) != whole


def test_pairs_share_their_resamples() -> None:
    truth, first, patients = _cohort(40, 2)
    same = paired_difference("auroc", truth, first, first, patients)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    second = _two(np.clip(first[:, 1] - 0.02 * truth, 0, 1))
    gap = paired_difference("auroc", truth, first, second, patients)
    alone = bootstrap("auroc", truth, first, patients)
    assert gap.value > 0
    assert gap.high - gap.low < 0.5 * (alone.high - alone.low)


def test_a_narrower_level_lies_within() -> None:
    wide = bootstrap("accuracy", *_cohort(40, 1), level=0.95)
    narrow = bootstrap("accuracy", *_cohort(40, 1), level=0.5)
    assert wide.low <= narrow.low <= narrow.high <= wide.high
    assert (wide.level, narrow.level) == (0.95, 0.5)


def test_each_case_needs_its_patient() -> None:
    truth, probabilities, patients = _cohort(10, 1)
    with pytest.raises(TaskError, match="9 patients"):
        bootstrap("accuracy", truth, probabilities, patients[:-1])
    with pytest.raises(TaskError, match="unknown metric"):
        bootstrap("acuracy", truth, probabilities, patients)
