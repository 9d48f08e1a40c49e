"""What a question to a slide is: outputs a model needs, targets from labels, a loss, and an answer in plain numbers."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from wsi_mil.errors import TaskError, suggestion

_SHOWN = 5
"""How many faults a sentence lists before it only counts."""

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

    @property
    def least_bags(self) -> int:
        """Fewest bags in a step without which the loss says nothing: 1 where it is a mean over bags."""
        return 1

    @property
    def recipe(self) -> Mapping[str, float]:
        """Settings of training (lr, batch_bags) that the loss needs where a study sets none."""
        return {}

    @property
    def settles(self) -> bool:
        """Whether `settle` has anything to do."""
        return False

    def settle(self, logits: Float[np.ndarray, "bag out"], target: Shaped[Tensor, "bag ..."]) -> Task:
        """The task with what it takes from the outputs of the trained model on the fit role, such as a baseline."""
        return self

    def named(self, labels: Labels) -> Task:
        """The task with the names of its answers taken from all labelled slides, and nothing else."""
        return self

    def known(self, labels: Labels, slides: Sequence[str]) -> list[bool]:
        """Which slides have an answer that can be learnt from."""
        return [all(value_of(labels, slide, column) for column in self.columns) for slide in slides]

    def can_judge(self, target: Shaped[Tensor, "bag ..."]) -> bool:
        """Whether the loss on these bags tells a better model from a worse one."""
        return True

    @abstractmethod
    def called(self, answers: Float64[np.ndarray, "bag answer"]) -> list[str]:
        """The answer for each bag in a word."""

    @abstractmethod
    def shown(self, answer: Float64[np.ndarray, "answer"]) -> str:
        """Which of `names` a map of the bag shows where nobody says otherwise."""

    def to_json(self) -> dict[str, Any]:
        """The task as plain values, for a checkpoint."""
        fields = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {"kind": self.kind, **{name: _plain(value) for name, value in fields.items()}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Task:
        """The task back from `to_json`; TaskError for what no task wrote."""
        try:
            fields: dict[str, Any] = {key: _frozen(item) for key, item in value.items()}
            fields.pop("kind")
            return cls(**fields)
        except (TypeError, KeyError) as error:
            raise TaskError(f"a task of kind {cls.kind} cannot be read from {dict(value)!r}: {error}") from error


def value_of(labels: Labels, slide: str, column: str) -> str:
    """The text of a label, "" where missing; TaskError where the slide or the column is not there."""
    if slide not in labels:
        raise TaskError(f"slide {slide!r} has no labels; add it to the cohort table or leave it out of training")
    if column not in labels[slide]:
        raise TaskError(f"slide {slide!r} has no column {column!r}{suggestion(column, labels[slide])}")
    return labels[slide][column].strip()


def numbers_of(labels: Labels, slides: Sequence[str], column: str) -> list[float]:
    """The labels of slides as numbers; TaskError that names all which are none."""
    values = {slide: value_of(labels, slide, column) for slide in slides}
    found = {slide: number(value) for slide, value in values.items()}
    refuse(
        {slide: values[slide] for slide, one in found.items() if one is None},
        f"{column!r} is no finite number; write it with a decimal point, or leave the slide out",
    )
    return [one for slide in slides if (one := found[slide]) is not None]


def number(text: str) -> float | None:
    """A finite number, or nothing."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def refuse(faults: Mapping[str, str], what: str) -> None:
    """Raise TaskError where there are faults (slide and its label), the first few by name."""
    if faults:
        told = ", ".join(f"{slide}: {value!r}" for slide, value in list(faults.items())[:_SHOWN])
        more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise TaskError(f"slides whose {what}: {told}{more}")


def ordered(names: set[str]) -> tuple[str, ...]:
    """Sorted, as numbers where all are numbers ("2" before "10")."""
    try:
        return tuple(sorted(names, key=lambda name: (float(name), name)))
    except ValueError:
        return tuple(sorted(names))


def sigmoid(values: Float[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    """1 / (1 + exp(-x)) without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * values.astype(np.float64))))


def _plain(value: Any) -> Any:
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def _frozen(value: Any) -> Any:
    return tuple(_frozen(one) for one in value) if isinstance(value, list) else value
