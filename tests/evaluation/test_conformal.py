"""Sets that hold the truth as often as promised, patients as units, and refusals with numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import beta

from wsi_mil.errors import TaskError
from wsi_mil.evaluation import (
    Conformal,
    coverage_band,
    expected_band,
    fit_conformal,
    mean_size,
    patients_covered,
    patients_needed,
)

CLASSES = ("benign", "lesion")


def _draw(patients: int, random: np.random.Generator, slides: int = 2) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Slides of a patient are alike; lesions are harder than benign slides."""
    truth = np.repeat(random.integers(2, size=patients), slides)
    lean = np.repeat(random.normal(size=patients), slides) + 0.3 * random.normal(size=patients * slides)
    p = 1 / (1 + np.exp(-(2.5 * truth - 1 + lean * (1 + truth))))
    return np.stack([1 - p, p], axis=1), truth, [str(number // slides) for number in range(patients * slides)]


def test_the_promise_holds_for_patients_of_each_class() -> None:
    random, covered = np.random.default_rng(0), []
    for _ in range(150):
        p, truth, patients = _draw(80, random)
        one = fit_conformal(p, truth, patients, classes=CLASSES, coverage=0.9)
        new, new_truth, new_patients = _draw(200, random)
        held = patients_covered(one.sets(new), new_truth, new_patients)
        lesion = {name for name, label in zip(new_patients, new_truth, strict=True) if label}
        covered.append(np.mean([held[name] for name in lesion]))
    assert 0.9 - 0.01 < np.mean(covered) < 0.9 + 0.035  # at least .9, at most .9 + 1 / (n + 1)
    low, high = coverage_band(40, 0.9)
    assert np.mean([low <= one <= high for one in covered]) > 0.85


def test_the_band_is_vovks() -> None:
    assert coverage_band(99, 0.9) == pytest.approx(tuple(beta.ppf([0.025, 0.975], 90, 10)))
    low, high = expected_band(99, 50, 0.9)
    assert low < coverage_band(99, 0.9)[0] < coverage_band(99, 0.9)[1] < high
    assert coverage_band(5, 0.9) == (1.0, 1.0)


def test_too_few_patients_are_refused_with_how_many_are_needed() -> None:
    assert [patients_needed(one) for one in (0.5, 0.8, 0.9, 0.95)] == [1, 4, 9, 19]
    p = np.tile([0.4, 0.6], (20, 1))
    truth = np.array([0] * 5 + [1] * 15)
    patients = [str(number) for number in range(20)]
    with pytest.raises(TaskError, match="need 9 calibration patients of each class: 'benign' has 5;"):
        fit_conformal(p, truth, patients, classes=CLASSES, coverage=0.9)
    assert fit_conformal(p, truth, patients, classes=CLASSES, coverage=0.9, class_conditional=False).patients == (
        20,
        20,
    )
    # slides of one patient are no more patients
    with pytest.raises(TaskError, match="'lesion' has 3"):
        fit_conformal(p, truth, ["a", "b", "c", "d", "e"] + ["x", "y", "z"] * 5, classes=CLASSES, coverage=0.8)


def test_the_worst_slide_of_a_patient_counts() -> None:
    p = np.array([[0.1, 0.9], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]])
    one = fit_conformal(p, np.ones(4, int), list("aabc"), classes=("x",) * 2, coverage=0.5, class_conditional=False)
    assert sorted([0.6, 0.2, 0.3])[1] == pytest.approx(one.quantiles[1])
    assert patients_covered(np.array([[0, 1], [0, 0]], bool), np.ones(2, int), ["a", "a"]) == {"a": False}
    assert mean_size(np.array([[1, 1], [0, 1]], bool)) == 1.5
    assert Conformal.from_json(json.loads(json.dumps(one.to_json()))) == one
