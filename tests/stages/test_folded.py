"""Means over folds: every measure, each fold's models on the slides that they are tested on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from bagged import bag_study, through
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, log_loss, roc_auc_score

from wsi_mil.evaluation import METRICS, Interval, within_bounds
from wsi_mil.stages import Work
from wsi_mil.stages.evaluate import evaluate
from wsi_mil.stages.folded import FoldMean

SETTINGS = ("split.folds=3", "split.repeats=2", "train.epochs=2", "report.draws=100", "cohort.label_of=patient")


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """Two repeats of three folds, two slides a patient."""
    work = bag_study(tmp_path_factory.mktemp("folded"), *SETTINGS, slides=48, slides_each=2)
    through(work, "split", "train", "predict")
    return work


def test_folds_are_those_of_scikit_learn(predicted: Work) -> None:
    """Each fold by hand from the tables alone, and their plain mean."""
    told = evaluate(predicted, draws=100, truth=None)
    assert told is not None
    assert set(told.folds) == set(METRICS)
    models = pd.read_csv(predicted.stage("predict").folder(predicted) / "models.csv", dtype={"slide": str})
    tested = pd.read_csv(predicted.root / "split" / "folds.csv", dtype={"slide": str})
    tested = tested[tested["role"] == "test"]
    labels = predicted.cohort.frame.set_index("slide")["label"]
    by_hand: dict[str, list[float]] = {}
    for (repeat, fold), rows in tested.groupby(["repeat", "fold"], sort=True):
        own = models[models["model"] == f"seed-0/repeat-{repeat}-fold-{fold}"]
        own = own[own["slide"].isin(rows["slide"])]
        assert len(own) == len(rows)
        truth, said = (own["slide"].map(labels) == "tumour").to_numpy(), own["p_tumour"].to_numpy()
        by_hand.setdefault("auroc", []).append(roc_auc_score(truth, said))
        by_hand.setdefault("average_precision", []).append(average_precision_score(truth, said))
        by_hand.setdefault("brier", []).append(brier_score_loss(truth, said))
        by_hand.setdefault("log_loss", []).append(log_loss(truth, said))
        by_hand.setdefault("f1", []).append(f1_score(truth, said > 0.5))
    for name, values in by_hand.items():
        assert told.folds[name].values == pytest.approx(values, abs=1e-6), name
        assert told.folds[name].mean.value == pytest.approx(np.mean(values), abs=1e-6), name
        assert told.folds[name].mean.low <= np.mean(values) <= told.folds[name].mean.high
    assert set(told.patient_folds) == set(METRICS)


def test_repeats_do_not_make_the_interval_narrow(predicted: Work) -> None:
    """Nadeau and Bengio: six folds that test a third each are not six samples."""
    told = evaluate(predicted, draws=100, truth=None)
    assert told is not None
    one, corrected = told.folds["brier"], told.folds["brier"].corrected
    assert corrected is not None
    for folds in (told.folds, told.patient_folds):
        bounds = {name: found.corrected for name, found in folds.items()}
        assert all(found is not None and within_bounds(name, found) == found for name, found in bounds.items())
    plain = 2.571 * np.std(one.values, ddof=1) / np.sqrt(6)  #  t of 5 degrees of freedom
    assert corrected.high - corrected.value > 1.5 * plain
    assert f"; NB {corrected.low:.3f} to {corrected.high:.3f}" in one.text


@pytest.mark.parametrize("level", ["slide", "patient"])
def test_the_mean_over_folds_is_resampled_over_patients(level: str, predicted: Work) -> None:
    """By hand: in each resample every fold's AUROC by scikit-learn with its patients' weights, then their mean."""
    told = evaluate(predicted, draws=100, truth=None)
    assert told is not None
    found = (told.folds if level == "slide" else told.patient_folds)["auroc"]
    models = pd.read_csv(predicted.stage("predict").folder(predicted) / "models.csv", dtype={"slide": str})
    frame = predicted.cohort.frame.set_index("slide")
    models["patient"] = models["slide"].map(frame["patient"])
    cases = models.groupby(["model", level], sort=False)[["p_tumour", "patient"]].agg(
        {"p_tumour": "mean", "patient": "first"}
    )
    labels = predicted.cohort.frame.drop_duplicates("patient").set_index("patient")["label"]
    names = sorted(set(cases["patient"]))
    drawn = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), size=100)
    means = []
    for counts in [np.ones(len(names), int), *drawn]:
        weight = cases["patient"].map(dict(zip(names, counts, strict=True)))
        values = []
        for _, own in cases.assign(weight=weight).query("weight > 0").groupby("model"):
            truth = own["patient"].map(labels) == "tumour"
            if truth.nunique() == 2:
                values.append(roc_auc_score(truth, own["p_tumour"], sample_weight=own["weight"]))
        means.append(np.mean(values))
    assert found.mean.value == pytest.approx(means[0])
    assert (found.mean.low, found.mean.high) == pytest.approx(tuple(np.quantile(means[1:], [0.025, 0.975])))
    assert found.mean.draws_used == 100


def test_a_fold_without_the_measure_is_counted() -> None:
    one = FoldMean((0.5, float("nan"), 0.7), Interval(0.6, 0.4, 0.8, 2, 3, 0.95))
    assert one.text.endswith("2 of 3 folds")
    assert one.plain["folds"] == [0.5, None, 0.7]


@pytest.mark.parametrize(
    ("measure", "low", "high"), [("auroc", 0.0, 1.0), ("r2", -3.0, 1.0), ("pearson", -1.0, 1.0), ("mae", 0.0, 4.0)]
)
def test_an_interval_ends_where_the_measure_does(measure: str, low: float, high: float) -> None:
    cut = within_bounds(measure, Interval(0.5, -3.0, 4.0, 5, 5, 0.95))
    assert (cut.low, cut.high) == (low, high)
