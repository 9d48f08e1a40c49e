"""SMILE-style MIL: attention that is exactly zero for most tiles, optionally after sparse self-attention."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from wsi_mil.errors import ModelError
from wsi_mil.models.aggregator import Aggregator, Clinical, Pooled, Weights
from wsi_mil.models.layers import Attention, Projection, Segments, segment_softmax, segments, weighted_sum
from wsi_mil.models.sparse import entmax, sparsemax, top_softmax

_CHUNK = 1024
"""Tiles whose keys are chosen at a time: N x 1024 similarities in memory, not N x N."""


class SMILE(Aggregator):
    """h_k = relu(P x_k);  e = t * gated attention;  a = (1 - m) S(e) + m softmax(e);  z = sum_k a_k h_k.

    S: sparsemax, entmax (`alpha`; 1.5 by default) or softmax over the k largest; t is learned, because the scale of the
    scores decides how many tiles stay. `anneal` is the share of the training over which the mixture m falls from 1 to
    0, so that no witness is dropped before the scores mean anything. Colour heatmaps by the scores: most weights are 0.

    `neighbours` > 0 puts sparse self-attention before: each tile attends, in each of 4 heads, to the
    ceil(neighbours ln N) tiles most like it, and one more, for it is mostly itself the first; that takes time O(N^2).

    Claims the mechanism, not the published accuracy: the paper's sparse operator and its numbers are not public, and
    its contrastive encoder is no part of this.
    """

    weights: Weights = "softmax"
    exact_contributions = True
    spatial = False
    own_logits = False
    use = "few tiles should carry the map: weights that are exactly 0"
    paper = "Lu et al.: SMILE, Sparse-Attention based Multiple Instance Contrastive Learning, COMPAY 2021"
    cost = "time O(N dim hidden + N log N), memory O(N hidden); with neighbours time O(N^2), memory O(N hidden log N)"

    mixture: Tensor

    def __init__(
        self,
        dim: int,
        n_out: int,
        *,
        operator: Literal["sparsemax", "entmax", "topk"] = "entmax",
        alpha: float = 1.5,
        k: int = 8,
        anneal: float = 0.0,
        neighbours: float = 0.0,
        hidden: int = 256,
        attention: int = 128,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        known = operator in ("sparsemax", "entmax", "topk")
        if not known or not 1 < alpha <= 2 or k < 1 or not 0 <= anneal <= 1 or neighbours < 0:
            raise ModelError(
                f"smile: operator={operator!r}, alpha={alpha}, k={k}, anneal={anneal}, neighbours={neighbours}; "
                "operator is sparsemax, entmax or topk, 1 < alpha <= 2, k >= 1, 0 <= anneal <= 1 and neighbours >= 0"
            )
        self.breaks = {"duplication": "sparsemax([1, .5]) = [.75, .25], but of two copies each it is [.5, .5, 0, 0]"}
        self.operator, self.alpha, self.k, self.anneal = operator, alpha, k, anneal
        self.queries = ("tiles",)
        self.embedding_dim = hidden
        self.projection = Projection(dim, hidden, dropout=dropout)
        self.context = SparseSelfAttention(hidden, neighbours=neighbours) if neighbours else None
        self.attention = Attention(hidden, attention, 1, gated=True, dropout=0.0)
        self.log_temperature = nn.Parameter(torch.zeros(1))
        self.register_buffer("mixture", torch.tensor(1.0 if anneal else 0.0))

    def at(self, progress: float) -> None:
        """Lower the share of softmax."""
        if self.anneal:
            self.mixture.fill_(max(0.0, 1 - progress / self.anneal))

    def pool(
        self,
        features: Float[Tensor, "tile dim"],
        cells: Int64[Tensor, "tile 2"],
        offsets: Int64[Tensor, "edge"],
        clinical: Clinical | None = None,
    ) -> Pooled:
        """Mean of the few tiles of each bag that the sparse attention keeps."""
        parts = segments(offsets, device=features.device)
        tiles = self.projection(features)  #                                              tile hidden
        if self.context is not None:
            tiles = self.context(tiles, parts)
        scores = self.attention(tiles) * self.log_temperature.exp()  #                    tile 1
        whole = scores.to(torch.promote_types(scores.dtype, torch.float32))
        attention = torch.cat([self._sparse(part) for part in torch.split(whole, parts.lengths)])
        if self.anneal:
            attention = (1 - self.mixture) * attention + self.mixture * segment_softmax(scores, parts)
        return Pooled(weighted_sum(tiles, attention, parts), scores, attention, None, None, {"tiles": tiles})

    def _sparse(self, scores: Tensor) -> Tensor:
        if self.operator == "sparsemax":
            return sparsemax(scores)
        return top_softmax(scores, self.k) if self.operator == "topk" else entmax(scores, self.alpha)


class SparseSelfAttention(nn.Module):
    """h_i + O sum_j softmax_j(q_i . k_j / sqrt(d)) v_j, over the ceil(c ln N) + 1 tiles with the largest q_i . k_j."""

    def __init__(self, hidden: int, *, neighbours: float, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.neighbours = heads, neighbours
        self.norm = nn.LayerNorm(hidden)
        self.inward = nn.Linear(hidden, 3 * hidden)
        self.outward = nn.Linear(hidden, hidden)

    def forward(self, tiles: Float[Tensor, "tile hidden"], parts: Segments) -> Float[Tensor, "tile hidden"]:
        """Tiles that have seen the few most like them in their bag."""
        whole = self.inward(self.norm(tiles)).unflatten(1, (3, self.heads, -1))  #        tile 3 head part
        seen = [self._bag(*part.permute(1, 2, 0, 3)) for part in torch.split(whole, parts.lengths)]
        mixed: Tensor = tiles + self.outward(torch.cat(seen))
        return mixed

    def _bag(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Each is head tile part."""
        count = keys.shape[1]
        kept = min(count, math.ceil(self.neighbours * math.log(count)) + 1)
        head = torch.arange(self.heads, device=keys.device)[:, None, None]
        seen = []
        for chunk in torch.split(queries, _CHUNK, dim=1):
            with torch.no_grad():
                rows = (chunk @ keys.mT).topk(kept, dim=2).indices  #                     head chunk kept
            likeness = (chunk[:, :, None] * keys[head, rows]).sum(-1) / keys.shape[2] ** 0.5
            weights = likeness.to(torch.promote_types(likeness.dtype, torch.float32)).softmax(-1).to(values.dtype)
            seen.append((weights[..., None] * values[head, rows]).sum(2))
        return torch.cat(seen, dim=1).transpose(0, 1).flatten(1)
