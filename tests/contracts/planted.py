"""Bags whose answer is known, for the tests of methods and of training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsi_mil.evaluation import score
from wsi_mil.models import MIL, build_model
from wsi_mil.tasks import Classification
from wsi_mil.training import Bags, FitSettings, fit, predict_many

DIM = 12

Batch = tuple[Tensor, Tensor, Tensor]


def ragged(*lengths: int, dim: int = DIM, seed: int = 0) -> Batch:
    """Random tiles on distinct cells, every second cell of a square held by one, and the offsets of their bags."""
    random = torch.Generator().manual_seed(seed)
    count = sum(lengths)
    places = []
    for length in lengths:
        side = math.ceil(math.sqrt(2 * length))
        chosen = torch.randperm(side * side, generator=random)[:length]
        places.append(torch.stack([chosen % side, chosen // side], dim=1))
    cells = torch.cat(places)
    offsets = torch.tensor([0, *np.cumsum(lengths).tolist()])
    return torch.randn(count, dim, generator=random), cells, offsets


def planted(
    count: int, *, delta: float, share: float, seed: int, tiles: tuple[int, int] = (100, 300), dim: int = 32
) -> tuple[Bags, Tensor, list[np.ndarray]]:
    """Bags of noise; every second one has `share` of its tiles shifted along one axis: source, classes, witnesses."""
    random = np.random.default_rng(seed)
    bags, witnesses = [], []
    for number in range(count):
        length = int(random.integers(tiles[0], tiles[1] + 1))
        features = random.normal(size=(length, dim)).astype(np.float32)
        witness = np.zeros(length, dtype=bool)
        if number % 2:
            witness[random.choice(length, size=max(1, round(share * length)), replace=False)] = True
        features[witness, 0] += delta
        bags.append((features, np.stack([np.arange(length) % 20, np.arange(length) // 20], axis=1)))
        witnesses.append(witness)
    return Bags(bags), torch.arange(count) % 2, witnesses


def two_classes() -> Classification:
    """A fitted binary task."""
    task = Classification(classes=("no", "yes"))
    return task.fit({"a": {"label": "no"}, "b": {"label": "yes"}})


def held_out_auroc(
    name: str, options: dict[str, Any], train: tuple[Bags, Tensor], test: tuple[Bags, Tensor], *, epochs: int, seed: int
) -> tuple[float, MIL]:
    """AUROC on other bags after training for some epochs, four bags a step."""
    model = build_model(name, dim=32, n_out=2, seed=seed, **options)
    task = two_classes()
    settings = FitSettings(epochs=epochs, batch_bags=4, lr=3e-3, patience=0)
    fit_index = range(len(train[0]))
    fit(
        model, train[0], fit_index=fit_index, select_index=[], targets=train[1], task=task, settings=settings, seed=seed
    )
    logits = np.stack([answer.logits for _, answer in predict_many(model, test[0], range(len(test[0])))])
    return score("auroc", test[1].numpy(), task.predict(logits)), model
