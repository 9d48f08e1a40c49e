"""All folds of a cross-validation in one pass over the bags, with stacked weights, beside one fold after the other.

Each bag is read once for all folds; `torch.func.vmap` runs the product's own ABMIL over the stacked weights, and each
fold has an AdamW of its own over its row of one flat tensor, so that a fold that does not learn from a bag makes no
step. Both ways see the same bags in the same order. Before anything is timed both train an epoch in double precision
and without dropout; the largest difference of any weight is printed, and the program fails where it is above 1e-9.

    python benchmarks/folds_together.py
    python benchmarks/folds_together.py --device cuda      # the bags lie on the GPU

On two CPU cores it wins with bags of some tens of tiles only (README.md), and so the product trains folds one after the
other or, with `--on`, side by side. It was never run on a GPU, where small steps cost their launches and it may win.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional

from wsi_mil.compute import cores
from wsi_mil.models import MIL, build_model
from wsi_mil.models.dropout import Dropout

SHAPES = ((16, 230), (128, 512), (512, 1024), (4096, 1024))
"""Tiles a bag and features a tile: a classic benchmark, small bags, sampled bags, whole slides."""
RATE, CLIP = 1e-4, 5.0
AGREE = 1e-9


def main() -> None:
    """For each shape: seconds an epoch of all folds, both ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--bags", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(cores())
    name = torch.cuda.get_device_name() if options.device.startswith("cuda") else f"{cores()} CPU cores"
    print(f"{options.folds} folds, {options.bags} bags, {name}, torch {torch.__version__}")
    print(f"{'bag':>12} {'fold by fold, s':>16} {'together, s':>12} {'faster by':>10} {'largest difference':>19}")
    worst = 0.0
    for tiles, dim in SHAPES:
        study = Study(options.folds, options.bags, tiles, dim, options.device)
        apart = differing(study)
        worst = max(worst, apart)
        alone, together = fastest(Alone(study), study.device), fastest(Stacked(study), study.device)
        shape = f"{tiles} x {dim}"
        print(f"{shape:>12} {alone:>16.3f} {together:>12.3f} {alone / together:>10.2f} {apart:>19.1e}", flush=True)
    sys.exit(f"the two ways differ by {worst:.1e}" if worst > AGREE else 0)


class Study:
    """Bags on a device, their labels, and the bags that each fold learns from."""

    def __init__(self, folds: int, bags: int, tiles: int, dim: int, device: str) -> None:
        random = np.random.default_rng(0)
        self.device, self.dim = torch.device(device), dim
        self.bags = [torch.from_numpy(random.standard_normal((tiles, dim), dtype=np.float32)) for _ in range(bags)]
        self.bags = [bag.half().to(self.device) for bag in self.bags]
        self.cells = torch.zeros(tiles, 2, dtype=torch.int64, device=self.device)
        self.offsets = torch.tensor([0, tiles])
        self.labels = torch.arange(bags, device=self.device) % 2
        of = np.arange(bags) % folds
        self.fit = [set(np.flatnonzero(of != fold).tolist()) for fold in range(folds)]
        self.order = random.permutation(bags).tolist()
        moments = torch.cat([bag.float() for bag in self.bags])
        self.moments = moments.mean(0), moments.std(0)

    def models(self, *, dropout: float, dtype: torch.dtype) -> list[MIL]:
        """A fresh model a fold, in training mode."""
        built = [
            build_model("abmil", dim=self.dim, n_out=2, seed=seed, dropout=dropout) for seed in range(len(self.fit))
        ]
        for model in built:
            model.to(self.device, dtype).standardise(*self.moments)
            model.train()
        return built


class Alone:
    """Models one after the other, with the steps of `wsi_mil.training.fit`."""

    def __init__(self, study: Study, *, dropout: float = 0.25, dtype: torch.dtype = torch.float32) -> None:
        self.study = study
        self.models = study.models(dropout=dropout, dtype=dtype)
        self.optimisers = [torch.optim.AdamW(model.parameters(), lr=RATE, fused=True) for model in self.models]

    def epoch(self) -> None:
        """One pass over the bags for each fold."""
        study = self.study
        for model, optimiser, fit in zip(self.models, self.optimisers, study.fit, strict=True):
            for bag in study.order:
                if bag not in fit:
                    continue
                logits = model(study.bags[bag], study.cells, study.offsets).logits
                optimiser.zero_grad()
                torch.autograd.backward(functional.cross_entropy(logits, study.labels[bag : bag + 1]))
                nn.utils.clip_grad_norm_(model.parameters(), CLIP)
                optimiser.step()


