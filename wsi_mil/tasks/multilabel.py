"""Several yes-or-no questions at once: one logit a column, and missing labels that take no part."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor
from torch.nn import functional

from wsi_mil.errors import TaskError
from wsi_mil.tasks.task import Labels, Task, number, refuse, sigmoid, value_of

FOCUS = 2.0
"""gamma of the focal loss, as published (Lin et al., ICCV 2017)."""


@dataclass(frozen=True)
class Multilabel(Task):
    """Columns of 0 and 1, none of which excludes another; an empty cell is unknown and has no loss."""

    labels: tuple[str, ...] = ()
    """Columns of the cohort table."""
    class_weights: Literal["none", "balanced"] = "none"
    """"balanced" weighs yes and no of each column by 1 / their share among its known labels."""
    objective: Literal["cross_entropy", "focal"] = "cross_entropy"
    """"focal" lets what is right already count little."""
    shares: tuple[float, ...] = ()
    """Set by `fit`: share of yes among the known labels of each column."""

    kind = "multilabel"
    metrics = ("mean_auroc", "mean_average_precision", "mean_brier")

    @property
    def columns(self) -> tuple[str, ...]:
        """The label columns."""
        return self.labels

    @property
    def n_out(self) -> int:
        """Number of columns."""
        return len(self.labels)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""
        return self.labels

    def fit(self, labels: Labels) -> Multilabel:
        """Take the share of yes of each column from the labels of the training slides."""
        if not self.labels:
            raise TaskError("a multilabel task has no columns; name them in task.labels")
        target = self.target(labels, list(labels))
        shares = [column[~column.isnan()].mean().item() for column in target.T]
        same = [name for name, share in zip(self.labels, shares, strict=True) if not 0 < share < 1]
        if same:
            raise TaskError(
                f"the training slides do not have both 0 and 1 in {same}; leave the column out, or give it more "
                "patients of the rarer kind than folds"
            )
        return dataclasses.replace(self, shares=tuple(shares))

    def known(self, labels: Labels, slides: Sequence[str]) -> list[bool]:
        """Which slides have a label in at least one column."""
        return [any(value_of(labels, slide, column) for column in self.labels) for slide in slides]

    def target(self, labels: Labels, slides: Sequence[str]) -> Shaped[Tensor, "slide label"]:
        """0, 1, or NaN where the label is missing."""
        columns = []
        for name in self.labels:
            values = {slide: value_of(labels, slide, name) for slide in slides}
            strange = {slide: value for slide, value in values.items() if value and number(value) not in (0.0, 1.0)}
            refuse(strange, f"{name!r} is neither 0 nor 1; leave the cell empty where it is unknown")
            columns.append([float(values[slide] or "nan") for slide in slides])
        return torch.tensor(columns, dtype=torch.float32).reshape(len(self.labels), len(slides)).T.contiguous()

    def loss(self, logits: Float[Tensor, "bag out"], target: Shaped[Tensor, "bag ..."]) -> Float[Tensor, ""]:
        """Mean over bags of the mean binary cross-entropy over the labels known of the bag."""
        known = ~target.isnan()
        truth = target.nan_to_num()
        losses = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        if self.objective == "focal":
            losses = (1 - (-losses).exp()) ** FOCUS * losses
        if self.class_weights == "balanced":
            yes = logits.new_tensor(self.shares)
            losses = losses * torch.where(truth > 0, 0.5 / yes, 0.5 / (1 - yes))
        return ((losses * known).sum(1) / known.sum(1).clamp_min(1)).mean()

    def predict(self, logits: Float[np.ndarray, "bag out"]) -> Float64[np.ndarray, "bag answer"]:
        """Probability of yes in each column."""
        return sigmoid(logits)

    def scores(self, contributions: Float[np.ndarray, "tile out"]) -> Float64[np.ndarray, "tile answer"]:
        """Contribution to the log-odds of each column."""
        return contributions.astype(np.float64)

    def called(self, answers: Float64[np.ndarray, "bag answer"]) -> list[str]:
        """The columns whose yes is more probable than no, or "none"."""
        return ["+".join(np.array(self.names)[row >= 0.5]) or "none" for row in answers]

    def shown(self, answer: Float64[np.ndarray, "answer"]) -> str:
        """The most probable column."""
        return self.names[int(answer.argmax())]
