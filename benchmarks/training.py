"""Seconds an epoch and peak memory of training ABMIL: ours, the loop that CLAM writes, torchmil's Trainer.

The same bags (2,000 to 30,000 tiles of 1,024 features, half of them with a few shifted tiles), the same model size, the
same tiles seen, each in a process of its own. Ours reads half-precision HDF5 bags by the row; the loop reads one file a
slide with `torch.load` (float32, as CLAM writes them), batch 1, `.item()` each step; torchmil reads `.npy` through its
dataset. "arithmetic" is the same model on one bag that is in memory already: nothing can be faster. Both the seconds on
the wall and those of the cores (user and system) are printed: on a machine that does other work too, trust the second.

With `--device cuda` all contenders compute there: ours keeps its bags on the GPU (`--gpu-gib`), the loop copies each as
it loads it, torchmil's trainer moves its own; "arithmetic" has its bag there. A pass is over when the GPU has finished.
No figure with `--device cuda` has been published: the machines of the tables in the README have no GPU.

    pip install torchmil
    python benchmarks/training.py --bags 200 --folder /fast/disk [--device cuda]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from drawn_bags import DIM, write
from torch import Tensor, nn

from wsi_mil.compute import cores
from wsi_mil.models import build_model
from wsi_mil.stages.features import BagFiles
from wsi_mil.tasks import build_task
from wsi_mil.training import Cached, FitSettings, fit

HIDDEN, ATTENTION = 256, 128
WHO = ("arithmetic", "ours", "ours (4096 tiles)", "clam loop", "torchmil")


@dataclass(frozen=True)
class Trial:
    """What a contender is given."""

    folder: Path
    names: list[str]
    """Of the bags; the last fifth is for validation."""
    labels: Tensor
    precision: str
    epochs: int
    tiles: int
    """Drawn from each bag; 0: all."""
    device: str
    gpu_gib: int

    @property
    def learnt(self) -> int:
        """How many bags are trained on."""
        return len(self.names) * 4 // 5

    def autocast(self) -> torch.autocast:
        """The precision of the forward pass."""
        return torch.autocast(self.device.partition(":")[0], dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def bag(self, number: int) -> Tensor:
        """A bag as the loop reads it, on the device."""
        loaded: Tensor = torch.load(self.folder / f"{self.names[number]}.pt", weights_only=True)
        return loaded.to(self.device)


def main() -> None:
    """Make the bags, run each contender in a process of its own, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bags", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the bags are written and kept; default: a temporary one")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--contenders", default=",".join(WHO), help="which of them")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ...")
    parser.add_argument("--gpu-gib", type=int, default=16, help="of bags that ours may keep on the GPU")
    parser.add_argument("--only", default="", help="one contender, in this process")
    options = parser.parse_args()
    torch.set_num_threads(cores())
    if options.only:
        print(json.dumps(run(options)))
        return
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = options.folder or Path(temporary)
        tiles = write(folder, options.bags)
        print(f"{options.bags} bags, {tiles:,} tiles, {cores()} cores, {options.device}, torch {torch.__version__}")
        head = ("s an epoch", "core seconds", "of arithmetic", "ours is faster", "peak GiB", "GiB on GPU", "loss")
        print(f"{'':>5} {'':>18} " + " ".join(f"{name:>17}" for name in head))
        for precision in options.precisions.split(","):
            found = {}
            for who in options.contenders.split(","):
                told = found[who] = measured(who, folder, precision, options)
                # A core that waits for a GPU counts as busy, and one that waits for a neighbour does not.
                by = "cpu" if options.device == "cpu" else "s"
                share, ratio = (found[one][by] if one in found else float("nan") for one in ("arithmetic", "ours"))
                share, ratio = share / told[by], told[by] / ratio
                print(
                    f"{precision:>5} {who:>18} {told['s']:>17.1f} {told['cpu']:>17.1f} {share:>17.0%} {ratio:>17.2f} "
                    f"{told['gib']:>17.2f} {told['gpu']:>17.2f} {told['loss']:>17.3f}",
                    flush=True,
                )


