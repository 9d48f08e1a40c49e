"""Classic MIL benchmarks under an honest protocol: the file's own repeated folds, nothing chosen on a test fold.

    python benchmarks/classic_mil.py DATA.npz [--models abmil] [--repetitions 5]

DATA.npz: `features` [instance, dim], `bag` [instance], `label` [bag], `test` [repetition, fold, bag]. Features are
standardised on the fit bags of each fold; a tenth of the training bags chooses the epoch. "oracle" is what the same
runs would print if the best epoch were chosen on the test fold, as some published tables do: never a result.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from wsi_mil.evaluation import score
from wsi_mil.models import build_model
from wsi_mil.tasks import build_task
from wsi_mil.training import Bags, FitSettings, fit, infer

PUBLISHED = {
    "musk1": "attention .892, gated .900 (Ilse 2018); MI-Net DS .894; mi-Net .889",
    "elephant": "attention .868, gated .857 (Ilse 2018); MI-Net DS .872; mi-Net .858",
}
"""Accuracy, as printed by the papers; how they chose the epoch is not always stated."""

SUSPICIOUS = 0.95
"""A column this correlated with the label of its bag is probably the label itself."""


def main() -> None:
    """Print a row a method."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--models", default="abmil")
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    with np.load(arguments.data) as file:
        features, bag, label, test = (file[name] for name in ("features", "bag", "label", "test"))
    label = label.astype(np.int64)
    warn_of_leak(features, label[bag])
    bags = [features[bag == number].astype(np.float32) for number in range(len(label))]
    test = test[: arguments.repetitions].astype(bool)
    print(f"{arguments.data.stem}: {len(bags)} bags ({int(label.sum())} positive), {features.shape[1]} features")
    print(f"published accuracy: {PUBLISHED.get(arguments.data.stem.lower(), 'not known here')}")
    print(f"{'method':>24} {'accuracy':>9} {'sd':>6} {'AUC':>6} {'oracle':>7}")
    for name, classifier in baselines().items():
        report(name, [baseline(classifier, bags, label, folds) for folds in test], label)
    for name in arguments.models.split(","):
        report(name, [cross_validate(name, bags, label, folds, seed) for seed, folds in enumerate(test)], label)


def baselines() -> dict[str, object]:
    """Bag statistics (mean, least and greatest of each feature) under two plain classifiers."""
    return {
        "statistics + SVM": make_pipeline(StandardScaler(), SVC()),
        "statistics + logistic": make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=5000)),
    }


def baseline(
    classifier: object, bags: list[np.ndarray], label: np.ndarray, folds: np.ndarray
) -> tuple[np.ndarray, float]:
    """Out-of-fold scores, positive where the class is called."""
    table = np.stack([np.concatenate([one.mean(axis=0), one.min(axis=0), one.max(axis=0)]) for one in bags])
    scores = np.zeros(len(label))
    for fold in folds:
        classifier.fit(table[~fold], label[~fold])  # type: ignore[attr-defined]
        scores[fold] = classifier.decision_function(table[fold])  # type: ignore[attr-defined]
    return scores, float("nan")


def cross_validate(
    name: str, bags: list[np.ndarray], label: np.ndarray, folds: np.ndarray, seed: int
) -> tuple[np.ndarray, float]:
    """Out-of-fold log odds, and the oracle's accuracy: the best epoch of each fold on its own test bags."""
    source = Bags([(one, np.stack([np.arange(len(one)), np.zeros(len(one), int)], axis=1)) for one in bags])
    told = {str(index): {"label": str(value)} for index, value in enumerate(label)}
    task = build_task("classification", classes=("0", "1")).fit(told)
    scores, oracle = np.zeros(len(label)), 0
    for fold in folds:
        rest, tested = np.flatnonzero(~fold), np.flatnonzero(fold)
        learn, select = train_test_split(rest, test_size=0.1, stratify=label[rest], random_state=seed)
        model = build_model(name, dim=bags[0].shape[1], n_out=2, seed=seed)
        best = 0

        def peek(row: dict[str, float], model=model, tested=tested) -> None:  # type: ignore[no-untyped-def]
            nonlocal best
            right = sum(int(_odds(model, source, one) > 0) == label[one] for one in tested)
            best = max(best, int(right))

        fit(
            model,
            source,
            fit_index=learn.tolist(),
            select_index=select.tolist(),
            targets=torch.from_numpy(label),
            task=task,
            settings=FitSettings(),
            seed=seed,
            progress=peek,
        )
        scores[tested] = [_odds(model, source, one) for one in tested]
        oracle += best
    return scores, oracle / len(label)


def report(name: str, runs: list[tuple[np.ndarray, float]], label: np.ndarray) -> None:
    """Mean over repetitions, standard deviation between them, pooled AUC, and the oracle beside."""
    accuracies = [float(((scores > 0) == label).mean()) for scores, _ in runs]
    aucs = [score("auroc", label, _two_columns(scores)) for scores, _ in runs]
    oracle = np.mean([one for _, one in runs])
    spread = np.std(accuracies, ddof=1) if len(accuracies) > 1 else float("nan")
    print(f"{name:>24} {np.mean(accuracies):>9.3f} {spread:>6.3f} {np.mean(aucs):>6.3f} {oracle:>7.3f}", flush=True)


def warn_of_leak(features: np.ndarray, label: np.ndarray) -> None:
    """Say which columns are the label in disguise."""
    spread = features.std(axis=0)
    centred = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1)
    likeness = np.abs(centred.T @ (label - label.mean()) / len(label) / max(label.std(), 1e-12))
    for column in np.flatnonzero(likeness > SUSPICIOUS):
        print(f"WARNING: column {column} is the label (correlation {likeness[column]:.2f}): the results mean nothing")


def _two_columns(scores: np.ndarray) -> np.ndarray:
    positive = 1 / (1 + np.exp(-np.clip(scores, -500, 500)))
    return np.stack([1 - positive, positive], axis=1)


def _odds(model: object, source: Bags, index: int) -> float:
    logits = infer(model, *source.load(int(index))).logits  # type: ignore[arg-type]
    return float(logits[1] - logits[0])


if __name__ == "__main__":
    main()
