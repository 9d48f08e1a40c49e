"""The numbers of each kind of answer against scikit-learn and scipy, as they are and on resampled lists."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as oracle

from wsi_mil.evaluation import bootstrap_statistic, class_measures, grade_measures, label_measures, number_measures

RANDOM = np.random.default_rng(0)
WEIGHTS = RANDOM.integers(0, 4, size=(3, 40)).astype(float)


def _lists(*arrays: np.ndarray) -> list[list[np.ndarray]]:
    """The arrays as each row of WEIGHTS resamples them."""
    return [[np.repeat(one, row.astype(int), axis=0) for one in arrays] for row in WEIGHTS]


def test_numbers_of_a_regression() -> None:
    truth = RANDOM.integers(0, 12, 40).astype(float)  # with ties
    predicted = truth + np.round(RANDOM.normal(size=40), 1)
    found = {name: one(WEIGHTS) for name, one in number_measures(truth, predicted).items()}
    for row, (t, p) in enumerate(_lists(truth, predicted)):
        assert found["r2"][row] == pytest.approx(oracle.r2_score(t, p))
        assert found["mae"][row] == pytest.approx(oracle.mean_absolute_error(t, p))
        assert found["rmse"][row] == pytest.approx(oracle.root_mean_squared_error(t, p))
        assert found["pearson"][row] == pytest.approx(stats.pearsonr(t, p).statistic)
        assert found["spearman"][row] == pytest.approx(stats.spearmanr(t, p).statistic)
    flat = number_measures(np.ones(40), predicted)
    assert np.isnan(flat["r2"](WEIGHTS)).all()
    assert np.isnan(flat["pearson"](WEIGHTS)).all()


def test_numbers_of_grades() -> None:
    truth = RANDOM.integers(0, 4, 40)
    called = np.clip(truth + RANDOM.integers(-1, 2, 40), 0, 3)
    found = {name: one(WEIGHTS) for name, one in grade_measures(truth, called, called + 0.1, grades=4).items()}
    for row, (t, c) in enumerate(_lists(truth, called)):
        kappa = oracle.cohen_kappa_score(t, c, weights="quadratic", labels=[0, 1, 2, 3])
        assert found["quadratic_kappa"][row] == pytest.approx(kappa)
        assert found["grade_mae"][row] == pytest.approx(np.abs(t - c).mean())
        assert found["accuracy"][row] == pytest.approx((t == c).mean())
        assert found["balanced_accuracy"][row] == pytest.approx(oracle.balanced_accuracy_score(t, c))
        assert found["spearman"][row] == pytest.approx(stats.spearmanr(t, c).statistic)
    assert np.isnan(grade_measures(truth * 0, called * 0, called + 0.1, grades=4)["quadratic_kappa"](WEIGHTS)).all()


def test_numbers_of_several_labels_leave_out_what_is_unknown() -> None:
    truth = RANDOM.integers(0, 2, size=(40, 2)).astype(float)
    truth[RANDOM.random((40, 2)) < 0.3] = np.nan
    probabilities = RANDOM.random((40, 2))
    found = {name: one(WEIGHTS) for name, one in label_measures(truth, probabilities, ["a", "b"]).items()}
    for row, (t, p) in enumerate(_lists(truth, probabilities)):
        aurocs, precisions, briers = [], [], []
        for column in range(2):
            known = ~np.isnan(t[:, column])
            own = t[known, column], p[known, column]
            aurocs.append(oracle.roc_auc_score(*own))
            precisions.append(oracle.average_precision_score(*own))
            briers.append(oracle.brier_score_loss(*own))
        assert found["auroc a"][row] == pytest.approx(aurocs[0])
        assert found["mean_auroc"][row] == pytest.approx(np.mean(aurocs))
        assert found["mean_average_precision"][row] == pytest.approx(np.mean(precisions))
        assert found["mean_brier"][row] == pytest.approx(np.mean(briers))
    truth[:, 1] = np.nan
    alone = label_measures(truth, probabilities, ["a", "b"])
    np.testing.assert_allclose(alone["mean_auroc"](WEIGHTS), alone["auroc a"](WEIGHTS))
    assert np.isnan(label_measures(truth[:, 1:], probabilities[:, 1:], ["b"])["mean_auroc"](WEIGHTS)).all()


def test_classes_have_the_metrics_they_always_had() -> None:
    truth, probabilities = RANDOM.integers(0, 3, 40), RANDOM.dirichlet(np.ones(3), 40)
    found = class_measures(truth, probabilities)
    assert "sensitivity" not in found
    wanted = oracle.roc_auc_score(truth, probabilities, multi_class="ovr")
    assert found["auroc"](np.ones((1, 40)))[0] == pytest.approx(wanted)


def test_intervals_resample_patients() -> None:
    truth = np.repeat(RANDOM.normal(size=20), 2)
    predicted = truth + np.repeat(RANDOM.normal(size=20), 2)
    mae = number_measures(truth, predicted)["mae"]
    patients = [f"P{row // 2}" for row in range(40)]
    by_patient = bootstrap_statistic(mae, patients, draws=400)
    by_slide = bootstrap_statistic(mae, [str(row) for row in range(40)], draws=400)
    assert by_patient.low < by_patient.value < by_patient.high
    assert by_patient.high - by_patient.low > 1.2 * (by_slide.high - by_slide.low)
