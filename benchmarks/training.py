"""Seconds an epoch and peak memory of training ABMIL: ours, the loop that CLAM writes, torchmil's Trainer.

The same bags (2,000 to 30,000 tiles of 1,024 features, half of them with a few shifted tiles), the same model size, the
same tiles seen, each in a process of its own. Ours reads half-precision HDF5 bags by the row; the loop reads one file a
slide with `torch.load` (float32, as CLAM writes them), batch 1, `.item()` each step; torchmil reads `.npy` through its
dataset. "arithmetic" is the same model on one bag that is in memory already: nothing can be faster. Both the seconds on
the wall and those of the cores (user and system) are printed: on a machine that does other work too, trust the second.

    pip install torchmil
    python benchmarks/training.py --bags 200 --folder /fast/disk
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wsi_mil.bags import Bag, bag_to_hdf5
from wsi_mil.compute import cores
from wsi_mil.grid import EncoderContract, SlideRef, TileGrid
from wsi_mil.models import build_model
from wsi_mil.stages.features import BagFiles
from wsi_mil.tasks import build_task
from wsi_mil.training import Cached, FitSettings, fit

DIM, HIDDEN, ATTENTION = 1024, 256, 128
LEAST, MOST = 2_000, 30_000
WITNESSES, SHIFT = 0.02, 3.0
WHO = ("arithmetic", "ours", "ours (4096 tiles)", "clam loop", "torchmil")


def main() -> None:
    """Make the bags, run each contender in a process of its own, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bags", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the bags are written and kept; default: a temporary one")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--contenders", default=",".join(WHO), help="which of them")
    parser.add_argument("--only", default="", help="one contender, in this process")
    options = parser.parse_args()
    torch.set_num_threads(cores())
    if options.only:
        print(json.dumps(run(options.only, options.folder, options.precisions, options.epochs)))
        return
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = options.folder or Path(temporary)
        tiles = write(folder, options.bags)
        print(f"{options.bags} bags, {tiles:,} tiles, {cores()} cores, torch {torch.__version__}")
        head = ("seconds an epoch", "core seconds", "of arithmetic", "ours is faster by", "peak memory, GiB", "loss")
        print(f"{'':>5} {'':>18} " + " ".join(f"{name:>17}" for name in head))
        for precision in options.precisions.split(","):
            found = {}
            for who in options.contenders.split(","):
                told = found[who] = measured(who, folder, precision, options.epochs)
                share, ratio = (found[one]["cpu"] if one in found else float("nan") for one in ("arithmetic", "ours"))
                share, ratio = share / told["cpu"], told["cpu"] / ratio
                print(
                    f"{precision:>5} {who:>18} {told['s']:>17.1f} {told['cpu']:>17.1f} {share:>17.0%} {ratio:>17.2f} "
                    f"{told['gib']:>17.2f} {told['loss']:>17.3f}",
                    flush=True,
                )


def measured(who: str, folder: Path, precision: str, epochs: int) -> dict[str, float]:
    """One contender in a process of its own, so that its memory is its own."""
    command = [sys.executable, __file__, "--only", who, "--folder", str(folder)]
    command += ["--precisions", precision, "--epochs", str(epochs)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


def run(who: str, folder: Path, precision: str, epochs: int) -> dict[str, float]:
    """Seconds of the last epoch, peak memory of the process, loss on the last fifth of the bags in evaluation mode."""
    names = sorted(path.stem for path in folder.glob("*.h5"))
    labels = torch.tensor([int(name[-1]) for name in names])
    torch.manual_seed(0)
    contender = {"arithmetic": arithmetic, "clam loop": clam_loop, "torchmil": torchmil}.get(who, ours)
    tiles = 4096 if "4096" in who else 0
    spent, loss = contender(folder, names, labels, precision, epochs, tiles)
    gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"s": spent[0], "cpu": spent[1], "gib": gib, "loss": loss}


def now() -> np.ndarray:
    """Seconds on the wall, and of all cores."""
    return np.array([time.perf_counter(), time.process_time()])


