"""Mean and max pooling: the yardsticks that show whether attention is needed at all."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from wsi_mil.models.aggregator import Aggregator, Clinical, Pooled, Weights
from wsi_mil.models.layers import Projection, Segments, segment_max, segments, weighted_sum


class MeanPool(Aggregator):
    """h_k = relu(P x_k);  z = mean_k h_k;  logit = W z + b.

    A tie with attention on slides that are tumour throughout, useless for a needle in a haystack. The score of a tile
    is its own logit W h_k + b, one column an output.
    """

    weights: Weights = "softmax"
    exact_contributions = True
    spatial = False
    own_logits = True
    use = "baseline, always beside the others; tissue that shows it throughout"
    paper = "baseline; strong on subtyping with good encoders (SiMLP, arXiv 2502.20823)"
    cost = "time O(N dim hidden), memory O(N hidden)"

    def __init__(self, dim: int, n_out: int, *, hidden: int = 256, dropout: float = 0.25) -> None:
        super().__init__()
        self.queries = tuple(f"class {number}" for number in range(n_out))
        self.embedding_dim = hidden
        self.projection = Projection(dim, hidden, dropout=dropout)
        self.head = nn.Linear(hidden, n_out)

    def pool(
        self,
        features: Float[Tensor, "tile dim"],
        cells: Int64[Tensor, "tile 2"],
        offsets: Int64[Tensor, "edge"],
        clinical: Clinical | None = None,
    ) -> Pooled:
        """Mean of each bag's projected tiles; attention is 1/N for all."""
        parts = segments(offsets, device=features.device)
        tiles = self.projection(features)  #                                              tile hidden
        share = _shares(parts, like=tiles)  #                                             tile 1
        embedding = weighted_sum(tiles, share, parts)  #                                  bag 1 hidden
        spoken = tiles @ self.head.weight.T  #                                            tile out
        count = len(self.queries)
        return Pooled(
            embedding=embedding.expand(-1, count, -1),
            scores=spoken + self.head.bias,
            attention=share.expand(-1, count),
            logits=self.head(embedding[:, 0]),
            contributions=share * spoken,
            aux={"tiles": tiles},
        )


class MaxPool(Aggregator):
    """h_k = relu(P x_k);  z_d = max_k h_kd;  logit = W z + b.

    Sees a single tile among thousands, but each dimension may come from another one and few tiles get a gradient, so
    that unlucky seeds fail. A tile contributes through the dimensions in which it is the largest.
    """

    weights: Weights = "none"
    exact_contributions = True
    spatial = False
    own_logits = True
    use = "baseline; a single tile shows it, unlucky seeds fail"
    paper = "baseline; MI-Net, Wang et al.: Revisiting multiple instance neural networks, Pattern Recognition 2018"
    cost = "time O(N dim hidden), memory O(N hidden)"

    def __init__(self, dim: int, n_out: int, *, hidden: int = 256, dropout: float = 0.25) -> None:
        super().__init__()
        self.queries = tuple(f"class {number}" for number in range(n_out))
        self.embedding_dim = hidden
        self.projection = Projection(dim, hidden, dropout=dropout)
        self.head = nn.Linear(hidden, n_out)

    def pool(
        self,
        features: Float[Tensor, "tile dim"],
        cells: Int64[Tensor, "tile 2"],
        offsets: Int64[Tensor, "edge"],
        clinical: Clinical | None = None,
    ) -> Pooled:
        """Largest value of each projected dimension over each bag's tiles."""
        parts = segments(offsets, device=features.device)
        tiles = self.projection(features)  #                                              tile hidden
        embedding, rows = segment_max(tiles, parts)  #                                    bag hidden, twice
        spoken = embedding[:, None] * self.head.weight  #                                 bag out hidden
        contributions = spoken.new_zeros(len(self.queries), len(tiles)).scatter_add(
            1, rows.flatten().expand(len(self.queries), -1), spoken.transpose(0, 1).flatten(1)
        )
        return Pooled(
            embedding=embedding[:, None].expand(-1, len(self.queries), -1),
            scores=self.head(tiles),
            attention=None,
            logits=self.head(embedding),
            contributions=contributions.T,
            aux={"tiles": tiles},
        )


def _shares(parts: Segments, *, like: Tensor) -> Tensor:
    """1/N for each tile of a bag of N, as a column, in float32 at least."""
    precision = torch.promote_types(like.dtype, torch.float32)
    lengths = torch.tensor(parts.lengths, dtype=precision, device=like.device)
    return (1 / lengths)[parts.bag][:, None]
