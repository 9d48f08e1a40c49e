"""Whether one model is better than another: paired tests, and intervals that know what repeats share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Shaped

from wsi_mil.errors import TaskError
from wsi_mil.evaluation.intervals import Interval
from wsi_mil.evaluation.metrics import Metric, Probabilities, Truth, check_cases, find_metric


@dataclass(frozen=True)
class Difference:
    """A difference with its interval and the probability of one as large if there were none."""

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class SeedSpread:
    """Where the uncertainty of a result comes from, as standard deviations."""

    seeds: float
    """Between training runs on the same patients."""
    patients: float
    """Between samples of patients, the runs kept: from the width of the bootstrap interval."""
    seeds_used: int


def paired_permutation(
    metric: str | Metric,
    truth: Truth,
    first: Probabilities,
    second: Probabilities,
    patients: Sequence[str],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> float:
    """Two-sided p of metric(first) - metric(second): for each patient, all of whose cases go together, a coin decides
    which model said what.
    """
    check_cases(truth, first)
    check_cases(truth, second)
    found = find_metric(metric)
    one = np.ones((1, len(truth)))
    names, of = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    told = float((found(truth, first, one) - found(truth, second, one))[0])
    random, as_large = np.random.default_rng(seed), 0
    for _ in range(draws):
        swap = random.integers(2, size=len(names))[of].astype(bool)[:, None]
        left, right = np.where(swap, second, first), np.where(swap, first, second)
        as_large += abs(float((found(truth, left, one) - found(truth, right, one))[0])) >= abs(told) - 1e-12
    return (as_large + 1) / (draws + 1)


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """p values of several comparisons, adjusted so that the chance of any false one stays the same (Holm, 1979)."""
    order = sorted(values, key=lambda name: values[name])
    adjusted, highest = {}, 0.0
    for place, name in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - place) * values[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in values}


def delong(
    positive: Shaped[np.ndarray, "case"],
    first: Float[np.ndarray, "case"],
    second: Float[np.ndarray, "case"],
    patients: Sequence[str],
    *,
    level: float = 0.95,
) -> Difference:
    """Difference of two AUROCs on one test set that neither model has seen (DeLong et al., 1988).

    It takes cases as independent and both models as fixed: TaskError where a patient has several cases. Not for
    predictions of cross-validation, whose models differ from fold to fold.
    """
    from scipy.stats import norm

    if len(set(patients)) < len(patients):
        raise TaskError(
            "DeLong's test takes one case a patient; some have several: use the paired bootstrap of patients"
        )
    hit = np.asarray(positive, dtype=bool)
    if hit.sum() < 2 or (~hit).sum() < 2:
        raise TaskError(f"DeLong's test needs two cases of each class; there are {hit.sum()} and {(~hit).sum()}")
    parts = [_placements(hit, np.asarray(scores, dtype=np.float64)) for scores in (first, second)]
    value = float(parts[0][0].mean() - parts[1][0].mean())
    above, below = parts[0][0] - parts[1][0], parts[0][1] - parts[1][1]
    error = float(np.sqrt(above.var(ddof=1) / hit.sum() + below.var(ddof=1) / (~hit).sum()))
    if not error:
        return Difference(value, value, value, 1.0)
    z = float(norm.ppf((1 + level) / 2))
    return Difference(value, value - z * error, value + z * error, float(2 * norm.sf(abs(value) / error)))


def corrected_interval(values: Sequence[float], *, tested: float, fitted: float, level: float = 0.95) -> Interval:
    """Interval of a mean over folds and repeats that share most of their training patients (Nadeau and Bengio, 2003).

    The variance is (1 / n + tested / fitted) s^2, with how many cases a fold tests and fits on, on n - 1 degrees
    of freedom: the plain 1 / n would shrink with every repeat, though no patient is added.
    """
    from scipy.stats import t

    numbers = np.asarray([value for value in values if np.isfinite(value)], dtype=np.float64)
    if len(numbers) < 2:
        mean = float(numbers.mean()) if len(numbers) else float("nan")
        return Interval(mean, float("nan"), float("nan"), len(numbers), len(values), level)
    error = float(np.sqrt((1 / len(numbers) + tested / fitted) * numbers.var(ddof=1)))
    half = float(t.ppf((1 + level) / 2, len(numbers) - 1)) * error
    mean = float(numbers.mean())
    return Interval(mean, mean - half, mean + half, len(numbers), len(values), level)


def seed_spread(by_seed: Mapping[str, float], interval: Interval) -> SeedSpread | None:
    """The two spreads side by side; None for fewer than two seeds."""
    if len(by_seed) < 2:
        return None
    seeds = float(np.std(list(by_seed.values()), ddof=1))
    return SeedSpread(seeds, (interval.high - interval.low) / (2 * 1.959964), len(by_seed))


def cramers_v(rows: Sequence[str], columns: Sequence[str], *, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """How far two groupings of the same patients go together, 0 to 1 (bias-corrected; Bergsma, 2013), and the p of a
    permutation test. NaN where one of them has a single value.
    """
    left, right = (np.unique(np.asarray(side, dtype=str), return_inverse=True) for side in (rows, columns))
    r, c, n = len(left[0]), len(right[0]), len(rows)
    if r < 2 or c < 2 or n < 2:
        return float("nan"), float("nan")
    told = _chi2(left[1], right[1], r, c)
    random = np.random.default_rng(seed)
    as_large = sum(_chi2(random.permutation(left[1]), right[1], r, c) >= told - 1e-9 for _ in range(draws))
    phi = max(0.0, told / n - (r - 1) * (c - 1) / (n - 1))
    rows_left, columns_left = r - (r - 1) ** 2 / (n - 1), c - (c - 1) ** 2 / (n - 1)
    least = min(rows_left, columns_left) - 1
    return (float(np.sqrt(phi / least)) if least > 0 else 0.0), (as_large + 1) / (draws + 1)


def _placements(
    hit: Shaped[np.ndarray, "case"], scores: Float64[np.ndarray, "case"]
) -> tuple[Float64[np.ndarray, "positive"], Float64[np.ndarray, "negative"]]:
    """Share of negatives that each positive beats, and of positives that beat each negative; ties count half."""
    from scipy.stats import rankdata

    own, other = scores[hit], scores[~hit]
    whole = rankdata(np.concatenate([own, other]))
    above = (whole[: len(own)] - rankdata(own)) / len(other)
    below = 1 - (whole[len(own) :] - rankdata(other)) / len(own)
    return np.asarray(above), np.asarray(below)


def _chi2(left: np.ndarray, right: np.ndarray, r: int, c: int) -> float:
    table = np.bincount(left * c + right, minlength=r * c).reshape(r, c).astype(np.float64)
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / table.sum()
    return float((np.divide((table - expected) ** 2, expected, out=np.zeros_like(table), where=expected > 0)).sum())