class Stacked:
    """Models of one shape as one: their weights are the rows of `flat`, each with an optimiser of its own."""

    def __init__(self, study: Study, *, dropout: float = 0.25, dtype: torch.dtype = torch.float32) -> None:
        self.study, models = study, study.models(dropout=dropout, dtype=dtype)
        self.names = [name for name, _ in models[0].named_parameters()]
        self.shapes = [one.shape for one in models[0].parameters()]
        self.flat = torch.stack([nn.utils.parameters_to_vector(model.parameters()).detach() for model in models])
        self.grad = torch.zeros_like(self.flat)
        self.rows = [row.detach().requires_grad_() for row in self.flat]
        for row, grad in zip(self.rows, self.grad, strict=True):
            row.grad = grad
        self.optimisers = [torch.optim.AdamW([row], lr=RATE, fused=True) for row in self.rows]
        # The folds have moments of their own; on a CPU the model's way through its cache is not one that vmap can take.
        self.mean = torch.stack([model.feature_mean for model in models])
        self.scale = torch.stack([model.feature_scale for model in models])
        self.limit = float(models[0].feature_limit)
        self.template = models[0]
        use_torch_dropout(self.template)
        self.forward = vmap(self._one, in_dims=(0, 0, 0, None, None, None), randomness="different")

    def epoch(self) -> None:
        """One pass over the bags for all folds."""
        study = self.study
        for bag in study.order:
            learning = [fold for fold, fit in enumerate(study.fit) if bag in fit]
            flat = self.flat.detach().requires_grad_()
            logits = self.forward(flat, self.mean, self.scale, study.bags[bag], study.cells, study.offsets)
            label = study.labels[bag].expand(len(learning))
            # The sum, so that each fold has the gradient of its own loss.
            loss = functional.cross_entropy(logits[learning], label, reduction="sum")
            self.grad.copy_(torch.autograd.grad(loss, flat)[0])
            for fold in learning:
                nn.utils.clip_grad_norm_([self.rows[fold]], CLIP)
                self.optimisers[fold].step()

    def _one(self, flat: Tensor, mean: Tensor, scale: Tensor, tiles: Tensor, cells: Tensor, offsets: Tensor) -> Tensor:
        parts = torch.split(flat, [shape.numel() for shape in self.shapes])
        weights = {name: part.view(shape) for name, part, shape in zip(self.names, parts, self.shapes, strict=True)}
        own = {name.removeprefix("aggregator."): one for name, one in weights.items() if name.startswith("aggregator.")}
        features = ((tiles - mean) / scale).clamp(-self.limit, self.limit)
        embedding = functional_call(self.template.aggregator, own, (features, cells, offsets)).embedding
        logits: Tensor = embedding.flatten() @ weights["head.weight"].flatten(1).T + weights["head.bias"]
        return logits


def use_torch_dropout(model: nn.Module) -> None:
    """The product's own dropout draws its bits outside vmap: all folds would drop the same values."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, Dropout):
                setattr(module, name, nn.Dropout(child.p))


def differing(study: Study) -> float:
    """The largest difference of any weight after an epoch without dropout, fold by fold and together."""
    alone = Alone(study, dropout=0, dtype=torch.float64)
    stacked = Stacked(study, dropout=0, dtype=torch.float64)
    alone.epoch()
    stacked.epoch()
    rows = torch.stack([nn.utils.parameters_to_vector(model.parameters()).detach() for model in alone.models])
    return float((rows - stacked.flat).abs().max())


def fastest(way: Alone | Stacked, device: torch.device, times: int = 3) -> float:
    """Seconds of the fastest of some epochs, after one that is not counted."""
    taken = []
    for _ in range(times + 1):
        start = time.perf_counter()
        way.epoch()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return min(taken[1:])


if __name__ == "__main__":
    main()
