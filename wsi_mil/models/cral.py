"""CRAL: a mask over the grid of tiles for each class, added to the plain mean and never in its place."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from wsi_mil.errors import ModelError
from wsi_mil.models.aggregator import Aggregator, Clinical, Pooled, Weights
from wsi_mil.models.dropout import Dropout
from wsi_mil.models.graph import SquareConvolution, squares
from wsi_mil.models.layers import TileNorm, segment_mean, segment_softmax, segment_sum, segments, weighted_sum


class CRAL(Aggregator):
    """F = relu(BN(P x));  Z = conv1x1 relu(BN(conv3x3 relu(BN(conv3x3 F))));  a_c = sigmoid(Z_c), for each class alone;

    z_c = mean_k (1 + beta a_kc) F_k;  logit_c = w_c z_c + b_c. In the memory-free form z_c = mean F + beta A'F / N.

    norm "none" is as published, but for beta: a mask within [0, 1] weighs a lesion of 1 % of the tissue at most twice.
    norm "softmax" takes a_c = softmax(Z_c) over the bag, times N, so that a small lesion counts. Batch norm over the
    tiles of the batch is what makes it train; in evaluation no bag hangs on others. Several labels a slide or one.

    Departures from the paper: `beta` is learned, from 1, which is the paper's; the masks' own width is ours, as the
    paper has none. Left out: its second attention (an hourglass of pictures), and masks divided by their sum, which
    without an exponential leave a small lesion as weak as the mean.
    """

    weights: Weights
    exact_contributions = True
    spatial = True
    own_logits = True
    breaks = {"identical": "a tile at an edge has fewer neighbours"}
    recipe = {"lr": 1e-3, "batch_bags": 8}
    use = "several labels a slide, each with a map; what lies beside what"
    paper = "Guan, Huang: Multi-label chest X-ray image classification via category-wise residual attention, PRL 2020"
    cost = "time O(N (dim + 9 width) hidden + N log N), memory O(N (hidden + 9 width))"

    def __init__(
        self,
        dim: int,
        n_out: int,
        *,
        norm: Literal["none", "softmax"] = "none",
        residual: bool = True,
        hidden: int = 256,
        width: int = 64,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        if norm not in ("none", "softmax") or width < 1:
            raise ModelError(f"cral: norm is {norm!r} and width {width}; norm is 'none' or 'softmax', width 1 or more")
        self.weights = "sigmoid" if norm == "none" else "softmax"
        self.residual = residual
        self.queries = tuple(f"class {number}" for number in range(n_out))
        self.embedding_dim = hidden
        self.trunk, self.trunk_norm = nn.Linear(dim, hidden), TileNorm(hidden)
        self.first, self.first_norm = SquareConvolution(hidden, width), TileNorm(width)
        self.second, self.second_norm = SquareConvolution(width, width), TileNorm(width)
        self.masks = nn.Linear(width, n_out)
        self.beta = nn.Parameter(torch.ones(1))
        self.dropout = Dropout(dropout)
        self.head = nn.Parameter(torch.empty(n_out, hidden))
        self.bias = nn.Parameter(torch.zeros(n_out))
        nn.init.uniform_(self.head, -(hidden**-0.5), hidden**-0.5)

    def pool(
        self,
        features: Float[Tensor, "tile dim"],
        cells: Int64[Tensor, "tile 2"],
        offsets: Int64[Tensor, "edge"],
        clinical: Clinical | None = None,
    ) -> Pooled:
        """Mean of each bag's tiles, with what each class's mask adds."""
        parts = segments(offsets, device=features.device)
        around = squares(cells.to(features.device), parts)
        tiles = self.dropout(self.trunk_norm(self.trunk(features)).relu())  #             tile hidden
        masks = self.first_norm(self.first(tiles, around)).relu()
        masks = self.second_norm(self.second(masks, around)).relu()
        scores = self.masks(masks)  #                                                     tile out
        whole = scores.to(torch.promote_types(scores.dtype, torch.float32))
        even = segment_softmax(torch.zeros_like(whole[:, :1]), parts)  #                  tile 1: 1/N
        attention = whole.sigmoid() if self.weights == "sigmoid" else segment_softmax(whole, parts)
        added = self.beta * (attention * even if self.weights == "sigmoid" else attention)
        embedding = weighted_sum(tiles, added, parts)  #                                  bag out hidden
        if self.residual:
            embedding = embedding + segment_mean(tiles, parts)[:, None]
        contributions = (added + even if self.residual else added) * functional.linear(tiles, self.head)
        logits = segment_sum(contributions, parts) + self.bias
        return Pooled(embedding, scores, attention, logits, contributions, {})
