"""Small heads on frozen features that learn where the known ends: polyhedral cones, DenseHybrid's, DRA's.

They are trained after the model, on what it was trained on, and leave its weights as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

HEADS = ("epcc", "hybrid", "deviation")

KAPPA = 1.0
MARGIN = 1.0

BETA = 0.03
"""Weight of the log-sum-exp of negative tiles; ten times as much for the posterior (Grcic et al., 2022)."""

CONFIDENCE = 5.0
"""Spreads of the prior that an anomaly is to lie above it."""
PRIOR = 5000
REFERENCES = 5
TOP = 0.1
HIDDEN = 64
STEPS, RATE = 300, 5e-3
STEP_BAGS, STEP_TILES = 8, 128
SWAPPED = (0.05, 0.2)
"""Share of a pseudo anomaly's tiles that are another's."""

Arrays = dict[str, NDArray[Any]]


def fit_head(
    name: str,
    bags: Sequence[NDArray[np.float32]],
    embeddings: Float[np.ndarray, "bag part"],
    truth: Int[np.ndarray, "bag"],
    negatives: Sequence[NDArray[np.float32]],
    *,
    seed: int,
) -> Arrays:
    """Train one of HEADS on bags [tile dim] of known classes (`truth`) and, but for epcc, on bags of no class."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if name == "epcc":
            return _fit_conic(embeddings, truth)
        if name == "hybrid":
            return _fit_dense(bags, truth, negatives)
        return _fit_deviation(bags, negatives, np.random.default_rng(seed))


class Conic(nn.Module):
    """f_c(x) = w_c . (x - s_c) + gamma_c . |x - s_c| + b_c, after LayerNorm (extended polyhedral conic classifier).

    gamma = -(|w| + kappa + softplus(v)) and b >= 0 by construction: f_c(s_c) = b_c is its highest value, and it falls
    in every direction by kappa or more a unit of the L1 distance, so that its region is bounded without a loss for it.
    """

    def __init__(self, centres: Float[Tensor, "class part"]) -> None:
        super().__init__()
        self.centre = nn.Parameter(centres.clone())
        self.w = nn.Parameter(torch.zeros_like(centres))
        self.v = nn.Parameter(torch.full_like(centres, -2.0))
        self.b = nn.Parameter(torch.ones(len(centres)) * float(centres.shape[1]))

    def forward(self, x: Float[Tensor, "bag part"]) -> Float[Tensor, "bag class"]:
        """Value of each class's function; at least 0 within its region."""
        away = functional.layer_norm(x, x.shape[1:])[:, None] - self.centre
        gamma = -(self.w.abs() + KAPPA + functional.softplus(self.v))
        return (self.w * away + gamma * away.abs()).sum(dim=2) + self.b.clamp(min=0)


def _fit_conic(embeddings: Float[np.ndarray, "bag part"], truth: Int[np.ndarray, "bag"]) -> Arrays:
    """One-against-rest hinge, and a hinge between the classes."""
    x, y = torch.from_numpy(embeddings.astype(np.float32)), torch.from_numpy(np.asarray(truth, np.int64))
    found = torch.unique(y)
    y = torch.searchsorted(found, y)
    normed = functional.layer_norm(x, x.shape[1:])
    head = Conic(torch.stack([normed[y == number].mean(dim=0) for number in range(len(found))]))
    signs = 2 * functional.one_hot(y, len(found)).float() - 1

    def loss() -> Tensor:
        said = head(x)
        own = said.gather(1, y[:, None])
        apart = (MARGIN - (own - said)).clamp(min=0) * (signs < 0)
        return (1 - signs * said).clamp(min=0).mean() + apart.sum() / max(1, len(x) * (len(found) - 1))

    _descend(head, loss, rate=0.02)
    return _arrays(head)


def conic_scores(x: Float[np.ndarray, "bag part"], arrays: Arrays) -> Float32[np.ndarray, "bag class"]:
    """Value of each class's polyhedral conic function."""
    head = Conic(torch.from_numpy(arrays["centre"]))
    return _said(head, arrays, x)


class Dense(nn.Module):
    """Logits of the classes and of inside against outside, for single tiles (DenseHybrid)."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.shared = nn.Linear(dim, HIDDEN)
        self.classes = nn.Linear(HIDDEN, classes)
        self.outside = nn.Linear(HIDDEN, 2)

    def both(self, tiles: Float[Tensor, "tile dim"]) -> tuple[Tensor, Tensor]:
        """Logits of the classes, and of (inside, outside)."""
        hidden = torch.relu(self.shared(tiles))
        return self.classes(hidden), self.outside(hidden)

    def forward(self, tiles: Float[Tensor, "tile dim"]) -> Float[Tensor, "tile"]:
        """ln p(outside | x) - log-sum-exp of the logits."""
        logits, outside = self.both(tiles)
        return functional.log_softmax(outside, dim=1)[:, 1] - logits.logsumexp(dim=1)


def _fit_dense(
    bags: Sequence[NDArray[Any]], truth: Int[np.ndarray, "bag"], negatives: Sequence[NDArray[Any]]
) -> Arrays:
    """Cross-entropy of tiles under their slide's class, the density of negatives down, and the posterior of both."""
    classes, own = np.unique(truth, return_inverse=True)
    tiles = torch.from_numpy(np.concatenate(bags).astype(np.float32))
    labels = torch.from_numpy(np.repeat(own, [len(one) for one in bags]))
    others = torch.from_numpy(np.concatenate(list(negatives)).astype(np.float32))
    head = Dense(tiles.shape[1], len(classes))

    def loss() -> Tensor:
        inside, outside = torch.randint(len(tiles), (256,)), torch.randint(len(others), (256,))
        known, known_side = head.both(tiles[inside])
        new, new_side = head.both(others[outside])
        sides = functional.cross_entropy(known_side, torch.zeros(256, dtype=torch.int64))
        sides = sides + functional.cross_entropy(new_side, torch.ones(256, dtype=torch.int64))
        return functional.cross_entropy(known, labels[inside]) + BETA * new.logsumexp(dim=1).mean() + 10 * BETA * sides

    _descend(head, loss)
    return _arrays(head)


