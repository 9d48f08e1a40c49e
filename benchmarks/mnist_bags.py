"""MNIST-bags: is there a nine in the bag? AUC of the bag, and how well attention finds the nines.

    python benchmarks/mnist_bags.py mnist_10k.npz [--bags 50,100,200] [--seeds 5] [--models abmil]

mnist_10k.npz: `images` uint8 [10000, 28, 28] and `labels`, the MNIST test digits: the first 6,000 for training bags,
the rest for 1,000 test bags. Bags are drawn half with and half without a nine, of N(10, 2) digits. As Ilse et al. (ICML
2018): two convolutions of 20 and 50 kernels, then the method, whose projection is the paper's layer of 500 features,
without dropout; all trained as one; Adam at 5e-4, weight decay 1e-4, one bag a step, 20 epochs, the last is taken. The
convolutions stand in this file: the product reads features. Beside: Ilse prints gated .753, .916, .974 at 50, 100, 200
bags, a replication with these digits .872, .958, .977.
"""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsi_mil.evaluation import score
from wsi_mil.models import MIL, MODELS, build_model

TARGET, TEST_BAGS, SPLIT = 9, 1000, 6000
Bag = tuple[NDArray[np.int64], int]


def main() -> None:
    """Print a row for each method and number of training bags."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--bags", default="50,100,200")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--models", default="abmil")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with np.load(arguments.data) as file:
        images, labels = torch.from_numpy(file["images"]).float()[:, None] / 255, file["labels"]
    print(f"{'method':>16} {'bags':>5} {'AUC':>14} {'AUC of the nines':>17}")
    for name in arguments.models.split(","):
        for count in (int(one) for one in arguments.bags.split(",")):
            told = [one_run(name, images, labels, count, seed, arguments.epochs) for seed in range(arguments.seeds)]
            (auc, nines), (spread, spread_nines) = np.mean(told, axis=0), np.std(told, axis=0)
            print(f"{name:>16} {count:>5} {auc:>7.3f} +-{spread:.3f} {nines:>10.3f} +-{spread_nines:.3f}", flush=True)


def draw(labels: NDArray[np.int64], pool: NDArray[np.int64], count: int, random: np.random.Generator) -> list[Bag]:
    """Bags of places in `labels`, every second one with a nine."""
    bags: list[Bag] = []
    nines, others = pool[labels[pool] == TARGET], pool[labels[pool] != TARGET]
    for number in range(count):
        length = max(1, int(random.normal(10, 2)))
        if number % 2:
            while not (labels[chosen := random.choice(pool, length)] == TARGET).any():
                if length == 1:
                    chosen = random.choice(nines, 1)
                    break
        else:
            chosen = random.choice(others, length)
        bags.append((chosen, number % 2))
    return bags


class Digits(nn.Module):
    """28 x 28 pixels to 500 features, then a method that reads bags."""

    def __init__(self, name: str, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.features = nn.Sequential(
            nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(),
        )  # fmt: skip
        wanted = {"hidden": 500, "dropout": 0.0}
        known = inspect.signature(MODELS[name]).parameters
        options = {option: value for option, value in wanted.items() if option in known}
        self.model: MIL = build_model(name, dim=800, n_out=2, seed=seed, **options)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [1, 2] and scores [digit] of one bag."""
        cells = torch.stack([torch.arange(len(images)), torch.zeros(len(images), dtype=torch.int64)], dim=1)
        pooled = self.model(self.features(images), cells, torch.tensor([0, len(images)]))
        assert pooled.logits is not None
        return pooled.logits, pooled.scores[:, -1]


def one_run(
    name: str, images: Tensor, labels: NDArray[np.int64], count: int, seed: int, epochs: int
) -> tuple[float, float]:
    """AUC of the test bags, and of the nines among the digits of those that have one."""
    random = np.random.default_rng([seed, count])
    digits = np.arange(len(labels))
    train, test = draw(labels, digits[:SPLIT], count, random), draw(labels, digits[SPLIT:], TEST_BAGS, random)
    model = Digits(name, seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-4, weight_decay=1e-4)
    for _ in range(epochs):
        model.train()
        for number in random.permutation(count):
            places, label = train[number]
            loss = nn.functional.cross_entropy(model(images[places])[0], torch.tensor([label]))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    model.eval()
    with torch.inference_mode():
        said = [model(images[places]) for places, _ in test]
    truth = np.array([label for _, label in test])
    probabilities = np.stack([logits.softmax(dim=1)[0].numpy() for logits, _ in said])
    found = [
        _auc(labels[places] == TARGET, scores.numpy())
        for (places, label), (_, scores) in zip(test, said, strict=True)
        if label and (labels[places] != TARGET).any()
    ]
    return score("auroc", truth, probabilities), float(np.mean(found))


def _auc(truth: NDArray[np.bool_], scores: NDArray[np.floating]) -> float:
    """Share of pairs of a nine and another digit that are in the right order."""
    gaps = scores[truth][:, None] - scores[~truth][None]
    return float(((gaps > 0) + 0.5 * (gaps == 0)).mean())


if __name__ == "__main__":
    main()
