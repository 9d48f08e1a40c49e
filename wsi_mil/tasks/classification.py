"""Binary and multi-class classification: one logit a class, also for two classes."""

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

from wsi_mil.errors import TaskError, suggestion
from wsi_mil.tasks.task import Labels, Task, ordered, refuse, value_of

FOCUS = 2.0
"""gamma of the focal loss, as published (Lin et al., ICCV 2017)."""

SYMMETRIC = (0.5, 1.0, 4.0)
"""alpha, beta and -A of the symmetric loss: within the published .1 to 1 of alpha (Wang et al., ICCV 2019)."""


@dataclass(frozen=True)
class Classification(Task):
    """One class a slide. Cross-entropy over C logits, also for C = 2.

    Two logits beat one sigmoid with attention MIL on small cohorts (AUC .914 against .858 at 50 training bags; Shi et
    al., Loss-based attention, AAAI 2020). Of two classes the last is the positive one.
    """

    label: str = "label"
    """Column of the cohort table."""
    classes: tuple[str, ...] = ()
    """In order; empty: those found by `fit`, sorted, by value where all are numbers."""
    positive: str = ""
    """Class that `fit` puts last."""
    class_weights: Literal["none", "balanced"] = "none"
    """"balanced" weighs each class by 1 / its share among the training slides, for rare classes."""
    objective: Literal["cross_entropy", "focal", "symmetric"] = "cross_entropy"
    """"focal" lets what is right already count little; "symmetric" bears some wrong labels."""
    weights: tuple[float, ...] = ()
    """Set by `fit`: weight of each class in the loss."""

    kind = "classification"
    metrics = (
        "auroc",
        "average_precision",
        "balanced_accuracy",
        "accuracy",
        "f1",
        "brier",
        "log_loss",
    )

    @property
    def columns(self) -> tuple[str, ...]:
        """The label column."""
        return (self.label,)

    @property
    def n_out(self) -> int:
        """Number of classes."""
        return len(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes in order."""
        if not self.classes:
            raise TaskError(f"the classes of {self.label!r} are not known before fit; fit the task or give the classes")
        return self.classes

    def fit(self, labels: Labels) -> Classification:
        """Take classes (where not given) and class weights from the labels of the training slides."""
        values = [value_of(labels, slide, self.label) for slide in labels]
        found = [value for value in values if value]
        classes = _last(self.classes or ordered(set(found)), self.positive)
        if self.positive and self.positive not in classes:
            raise TaskError(
                f"positive class {self.positive!r} is not in {self.label!r}{suggestion(self.positive, classes)}"
            )
        if len(classes) < 2:
            raise TaskError(
                f"all training slides have the same {self.label!r}, {list(classes)}; a classifier needs two classes"
            )
        fitted = dataclasses.replace(self, classes=classes)
        counts = torch.bincount(fitted.target(labels, list(labels)), minlength=len(classes))
        if not bool(counts.all()):
            lacking = [name for name, count in zip(classes, counts.tolist(), strict=True) if not count]
            raise TaskError(
                f"no training slide has {self.label!r} = {lacking}; drop the class, or give it more patients than folds"
            )
        if self.class_weights == "none":
            return fitted
        shares = counts * len(classes) / counts.sum()
        return dataclasses.replace(fitted, weights=tuple((1 / shares).tolist()))

    def named(self, labels: Labels) -> Classification:
        """With the classes of all labelled slides."""
        return self if self.classes else dataclasses.replace(self, classes=self.fit(labels).names)

    def target(self, labels: Labels, slides: Sequence[str]) -> Shaped[Tensor, "slide"]:
        """Index of each slide's class."""
        order = {name: index for index, name in enumerate(self.names)}
        values = {slide: value_of(labels, slide, self.label) for slide in slides}
        refuse(
            {slide: value for slide, value in values.items() if value not in order},
            f"{self.label!r} is none of {list(self.names)}; correct the table or list the class",
        )
        return torch.tensor([order[values[slide]] for slide in slides], dtype=torch.int64)

    def loss(self, logits: Float[Tensor, "bag out"], target: Shaped[Tensor, "bag"]) -> Float[Tensor, ""]:
        """Cross-entropy, each bag times its class's weight; divided by the number of bags, not by the weights.

        Division by the weights would make them vanish at one bag a step. Focal: (1 - p_y)^2 (-log p_y). Symmetric:
        alpha CE + beta (-A) (1 - p_y), where the second term is bounded, so that a wrong label pulls only so far.
        """
        losses = functional.cross_entropy(logits, target, reduction="none")
        if self.objective == "focal":
            losses = (1 - (-losses).exp()) ** FOCUS * losses
        elif self.objective == "symmetric":
            alpha, beta, bound = SYMMETRIC
            losses = alpha * losses + beta * bound * (1 - (-losses).exp())
        if self.weights:
            losses = losses * logits.new_tensor(self.weights)[target]
        return losses.mean()

    def predict(self, logits: Float[np.ndarray, "bag out"]) -> Float64[np.ndarray, "bag answer"]:
        """Probability of each class."""
        exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))

    def scores(self, contributions: Float[np.ndarray, "tile out"]) -> Float64[np.ndarray, "tile answer"]:
        """Contribution to each class against the mean of all classes: adding a number to all logits says nothing."""
        values = contributions.astype(np.float64)
        return np.asarray(values - values.mean(axis=1, keepdims=True))

    def called(self, answers: Float64[np.ndarray, "bag answer"]) -> list[str]:
        """The most probable class."""
        return [self.names[index] for index in answers.argmax(axis=1)]

    def shown(self, answer: Float64[np.ndarray, "answer"]) -> str:
        """The positive one of two classes; of more, the predicted one."""
        return self.names[-1 if len(self.names) == 2 else int(answer.argmax())]


def _last(names: tuple[str, ...], last: str) -> tuple[str, ...]:
    """The names with one of them moved to the end."""
    return tuple(sorted(names, key=lambda name: name == last))
