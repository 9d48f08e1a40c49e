"""Several questions at once: their outputs side by side, their losses added, and labels that may be missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from wsi_mil.errors import TaskError
from wsi_mil.tasks.task import Labels, Task


@dataclass(frozen=True)
class Joint(Task):
    """Tasks by name, each with its weight; a slide without a label for one of them has no loss there.

    The loss is sum_k w_k (sum over the bags known to k of its loss) / bags, so that a rare label weighs by its number.
    """

    parts: tuple[tuple[str, Task, float], ...] = ()
    """Name, question and weight in the loss."""
    layout: tuple[tuple[int, bool], ...] = ()
    """Set by `fit`: for each part the columns of its targets (0: one, without an axis), and whether they are counts."""

    kind = "joint"

    @property
    def metrics(self) -> tuple[str, ...]:  # type: ignore[override]
        """Those of the parts."""
        return tuple(f"{name}: {metric}" for name, task, _ in self.parts for metric in task.metrics)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of all parts, each once."""
        return tuple(dict.fromkeys(column for _, task, _ in self.parts for column in task.columns))

    @property
    def n_out(self) -> int:
        """The outputs of all parts."""
        return sum(task.n_out for _, task, _ in self.parts)

    @property
    def names(self) -> tuple[str, ...]:
        """Each part's name before those of its answers."""
        return tuple(f"{name}_{answer}" for name, task, _ in self.parts for answer in task.names)

    @property
    def least_bags(self) -> int:
        """The most that a part needs."""
        return max(task.least_bags for _, task, _ in self.parts)

    @property
    def recipe(self) -> Mapping[str, float]:
        """The most that a part needs of each setting."""
        told: dict[str, float] = {}
        for _, task, _ in self.parts:
            told |= {name: max(value, told.get(name, value)) for name, value in task.recipe.items()}
        return told

    @property
    def settles(self) -> bool:
        """Whether a part does."""
        return any(task.settles for _, task, _ in self.parts)

    def fit(self, labels: Labels) -> Joint:
        """Fit each part to the slides that have its label."""
        if not self.parts:
            raise TaskError("a joint task has no parts; give them in task.parts")
        parts, layout = [], []
        for name, task, weight in self.parts:
            own = _known(task, labels)
            try:
                fitted = task.fit(own)
            except TaskError as error:
                raise TaskError(f"part {name!r}: {error}") from error
            one = fitted.target(own, list(own)[:1])
            parts.append((name, fitted, weight))
            layout.append((one.shape[1] if one.ndim > 1 else 0, not one.is_floating_point()))
        return dataclasses.replace(self, parts=tuple(parts), layout=tuple(layout))

    def named(self, labels: Labels) -> Joint:
        """With the names of each part's answers."""
        parts = tuple((name, task.named(_known(task, labels)), weight) for name, task, weight in self.parts)
        return dataclasses.replace(self, parts=parts)

    def known(self, labels: Labels, slides: Sequence[str]) -> list[bool]:
        """Which slides have a label for at least one part."""
        told = [task.known(labels, slides) for _, task, _ in self.parts]
        return [any(column) for column in zip(*told, strict=True)]

    def target(self, labels: Labels, slides: Sequence[str]) -> Shaped[Tensor, "slide column"]:
        """For each part whether its label is known (0 or 1), and beside it its target."""
        columns = []
        for (_, task, _), (width, _) in zip(self.parts, self.layout, strict=True):
            block = torch.zeros(len(slides), 1 + max(1, width))
            known = task.known(labels, slides)
            own = [slide for slide, is_known in zip(slides, known, strict=True) if is_known]
            rows = torch.tensor(known, dtype=torch.bool)
            block[rows, 0] = 1
            if own:
                block[rows, 1:] = task.target(labels, own).float().reshape(len(own), -1)
            columns.append(block)
        return torch.cat(columns, dim=1)

    def loss(self, logits: Float[Tensor, "bag out"], target: Shaped[Tensor, "bag column"]) -> Float[Tensor, ""]:
        """The weighted sum over parts."""
        total = logits.sum() * 0
        for (_, task, weight), own, truth, known in self._blocks(logits, target):
            if bool(known.any()):
                total = total + weight * task.loss(own[known], truth) * known.sum() / len(logits)
        return total

    def can_judge(self, target: Shaped[Tensor, "bag column"]) -> bool:
        """Whether a part can."""
        empty = target.new_zeros((len(target), self.n_out))
        return any(
            bool(known.any()) and part[1].can_judge(truth) for part, _, truth, known in self._blocks(empty, target)
        )

    def settle(self, logits: Float[np.ndarray, "bag out"], target: Shaped[Tensor, "bag column"]) -> Joint:
        """Settle each part on the slides that have its label."""
        parts = []
        for (name, task, weight), own, truth, known in self._blocks(torch.from_numpy(np.array(logits)), target.cpu()):
            parts.append((name, task.settle(own[known].numpy(), truth) if bool(known.any()) else task, weight))
        return dataclasses.replace(self, parts=tuple(parts))

    def predict(self, logits: Float[np.ndarray, "bag out"]) -> Float64[np.ndarray, "bag answer"]:
        """The answers of the parts side by side."""
        return np.concatenate([task.predict(own) for task, own in self._outputs(logits)], axis=1)

    def scores(self, contributions: Float[np.ndarray, "tile out"]) -> Float64[np.ndarray, "tile answer"]:
        """The scores of the parts side by side."""
        return np.concatenate([task.scores(own) for task, own in self._outputs(contributions)], axis=1)

    def called(self, answers: Float64[np.ndarray, "bag answer"]) -> list[str]:
        """What each part says, by its name."""
        told, place = [], 0
        for name, task, _ in self.parts:
            own = answers[:, place : place + len(task.names)]
            told.append([f"{name} {word}" for word in task.called(own)])
            place += len(task.names)
        return ["; ".join(words) for words in zip(*told, strict=True)]

    def shown(self, answer: Float64[np.ndarray, "answer"]) -> str:
        """What the first part shows."""
        name, task, _ = self.parts[0]
        return f"{name}_{task.shown(answer[: len(task.names)])}"

    def to_json(self) -> dict[str, Any]:
        """The parts, each as its own JSON."""
        parts = [[name, task.to_json(), weight] for name, task, weight in self.parts]
        return {"kind": self.kind, "parts": parts, "layout": [list(one) for one in self.layout]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Joint:
        """The task back from its JSON."""
        from wsi_mil.tasks import task_from_json

        try:
            parts = tuple((str(name), task_from_json(task), float(weight)) for name, task, weight in value["parts"])
            layout = tuple((int(width), bool(counts)) for width, counts in value["layout"])
        except (TypeError, KeyError, ValueError) as error:
            raise TaskError(f"a task of kind joint cannot be read from {dict(value)!r}: {error}") from error
        return cls(parts, layout)

    def _outputs(self, values: Float[np.ndarray, "row out"]) -> Iterator[tuple[Task, Float[np.ndarray, "row own"]]]:
        place = 0
        for _, task, _ in self.parts:
            yield task, values[:, place : place + task.n_out]
            place += task.n_out

    def _blocks(
        self, logits: Tensor, target: Tensor
    ) -> Iterator[tuple[tuple[str, Task, float], Tensor, Tensor, Tensor]]:
        """For each part: itself, its outputs for all bags, the targets of those known to it, and which those are."""
        place = column = 0
        for part, (width, counts) in zip(self.parts, self.layout, strict=True):
            known = target[:, column] > 0
            truth = target[known, column + 1 : column + 1 + max(1, width)]
            truth = truth if width else truth[:, 0]
            yield part, logits[:, place : place + part[1].n_out], truth.long() if counts else truth, known
            place += part[1].n_out
            column += 1 + max(1, width)


def _known(task: Task, labels: Labels) -> Labels:
    slides = list(labels)
    return {slide: labels[slide] for slide, known in zip(slides, task.known(labels, slides), strict=True) if known}
