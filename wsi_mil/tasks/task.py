"""What a question to a slide is: outputs a model needs, targets from labels, a loss, and an answer in plain numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

Labels = Mapping[str, Mapping[str, str]]
"""Slide id to its row of the cohort table: label column to value, always text, "" where missing."""


class Task(ABC):
    """A question. As configured it knows its columns; `fit` gives the same question with what the labels must teach."""

    kind: str
    """Name in TASKS."""
    metrics: tuple[str, ...]
    """Names of the metrics that suit the answer, the one to look at first in front."""

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Label columns of the cohort table that the task reads."""

    @property
    @abstractmethod
    def n_out(self) -> int:
        """Outputs a model needs; TaskError before `fit`."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """What each column of `predict` is, such as the classes."""

    @abstractmethod
    def fit(self, labels: Labels) -> Task:
        """The task with its classes, bins and weights taken from the slides of the training roles, and no others."""

    @abstractmethod
    def target(self, labels: Labels, slides: Sequence[str]) -> Shaped[Tensor, "slide ..."]:
        """What `loss` compares with, one row a slide. TaskError names every slide whose label does not fit."""

    @abstractmethod
    def loss(self, logits: Float[Tensor, "bag out"], target: Shaped[Tensor, "bag ..."]) -> Float[Tensor, ""]:
        """Mean loss of some bags."""

    @abstractmethod
    def predict(self, logits: Float[np.ndarray, "bag out"]) -> Float64[np.ndarray, "bag answer"]:
        """The answer for each bag, one column for each of `names`."""

    @abstractmethod
    def scores(self, contributions: Float[np.ndarray, "tile out"]) -> Float64[np.ndarray, "tile answer"]:
        """What tiles speak for, one column for each of `names`: contributions to logits on the answer's own axes."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The task as plain values, for a checkpoint."""

    @classmethod
    @abstractmethod
    def from_json(cls, value: Mapping[str, Any]) -> Task:
        """The task back from `to_json`; TaskError for what no task wrote."""