def measured(who: str, folder: Path, precision: str, options: argparse.Namespace) -> dict[str, float]:
    """One contender in a process of its own, so that its memory is its own."""
    command = [sys.executable, __file__, "--only", who, "--folder", str(folder), "--precisions", precision]
    command += ["--epochs", str(options.epochs), "--device", options.device, "--gpu-gib", str(options.gpu_gib)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run(options: argparse.Namespace) -> dict[str, float]:
    """Seconds of the last epoch, peak memory of the process, loss on the last fifth of the bags in evaluation mode."""
    names = sorted(path.stem for path in options.folder.glob("*.h5"))
    labels = torch.tensor([int(name[-1]) for name in names])
    torch.manual_seed(0)
    contender = {"arithmetic": arithmetic, "clam loop": clam_loop, "torchmil": torchmil}.get(options.only, ours)
    tiles = 4096 if "4096" in options.only else 0
    how = options.precisions, options.epochs, tiles, options.device, options.gpu_gib
    spent, loss = contender(Trial(options.folder, names, labels, *how))
    gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    gpu = torch.cuda.max_memory_allocated() / 2**30 if options.device != "cpu" else 0.0
    return {"s": spent[0], "cpu": spent[1], "gib": gib, "gpu": gpu, "loss": loss}


def now() -> np.ndarray:
    """Seconds on the wall, and of all cores, once the GPU has done what it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.process_time()])


def ours(trial: Trial) -> tuple[np.ndarray, float]:
    """The product's own fit, from the product's own bags, with its default budget of memory."""
    task = build_task("classification", label="y", classes=("0", "1"))
    model = build_model("abmil", dim=DIM, n_out=2, hidden=HIDDEN, attention=ATTENTION, seed=0)
    ends: list[np.ndarray] = []
    bags = BagFiles([trial.folder / f"{name}.h5" for name in trial.names])
    clock = Stopwatch(model)
    how = {"epochs": trial.epochs, "precision": trial.precision, "tiles_per_bag": trial.tiles}
    fitted = fit(
        model,
        Cached(bags, budget_bytes=1 << 30),
        fit_index=list(range(trial.learnt)),
        select_index=list(range(trial.learnt, len(trial.names))),
        targets=trial.labels,
        task=task,
        settings=FitSettings(patience=0, **how),  # type: ignore[arg-type]
        seed=0,
        device=trial.device,
        device_budget_bytes=trial.gpu_gib << 30,
        progress=lambda _: ends.append(clock.training()),
    )
    return ends[-1], fitted.history[-1]["select_loss"]


class Stopwatch:
    """Seconds of the training part of an epoch: from the first bag in training mode to the first in evaluation mode."""

    def __init__(self, model: nn.Module) -> None:
        self._start = self._end = now()
        model.register_forward_pre_hook(self._look)
        self._was = False

    def _look(self, model: nn.Module, _: object) -> None:
        if model.training and not self._was:
            self._start = now()
        if not model.training and self._was:
            self._end = now()
        self._was = model.training

    def training(self) -> np.ndarray:
        """Seconds of the last whole pass."""
        return self._end - self._start


class Plain(nn.Module):
    """Gated attention MIL as a script writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(DIM, HIDDEN), nn.ReLU(), nn.Dropout(0.25))
        self.value, self.gate = nn.Linear(HIDDEN, ATTENTION), nn.Linear(HIDDEN, ATTENTION)
        self.score, self.head = nn.Linear(ATTENTION, 1), nn.Linear(HIDDEN, 2)

    def forward(self, features: Tensor) -> Tensor:
        """Logits [1 class] of one bag."""
        hidden = self.project(features)
        weights = torch.softmax(self.score(torch.tanh(self.value(hidden)) * torch.sigmoid(self.gate(hidden))), dim=0)
        logits: Tensor = self.head(weights.T @ hidden)
        return logits


