"""Attention MIL: a weighted mean of tiles, the weights learned from the tiles themselves; the default model."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float, Int64
from torch import Tensor

from wsi_mil.errors import ModelError
from wsi_mil.models.aggregator import Aggregator, Clinical, Pooled, Weights
from wsi_mil.models.layers import Attention, Projection, attention_pooled, segments


class ABMIL(Aggregator):
    """h_k = relu(P x_k);  e_k = w (tanh(V h_k) * sigmoid(U h_k));  a = softmax(e);  z = sum_k a_k h_k.

    `heads` attention branches look at the bag side by side; "class" gives each output a branch and a head of its own.
    The logit splits over the tiles exactly: logit_c = sum_k a_k (W_c h_k) + b_c.

    `entropy` weighs a training term that keeps the attention spread (AEM, arXiv 2406.15303): -H(a) / log N.

    Departures from the paper: a projection layer on frozen features, one logit a class rather than one sigmoid, biases
    in V and U (as in the authors' code).
    """

    weights: Weights = "softmax"
    exact_contributions = True
    spatial = False
    own_logits = False
    use = "the default; a few or many tiles show it"
    paper = "Ilse, Tomczak, Welling: Attention-based Deep Multiple Instance Learning, ICML 2018"
    cost = "time O(N dim hidden), memory O(N hidden)"

    def __init__(
        self,
        dim: int,
        n_out: int,
        *,
        hidden: int = 256,
        attention: int = 128,
        heads: int | Literal["class"] = 1,
        gated: bool = True,
        dropout: float = 0.25,
        attention_dropout: float = 0.0,
        entropy: float = 0.0,
    ) -> None:
        super().__init__()
        self.query_per_class = heads == "class"
        count = n_out if heads == "class" else heads
        if count < 1:
            raise ModelError(f"abmil: heads is {heads}; it must be 1 or more, or 'class'")
        self.queries = tuple(f"{'class' if self.query_per_class else 'head'} {number}" for number in range(count))
        self.embedding_dim = hidden
        self.losses = {"entropy": entropy}
        self.projection = Projection(dim, hidden, dropout=dropout)
        self.attention = Attention(hidden, attention, count, gated=gated, dropout=attention_dropout)

    def pool(
        self,
        features: Float[Tensor, "tile dim"],
        cells: Int64[Tensor, "tile 2"],
        offsets: Int64[Tensor, "edge"],
        clinical: Clinical | None = None,
    ) -> Pooled:
        """Attention-weighted mean of each bag's projected tiles."""
        parts = segments(offsets, device=features.device)
        tiles = self.projection(features)  #                                              tile hidden
        return attention_pooled(tiles, self.attention(tiles), parts)
