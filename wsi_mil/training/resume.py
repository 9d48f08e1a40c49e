"""A training run on disk after each epoch, so that a killed one goes on and ends with the very same weights."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from wsi_mil import files
from wsi_mil.errors import ModelError

_LOG = logging.getLogger("wsi_mil")

FORMAT = 1


class Snapshot:
    """One file that holds a whole run: weights, optimiser, schedule, random states, history and the best epoch so far.

    Safetensors with JSON in its header, never a pickle. `key` says which run it is (a digest of its inputs and
    settings): the snapshot of another is not taken. Written at most every `every_s` seconds, at the end of an epoch;
    what was done after the last one is done again, bit by bit on the CPU.
    """

    def __init__(self, path: Path, *, key: str, every_s: float = 60.0) -> None:
        self.path, self.key, self.every_s = path, key, every_s
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time to write."""
        return time.monotonic() - self._last >= self.every_s

    def write(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Replace the file, whole or not at all. `values` are plain (JSON)."""
        told = {"format": FORMAT, "key": self.key, "torch": torch.__version__, "values": values}
        plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        files.write_bytes(self.path, safetensors.torch.save(plain, {"run": json.dumps(told)}))
        self._last = time.monotonic()

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What was written by the same run under the same torch; None, which is said where there is a file, if not."""
        if not self.path.exists():
            return None
        try:
            with safetensors.safe_open(str(self.path), framework="pt") as file:
                told = json.loads((file.metadata() or {})["run"])
                if (told["format"], told["key"], told["torch"]) != (FORMAT, self.key, torch.__version__):
                    _LOG.info("%s is of another run: training starts anew", self.path)
                    return None
                return {name: file.get_tensor(name) for name in file.keys()}, told["values"]  # noqa: SIM118
        except (OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
            _LOG.warning("%s cannot be read (%s): training starts anew", self.path, error)
            return None

    def remove(self) -> None:
        """The run is over."""
        files.remove(self.path)


def random_states(generator: np.random.Generator, *, on_gpu: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Torch's states as tensors and numpy's as plain values."""
    tensors = {"random.cpu": torch.get_rng_state()}
    if on_gpu:
        tensors |= {f"random.cuda.{number}": state for number, state in enumerate(torch.cuda.get_rng_state_all())}
    return tensors, dict(generator.bit_generator.state)


def restore_random(tensors: dict[str, Tensor], state: dict[str, Any], generator: np.random.Generator) -> None:
    """Put the states back; ModelError where the machine has other GPUs than the one that wrote them."""
    torch.set_rng_state(tensors["random.cpu"])
    gpus = [tensors[name] for name in sorted(tensors) if name.startswith("random.cuda.")]
    if gpus and len(gpus) != torch.cuda.device_count():
        raise ModelError(f"the snapshot is of {len(gpus)} GPUs, this machine has {torch.cuda.device_count()}")
    if gpus:
        torch.cuda.set_rng_state_all(gpus)
    generator.bit_generator.state = state


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of AdamW by parameter number."""
    states = optimiser.state_dict()["state"]
    return {f"optimiser.{number}.{name}": value for number, one in states.items() for name, value in one.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put the state back; the learning rate is the schedule's to set."""
    told = optimiser.state_dict()
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, number, key = name.split(".", 2)
            states.setdefault(int(number), {})[key] = value
    optimiser.load_state_dict({**told, "state": states})
