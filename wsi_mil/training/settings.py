"""How a model is fitted, without torch: the fields of a configuration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from wsi_mil.errors import ModelError


@dataclass(frozen=True)
class FitSettings:
    """How a model is fitted. The defaults suit cohorts of some dozens to some hundreds of slides."""

    epochs: int = 50
    """Passes over the training slides."""
    patience: int = 15
    """Epochs without a better validation loss before training stops; 0: never."""
    lr: float = 1e-4
    """Learning rate at its highest. On three cohorts twice as much cost 1 to 2 points of AUROC and calibration too."""
    warmup: float = 0.1
    """Share of all steps over which the learning rate rises; after them it falls as a cosine."""
    weight_decay: float = 1e-4
    """Of AdamW."""
    batch_bags: int = 1
    """Slides in a step."""
    tiles_per_bag: int = 0
    """Tiles drawn anew from each slide in each epoch; 0: all of them. Validation always reads all."""
    clip: float = 5.0
    """Largest norm of the gradient; 0: no limit."""
    standardise: bool = True
    """Bring each feature to mean 0 and spread 1 over the tiles of the fit role."""
    average: float = 0.0
    """Decay a step of a running mean of the weights, which is then validated and kept; 0: none, .99 suits most."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward pass; weights, softmax and losses stay in fp32."""

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_bags", 1), ("patience", 0), ("tiles_per_bag", 0), ("clip", 0)):
            if getattr(self, name) < least:
                raise ModelError(f"training: {name} is {getattr(self, name)}; it must be {least} or more")
        if not 0 <= self.average < 1:
            raise ModelError(f"training: average is {self.average}; it must be 0 or more and below 1")
        if not 0 < self.lr < 1 or not 0 <= self.warmup < 1 or self.weight_decay < 0:
            raise ModelError(
                f"training: lr {self.lr}, warmup {self.warmup} or weight_decay {self.weight_decay} is out of range"
            )

    def rate(self, step: int, steps: int) -> float:
        """Share of the learning rate at a step: up along a line, then down along half a cosine, never quite 0."""
        rising = max(1, round(self.warmup * steps))
        if step < rising:
            return (step + 1) / rising
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
