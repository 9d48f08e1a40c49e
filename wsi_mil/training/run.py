"""The state of one training run: model, optimiser, schedule, random numbers, history and the best epoch so far."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from wsi_mil.errors import ModelError
from wsi_mil.models import MIL, Clinical
from wsi_mil.tasks import Task
from wsi_mil.training.auxiliary import Auxiliary
from wsi_mil.training.resume import Snapshot, optimiser_tensors, random_states, restore_optimiser, restore_random
from wsi_mil.training.settings import FitSettings
from wsi_mil.training.source import OnDevice


@dataclass
class Best:
    """The epoch with the lowest loss so far."""

    state: dict[str, Tensor]
    loss: float = math.inf
    epoch: int = 0


@dataclass
class Run:
    """Everything that changes while a model is fitted, and what it is fitted to."""

    model: MIL
    source: OnDevice
    targets: Tensor
    task: Task
    settings: FitSettings
    random: np.random.Generator
    auxiliary: Auxiliary
    records: Clinical | None
    steps_an_epoch: int
    snapshot: Snapshot | None = None
    names: Sequence[str] = ()
    """What errors call the bags; by number where there are none."""
    history: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings = self.settings
        self.optimiser = torch.optim.AdamW(
            parameter_groups(self.model, settings.lr), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, lambda step: self._rate(step))
        # Buffers (moments of the features, stages of annealing) are copied, not averaged.
        averaging = get_ema_multi_avg_fn(settings.average)  # type: ignore[no-untyped-call]
        self._average = AveragedModel(self.model, multi_avg_fn=averaging) if settings.average else None
        self.best = Best(self.model.state_dict())

    @property
    def judged(self) -> MIL:
        """The model that is validated and kept: the running mean of the weights where that is asked for."""
        if self._average is None:
            return self.model
        return cast("MIL", self._average.module)

    @property
    def progress(self) -> float:
        """Share of all steps that are done."""
        return self.schedule.last_epoch / (self.settings.epochs * self.steps_an_epoch)

    def step(self, loss: Tensor) -> None:
        """One step of the optimiser and of the schedule."""
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.settings.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimiser.step()
        self.schedule.step()
        if self._average is not None:
            self._average.update_parameters(self.model)

    def save(self, epoch: int) -> None:
        """Write the snapshot where there is one and it is time."""
        if self.snapshot is None or not self.snapshot.due:
            return
        tensors, numbers = random_states(self.random, on_gpu=self.targets.is_cuda)
        tensors |= {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.state.items()}
        if self._average is not None:
            tensors |= {f"average.{name}": value for name, value in self._average.state_dict().items()}
        tensors |= optimiser_tensors(self.optimiser)
        tensors |= {f"memory.{bag}": mean for bag, (_, mean) in self.auxiliary.memory.items()}
        self.snapshot.write(
            tensors,
            {
                "epoch": epoch,
                "steps": self.schedule.last_epoch,
                "random": numbers,
                "history": self.history,
                "best": [self.best.loss, self.best.epoch],
                "met": {str(bag): times for bag, (times, _) in self.auxiliary.memory.items()},
            },
        )

    def resume(self) -> int:
        """Go on from the snapshot, where there is one of this run; the number of epochs that are done."""
        found = self.snapshot.read() if self.snapshot is not None else None
        if found is None:
            return 0
        tensors, values = found
        self.model.load_state_dict(_under("model.", tensors))
        if self._average is not None:
            self._average.load_state_dict(_under("average.", tensors))
        restore_optimiser(self.optimiser, tensors)
        self._set_schedule(int(values["steps"]))
        restore_random(tensors, values["random"], self.random)
        self.history.extend(values["history"])
        loss, epoch = values["best"]
        self.best = Best(_under("best.", tensors), float(loss), int(epoch))
        means = _under("memory.", tensors)
        device = self.targets.device
        self.auxiliary.memory.update({int(bag): (values["met"][bag], means[bag].to(device)) for bag in means})
        return int(values["epoch"])

    def _set_schedule(self, steps: int) -> None:
        state: dict[str, Any] = copy.copy(self.schedule.state_dict())
        rates = [base * self._rate(steps) for base in self.schedule.base_lrs]
        self.schedule.load_state_dict({**state, "last_epoch": steps, "_step_count": steps + 1, "_last_lr": rates})
        for group, rate in zip(self.optimiser.param_groups, rates, strict=True):
            group["lr"] = rate

    def _rate(self, step: int) -> float:
        return self.settings.rate(step, self.settings.epochs * self.steps_an_epoch)


def parameter_groups(model: MIL, lr: float) -> list[dict[str, Any]]:
    """Parameters by their learning rate: those of the model's `faster` parts have a multiple of it.

    ModelError for a part that holds no parameter: a prefix that misses would silently learn slowly.
    """
    groups: list[dict[str, Any]] = [{"params": [], "lr": lr}]
    parts: dict[str, dict[str, Any]] = {
        f"aggregator.{name}.": {"params": [], "lr": lr * factor} for name, factor in model.faster.items()
    }
    for name, parameter in model.named_parameters():
        group = next((one for prefix, one in parts.items() if name.startswith(prefix)), groups[0])
        group["params"].append(parameter)
    for prefix, group in parts.items():
        if not group["params"]:
            raise ModelError(f"model {model.spec.name!r} has no part {prefix!r} to learn faster")
    return [group for group in [*groups, *parts.values()] if group["params"]]


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
