"""How sure a number is: intervals that resample patients, not slides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Shaped

from wsi_mil.errors import TaskError
from wsi_mil.evaluation.metrics import Draws, Metric, Probabilities, Truth, Values, check_cases, find_metric

DRAWS = 1000
"""Enough for the second digit of a 95 % interval."""

Statistic = Callable[[Draws], Values]
"""A number of some cases as a function of how often each is there, for several resamples at once."""

_CHUNK = 1 << 22
"""Weights held at once, 32 MiB; whatever it is, the draws are the same."""


@dataclass(frozen=True)
class Interval:
    """A value with its percentile interval.

    Conditional on the trained models: it says how the number would vary with other patients, not with other training
    runs.
    """

    value: float
    low: float
    high: float
    draws_used: int
    """Resamples in which the value is defined; the others, such as those without a positive case, were left out."""
    draws: int
    level: float


def bootstrap(
    metric: str | Metric,
    truth: Truth,
    probabilities: Probabilities,
    patients: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Interval of a metric: patients are drawn with replacement, each with all of its slides.

    Slides of one patient are alike; drawing slides would make the interval too narrow. NaN bounds where fewer than two
    patients or defined resamples are there.
    """
    check_cases(truth, probabilities)
    _check_patients(patients, cases=len(truth))
    found = find_metric(metric)
    return _interval(
        lambda weights: found(truth, probabilities, weights), patients, draws=draws, seed=seed, level=level
    )


def paired_difference(
    metric: str | Metric,
    truth: Truth,
    first: Probabilities,
    second: Probabilities,
    patients: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Interval of metric(first) - metric(second) on the same cases: both are scored on the same resamples."""
    check_cases(truth, first)
    check_cases(truth, second)
    _check_patients(patients, cases=len(truth))
    found = find_metric(metric)

    def difference(weights: Draws) -> Values:
        return found(truth, first, weights) - found(truth, second, weights)

    return _interval(difference, patients, draws=draws, seed=seed, level=level)


def bootstrap_mean(
    values: Float[np.ndarray, "case"],
    patients: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Interval of a mean over cases, such as the tile AUROC of each slide."""
    _check_patients(patients, cases=len(values))
    numbers = np.asarray(values, dtype=np.float64)

    def mean(weights: Draws) -> Values:
        return np.asarray(weights @ numbers / weights.sum(axis=1))

    return _interval(mean, patients, draws=draws, seed=seed, level=level)


def bootstrap_statistic(
    statistic: Statistic, patients: Sequence[str], *, draws: int = DRAWS, seed: int = 0, level: float = 0.95
) -> Interval:
    """Interval of any number of the cases whose patients are given."""
    return _interval(statistic, patients, draws=draws, seed=seed, level=level)


def patient_weights(
    patients: Sequence[str], *, draws: int, random: np.random.Generator
) -> Float64[np.ndarray, "draw case"]:
    """How often each case is in each resample of the patients."""
    _, index = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    count = int(index.max()) + 1
    return random.multinomial(count, np.full(count, 1 / count), size=draws)[:, index].astype(np.float64)


def _interval(statistic: Statistic, patients: Sequence[str], *, draws: int, seed: int, level: float) -> Interval:
    cases = len(patients)
    value = float(statistic(np.ones((1, cases)))[0])
    values: Shaped[np.ndarray, "draw"] = np.zeros(0)
    if len(set(patients)) > 1:
        step = max(1, _CHUNK // cases)
        random = np.random.default_rng(seed)
        parts = [
            statistic(patient_weights(patients, draws=min(step, draws - start), random=random))
            for start in range(0, draws, step)
        ]
        values = np.concatenate(parts)
        values = values[np.isfinite(values)]
    if len(values) < 2:
        return Interval(value, float("nan"), float("nan"), len(values), draws, level)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), len(values), draws, level)


def _check_patients(patients: Sequence[str], *, cases: int) -> None:
    if len(patients) != cases:
        raise TaskError(f"{len(patients)} patients stand beside {cases} cases; each case needs its patient")
