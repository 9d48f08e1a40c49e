"""Parts that several methods share: reductions over the tiles of each bag, projection, attention, head."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from wsi_mil.models.aggregator import Pooled
from wsi_mil.models.dropout import Dropout


class Segments(NamedTuple):
    """Which tiles belong to which bag, in the two forms that reductions want."""

    lengths: list[int]
    bag: Int64[Tensor, "tile"]
    """The bag of each tile, on the device of the features."""


def segments(offsets: Int64[Tensor, "edge"], *, device: torch.device) -> Segments:
    """Segments of a ragged batch."""
    lengths = offsets.diff()
    bag = torch.repeat_interleave(torch.arange(len(lengths), device=offsets.device), lengths)
    return Segments(lengths.tolist(), bag.to(device))


def segment_softmax(scores: Float[Tensor, "tile query"], parts: Segments) -> Float[Tensor, "tile query"]:
    """Softmax over the tiles of each bag, in float32 at least, whatever the precision of the scores."""
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if len(parts.lengths) == 1:
        return scores.softmax(dim=0)
    shape = (len(parts.lengths), scores.shape[1])
    index = parts.bag[:, None].expand_as(scores)
    # The shift cancels in the quotient, so no gradient needs to pass through it.
    top = scores.new_full(shape, float("-inf")).scatter_reduce(0, index, scores.detach(), "amax")
    exponentials = (scores - top[parts.bag]).exp()
    sums = scores.new_zeros(shape).index_add(0, parts.bag, exponentials)
    return exponentials / sums[parts.bag]


def weighted_sum(
    tiles: Float[Tensor, "tile dim"], weights: Float[Tensor, "tile query"], parts: Segments
) -> Float[Tensor, "bag query dim"]:
    """Per bag and query, the sum of the tiles times their weights.

    One matrix product a bag: measured as fast as one pass over the batch, without a second copy of the tiles.
    """
    weights = weights.to(tiles.dtype)
    pairs = zip(torch.split(weights, parts.lengths), torch.split(tiles, parts.lengths), strict=True)
    return torch.stack([weight.T @ tile for weight, tile in pairs])


def segment_sum(values: Float[Tensor, "tile column"], parts: Segments) -> Float[Tensor, "bag column"]:
    """Per bag, the sum over its tiles."""
    return torch.stack([part.sum(dim=0) for part in torch.split(values, parts.lengths)])


def segment_mean(values: Float[Tensor, "tile column"], parts: Segments) -> Float[Tensor, "bag column"]:
    """Per bag, the mean over its tiles."""
    return torch.stack([part.mean(dim=0) for part in torch.split(values, parts.lengths)])


def segment_max(
    values: Float[Tensor, "tile column"], parts: Segments
) -> tuple[Float[Tensor, "bag column"], Int64[Tensor, "bag column"]]:
    """Per bag and column, the largest value and the tile (its row in the batch) that has it."""
    tops, rows, start = [], [], 0
    for part in torch.split(values, parts.lengths):
        top, row = part.max(dim=0)
        tops.append(top)
        rows.append(row + start)
        start += len(part)
    return torch.stack(tops), torch.stack(rows)


def attention_pooled(
    tiles: Float[Tensor, "tile hidden"], scores: Float[Tensor, "tile query"], parts: Segments
) -> Pooled:
    """a = softmax of the scores over each bag, z_q = sum_k a_kq h_k; logits are left to `MIL`, which needs `tiles`."""
    attention = segment_softmax(scores, parts)  #                                         tile query
    return Pooled(weighted_sum(tiles, attention, parts), scores, attention, None, None, {"tiles": tiles})


class Projection(nn.Module):
    """h = dropout(relu(W x + b)): the one layer that lets a frozen encoder's features fit the question.

    Without it plain attention MIL loses several points on weak features (Linear + ReLU apart, the same method).
    """

    def __init__(self, dim: int, hidden: int, *, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, hidden)
        self.dropout = Dropout(dropout)

    def forward(self, features: Float[Tensor, "tile dim"]) -> Float[Tensor, "tile hidden"]:
        """Project each tile."""
        hidden: Tensor = self.dropout(self.linear(features).relu())
        return hidden


class TileNorm(nn.Module):
    """Batch norm over tiles; a batch of one tile, which has no spread, is read with the numbers of earlier ones."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(columns)

    def forward(self, tiles: Float[Tensor, "tile column"]) -> Float[Tensor, "tile column"]:
        """Each column with mean 0 and spread 1 over the batch's tiles, then scaled."""
        if len(tiles) > 1:
            usual: Tensor = self.norm(tiles)
            return usual
        mean, variance = self.norm.running_mean, self.norm.running_var
        return functional.batch_norm(tiles, mean, variance, self.norm.weight, self.norm.bias, eps=self.norm.eps)


class Attention(nn.Module):
    """e = w (tanh(V h) * sigmoid(U h)), or without the gate e = w tanh(V h); one column a query.

    w has no bias: it would cancel in the softmax.
    """

    def __init__(self, hidden: int, width: int, queries: int, *, gated: bool, dropout: float) -> None:
        super().__init__()
        self.value = nn.Linear(hidden, width)
        self.gate = nn.Linear(hidden, width) if gated else None
        self.dropout = Dropout(dropout)
        self.score = nn.Linear(width, queries, bias=False)

    def forward(self, tiles: Float[Tensor, "tile hidden"]) -> Float[Tensor, "tile query"]:
        """Raw scores, before the softmax."""
        values = self.value(tiles).tanh()  #                                              tile width
        if self.gate is not None:
            values = values * self.gate(tiles).sigmoid()
        scores: Tensor = self.score(self.dropout(values))
        return scores


class Head(nn.Module):
    """logit_c = sum_q W_cq z_q + b_c; with a query for each class, W_cq is kept for q = c only."""

    def __init__(self, dim: int, *, queries: int, n_out: int, query_per_class: bool) -> None:
        super().__init__()
        fan_in = dim if query_per_class else queries * dim
        self.weight = nn.Parameter(torch.empty(n_out, 1 if query_per_class else queries, dim))
        self.bias = nn.Parameter(torch.zeros(n_out))
        nn.init.uniform_(self.weight, -(fan_in**-0.5), fan_in**-0.5)
        self.query_per_class = query_per_class

    def forward(self, embedding: Float[Tensor, "bag query dim"]) -> Float[Tensor, "bag out"]:
        """Logits of each bag."""
        if self.query_per_class:
            return torch.einsum("bqd,qd->bq", embedding, self.weight[:, 0]) + self.bias
        return embedding.flatten(1) @ self.weight.flatten(1).T + self.bias

    def contributions(
        self, tiles: Float[Tensor, "tile dim"], attention: Float[Tensor, "tile query"]
    ) -> Float[Tensor, "tile out"]:
        """What each tile adds to each logit, where the embedding is the sum of tiles times attention.

        logit_c - b_c = sum_q W_cq sum_k a_kq h_k = sum_k (sum_q a_kq W_cq h_k)
        """
        if self.query_per_class:
            return attention * (tiles @ self.weight[:, 0].T)
        spoken = torch.einsum("td,oqd->toq", tiles, self.weight)  #                       tile out query
        return (spoken * attention[:, None, :]).sum(dim=2)
