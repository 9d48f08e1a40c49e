"""Judging predicted survival: concordance, Brier score and ROC under censoring, Kaplan-Meier curves, log-rank test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Shaped

from wsi_mil.evaluation.intervals import Statistic
from wsi_mil.evaluation.metrics import Draws, Values, binary_auroc

Times = Float[np.ndarray, "case"]
Events = Bool[np.ndarray, "case"]


@dataclass(frozen=True)
class SurvivalCurve:
    """Kaplan-Meier estimate, a step at each time; 95 % band by Greenwood's formula on the log-log scale."""

    times: Float64[np.ndarray, "step"]
    """0 and the distinct times."""
    survival: Float64[np.ndarray, "step"]
    low: Float64[np.ndarray, "step"]
    high: Float64[np.ndarray, "step"]
    at_risk: Float64[np.ndarray, "step"]
    """Cases that were still there just before each time."""


def survival_measures(
    times: Times,
    events: Events,
    risk: Float[np.ndarray, "case"],
    survival: Float[np.ndarray, "case horizon"],
    horizons: Sequence[float],
) -> dict[str, Statistic]:
    """The measures of a survival model by name: c_index, and with horizons integrated_brier and an AUC for each."""
    found: dict[str, Statistic] = {"c_index": lambda weights: c_index(times, events, risk, weights)}
    if len(horizons):
        found["integrated_brier"] = lambda weights: integrated_brier(times, events, survival, horizons, weights)
    for number, horizon in enumerate(horizons):
        own = survival[:, number]

        def at(weights: Draws, horizon: float = horizon, own: Float[np.ndarray, "case"] = own) -> Values:
            return auc_at(times, events, -own, horizon, weights)

        found[f"auc_at_{horizon:g}"] = at
    return found


def c_index(times: Times, events: Events, risk: Float[np.ndarray, "case"], weights: Draws) -> Values:
    """Share of comparable pairs in which the one with the earlier event has the higher risk, ties counting half.

    Comparable: the earlier time is an event; at equal times, one of the two is an event and the other is not (Harrell
    et al., J. Am. Med. Assoc. 1982). NaN without such pairs.
    """
    first = events[:, None] & ((times[:, None] < times) | ((times[:, None] == times) & ~events))
    wins = first * ((risk[:, None] > risk) + 0.5 * (risk[:, None] == risk))
    top = ((weights @ wins) * weights).sum(axis=1)
    bottom = ((weights @ first.astype(np.float64)) * weights).sum(axis=1)
    return np.asarray(np.divide(top, bottom, out=np.full(len(weights), np.nan), where=bottom > 0))


def brier_at(
    times: Times, events: Events, survival: Float[np.ndarray, "case"], horizon: float, weights: Draws
) -> Values:
    """Mean squared error of survival at a time, each case weighed by the inverse chance of being uncensored there.

    Graf et al., Statistics in Medicine 1999: S^2 / G(T-) for who had the event by then, (1 - S)^2 / G(t) for who was
    still free of it, 0 for who was censored before; G is the Kaplan-Meier estimate of censoring on the same cases.
    """
    died, alive, shares = _seen(times, events, horizon, weights)
    errors = np.where(died, survival**2, (1 - survival) ** 2) * (died | alive)
    return np.asarray((weights * errors / shares).sum(axis=1) / weights.sum(axis=1))


def integrated_brier(
    times: Times,
    events: Events,
    survival: Float[np.ndarray, "case horizon"],
    horizons: Sequence[float],
    weights: Draws,
) -> Values:
    """Mean of `brier_at` from the first horizon to the last (trapezoids); of one horizon, the score there."""
    scores = np.stack(
        [brier_at(times, events, survival[:, number], time, weights) for number, time in enumerate(horizons)]
    )
    if len(horizons) == 1:
        return np.asarray(scores[0])
    return np.asarray(np.trapezoid(scores, np.asarray(horizons), axis=0) / (horizons[-1] - horizons[0]))


def auc_at(times: Times, events: Events, risk: Float[np.ndarray, "case"], horizon: float, weights: Draws) -> Values:
    """Chance that who has the event by a time has a higher risk than who is free of it then (cumulative, dynamic).

    Cases are weighed by the inverse chance of being uncensored (Uno et al., J. Am. Stat. Assoc. 2007). NaN where
    nobody has had the event, or nobody is left.
    """
    died, alive, shares = _seen(times, events, horizon, weights)
    return binary_auroc(died, risk, np.where(died | alive, weights / shares, 0.0))


def kaplan_meier(times: Times, events: Events) -> SurvivalCurve:
    """Share that is free of the event at each time, with the log-log band (lifelines)."""
    from lifelines import KaplanMeierFitter

    fitted = KaplanMeierFitter().fit(times, events)
    survival = fitted.survival_function_.to_numpy()[:, 0]
    band = fitted.confidence_interval_.to_numpy()
    # Where all or nobody lives the band is not defined.
    low, high = (np.where(np.isfinite(bound), bound, survival) for bound in band.T)
    at_risk = fitted.event_table["at_risk"].to_numpy(np.float64)
    return SurvivalCurve(fitted.timeline.astype(np.float64), survival, low, high, at_risk)


def log_rank(times: Times, events: Events, groups: Shaped[np.ndarray, "case"]) -> float:
    """p-value that several groups have one survival curve (lifelines); NaN with one group or no event."""
    if len(np.unique(groups)) < 2 or not events.any():
        return float("nan")
    from lifelines.statistics import multivariate_logrank_test

    return float(multivariate_logrank_test(times, groups, events).p_value)


def _seen(
    times: Times, events: Events, horizon: float, weights: Draws
) -> tuple[Bool[np.ndarray, "case"], Bool[np.ndarray, "case"], Float64[np.ndarray, "draw case"]]:
    """Who had the event by a time, who was free of it, and each case's chance of being uncensored where it counts."""
    died, alive = events & (times <= horizon), times > horizon
    shares = _uncensored(times, events, np.where(died, times, horizon), died, weights)
    return died, alive, np.where(died | alive, shares, 1.0)


def _uncensored(
    times: Times,
    events: Events,
    at: Float[np.ndarray, "case"],
    before: Bool[np.ndarray, "case"],
    weights: Draws,
) -> Float64[np.ndarray, "draw case"]:
    """Kaplan-Meier estimate of not being censored, in each resample, at or just before a time of each case.

    At equal times events come before censoring: who died at a time cannot be censored at it.
    """
    steps = np.unique(times[~events])
    if not len(steps):
        return np.ones_like(weights)
    leaving = weights @ ((times[:, None] == steps) & ~events[:, None]).astype(np.float64)
    there = weights @ ((times[:, None] > steps) | ((times[:, None] == steps) & ~events[:, None])).astype(np.float64)
    staying = 1 - np.divide(leaving, there, out=np.zeros_like(there), where=there > 0)
    curve = np.concatenate([np.ones((len(weights), 1)), staying.cumprod(axis=1)], axis=1)
    place = np.where(before, np.searchsorted(steps, at, side="left"), np.searchsorted(steps, at, side="right"))
    shares = curve[:, place]
    # Nobody uncensored is left there: no weight can stand for those who are not seen.
    return np.where(shares > 0, shares, np.nan)
