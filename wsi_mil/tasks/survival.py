"""Time to an event, which for some had not come when they were last seen: a risk, and survival at stated times."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Shaped
from torch import Tensor
from torch.nn import functional

from wsi_mil.errors import TaskError
from wsi_mil.tasks.task import Labels, Task, numbers_of, refuse

COX_BAGS = 16
"""Bags in a step of the Cox loss: some ten comparisons for each event at the usual share of events, in memory still."""


@dataclass(frozen=True)
class Survival(Task):
    """Two columns: the time of the event or of the last visit, and whether it was the event (1) or not (0).

    Cox: one output, the log hazard; the loss is Cox's partial likelihood within the bags of a step, with Efron's
    ties. It compares patients, so that a step needs several. Discrete: one output a bin of time, the log-odds of the
    event in it for those who reach it; every bag has a loss of its own (Gensheimer & Narasimhan, PeerJ 2019).
    """

    time: str = "time"
    """Column with the time, in any unit, from the same start for all."""
    event: str = "event"
    """Column with 1 for the event and 0 for the last visit without it."""
    objective: Literal["cox", "discrete"] = "cox"
    """Loss and outputs."""
    bins: int = 4
    """Bins of time for "discrete", each with about as many training events; fewer where there are few events."""
    horizons: tuple[float, ...] = ()
    """Times at which survival is predicted, in the unit of `time`; without any the answer is the risk alone."""
    cuts: tuple[float, ...] = ()
    """Set by `fit`: where bins begin, from 0 on, and the greatest time of the training fold at the end."""
    centre: float = 0.0
    """Set by `settle`: mean risk of the fit role, which is risk 0."""
    baseline: tuple[float, ...] = ()
    """Set by `settle`, for "cox": Breslow's cumulative hazard at the horizons for risk 0."""

    kind = "survival"
    metrics = ("c_index", "integrated_brier")

    @property
    def columns(self) -> tuple[str, ...]:
        """Time and event."""
        return (self.time, self.event)

    @property
    def n_out(self) -> int:
        """One for Cox, the number of bins for discrete time."""
        if self.objective == "cox":
            return 1
        if not self.cuts:
            raise TaskError("the bins of time are not known before fit; fit the task")
        return len(self.cuts) - 1

    @property
    def names(self) -> tuple[str, ...]:
        """Survival at each horizon, and the risk."""
        return (*(f"survival_{horizon:g}" for horizon in self.horizons), "risk")

    @property
    def least_bags(self) -> int:
        """Two for Cox: a bag alone is at no greater risk than anybody."""
        return 2 if self.objective == "cox" else 1

    @property
    def recipe(self) -> Mapping[str, float]:
        """For Cox several bags, so that most events have somebody to be compared with, and as much larger steps."""
        return {"batch_bags": COX_BAGS, "lr": 1e-3} if self.objective == "cox" else {}

    @property
    def settles(self) -> bool:
        """Always: the risk is told against the mean of the fit role."""
        return True

    def fit(self, labels: Labels) -> Survival:
        """Take the bins from the events of the training slides; TaskError where there is none."""
        times, events = self._read(labels, list(labels))
        own = times[events]
        if not len(own):
            raise TaskError(
                f"all {len(times)} training slides are censored ({self.event!r} is 0): nothing can be learnt from them"
            )
        if np.ptp(times) == 0:
            raise TaskError(f"all training slides have the same {self.time!r} ({times[0]:g}): no two can be compared")
        inner = np.quantile(own, np.linspace(0, 1, min(self.bins, len(own)) + 1)[1:-1])
        last = float(times.max())
        inner = np.unique(inner[(inner > 0) & (inner < last)])
        return dataclasses.replace(self, cuts=(0.0, *inner.tolist(), last))

    def target(self, labels: Labels, slides: Sequence[str]) -> Shaped[Tensor, "slide 2"]:
        """Cox: time and event. Discrete: bins that were survived, and event.

        Who was last seen after the middle of a bin counts as having survived it.
        """
        times, events = self._read(labels, slides)
        if self.objective == "discrete":
            cuts = np.array(self.cuts)
            # A cut belongs to the bin that begins there; what lies at or beyond the last is in the last bin.
            place = np.clip(np.searchsorted(cuts, times, side="right") - 1, 0, len(cuts) - 2)
            past = times > (cuts[place] + cuts[place + 1]) / 2
            times = place + (past & ~events)
        return torch.from_numpy(np.stack([times, events], axis=1).astype(np.float32))

    def loss(self, logits: Float[Tensor, "bag out"], target: Shaped[Tensor, "bag 2"]) -> Float[Tensor, ""]:
        """Minus the log likelihood over the number of bags: Cox's partial one, or that of the hazards."""
        times, events = target[:, 0], target[:, 1] > 0
        if self.objective == "cox":
            return cox_loss(logits[:, 0], times, events)
        place = torch.arange(logits.shape[1], device=logits.device)
        survived = (functional.softplus(logits) * (place < times[:, None])).sum(1)
        died = (functional.softplus(-logits) * ((place == times[:, None]) & events[:, None])).sum(1)
        return (survived + died).mean()

    def can_judge(self, target: Shaped[Tensor, "bag 2"]) -> bool:
        """For Cox: whether some event has anybody to be compared with."""
        times, events = target[:, 0], target[:, 1] > 0
        if self.objective != "cox":
            return len(target) > 0
        return bool(((times[None] > times[:, None]) & events[:, None]).any())

    def settle(self, logits: Float[np.ndarray, "bag out"], target: Shaped[Tensor, "bag 2"]) -> Survival:
        """Take the mean risk and, for Cox, Breslow's baseline hazard from the fit role."""
        centre = float(self._risk(logits).mean())
        if self.objective != "cox":
            return dataclasses.replace(self, centre=centre)
        times, events = target[:, 0].cpu().numpy().astype(np.float64), target[:, 1].cpu().numpy() > 0
        hazards = np.exp(np.clip(logits[:, 0].astype(np.float64) - centre, -500, 500))
        steps = [1 / hazards[times >= time].sum() for time in times[events]]
        baseline = [float(np.sum(steps, where=times[events] <= horizon)) for horizon in self.horizons]
        return dataclasses.replace(self, centre=centre, baseline=tuple(baseline))

    def predict(self, logits: Float[np.ndarray, "bag out"]) -> Float64[np.ndarray, "bag answer"]:
        """Probability of being free of the event at each horizon, and the risk (higher is worse, 0 the mean).

        The risk is the log hazard for Cox, and for discrete time minus the mean survival over the bins.
        """
        risk = self._risk(logits) - self.centre
        if self.objective == "cox":
            if len(self.baseline) != len(self.horizons):
                raise TaskError("the baseline hazard is not known before settle; train the model first")
            survival = np.exp(-np.array(self.baseline) * np.exp(np.clip(risk, -500, 500))[:, None])
        else:
            # Within a bin the hazard is constant: the log of survival is a line. Beyond the last bin it stays.
            logs = np.concatenate([np.zeros((len(logits), 1)), _log_survival(logits)], axis=1)
            survival = np.exp([np.interp(self.horizons, self.cuts, row) for row in logs]).reshape(len(logits), -1)
        return np.concatenate([survival, risk[:, None]], axis=1)

    def scores(self, contributions: Float[np.ndarray, "tile out"]) -> Float64[np.ndarray, "tile answer"]:
        """What each tile adds to the log hazard, or to the sum of the bins' log-odds; for survival less of it."""
        worse = contributions.astype(np.float64).sum(axis=1, keepdims=True)
        return np.asarray(worse * np.array([*[-1.0] * len(self.horizons), 1.0]))

    def called(self, answers: Float64[np.ndarray, "bag answer"]) -> list[str]:
        """high or low: the risk against the mean of the fit role."""
        return ["high" if risk > 0 else "low" for risk in answers[:, -1]]

    def shown(self, answer: Float64[np.ndarray, "answer"]) -> str:
        """The risk."""
        return "risk"

    def _risk(self, logits: Float[np.ndarray, "bag out"]) -> Float64[np.ndarray, "bag"]:
        if self.objective == "cox":
            return logits[:, 0].astype(np.float64)
        return np.asarray(-np.exp(_log_survival(logits)).mean(axis=1))

    def _read(
        self, labels: Labels, slides: Sequence[str]
    ) -> tuple[Float64[np.ndarray, "slide"], Bool[np.ndarray, "slide"]]:
        times = dict(zip(slides, numbers_of(labels, slides, self.time), strict=True))
        events = dict(zip(slides, numbers_of(labels, slides, self.event), strict=True))
        refuse({one: f"{value:g}" for one, value in times.items() if value < 0}, f"{self.time!r} is negative")
        refuse(
            {one: f"{value:g}" for one, value in events.items() if value not in (0.0, 1.0)},
            f"{self.event!r} is neither 1 (the event) nor 0 (last seen without it)",
        )
        order = list(slides)
        return np.array([times[one] for one in order]), np.array([events[one] == 1 for one in order], dtype=bool)


