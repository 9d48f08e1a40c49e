"""Baselines read what the model reads: all slides of a case, the same folds, for every kind of question."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from bagged import bag_study, through
from sklearn.metrics import r2_score, roc_auc_score

from wsi_mil.cohort import ClinicalEncoder
from wsi_mil.evaluation import Fold, out_of_fold_logistic, out_of_fold_ridge
from wsi_mil.stages import Work
from wsi_mil.stages.evaluate import evaluate
from wsi_mil.stages.judge import judge
from wsi_mil.stages.record_baselines import RECORD, SITE


def _folds(work: Work, place: dict[str, int]) -> list[Fold]:
    table = pd.read_csv(work.root / "split" / "folds.csv", dtype={"slide": str, "patient": str})
    return [
        Fold(
            *(
                np.unique([place[one] for one in rows["patient"][rows["role"] == role]]).astype(int)
                for role in Fold._fields
            )
        )
        for _, rows in table.groupby(["repeat", "fold"])
    ]


def _mean_tile(work: Work, slide: str) -> np.ndarray:
    with h5py.File(work.root / "extract" / "phikon" / f"{slide}.h5") as file:
        return np.asarray(file["features"][:], np.float64).mean(axis=0)


def test_a_patients_baseline_reads_all_of_the_patients_slides(tmp_path: Path) -> None:
    """By hand from the bags: each patient is the mean of their slides' mean tiles."""
    settings = ("model.bag_of=patient", "cohort.label_of=patient", "train.epochs=1")
    work = bag_study(tmp_path, *settings, slides=32, slides_each=2, signal=1.0)
    through(work, "split", "train", "predict")
    told = evaluate(work, draws=100, truth=None)
    assert told is not None
    frame = work.cohort.frame
    patients = list(dict.fromkeys(frame["patient"]))
    means = np.stack(
        [
            np.mean([_mean_tile(work, slide) for slide in frame["slide"][frame["patient"] == one]], axis=0)
            for one in patients
        ]
    )
    truth = (frame.drop_duplicates("patient")["label"] == "tumour").to_numpy().astype(np.int64)
    folds = _folds(work, {name: row for row, name in enumerate(patients)})
    own = out_of_fold_logistic(means, truth, folds).probabilities[:, 1]
    assert told.baselines["mean of features"].value == pytest.approx(roc_auc_score(truth, own))
    model = told.slides.metrics["auroc"].value
    assert told.differences["mean of features"].value == pytest.approx(model - roc_auc_score(truth, own))


def test_site_and_record_alone_are_baselines_of_a_number(tmp_path: Path) -> None:
    """By hand: ridge regression on flags of the sites, and on a record that each fold encodes anew."""
    settings = ("task={kind: regression, label: age}", "cohort.clinical={scanner: category}", "train.epochs=1")
    work = bag_study(tmp_path, *settings, "model.fusion=concat", slides=36)
    through(work, "split", "train", "predict")
    (told,), _ = judge(work, draws=100, truth=None)
    assert list(told.baselines)[:2] == [SITE, RECORD]
    assert set(told.differences) == set(told.baselines)
    frame = work.cohort.frame
    truth = frame["age"].astype(float).to_numpy()
    folds = _folds(work, {name: row for row, name in enumerate(frame["patient"])})
    flags = np.stack([frame["site"] == site for site in "ABC"], axis=1).astype(np.float64)
    assert told.baselines[SITE].value == pytest.approx(r2_score(truth, out_of_fold_ridge(flags, truth, folds)))
    said = np.zeros(36)
    for fold in folds:
        record = ClinicalEncoder.of({"scanner": "category"}).fit(frame.iloc[fold.fit]).encode(frame)
        numbers = np.concatenate([record.values, record.missing], axis=1).astype(np.float64)
        said[fold.test] = out_of_fold_ridge(numbers, truth, [fold])[fold.test]
    assert told.baselines[RECORD].value == pytest.approx(r2_score(truth, said))