def arithmetic(trial: Trial) -> tuple[np.ndarray, float]:
    """Forward, backward and step on bags of the same lengths that are in memory, in float32, ready to be multiplied."""
    model = Plain().to(trial.device)
    lengths = [int(name.split("-")[1]) for name in trial.names[: trial.learnt]]
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    bag, truth = torch.randn(max(lengths), DIM, device=trial.device), torch.zeros(1, dtype=torch.int64)
    truth = truth.to(trial.device)
    start = now()
    for epoch in range(2):
        start = now()
        for length in lengths if epoch else lengths[:5]:
            with trial.autocast():
                logits = model(bag[:length])
            optimiser.zero_grad()
            nn.functional.cross_entropy(logits.float(), truth).backward()
            optimiser.step()
    return now() - start, float("nan")


def clam_loop(trial: Trial) -> tuple[np.ndarray, float]:
    """One file a slide and step, no cache, the loss asked for at each step; our recipe, so that losses compare."""
    model, settings, labels = Plain().to(trial.device), FitSettings(), trial.labels.to(trial.device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    steps = trial.epochs * trial.learnt
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: settings.rate(step, steps))
    seconds = now()
    for _ in range(trial.epochs):
        start, total = now(), 0.0
        model.train()
        for number in torch.randperm(trial.learnt).tolist():
            features = trial.bag(number)
            with trial.autocast():
                logits = model(features)
            loss = nn.functional.cross_entropy(logits.float(), labels[number : number + 1])
            total += loss.item()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
        seconds = now() - start
    return seconds, validation(lambda bag: model(bag), model, trial)


def torchmil(trial: Trial) -> tuple[np.ndarray, float]:
    """torchmil's own dataset, collate function, model and trainer."""
    from torch.utils.data import DataLoader
    from torchmil.data import collate_fn
    from torchmil.datasets import ProcessedMILDataset
    from torchmil.models import ABMIL
    from torchmil.utils.trainer import Trainer

    folder, names = trial.folder, trial.names
    project = nn.Sequential(nn.Linear(DIM, HIDDEN), nn.ReLU(), nn.Dropout(0.25))
    model = ABMIL((DIM,), att_dim=ATTENTION, gated=True, feat_ext=project)
    # Its trainer validates on the training loader where none is given; one bag keeps that out of the time.
    loaders = [
        DataLoader(
            ProcessedMILDataset(
                str(folder / "npy"), str(folder / "labels"), bag_names=part, bag_keys=["X", "Y"], verbose=False
            ),
            batch_size=1,
            shuffle=True,
            collate_fn=collate_fn,
        )
        for part in (names[: trial.learnt], names[:1])
    ]
    optimiser = torch.optim.Adam(model.to(trial.device).parameters(), lr=1e-4)
    trainer = Trainer(model, optimiser, device=trial.device, verbose=False, disable_pbar=True)
    seconds = now()
    for _ in range(trial.epochs):
        start = now()
        with trial.autocast():
            trainer.train(1, *loaders)
        seconds = now() - start

    def two(bag: Tensor) -> Tensor:
        logit = model(bag[None])
        return torch.stack([torch.zeros_like(logit), logit], dim=1)

    return seconds, validation(two, model, trial)


def validation(read: Callable[[Tensor], Tensor], model: nn.Module, trial: Trial) -> float:
    """Mean cross-entropy of the last fifth of the bags, in evaluation mode."""
    model.to(trial.device).eval()
    labels = trial.labels.to(trial.device)
    with torch.inference_mode():
        losses = [
            nn.functional.cross_entropy(read(trial.bag(number)).float(), labels[number : number + 1]).item()
            for number in range(trial.learnt, len(trial.names))
        ]
    return float(np.mean(losses))


if __name__ == "__main__":
    main()
