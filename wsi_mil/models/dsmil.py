"""DSMIL: two streams, the one tile that speaks loudest for a class, and all tiles weighed by how like it they are."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from wsi_mil.models.aggregator import Aggregator, Clinical, Pooled, Weights
from wsi_mil.models.layers import Head, Projection, segment_max, segment_softmax, segments, weighted_sum


class DSMIL(Aggregator):
    """h_k = relu(P x_k);  s_kc = w_c h_k + b_c;  m_c = argmax_k s_kc;  q_k = tanh(Q2 relu(Q1 h_k))

    a_kc = softmax_k(q_k . q_(m_c) / sqrt(width));  z_c = sum_k a_kc V h_k;  bag_c = sum_c' W_cc' z_c' + b'_c
    logit_c = (s_(m_c) c + bag_c) / 2;  loss = (loss of max + loss of bag) / 2.

    The place of the first tile is a hard choice, which makes training less steady than plain attention; for ordered
    grades, which no single tile shows, prefer another method. Departure: the projection of frozen features.
    """

    weights: Weights = "softmax"
    exact_contributions = True
    spatial = False
    own_logits = True
    tile_maps = {"tile_logits": "tile logit"}
    use = "to compare; one tile decides, never for ordered grades"
    paper = "Li, Li, Eliceiri: Dual-stream Multiple Instance Learning Network, CVPR 2021"
    cost = "time O(N dim hidden), memory O(N hidden)"
    losses = {"bag": 0.0, "streams": 1.0}
    judges_parts = True

    def __init__(self, dim: int, n_out: int, *, hidden: int = 256, width: int = 128, dropout: float = 0.25) -> None:
        super().__init__()
        self.queries = tuple(f"class {number}" for number in range(n_out))
        self.embedding_dim = hidden
        self.projection = Projection(dim, hidden, dropout=dropout)
        self.instance = nn.Linear(hidden, n_out)
        self.query = nn.Sequential(nn.Linear(hidden, width), nn.ReLU(), nn.Linear(width, width), nn.Tanh())
        self.value = nn.Linear(hidden, hidden)
        self.head = Head(hidden, queries=n_out, n_out=n_out, query_per_class=False)

    def pool(
        self,
        features: Float[Tensor, "tile dim"],
        cells: Int64[Tensor, "tile 2"],
        offsets: Int64[Tensor, "edge"],
        clinical: Clinical | None = None,
    ) -> Pooled:
        """Both streams, and their mean."""
        parts = segments(offsets, device=features.device)
        tiles = self.projection(features)  #                                              tile hidden
        spoken = self.instance(tiles)  #                                                  tile out
        loudest, rows = segment_max(spoken, parts)  #                                     bag out, twice
        queries = self.query(tiles)  #                                                    tile width
        pairs = zip(torch.split(queries, parts.lengths), queries[rows], strict=True)
        scores = torch.cat([part @ first.T for part, first in pairs]) / queries.shape[1] ** 0.5
        attention = segment_softmax(scores, parts)  #                                     tile out
        values = self.value(tiles)
        embedding = weighted_sum(values, attention, parts)  #                             bag out hidden
        bag = self.head(embedding)
        contributions = None
        if not self.training:
            first = torch.zeros_like(spoken).scatter(0, rows, 1.0)
            whole = self.head.contributions(values, attention) + first * (spoken - self.instance.bias)
            contributions = whole / 2
        return Pooled(
            embedding=embedding,
            scores=scores,
            attention=attention,
            logits=(loudest + bag) / 2,
            contributions=contributions,
            aux={"tile_logits": spoken, "stream_logits": torch.stack([loudest, bag])},
        )
