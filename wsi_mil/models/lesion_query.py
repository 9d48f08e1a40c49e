"""Lesion-aware queries: a few learned vectors each look for a pattern of their own, and are weighed for the slide."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from wsi_mil.errors import ModelError
from wsi_mil.models.aggregator import Aggregator, Clinical, Pooled, Weights
from wsi_mil.models.layers import Projection, attention_pooled, segments

_SHARPNESS = 10.0
"""Of the cosines in the separation term: queries apart by .1 differ by a factor of e."""


class LesionQuery(Aggregator):
    """h = relu(P x);  e_kq = h_k l_q / sqrt(hidden);  a_q = softmax(e_q) over the tiles;  x_q = sum_k a_kq h_k;

    i = softmax_q(v x_q), how much query q matters for this bag;  logit = W sum_q i_q x_q + b.

    Two training terms keep queries apart: `diversity` weighs the mean cosine between two queries' attention, and
    `separation` the cross-entropy of telling from x_q, by its cosine to all l, which query read it. Scores and
    attention have a column a query. Contributions are exact as a sum; importance is taken from the whole bag.

    Claims the mechanism, not the published accuracy. Departures: no self-attention between tiles, so that the cost is
    linear; the separation term is ours, as the published one could not be read.
    """

    weights: Weights = "softmax"
    exact_contributions = True
    spatial = False
    own_logits = True
    use = "several kinds of lesion, each with a map"
    paper = "Sun et al.: Lesion-Aware Transformers for Diabetic Retinopathy Grading, CVPR 2021"
    cost = "time O(N (dim + queries) hidden), memory O(N (hidden + queries))"

    def __init__(
        self,
        dim: int,
        n_out: int,
        *,
        lesions: int = 8,
        hidden: int = 256,
        dropout: float = 0.25,
        diversity: float = 0.1,
        separation: float = 0.1,
    ) -> None:
        super().__init__()
        if lesions < 1:
            raise ModelError(f"lesion_query: lesions is {lesions}; it must be 1 or more")
        self.queries = tuple(f"lesion {number}" for number in range(lesions))
        self.embedding_dim = hidden
        self.losses = {"diversity": diversity, "separation": separation}
        self.projection = Projection(dim, hidden, dropout=dropout)
        self.lesions = nn.Parameter(torch.randn(lesions, hidden))
        self.importance = nn.Linear(hidden, 1, bias=False)
        self.head = nn.Linear(hidden, n_out)

    def pool(
        self,
        features: Float[Tensor, "tile dim"],
        cells: Int64[Tensor, "tile 2"],
        offsets: Int64[Tensor, "edge"],
        clinical: Clinical | None = None,
    ) -> Pooled:
        """What each query finds in each bag, weighed."""
        parts = segments(offsets, device=features.device)
        tiles = self.projection(features)  #                                              tile hidden
        scores = functional.linear(tiles, self.lesions) / self.embedding_dim**0.5  #      tile query
        pooled = attention_pooled(tiles, scores, parts)
        found, attention = pooled.embedding, pooled.attention
        assert attention is not None  # it is a softmax
        importance = self.importance(found)  #                                            bag query 1
        importance = importance.to(torch.promote_types(importance.dtype, torch.float32)).softmax(dim=1)
        contributions = None
        if not self.training:
            shares = (attention * importance[parts.bag, :, 0]).sum(1, keepdim=True)
            contributions = shares * functional.linear(tiles, self.head.weight)
        likeness = functional.normalize(found, dim=2) @ functional.normalize(self.lesions, dim=1).T
        logs = (likeness.to(importance.dtype) * _SHARPNESS).log_softmax(dim=2)  #         bag query query
        return Pooled(
            embedding=found,
            scores=scores,
            attention=attention,
            logits=self.head((importance.to(found.dtype) * found).sum(dim=1)),
            contributions=contributions,
            aux={"importance": importance[:, :, 0], "separation": -logs.diagonal(dim1=1, dim2=2).mean(1)},
        )