def cox_loss(risk: Float[Tensor, "bag"], times: Float[Tensor, "bag"], events: Bool[Tensor, "bag"]) -> Float[Tensor, ""]:
    """Minus Cox's log partial likelihood over the number of bags, Efron's ties (J. Am. Stat. Assoc. 1977).

    For m events at one time, the l-th (from 0) is compared with R - l / m E, where R sums the hazards of all who were
    still at risk and E those of the m. 0 where there is no event.
    """
    if not bool(events.any()):
        return risk.sum() * 0
    own = times[events]
    together = own[None] == own[:, None]
    share = (together.tril(-1).sum(1) / together.sum(1)).to(risk.dtype)
    least = float("-inf")
    at_risk = risk[None].masked_fill(times[None] < own[:, None], least).logsumexp(1)
    dying = risk[events][None].masked_fill(~together, least).logsumexp(1)
    ties = torch.log1p(-share * (dying - at_risk).clamp_max(0).exp())
    return (at_risk + ties - risk[events]).sum() / len(risk)


def _log_survival(logits: Float[np.ndarray, "bag bin"]) -> Float64[np.ndarray, "bag bin"]:
    """Log of the probability of surviving each bin and all before it."""
    return np.asarray(-np.logaddexp(0, logits.astype(np.float64)).cumsum(axis=1))