def ours(
    folder: Path, names: list[str], labels: Tensor, precision: str, epochs: int, tiles: int
) -> tuple[np.ndarray, float]:
    """The product's own fit, from the product's own bags, with its default budget of memory."""
    learnt = len(names) * 4 // 5
    task = build_task("classification", label="y", classes=("0", "1"))
    model = build_model("abmil", dim=DIM, n_out=2, hidden=HIDDEN, attention=ATTENTION, seed=0)
    ends: list[np.ndarray] = []
    bags = BagFiles([folder / f"{name}.h5" for name in names])
    clock = Stopwatch(model)
    fitted = fit(
        model,
        Cached(bags, budget_bytes=1 << 30),
        fit_index=list(range(learnt)),
        select_index=list(range(learnt, len(names))),
        targets=labels,
        task=task,
        settings=FitSettings(epochs=epochs, precision=precision, patience=0, tiles_per_bag=tiles),  # type: ignore[arg-type]
        seed=0,
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


def arithmetic(
    folder: Path, names: list[str], labels: Tensor, precision: str, epochs: int, tiles: int
) -> tuple[np.ndarray, float]:
    """Forward, backward and step on bags of the same lengths that are in memory, in float32, ready to be multiplied."""
    model, lengths = Plain(), [int(name.split("-")[1]) for name in names[: len(names) * 4 // 5]]
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    bag = torch.randn(max(lengths), DIM)
    start = now()
    for epoch in range(2):
        start = now()
        for length in lengths if epoch else lengths[:5]:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
                logits = model(bag[:length])
            optimiser.zero_grad()
            nn.functional.cross_entropy(logits.float(), torch.zeros(1, dtype=torch.int64)).backward()
            optimiser.step()
    return now() - start, float("nan")


def clam_loop(
    folder: Path, names: list[str], labels: Tensor, precision: str, epochs: int, tiles: int
) -> tuple[np.ndarray, float]:
    """One file a slide and step, no cache, the loss asked for at each step; our recipe, so that losses compare."""
    model, learnt = Plain(), len(names) * 4 // 5
    settings = FitSettings()
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: settings.rate(step, epochs * learnt))
    seconds = now()
    for _ in range(epochs):
        start, total = now(), 0.0
        model.train()
        for number in torch.randperm(learnt).tolist():
            features = torch.load(folder / f"{names[number]}.pt", weights_only=True)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
                logits = model(features)
            loss = nn.functional.cross_entropy(logits.float(), labels[number : number + 1])
            total += loss.item()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
        seconds = now() - start
    return seconds, validation(lambda bag: model(bag), model, folder, names, labels, learnt)


def torchmil(
    folder: Path, names: list[str], labels: Tensor, precision: str, epochs: int, tiles: int
) -> tuple[np.ndarray, float]:
    """torchmil's own dataset, collate function, model and trainer."""
    from torch.utils.data import DataLoader
    from torchmil.data import collate_fn
    from torchmil.datasets import ProcessedMILDataset
    from torchmil.models import ABMIL
    from torchmil.utils.trainer import Trainer

    learnt = len(names) * 4 // 5
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
        for part in (names[:learnt], names[:1])
    ]
    trainer = Trainer(
        model, torch.optim.Adam(model.parameters(), lr=1e-4), device="cpu", verbose=False, disable_pbar=True
    )
    seconds = now()
    for _ in range(epochs):
        start = now()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            trainer.train(1, *loaders)
        seconds = now() - start

    def two(bag: Tensor) -> Tensor:
        logit = model(bag[None])
        return torch.stack([torch.zeros_like(logit), logit], dim=1)

    return seconds, validation(two, model, folder, names, labels, learnt)


def validation(read: object, model: nn.Module, folder: Path, names: list[str], labels: Tensor, learnt: int) -> float:
    """Mean cross-entropy of the last fifth of the bags, in evaluation mode."""
    model.eval()
    with torch.inference_mode():
        losses = [
            nn.functional.cross_entropy(
                read(torch.load(folder / f"{names[number]}.pt", weights_only=True)).float(),  # type: ignore[operator]
                labels[number : number + 1],
            ).item()
            for number in range(learnt, len(names))
        ]
    return float(np.mean(losses))


def write(folder: Path, count: int) -> int:
    """The bags in the three layouts, where they are not there yet; how many tiles there are."""
    random = np.random.default_rng(0)
    total = 0
    for name in ("npy", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        tiles = int(np.exp(random.uniform(np.log(LEAST), np.log(MOST))))
        label, total = number % 2, total + tiles
        name = f"{number:04d}-{tiles}-{label}"
        seed = np.random.default_rng(number)
        if (folder / "labels" / f"{name}.npy").exists():
            continue
        features = seed.standard_normal((tiles, DIM), dtype=np.float32)
        if label:
            features[seed.choice(tiles, max(1, int(WITNESSES * tiles)), replace=False), :32] += SHIFT
        (folder / f"{name}.h5").write_bytes(bag_to_hdf5(bag_of(features.astype(np.float16), name)))
        torch.save(torch.from_numpy(features), folder / f"{name}.pt")
        np.save(folder / "npy" / f"{name}.npy", features)
        np.save(folder / "labels" / f"{name}.npy", np.array(label))
    os.sync()
    return total


def bag_of(features: np.ndarray, name: str) -> Bag:
    """A bag of a square grid."""
    slide = SlideRef(name, "0" * 64, (1_000_000, 1_000_000), (0.5, 0.5), "metadata")
    places = np.arange(len(features))
    coords = np.stack([places % 200, places // 200], axis=1).astype(np.int64) * 256
    share = np.ones(len(features), np.float32)
    grid = TileGrid(slide, coords, share, 256, 0.5, extent_l0=(256.0, 256.0), step_l0=(256.0, 256.0))
    contract = EncoderContract(
        name="x", revision="1", weights_digest="0", architecture="{}", input_px=224, resize="bicubic", crop="none",
        mean=(0.5,), std=(0.5,), pooling="cls", dim=DIM, precision="fp32", tile_px=256, tile_mpp=0.5,
    )  # fmt: skip
    return Bag(slide, features, grid, contract, np.zeros(len(features), np.uint8))


if __name__ == "__main__":
    main()
