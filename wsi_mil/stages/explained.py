"""The maps of one model: what it says of each tile, by every method a study asks for, a column for each channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_mil import models, tasks, training
from wsi_mil.errors import StageError
from wsi_mil.stages.trained import Answer, Question

Method = Literal[
    "contribution",
    "attention",
    "alone",
    "novelty",
    "occlusion",
    "integrated_gradients",
    "gradient_input",
    "rollout",
    "graphcam",
]
"""Everything that `heatmap.methods` may name."""

SAME_PREDICTION = 1e-6
"""Largest difference between the prediction in the table and the one behind the map."""

SIGNED = ("contribution", "occlusion", "integrated gradients", "gradient x input")
"""Kinds of numbers that speak for what they name above zero, and against it below."""

_KINDS = {
    "alone": "answer on the tile alone",
    "occlusion": "occlusion",
    "integrated_gradients": "integrated gradients",
    "gradient_input": "gradient x input",
    "rollout": "rollout",
    "graphcam": "GraphCAM",
}


@dataclass(frozen=True)
class Explained:
    """The channels of one model for all tiles that it read together: those of a slide, or of a patient's slides."""

    answer: Answer
    columns: dict[str, NDArray[Any]]
    """tile, by channel."""
    kinds: dict[str, str]
    here: slice
    """Which of the tiles are those of the slide."""

    def matrix(self) -> NDArray[np.float32]:
        """tile channel."""
        return np.stack(list(self.columns.values()), axis=1).astype(np.float32)


def explain(asked: Question, methods: tuple[Method, ...]) -> Explained:
    """Answer and draw in one go: the contributions and the attention are those of the very pass that answers.

    Methods that the model has not are left out. Raises ModelError where contributions do not add up as declared.
    """
    model, task = asked.checkpoint.model, asked.checkpoint.task
    whole = asked.infer()
    training.check_sum(model, whole, asked.features, asked.cells, asked.record)
    columns, kinds = _own(whole, model, task, methods)
    for method in methods:
        if method in get_args(models.Attribution) and models.can(method, model):
            found = _named(method, _attributed(method, asked), task)
            columns |= found
            kinds |= dict.fromkeys(found, _KINDS[method])
    if "novelty" in methods and bool(model.feature_limit.isfinite()):
        columns["novelty"], kinds["novelty"] = novelty(model, asked.features), "novelty"
    return Explained(asked.answer(whole), columns, kinds, asked.here)


def check_same(told: Sequence[Explained], row: pd.Series, *, slide: str, of: str) -> None:
    """That the mean answer of some models is their row of the table. Raises StageError, which names `of`, if not."""
    names = told[0].answer.names
    means = np.mean([one.answer.values for one in told], axis=0)
    worst = float(np.abs(means - np.array([row[f"p_{name}"] for name in names], dtype=float)).max())
    if worst > SAME_PREDICTION:
        raise StageError(
            f"the map of slide {slide!r} would not belong to its prediction: {of} now differs from the table by "
            f"{worst:.2g}; run predict again"
        )


def novelty(model: models.MIL, features: NDArray[Any]) -> NDArray[np.float64]:
    """How far each tile lies from those that the model learnt from, in their spreads: sqrt(mean_j z_kj^2).

    z are the features less the mean of the fit role's tiles, divided by their spread: Mahalanobis's distance with a
    diagonal covariance, 1 on average in the fit role. It says what is unlike the training tiles (pen, blood, another
    organ), not what the model got wrong.
    """
    mean, scale = (one.cpu().numpy().astype(np.float64) for one in (model.feature_mean, model.feature_scale))
    return np.asarray(np.sqrt((((features - mean) / scale) ** 2).mean(axis=1)), dtype=np.float64)


def _own(
    whole: training.Inference, model: models.MIL, task: tasks.Task, methods: tuple[Method, ...]
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """What the forward pass itself has of the tiles."""
    columns: dict[str, NDArray[Any]] = {}
    kinds: dict[str, str] = {}

    def put(kind: str, found: dict[str, NDArray[Any]]) -> None:
        columns.update(found)
        kinds.update(dict.fromkeys(found, kind))

    single = len(whole.queries) == 1
    for number, query in enumerate(whole.queries if "attention" in methods else ()):
        mark = "" if single else f"_{query}"
        put("raw score", {f"attention_logit{mark}": whole.scores[:, number]})
        if whole.attention is not None:
            put("attention", {f"attention{mark}": whole.attention[:, number]})
    if "contribution" in methods and whole.contributions is not None:
        put("contribution", _named("contribution", task.scores(whole.contributions), task))
    for name, values in whole.maps.items():
        kind = model.tile_maps[name]
        if kind == "contribution" and "contribution" in methods:
            put(kind, _named(name, task.scores(values), task))
        elif kind != "contribution" and "attention" in methods:
            put(kind, _named(name, values, task))
    return columns, kinds


def _attributed(method: str, asked: Question) -> NDArray[Any]:
    """tile column: the map of a method, those of logits on the axes of the task's answers."""
    import torch

    model, task = asked.checkpoint.model, asked.checkpoint.task
    features = torch.from_numpy(np.asarray(asked.features, dtype=np.float32))
    model.eval()
    found = models.attribute(method, model, features, torch.from_numpy(np.asarray(asked.cells)), asked.record)
    numbers = np.asarray(found.float().cpu().numpy())
    if method == "alone":
        return task.predict(numbers)
    return numbers.astype(np.float64) if method in ("rollout", "graphcam") else task.scores(numbers)


def _named(name: str, values: NDArray[Any], task: tasks.Task) -> dict[str, NDArray[Any]]:
    """Columns by name: of one column the name alone, else with the answers, or numbered where they are no answers."""
    if values.shape[1] == 1 and task.n_out > 1:
        return {name: values[:, 0].astype(np.float64)}
    answers = task.names if values.shape[1] == len(task.names) else range(values.shape[1])
    return {f"{name}_{answer}": values[:, number].astype(np.float64) for number, answer in enumerate(answers)}
