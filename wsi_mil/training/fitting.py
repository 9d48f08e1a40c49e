"""Training: fit on one role, choose the epoch on another, and never see a third."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Shaped
from torch import Tensor

from wsi_mil.errors import ModelError
from wsi_mil.models import MIL, Clinical
from wsi_mil.tasks import Task
from wsi_mil.training.auxiliary import Auxiliary, Step
from wsi_mil.training.resume import Snapshot
from wsi_mil.training.run import Run
from wsi_mil.training.settings import FitSettings
from wsi_mil.training.source import BagSource, Draw, OnDevice

MOST_NAMED = 10
"""Bags that an error names at most."""

_LOG = logging.getLogger("wsi_mil")

Progress = Callable[[dict[str, float]], None]
"""Called after each epoch with its row of the history."""


@dataclass(frozen=True)
class Fitted:
    """The outcome of a training run."""

    state: dict[str, Tensor]
    """Weights and buffers at the chosen epoch, on the CPU."""
    history: list[dict[str, float]]
    """One row an epoch: epoch (from 1), lr, fit_loss, and select_loss where there is a select role."""
    epoch: int
    """The epoch chosen."""
    chosen_by: str
    """Why this one, in words."""
    scaled: tuple[int, ...] = ()
    """The bags that were read to fit the scaler of the features, as they were read."""


class Moments(NamedTuple):
    """Of each feature over all tiles of some bags."""

    mean: Float32[Tensor, "dim"]
    spread: Float32[Tensor, "dim"]
    """Standard deviation; 1 for a feature that never varies."""
    read: tuple[int, ...]
    """The bags that were read."""


def fit(
    model: MIL,
    source: BagSource,
    *,
    fit_index: Sequence[int],
    select_index: Sequence[int],
    targets: Shaped[Tensor, "slide ..."],
    task: Task,
    settings: FitSettings,
    seed: int,
    device: str = "cpu",
    records: Clinical | None = None,
    snapshot: Snapshot | None = None,
    device_budget_bytes: int = 0,
    names: Sequence[str] = (),
    progress: Progress | None = None,
) -> Fitted:
    """Train a model on the slides of `fit_index`; take the epoch with the lowest loss on those of `select_index`.

    `source` and `targets` need hold no other slides, and should not: what is not handed over cannot leak. Rows of
    `targets` outside the two lists are never read. `records`, for methods that read them, has a row a bag. With an
    empty `select_index` the last epoch is taken. On the CPU the outcome depends on the arguments alone, bit by bit; the
    global random state is left as it was. With a `snapshot` a run that was killed goes on where it was last written, to
    the same end. `device_budget_bytes` of bags stay on a GPU. Errors call bags by their `names` where they are given.
    The model ends in evaluation mode with the chosen weights.
    """
    fit_index, select_index = list(fit_index), list(select_index)
    _check_roles(fit_index, select_index, source=source, targets=targets)
    if min(settings.batch_bags, len(fit_index)) < task.least_bags:
        raise ModelError(
            f"a step has {min(settings.batch_bags, len(fit_index))} bag(s), and the loss of this task ({task.kind}) "
            f"compares bags and needs {task.least_bags} or more: set train.batch_bags to "
            f"{task.recipe.get('batch_bags', task.least_bags)}, or leave it empty"
        )
    select_index = _judges(select_index, targets, task)
    if task.kind == "ordinal" and model.judges_parts:
        _LOG.warning("%s judges a slide by parts of it; ordered grades hang on the whole", model.spec.name)
    model.to(device)
    # Dropout draws from the global generator, which is therefore borrowed and given back.
    on_gpu = device.startswith("cuda")
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            torch.cuda.manual_seed_all(seed)
        bags = OnDevice(source, device, budget_bytes=device_budget_bytes)
        scaled = _scale(model, bags, fit_index, names) if settings.standardise else ()
        run = Run(
            model,
            bags,
            targets.to(device),
            task,
            settings,
            np.random.default_rng(seed),
            Auxiliary(model.losses),
            records,
            steps_an_epoch=len(steps_of(fit_index, settings.batch_bags, least=task.least_bags)),
            snapshot=snapshot,
            names=names,
        )
        fitted = _epochs(run, fit_index, select_index, progress=progress)
    model.load_state_dict(fitted.state)
    if snapshot is not None:
        snapshot.remove()
    model.eval()
    return replace(fitted, scaled=scaled)


def _scale(model: MIL, source: BagSource | OnDevice, index: Sequence[int], names: Sequence[str]) -> tuple[int, ...]:
    """Fit the scaler of the features; the bags that were read for it."""
    mean, spread, read = feature_moments(source, index, names)
    model.standardise(mean, spread)
    return read


def feature_moments(source: BagSource | OnDevice, index: Sequence[int], names: Sequence[str] = ()) -> Moments:
    """Mean and standard deviation of each feature over all tiles of some bags, and which were read for it.

    ModelError for features that are not finite, with the bag's name (or number) and the tile's number.
    """
    count, mean, squares, read = 0, np.zeros(1), np.zeros(1), []
    for bag in index:
        read.append(bag)
        loaded = source.load(bag)[0]
        # Through the device, where there is one, so that what it keeps is read from disk but once.
        features = np.asarray(loaded.cpu() if isinstance(loaded, Tensor) else loaded, dtype=np.float64)
        if not np.isfinite(features).all():
            tile, column = np.argwhere(~np.isfinite(features))[0]
            raise ModelError(
                f"{_called([bag], names)}: feature {column} of tile {tile} is {features[tile, column]}; extract the "
                "slide again"
            )
        # Chan's update: sums of squares about the mean, so that large means cost no digits.
        bag_mean, total = features.mean(axis=0), count + len(features)
        squares = squares + ((features - bag_mean) ** 2).sum(axis=0)
        squares = squares + (bag_mean - mean) ** 2 * (count * len(features) / total)
        mean = mean + (bag_mean - mean) * (len(features) / total)
        count = total
    spread = np.sqrt(squares / count)
    # A spread below one step of float16 (2 ** -11 of the value) is rounding, which division would blow up.
    spread[(spread <= 5e-4 * np.abs(mean)) | (spread < 1e-8)] = 1.0
    mean, spread = mean.astype(np.float32), spread.astype(np.float32)
    return Moments(torch.from_numpy(mean), torch.from_numpy(spread), tuple(read))


def _epochs(run: Run, fit_index: list[int], select_index: list[int], *, progress: Progress | None) -> Fitted:
    settings, done = run.settings, run.resume()
    best = run.best
    for epoch in range(done + 1, settings.epochs + 1):
        row = {"epoch": float(epoch), "lr": run.optimiser.param_groups[0]["lr"]}
        row["fit_loss"] = _train(run, fit_index)
        loss = -float(epoch)  # without a select role a later epoch is the better one
        if select_index:
            loss = row["select_loss"] = _validate(run, select_index)
        run.history.append(row)
        if progress:
            progress(row)
        if loss < best.loss:
            best.state, best.loss, best.epoch = copy.deepcopy(run.judged.state_dict()), loss, epoch
        elif settings.patience and epoch - best.epoch >= settings.patience:
            break
        run.save(epoch)
    chosen_by = "lowest loss on the select role" if select_index else "last epoch: the select role is empty"
    if not select_index:
        _LOG.warning("no slides to choose the epoch on: the last one, %d, is taken", best.epoch)
    return Fitted({name: value.cpu() for name, value in best.state.items()}, run.history, best.epoch, chosen_by)


def _train(run: Run, index: list[int]) -> float:
    """One pass over the training slides in a new order; return the mean loss, auxiliary terms included."""
    run.model.train()
    losses, order = [], run.random.permutation(index).tolist()
    batches = steps_of(order, run.settings.batch_bags, least=run.task.least_bags)
    for batch in batches:
        run.model.at(run.progress)
        pooled, offsets = _read(run, run.model, batch, tiles=run.settings.tiles_per_bag)
        loss = run.task.loss(pooled.logits.float(), run.targets[batch])
        loss = run.auxiliary(loss, Step(pooled, run.targets[batch], offsets, run.task, batch, run.progress))
        run.step(loss)
        losses.append(loss.detach())
    # Asked for once an epoch: each question makes a GPU finish what it was given.
    values = torch.stack(losses).double().cpu().tolist()
    for value, batch in zip(values, batches, strict=True):
        _check_finite(value, batch, run.names)
    return sum(value * len(batch) for value, batch in zip(values, batches, strict=True)) / len(order)


def steps_of(order: Sequence[int], size: int, *, least: int) -> list[list[int]]:
    """The bags of each step, in order; a last step that would be too small for the loss joins the one before it."""
    parts = [list(order[start : start + size]) for start in range(0, len(order), size)]
    if len(parts) > 1 and len(parts[-1]) < least:
        parts[-2:] = [parts[-2] + parts[-1]]
    return parts


def _validate(run: Run, index: list[int]) -> float:
    """Loss of the task alone on all bags together, in evaluation mode, without gradients, each bag read whole."""
    model = run.judged.eval()
    with torch.inference_mode():
        logits = torch.cat([_read(run, model, [bag], tiles=0)[0].logits.float() for bag in index])
        loss = run.task.loss(logits, run.targets[index]).item()
    if not math.isfinite(loss):
        odd = [bag for bag, said in zip(index, logits, strict=True) if not bool(torch.isfinite(said).all())]
        _check_finite(loss, odd or index, run.names)
    return loss


def _read(run: Run, model: MIL, batch: list[int], *, tiles: int) -> tuple[Any, Tensor]:
    """What a model says of some bags, and where each begins; its logits are always there."""
    device = run.targets.device
    parts = [run.source.load(bag, _drawing(run, tiles)) for bag in batch]
    features, cells = (torch.cat(list(one)) if len(parts) > 1 else one[0] for one in zip(*parts, strict=True))
    offsets = torch.tensor([0, *np.cumsum([len(part[0]) for part in parts]).tolist()])
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=run.settings.precision == "bf16"):
        return model(features, cells, offsets, _records(run, batch)), offsets


def _check_finite(loss: float, bags: list[int], names: Sequence[str]) -> None:
    if not math.isfinite(loss):
        raise ModelError(
            f"the loss is {loss} at {_called(bags, names)}: look for features that are not finite "
            "(`wsi-mil bags verify`), or lower train.lr"
        )


def _called(bags: Sequence[int], names: Sequence[str]) -> str:
    """Some bags in words, by name where they have names."""
    shown = [names[bag] if names else f"bag {bag}" for bag in bags[:MOST_NAMED]]
    return ", ".join(shown) + (f" and {len(bags) - MOST_NAMED} more" if len(bags) > MOST_NAMED else "")


def _records(run: Run, batch: list[int]) -> Clinical | None:
    if run.records is None:
        return None
    device = run.targets.device
    return Clinical(run.records.values[batch].to(device), run.records.missing[batch].to(device))


def _drawing(run: Run, tiles: int) -> Draw | None:
    """What picks some tiles of a bag anew each time; nothing where all are read."""
    if not tiles:
        return None

    def draw(count: int) -> np.ndarray | None:
        # In order, so that a file is read forwards.
        return np.sort(run.random.choice(count, size=tiles, replace=False)) if tiles < count else None

    return draw


def _judges(select_index: list[int], targets: Tensor, task: Task) -> list[int]:
    """The select role, or nobody where it cannot judge."""
    if not select_index or task.can_judge(targets[select_index]):
        return select_index
    _LOG.warning("the labels of the select role cannot tell a better model from a worse one; it is not used")
    return []


def _check_roles(fit_index: list[int], select_index: list[int], *, source: BagSource, targets: Tensor) -> None:
    if not fit_index:
        raise ModelError("the fit role is empty: there is nothing to train on; give the fold more patients")
    both = set(fit_index) & set(select_index)
    if both:
        raise ModelError(f"bags {sorted(both)[:5]} are in the fit role and in the select role; a bag has one role")
    beyond = [bag for bag in [*fit_index, *select_index] if not 0 <= bag < len(source) or bag >= len(targets)]
    if beyond:
        raise ModelError(f"bags {beyond[:5]} are not among the {len(source)} bags and {len(targets)} targets given")
