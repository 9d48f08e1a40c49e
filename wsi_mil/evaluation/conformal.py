"""Sets of classes that hold the true one at a promised rate, with the patient as the unit.

Split conformal prediction: a class k is in the set where 1 - p_k is at most the quantile of 1 - p_k over calibration
patients of that class (Vovk's Mondrian form; without it, of all patients). The promise holds on average over patients
that are exchangeable with those of the calibrate role: the same sites, scanners and selection. Under shift there is
none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from wsi_mil.errors import TaskError


@dataclass(frozen=True)
class Conformal:
    """Largest nonconformity 1 - p of each class that is still in the set."""

    quantiles: tuple[float, ...]
    patients: tuple[int, ...]
    """Behind each quantile."""
    coverage: float
    """Promised."""
    class_conditional: bool

    def sets(self, probabilities: Float[np.ndarray, "case class"]) -> Bool[np.ndarray, "case class"]:
        """Which classes are in the set of each case; none, one or several."""
        return np.asarray(1 - np.asarray(probabilities, np.float64) <= np.array(self.quantiles) + 1e-12)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "quantiles": list(self.quantiles), "patients": list(self.patients)}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Conformal:
        """Back from `to_json`."""
        lists = {name: tuple(told[name]) for name in ("quantiles", "patients")}
        return cls(**{**told, **lists})


def patients_needed(coverage: float) -> int:
    """Fewest calibration patients (of a class) with which a set can leave anything out at a promised coverage."""
    return ceil(coverage / (1 - coverage) - 1e-9)


def fit_conformal(
    probabilities: Float[np.ndarray, "case class"],
    truth: Int[np.ndarray, "case"],
    patients: Sequence[str],
    *,
    classes: Sequence[str],
    coverage: float,
    class_conditional: bool = True,
) -> Conformal:
    """The quantile ceil((n + 1) coverage) of n patients' nonconformity of their true class.

    Of a patient's cases of a class the least conforming one counts, so that the promise is of all of them at once.
    TaskError where a class (or, not class-conditional, the whole) has too few patients: says how many there must be.
    """
    needed, own = patients_needed(coverage), 1 - probabilities[np.arange(len(truth)), truth].astype(np.float64)
    names = np.asarray(patients, dtype=str)
    found: list[list[float]] = []
    for number in range(len(classes)):
        here = truth == number if class_conditional else np.ones(len(truth), dtype=bool)
        found.append([float(own[here & (names == name)].max()) for name in dict.fromkeys(names[here])])
    few = [f"{classes[number]!r} has {len(scores)}" for number, scores in enumerate(found) if len(scores) < needed]
    if few:
        of = ", ".join(few) if class_conditional else f"there are {len(found[0])}"
        raise TaskError(
            f"sets that hold the true class in {coverage:.0%} of patients need {needed} calibration patients"
            f"{' of each class' if class_conditional else ''}: {of}; give split.calibrate a larger share, or lower "
            "calibrate.coverage"
        )
    quantiles = [sorted(scores)[ceil((len(scores) + 1) * coverage - 1e-9) - 1] for scores in found]
    return Conformal(tuple(quantiles), tuple(len(scores) for scores in found), coverage, class_conditional)


def coverage_band(patients: int, coverage: float, *, level: float = 0.95) -> tuple[float, float]:
    """Where the coverage of ever so many new patients lies, given so many calibration patients.

    It is Beta(n + 1 - l, l) with l = floor((n + 1) (1 - coverage)) (Vovk 2012): the luck of the calibration draw.
    """
    from scipy.stats import beta

    below = floor((patients + 1) * (1 - coverage) + 1e-9)
    if below < 1:
        return 1.0, 1.0
    low, high = beta.ppf([(1 - level) / 2, (1 + level) / 2], patients + 1 - below, below)
    return float(low), float(high)


def expected_band(patients: int, tested: int, coverage: float, *, level: float = 0.95) -> tuple[float, float]:
    """Where the share covered of `tested` new patients lies if the promise holds: beta-binomial, both lucks."""
    from scipy.stats import betabinom

    below = floor((patients + 1) * (1 - coverage) + 1e-9)
    if below < 1 or not tested:
        return (1.0, 1.0) if tested else (0.0, 1.0)
    low, high = betabinom.ppf([(1 - level) / 2, (1 + level) / 2], tested, patients + 1 - below, below)
    return float(low / tested), float(high / tested)


def patients_covered(
    sets: Bool[np.ndarray, "case class"], truth: Int[np.ndarray, "case"], patients: Sequence[str]
) -> dict[str, bool]:
    """For each patient whether the sets of all their cases hold the true class."""
    held = sets[np.arange(len(truth)), truth]
    found: dict[str, bool] = {}
    for name, one in zip(patients, held, strict=True):
        found[name] = found.get(name, True) and bool(one)
    return found


def mean_size(sets: Bool[np.ndarray, "case class"]) -> float:
    """Classes in a set, on average: 1 is a clear answer, more is doubt, less than 1 has empty sets among them."""
    sizes: Float64[np.ndarray, "case"] = sets.sum(axis=1).astype(np.float64)
    return float(sizes.mean())
