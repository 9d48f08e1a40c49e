"""Instance MIL: each tile is scored, and the scores are pooled; what the bag says is what its tiles say."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from wsi_mil.errors import ModelError
from wsi_mil.models.aggregator import Aggregator, Clinical, Pooled, Weights
from wsi_mil.models.layers import Attention, Projection, Segments, segment_softmax, segment_sum, segments

_PRIOR = -4.0
"""First logit of a tile under noisy-or: at even odds a thousand tiles would say yes with certainty from the start."""


class InstanceMIL(Aggregator):
    """h_k = relu(P x_k);  s_kc = w_c relu(M h_k), then one of

    additive:  logit_c = sum_k a_k s_kc + b_c, with gated attention a = softmax(e);
    topk:      logit_c = mean of the k largest s_kc + b_c (all, in a smaller bag);
    noisy_or:  P(c) = 1 - prod_k (1 - sigmoid(s_kc + b_c));  logit_c = log P - log(1 - P), in float32.

    Contributions are exact for the first two; the odds of noisy-or do not split over tiles.

    Departure from additive MIL: the attention multiplies the tile's score, not its vector, so that the logit does not
    grow with the number of tiles.
    """

    weights: Weights
    exact_contributions: bool
    spatial = False
    own_logits = True
    use = "each tile's share must add up, and single tiles show it"
    paper = "Javed et al.: Additive MIL, NeurIPS 2022; noisy-or: Maron, Lozano-Perez, NIPS 1997"
    cost = "time O(N dim hidden), memory O(N hidden)"

    def __init__(
        self,
        dim: int,
        n_out: int,
        *,
        pooling: Literal["additive", "topk", "noisy_or"] = "additive",
        hidden: int = 256,
        attention: int = 128,
        k: int = 8,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        if pooling not in ("additive", "topk", "noisy_or") or k < 1:
            raise ModelError(f"instance: pooling {pooling!r} with k={k}; it is additive, topk or noisy_or, and k >= 1")
        self.pooling, self.k = pooling, k
        self.weights = "softmax" if pooling == "additive" else "none"
        self.exact_contributions = pooling != "noisy_or"
        if pooling == "topk":
            self.breaks = {"duplication": "k copies of one tile push the others out of the k largest"}
        if pooling == "noisy_or":
            self.breaks = {"duplication": "each copy is one more witness"}
        self.queries = tuple(f"class {number}" for number in range(n_out))
        self.embedding_dim = hidden
        self.projection = Projection(dim, hidden, dropout=dropout)
        self.middle = Projection(hidden, hidden, dropout=dropout)
        self.score = nn.Linear(hidden, n_out, bias=False)
        self.bias = nn.Parameter(torch.full((n_out,), _PRIOR if pooling == "noisy_or" else 0.0))
        # one attention for all classes, as in the paper
        self.attention = Attention(hidden, attention, 1, gated=True, dropout=0.0) if pooling == "additive" else None

    def pool(
        self,
        features: Float[Tensor, "tile dim"],
        cells: Int64[Tensor, "tile 2"],
        offsets: Int64[Tensor, "edge"],
        clinical: Clinical | None = None,
    ) -> Pooled:
        """Score the tiles and pool the scores."""
        parts = segments(offsets, device=features.device)
        tiles = self.projection(features)  #                                              tile hidden
        hidden = self.middle(tiles)
        scores = self.score(hidden).to(torch.promote_types(hidden.dtype, torch.float32))  # tile out
        attention, contributions = None, None
        if self.attention is not None:
            attention = segment_softmax(self.attention(tiles), parts).expand(-1, scores.shape[1])
            share = attention
        elif self.pooling == "topk":
            share = _top_shares(scores, parts, self.k)
        else:
            share = segment_softmax(scores, parts)  # only for the embedding: those that speak
        if self.pooling == "noisy_or":
            evidence = segment_sum(nn.functional.softplus(scores + self.bias), parts)  #  bag out
            logits = evidence + torch.log(-torch.expm1(-evidence))
        else:
            contributions = share * scores
            logits = segment_sum(contributions, parts) + self.bias
        pairs = zip(torch.split(share, parts.lengths), torch.split(hidden, parts.lengths), strict=True)
        embedding = torch.stack([weight.to(part.dtype).T @ part for weight, part in pairs])
        return Pooled(embedding, scores + self.bias, attention, logits, contributions, {})


def _top_shares(scores: Tensor, parts: Segments, k: int) -> Tensor:
    """1/k for the k largest scores of each bag and class, 0 for the others; 1/N in a bag of fewer than k tiles."""
    shares = []
    for part in torch.split(scores.detach(), parts.lengths):
        count = min(k, len(part))
        shares.append(torch.zeros_like(part).scatter(0, part.topk(count, dim=0).indices, 1 / count))
    return torch.cat(shares)
