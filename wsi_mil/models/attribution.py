"""What each tile of one bag did for the logits: occlusion, gradients, self-attention rolled out, and tiles read alone.

All functions take one bag: features [tile dim] as stored, cells [tile 2], and its record of one row or None; all answer
[tile out], one column for each logit, unless they say otherwise. The model is to be in evaluation mode.

Layer-wise relevance has no function here: with attention weights held constant, as in xMIL (Hense et al., NeurIPS
2024), the relevance that reaches a tile of a weighted mean under a linear head is a_k w h_k, which is the contribution
that such methods give themselves. In all other methods biases and norms take a part of the relevance, so that it is not
exact, and it is not offered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from wsi_mil.errors import ModelError, unknown
from wsi_mil.models.aggregator import Clinical, Pooled
from wsi_mil.models.mil import MIL

Attribution = Literal["alone", "occlusion", "integrated_gradients", "gradient_input", "rollout", "graphcam"]
"""Methods of this file by name."""

STEPS = 64
"""Places on the path of integrated gradients, by Gauss and Legendre: the sum over a bag misses the difference of logits
by 0.1 % (abmil) to 2.3 % (persam), measured; with 32 places gtp was off by two fifths."""

TILES_AT_ONCE = 16_384
"""Rows of features in one pass of occlusion or of tiles alone: 64 MiB with 1,024 features."""

Bag = tuple[Float[Tensor, "tile dim"], Int64[Tensor, "tile 2"], Clinical | None]


def attribute(
    method: str,
    model: MIL,
    features: Float[Tensor, "tile dim"],
    cells: Int64[Tensor, "tile 2"],
    record: Clinical | None = None,
) -> Float[Tensor, "tile column"]:
    """The map that a method draws of one bag: a column for each logit, or for `rollout` one for each query.

    Raises ModelError for an unknown method, and where the model cannot be asked by it (see `can`).
    """
    if method not in _METHODS:
        raise ModelError(unknown("method of attribution", method, get_args(Attribution)))
    if not can(method, model):
        raise ModelError(f"model {model.spec.name!r} has no {method}: {_LACKING[method]}; leave it out")
    device = model.feature_mean.device
    told = None if record is None else Clinical(record.values.to(device), record.missing.to(device))
    return _METHODS[method](model, (features.float().to(device), cells.to(device), told)).detach()


def can(method: str, model: MIL) -> bool:
    """Whether the model can be asked by a method: rollout needs self-attention, GraphCAM a graph of clusters."""
    needed = {"rollout": "rollout", "graphcam": "graph_cam"}.get(method)
    return needed is None or hasattr(model.aggregator, needed)


def alone(model: MIL, bag: Bag) -> Float[Tensor, "tile out"]:
    """logit_c({x_k}): what the model says of a bag in which the tile is the only one, with the same record."""
    features, cells, record = bag
    with torch.no_grad():
        return torch.cat(
            [
                _logits(model, features[rows], cells[rows], torch.arange(len(rows) + 1), record)
                for rows in torch.split(torch.arange(len(features), device=features.device), TILES_AT_ONCE)
            ]
        )


def occlusion(model: MIL, bag: Bag) -> Float[Tensor, "tile out"]:
    """logit_c(X) - logit_c(X without x_k), for one tile at a time (Zeiler and Fergus, ECCV 2014).

    N further passes over N - 1 tiles. A bag of one tile is compared with the tile of mean features.
    """
    features, cells, record = bag
    count, edge = len(features), torch.tensor([0, len(features)])
    with torch.no_grad():
        whole = _logits(model, features, cells, edge, record)
        if count == 1:
            return whole - _logits(model, model.feature_mean[None].to(features), cells, edge, record)
        at_once, parts = max(1, TILES_AT_ONCE // (count - 1)), []
        for hidden in torch.split(torch.arange(count, device=features.device), at_once):
            # row r of the bag without tile k is tile r, or the one after it from k on
            rows = torch.arange(count - 1, device=features.device).expand(len(hidden), -1)
            rows = (rows + (rows >= hidden[:, None])).flatten()
            edges = torch.arange(len(hidden) + 1) * (count - 1)
            parts.append(whole - _logits(model, features[rows], cells[rows], edges, record))
    return torch.cat(parts)


def integrated_gradients(model: MIL, bag: Bag) -> Float[Tensor, "tile out"]:
    """sum_d (x_kd - m_d) * integral from 0 to 1 of d logit_c / d x_kd at m + t (X - m) (Sundararajan et al. 2017).

    m is the mean feature of the training tiles. Over a bag the numbers sum to logit_c(X) - logit_c(m for each tile).
    """
    nodes, shares = np.polynomial.legendre.leggauss(STEPS)
    total: Tensor | None = None
    for node, share in zip(nodes, shares, strict=True):
        step = _slopes(model, bag, at=(float(node) + 1) / 2) * float(share) / 2
        total = step if total is None else total + step
    assert total is not None
    return total


def gradient_input(model: MIL, bag: Bag) -> Float[Tensor, "tile out"]:
    """sum_d (x_kd - m_d) * d logit_c / d x_kd at X, m the mean feature in training (Shrikumar et al. 2017)."""
    return _slopes(model, bag, at=1.0)


def rollout(model: MIL, bag: Bag) -> Float[Tensor, "tile query"]:
    """Attention through all layers: product of (mean over heads of A + I) / 2, from what the logit reads to the tiles.

    Abnar and Zuidema, ACL 2020. How the last layer is read is the method's own affair; N x N numbers are held.
    """
    features, cells, record = bag
    with torch.no_grad():
        found: Tensor = model.aggregator.rollout(model.standardised(features), cells, record)  # type: ignore[operator]
    return found


def graphcam(model: MIL, bag: Bag) -> Float[Tensor, "tile out"]:
    """GraphCAM of each class (Zheng et al., IEEE TMI 2022): the scores of GTP."""
    return read(model, bag).scores


def read(model: MIL, bag: Bag) -> Pooled:
    """One pass over one bag."""
    features, cells, record = bag
    with torch.no_grad():
        pooled: Pooled = model(features, cells, torch.tensor([0, len(features)]), record)
    return pooled


def _logits(model: MIL, features: Tensor, cells: Tensor, offsets: Tensor, record: Clinical | None) -> Tensor:
    bags = len(offsets) - 1
    many = None if record is None else Clinical(record.values.expand(bags, -1), record.missing.expand(bags, -1))
    logits = model(features, cells, offsets, many).logits
    assert logits is not None  # MIL always gives them
    return logits


def _slopes(model: MIL, bag: Bag, *, at: float) -> Float[Tensor, "tile out"]:
    """sum_d (x_kd - m_d) * d logit_c / d x_kd at the share `at` of the way from m to X, X cut as the model cuts it."""
    features, cells, record = bag
    mean = model.feature_mean
    away = model.standardised(features) * model.feature_scale
    with torch.enable_grad():
        place = (mean + at * away).requires_grad_()
        logits = _logits(model, place, cells, torch.tensor([0, len(features)]), record)[0]
        slopes = [torch.autograd.grad(logit, place, retain_graph=True, allow_unused=True)[0] for logit in logits]
    return torch.stack(
        [away.new_zeros(len(away)) if slope is None else (away * slope).sum(dim=1) for slope in slopes], dim=1
    )


_METHODS: dict[str, Callable[[MIL, Bag], Tensor]] = {
    "alone": alone,
    "occlusion": occlusion,
    "integrated_gradients": integrated_gradients,
    "gradient_input": gradient_input,
    "rollout": rollout,
    "graphcam": graphcam,
}

_LACKING = {
    "rollout": "its tiles do not attend to one another, or not by attention that is written out",
    "graphcam": "it is of graphs of clusters (gtp)",
}
