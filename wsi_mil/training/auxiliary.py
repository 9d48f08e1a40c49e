"""Terms of the training loss that a method asks for besides the task's own: here alone they meet labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torch.nn import functional

from wsi_mil.errors import ModelError, unknown
from wsi_mil.models import Pooled
from wsi_mil.tasks import Task

Memory = dict[int, tuple[int, Tensor]]
"""For each bag, how often it was met and the decaying mean of its attention."""


class Step(NamedTuple):
    """What a term may look at: one training step."""

    pooled: Pooled
    target: Shaped[Tensor, "bag ..."]
    offsets: Int64[Tensor, "edge"]
    task: Task
    bags: list[int]
    """Numbers of the bags, the same in each epoch."""
    progress: float
    """Share of the training that is done."""


class Auxiliary:
    """The whole loss of a step: bag * task loss + sum of weight * term, over the terms that the method asks for.

    It remembers what a term needs from epoch to epoch, so that each training run has its own.
    """

    def __init__(self, losses: Mapping[str, float]) -> None:
        for name in losses:
            if name not in {"bag", *TERMS}:
                raise ModelError(unknown("auxiliary loss", name, {"bag", *TERMS}))
        self.losses = dict(losses)
        self.memory: Memory = {}

    def __call__(self, bag_loss: Float[Tensor, ""], step: Step) -> Float[Tensor, ""]:
        """Add the terms to the task's loss."""
        total = self.losses.get("bag", 1.0) * bag_loss
        for name, weight in self.losses.items():
            if name != "bag" and weight:
                total = total + weight * TERMS[name](step, self.memory)
        return total


def entropy(step: Step, memory: Memory) -> Tensor:
    """-H(a) / log N, mean over bags and queries: attention that is spread costs less.

    AEM (arXiv 2406.15303). Between -1, uniform, and 0, one tile alone; a bag of one tile gives 0.
    """
    assert step.pooled.attention is not None
    terms = []
    for part in _split(step, step.pooled.attention):
        logs = part.clamp_min(torch.finfo(part.dtype).tiny).log()
        terms.append((part * logs).sum(0).mean() / max(1.0, torch.tensor(float(len(part))).log().item()))
    return torch.stack(terms).mean()


def carried(step: Step, memory: Memory) -> Tensor:
    """L2 = sum_j alpha_j (-log softmax(z_j)_y), mean over bags: each tile carries the bag's label, by its weight.

    Shi et al.: Loss-based attention, AAAI 2020.
    """
    assert step.pooled.attention is not None
    classes = _classes(step, "carried")
    losses = functional.cross_entropy(
        step.pooled.aux["tile_logits"].float(), classes[_bag(step)], reduction="none"
    )  #                                                                                   tile
    return (step.pooled.attention[:, 0] * losses).sum() / len(classes)


def steady(step: Step, memory: Memory) -> Tensor:
    """L3 = sum_j (alpha_j - mean of earlier epochs)^2, mean over bags; 0 when a bag is met for the first time.

    The mean is exponential, m = .6 m + .4 alpha, divided by 1 - .6^times (Shi et al., AAAI 2020). It needs the same
    tiles each time.
    """
    assert step.pooled.attention is not None
    terms = []
    for bag, part in zip(step.bags, _split(step, step.pooled.attention), strict=True):
        times, mean = memory.get(bag, (0, torch.zeros_like(part)))
        if mean.shape != part.shape:
            raise ModelError(
                f"bag {bag} had {len(mean)} tiles and now has {len(part)}: a loss that compares epochs needs them all; "
                "set train.tiles_per_bag to 0, or the model's steady to 0"
            )
        terms.append(((part - mean / (1 - 0.6**times)) ** 2).sum() if times else part.sum() * 0)
        memory[bag] = times + 1, 0.6 * mean + 0.4 * part.detach()
    return torch.stack(terms).mean()