def dense_scores(tiles: Float32[np.ndarray, "tile dim"], arrays: Arrays) -> Float32[np.ndarray, "tile"]:
    """How far each tile looks outside."""
    head = Dense(arrays["shared.weight"].shape[1], len(arrays["classes.bias"]))
    return _said(head, arrays, tiles)


def deviation_loss(score: Float[Tensor, "bag"], anomalous: Tensor, prior: Float[Tensor, "draw"]) -> Tensor:
    """(1 - y) |d| + y max(0, 5 - d), d the score in spreads of a normal prior (Pang et al., 2019; DRA)."""
    away, y = (score - prior.mean()) / prior.std(), anomalous.to(score.dtype)
    return ((1 - y) * away.abs() + y * (CONFIDENCE - away).clamp(min=0)).mean()


class Deviation(nn.Module):
    """DRA's four heads over the tiles of a bag in place of the places of a map (Ding et al., CVPR 2022)."""

    reference: Tensor

    def __init__(self, reference: Float[Tensor, "dim"]) -> None:
        super().__init__()
        dim = len(reference)
        self.normality = nn.Sequential(nn.Linear(dim, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))
        self.seen, self.pseudo = nn.Linear(dim, 1), nn.Linear(dim, 1)
        self.residual = nn.Sequential(nn.Linear(dim, HIDDEN), nn.LayerNorm(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))
        self.register_buffer("reference", reference)

    def heads(self, tiles: Float[Tensor, "bag tile dim"]) -> Float[Tensor, "bag 4"]:
        """Normality, seen, pseudo and residual score of bags of one length."""
        count = max(1, round(TOP * tiles.shape[1]))
        maps = (self.seen(tiles), self.pseudo(tiles), self.residual(self.reference - tiles))
        tops = [one[..., 0].abs().topk(count, dim=1).values.mean(dim=1) for one in maps]
        return torch.stack([self.normality(tiles.mean(dim=1))[:, 0], *tops], dim=1)

    def forward(self, tiles: Float[Tensor, "tile dim"]) -> Tensor:
        """- normality + seen + pseudo + residual."""
        found = self.heads(tiles[None])[0]
        return found[1:].sum() - found[0]


def _fit_deviation(
    bags: Sequence[NDArray[Any]], negatives: Sequence[NDArray[Any]], random: np.random.Generator
) -> Arrays:
    """Bags of no class are the seen anomalies; the pseudo ones have 5 to 20 % of a known bag's tiles swapped."""
    chosen = random.permutation(len(bags))[:REFERENCES]
    head = Deviation(torch.from_numpy(np.stack([bags[one].mean(axis=0) for one in chosen]).mean(axis=0)))
    known, seen = ([torch.from_numpy(one.astype(np.float32)) for one in part] for part in (bags, negatives))
    others, prior = torch.cat(seen), torch.randn(PRIOR)

    def drawn(of: list[Tensor]) -> Tensor:
        chosen = [of[one] for one in random.integers(len(of), size=STEP_BAGS)]
        return torch.stack([one[torch.randint(len(one), (STEP_TILES,))] for one in chosen])

    def loss() -> Tensor:
        swapped = torch.rand(STEP_BAGS, STEP_TILES) < torch.empty(STEP_BAGS, 1).uniform_(*SWAPPED)
        mixed = torch.where(swapped[..., None], others[torch.randint(len(others), swapped.shape)], drawn(known))
        normal, anomalous, made = head.heads(torch.cat([drawn(known), drawn(seen), mixed])).chunk(3)
        no, yes = torch.zeros(STEP_BAGS), torch.ones(STEP_BAGS)
        both, sides = torch.cat([normal, anomalous]), torch.cat([no, yes])
        pseudo = torch.cat([normal, made])
        return (
            deviation_loss(both[:, 0], 1 - sides, prior)
            + deviation_loss(both[:, 1], sides, prior)
            + deviation_loss(pseudo[:, 2], sides, prior)
            + deviation_loss(both[:, 3], sides, prior)
        )

    _descend(head, loss, rate=2e-3)
    return _arrays(head)


def deviation_score(tiles: Float32[np.ndarray, "tile dim"], arrays: Arrays) -> float:
    """DRA's score of one bag."""
    return float(_said(Deviation(torch.from_numpy(arrays["reference"])), arrays, tiles))


def _descend(head: nn.Module, loss: Any, *, rate: float = RATE) -> None:
    optimiser = torch.optim.Adam(head.parameters(), lr=rate, weight_decay=1e-5)
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss().backward()
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimiser.step()


def _arrays(head: nn.Module) -> Arrays:
    return {name: value.detach().numpy().copy() for name, value in head.state_dict().items()}


def _said(head: nn.Module, arrays: Arrays, x: NDArray[Any]) -> NDArray[Any]:
    head.load_state_dict({name: torch.from_numpy(np.asarray(one)) for name, one in arrays.items()})
    with torch.inference_mode():
        return np.asarray(head.eval()(torch.from_numpy(np.array(x, dtype=np.float32))).numpy())
