"""The one forward pass that predictions and heatmaps share: a whole bag, in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Shaped
from numpy.typing import NDArray
from torch import Tensor

from wsi_mil.errors import ModelError
from wsi_mil.models import MIL, Clinical
from wsi_mil.tasks import Task
from wsi_mil.training.source import BagSource

SAME_BIAS = 1e-4
"""Rounding of float32 over 100,000 tiles, of the size of what is added."""


@dataclass(frozen=True)
class Inference:
    """What a model says of one bag, and of each of its tiles."""

    logits: Float32[np.ndarray, "out"]
    scores: Float32[np.ndarray, "tile query"]
    """Raw, before any normalisation."""
    attention: Float32[np.ndarray, "tile query"] | None
    contributions: Float32[np.ndarray, "tile out"] | None
    """They add up to the logits less `bias`, where the method allows it."""
    queries: tuple[str, ...]
    """What each column of scores and attention asks."""
    embedding: Float32[np.ndarray, "part"]
    """What the method made of the whole bag, before its head; of several queries one after the other."""
    maps: dict[str, Float32[np.ndarray, "tile column"]] = field(default_factory=dict)
    """What the method has for each tile besides (`Aggregator.tile_maps`)."""

    @property
    def bias(self) -> Float32[np.ndarray, "out"] | None:
        """What the logits would be without tiles."""
        if self.contributions is None:
            return None
        return np.asarray(self.logits - self.contributions.sum(axis=0, dtype=np.float64), dtype=np.float32)


def infer(model: MIL, features: NDArray[Any], cells: NDArray[Any], *, record: Clinical | None = None) -> Inference:
    """Read one bag whole: features [tile dim] and cells [tile 2], on the device the model is on.

    `record` has one row, for methods that read records; without it they read the tiles alone.

    Dropout and gradients are off, whatever mode the model is in; its mode is left as it was.
    ModelError for an empty bag, features of another length, or features that are not finite.
    """
    _check(model, features, cells)
    device = model.feature_mean.device
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            pooled = model(
                torch.from_numpy(np.array(features)).to(device),
                torch.from_numpy(np.array(cells, dtype=np.int64)).to(device),
                torch.tensor([0, len(features)]),
                None if record is None else Clinical(record.values.to(device), record.missing.to(device)),
            )
    finally:
        model.train(training)
    return Inference(
        logits=_numbers(pooled.logits[0]),
        scores=_numbers(pooled.scores),
        attention=None if pooled.attention is None else _numbers(pooled.attention),
        contributions=None if pooled.contributions is None else _numbers(pooled.contributions),
        queries=model.queries,
        embedding=_numbers(pooled.embedding[0].flatten()),
        maps={name: _numbers(pooled.aux[name]) for name in model.tile_maps if name in pooled.aux},
    )


def check_sum(
    model: MIL, said: Inference, features: NDArray[Any], cells: NDArray[Any], record: Clinical | None
) -> None:
    """Hold a model to its word that contributions add up: logits less their sum are the same for another bag.

    The other bag is the first tile alone, with the same record. Raises ModelError where they differ by more than
    SAME_BIAS of the largest number that is added.
    """
    if not model.exact_contributions or said.contributions is None or said.bias is None:
        return
    other = infer(model, features[:1], cells[:1], record=record).bias
    assert other is not None  # the same model
    size = max(1.0, float(np.abs(said.contributions).sum(axis=0).max()))
    worst = float(np.abs(said.bias - other).max())
    if worst > SAME_BIAS * size:
        raise ModelError(
            f"contributions of model {model.spec.name!r} do not add up: logit less sum is {said.bias.tolist()} for the "
            f"bag and {other.tolist()} for its first tile; declare exact_contributions = False"
        )


def predict_many(model: MIL, source: BagSource, index: Sequence[int]) -> Iterator[tuple[int, Inference]]:
    """Read several bags one by one: the same numbers as `infer` alone gives, whatever bags stand beside."""
    for bag in index:
        yield bag, infer(model, *source.load(bag))


def settled(
    task: Task,
    model: MIL,
    source: BagSource,
    *,
    index: Sequence[int],
    targets: Shaped[Tensor, "slide ..."],
    records: Clinical | None = None,
) -> Task:
    """The task with what it takes from the trained model's outputs for the bags it was fitted on, where it does."""
    if not task.settles:
        return task
    rows = [None if records is None else Clinical(*(part[[bag]] for part in records)) for bag in index]
    said = [infer(model, *source.load(bag), record=row) for bag, row in zip(index, rows, strict=True)]
    return task.settle(np.stack([one.logits for one in said]), targets[list(index)])


def _check(model: MIL, features: NDArray[Any], cells: NDArray[Any]) -> None:
    if len(features) == 0:
        raise ModelError("the bag is empty: a slide without tiles has no prediction; leave it out")
    if features.ndim != 2 or features.shape[1] != model.spec.dim:
        raise ModelError(
            f"the bag's features are {features.shape} and the model reads {model.spec.dim} a tile; "
            "extract with the encoder that the model was trained on"
        )
    if cells.shape != (len(features), 2):
        raise ModelError(
            f"the bag has {len(features)} tiles and cells {cells.shape}; each tile needs a column and a row"
        )
    if not np.isfinite(features).all():
        tile = int(np.argwhere(~np.isfinite(features))[0][0])
        raise ModelError(f"features of tile {tile} are not finite; extract the slide again")


def _numbers(values: Tensor) -> Float32[np.ndarray, "..."]:
    return np.asarray(values.float().cpu().numpy())