def clusters(step: Step, memory: Memory) -> Tensor:
    """Binary loss on the B tiles that a class's attention ranks highest and lowest, mean over bags.

    For the bag's own class the first are told yes and the last no; for the others, where classes exclude each other,
    the first are told no (Lu et al., CLAM, 2021). A bag of one tile has no term.
    """
    aux = step.pooled.aux
    classes, tops = _classes(step, "clusters"), int(aux["cluster_tiles"])
    scores, logits = step.pooled.scores.detach(), aux["cluster_logits"].float()
    exclusive, hinge = bool(aux["cluster_exclusive"]), bool(aux["cluster_hinge"])
    total = logits.sum() * 0
    for kind, tiles, ranks in zip(classes.tolist(), _split(step, logits), _split(step, scores), strict=True):
        count = min(tops, len(tiles) // 2)
        if not count:
            continue
        terms = []
        for other in range(logits.shape[1]) if exclusive else [kind]:
            order = ranks[:, min(other, ranks.shape[1] - 1)].argsort(descending=True, stable=True)
            chosen = order[:count] if other != kind else torch.cat([order[:count], order[-count:]])
            truth = torch.zeros(len(chosen), dtype=torch.int64, device=logits.device)
            truth[:count] = int(other == kind)
            loss = functional.multi_margin_loss if hinge else functional.cross_entropy
            terms.append(loss(tiles[chosen, other], truth))
        total = total + torch.stack(terms).mean()
    return total / len(classes)


def streams(step: Step, memory: Memory) -> Tensor:
    """Mean of the task's loss over the streams of a method, each judged alone (DSMIL: 1/2 instance + 1/2 bag)."""
    logits = step.pooled.aux["stream_logits"].float()  #                                   stream bag out
    return torch.stack([step.task.loss(stream, step.target) for stream in logits]).mean()


def diversity(step: Step, memory: Memory) -> Tensor:
    """Cosine of two queries' attention, mean over their pairs and over bags: 0 where none look at the same tile.

    Sun et al.: Lesion-aware transformers, CVPR 2021. One query alone has no term.
    """
    assert step.pooled.attention is not None
    terms = []
    for part in _split(step, step.pooled.attention):
        unit = functional.normalize(part, dim=0)
        pairs = (unit.T @ unit).triu(1)
        terms.append(pairs.sum() / max(1, part.shape[1] * (part.shape[1] - 1) // 2))
    return torch.stack(terms).mean()


def separation(step: Step, memory: Memory) -> Tensor:
    """Mean over bags of how hard it is to tell from what a query found, which one it was."""
    return step.pooled.aux["separation"].mean()


def pseudo_bags(step: Step, memory: Memory) -> Tensor:
    """The task's loss on pseudo-bags, of which each has the label of its bag (Zhang et al., DTFD-MIL, CVPR 2022)."""
    return step.task.loss(step.pooled.aux["pseudo_logits"].float(), step.target[step.pooled.aux["pseudo_bag"]])


def focal(step: Step, memory: Memory) -> Tensor:
    """(1 - p_y)^2 (-log p_y), mean over bags: what is right already counts little (Lin et al., ICCV 2017)."""
    assert step.pooled.logits is not None
    losses = functional.cross_entropy(step.pooled.logits.float(), _classes(step, "focal"), reduction="none")
    return ((1 - (-losses).exp()) ** 2 * losses).mean()


def region_labels(step: Step, memory: Memory) -> Tensor:
    """u (O + X / 4), mean over bags: each region carries the bag's label, by its own weight (O) and the other's (X).

    O = sum over both branches and regions of t_r CE(logits_r, y), X the same with the other branch's weights (Wang et
    al., LCA-DB, 2024). The published u counts epochs of a hundred: .2 exp(-5 (1 - e / 24)^2), 0 at the start.
    """
    aux = step.pooled.aux
    weights, bag = aux["region_weights"], aux["region_bag"]
    target = _classes(step, "region_labels")[bag].expand(2, -1)  #                          branch region
    losses = functional.cross_entropy(aux["region_logits"].float().flatten(0, 1), target.flatten(), reduction="none")
    losses = losses.reshape(weights.shape)
    other = weights.detach() if bool(aux["region_detach"]) else weights
    return ramp(100 * step.progress) * (weights * losses + other.flip(0) * losses / 4).sum() / len(step.bags)


def ramp(epoch: float) -> float:
    """u: 0 at epoch 0, then .2 exp(-5 (1 - e / 24)^2), and .2 from epoch 24 on."""
    return 0.0 if epoch <= 0 else 0.2 * math.exp(-5 * max(0.0, 1 - epoch / 24) ** 2)


def branches(step: Step, memory: Memory) -> Tensor:
    """1 - cosine of the two branches' weights of the regions, mean over bags: 0 where they agree, 1 where disjoint."""
    weights, bag = step.pooled.aux["region_weights"], step.pooled.aux["region_bag"]
    parts = torch.split(weights, torch.bincount(bag).tolist(), dim=1)
    return 1 - torch.stack([functional.cosine_similarity(part[0], part[1], dim=0) for part in parts]).mean()


def min_cut(step: Step, memory: Memory) -> Tensor:
    """Mean over bags of -tr(S'AS) / tr(S'DS): neighbours in one cluster (Bianchi et al., ICML 2020)."""
    return step.pooled.aux["min_cut"].mean()


def orthogonality(step: Step, memory: Memory) -> Tensor:
    """Mean over bags of || S'S / |S'S| - I / sqrt(K) ||: clusters of one size; all that resists collapse."""
    return step.pooled.aux["orthogonality"].mean()


TERMS: dict[str, Callable[[Step, Memory], Tensor]] = {
    "branches": branches,
    "carried": carried,
    "clusters": clusters,
    "diversity": diversity,
    "entropy": entropy,
    "focal": focal,
    "min_cut": min_cut,
    "orthogonality": orthogonality,
    "pseudo_bags": pseudo_bags,
    "region_labels": region_labels,
    "separation": separation,
    "steady": steady,
    "streams": streams,
}


def _split(step: Step, values: Tensor) -> tuple[Tensor, ...]:
    """Rows of each bag."""
    return torch.split(values, step.offsets.diff().tolist())


def _bag(step: Step) -> Tensor:
    """The bag of each tile."""
    lengths = step.offsets.diff().to(step.target.device)
    return torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)


def _classes(step: Step, term: str) -> Int64[Tensor, "bag"]:
    # Targets of ordered grades look like classes, but the outputs are thresholds between them.
    if step.task.kind != "classification":
        raise ModelError(
            f"the loss {term!r} needs one class a slide, and the task is {step.task.kind}; set the weight of the term "
            "to 0 in the model's options"
        )
    return step.target
