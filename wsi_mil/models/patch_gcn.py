"""Patch-GCN: tiles hear of their neighbours, layer by layer, and gated attention reads what all layers made of them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from wsi_mil.errors import ModelError
from wsi_mil.models.aggregator import Aggregator, Clinical, Pooled, Weights
from wsi_mil.models.graph import degrees, neighbour_edges, neighbour_softmax, neighbour_sum
from wsi_mil.models.layers import Attention, Projection, attention_pooled, segments


class PatchGCN(Aggregator):
    """h^0 = relu(P x);  h^(l+1) = h^l + M(g^l + agg(g^l)), with g^l = relu(LN(h^l)) and M a layer of two;

    agg_i = sum_j softmax_j(t g_j) * (g_j), over the up to 8 tiles j that touch tile i, each column by itself, t
    learned; then gated attention over relu(C [h^0, ..., h^L]). With `message="mean"` a step is the plain graph
    convolution of Kipf and Welling, h^(l+1) = relu(LN(W mean of h^l over tile and neighbours)), of a quarter of the
    arithmetic.

    A tile's contribution is exact as a sum, and includes what the tile has heard of its neighbours. Departure: the
    attention pools the joined layers without the paper's further layer of two.
    """

    weights: Weights = "softmax"
    exact_contributions = True
    spatial = True
    own_logits = False
    breaks = {"duplication": "copies of a tile on one cell are further neighbours of those around"}
    use = "what lies beside what; the first spatial model to try"
    paper = "Chen et al.: Whole Slide Images are 2D Point Clouds (Patch-GCN), MICCAI 2021; GENConv: Li et al. 2020"
    cost = "time O(N dim hidden + 8 N hidden + N log N), memory O(N hidden layers)"

    def __init__(
        self,
        dim: int,
        n_out: int,
        *,
        layers: int = 3,
        hidden: int = 128,
        attention: int = 128,
        message: str = "softmax",
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ModelError(f"patch_gcn: layers is {layers}; without one it is abmil")
        if message not in ("softmax", "mean"):
            raise ModelError(f'patch_gcn: message is {message!r}; it is "softmax" or "mean"')
        self.queries = ("tiles",)
        self.embedding_dim = hidden
        self.projection = Projection(dim, hidden, dropout=dropout)
        self.layers = nn.ModuleList(
            GraphLayer(hidden) if message == "softmax" else MeanLayer(hidden) for _ in range(layers)
        )
        self.join = Projection(hidden * (layers + 1), hidden, dropout=dropout)
        self.attention = Attention(hidden, attention, 1, gated=True, dropout=0.0)

    def pool(
        self,
        features: Float[Tensor, "tile dim"],
        cells: Int64[Tensor, "tile 2"],
        offsets: Int64[Tensor, "edge"],
        clinical: Clinical | None = None,
    ) -> Pooled:
        """Attention-weighted mean of each bag's tiles, after they have heard of those around them."""
        parts = segments(offsets, device=features.device)
        edges = neighbour_edges(cells.to(features.device), parts)
        made = [self.projection(features)]  #                                             tile hidden, each
        for layer in self.layers:
            made.append(layer(made[-1], edges))
        tiles = self._joined(made)
        return attention_pooled(tiles, self.attention(tiles), parts)

    def _joined(self, made: list[Tensor]) -> Tensor:
        """relu(C [h^0, ..., h^L]), layer by layer, so that they are never copied side by side."""
        columns = torch.split(self.join.linear.weight, made[0].shape[1], dim=1)
        total = functional.linear(made[0], columns[0], self.join.linear.bias)
        for part, column in zip(made[1:], columns[1:], strict=True):
            total = torch.addmm(total, part, column.T)
        tiles: Tensor = self.join.dropout(total.relu_())
        return tiles


class GraphLayer(nn.Module):
    """h + M(g + sum_j softmax_j(t g_j) g_j), g = relu(LN(h)); the softmax in float32, 0 where there is no neighbour."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.temperature = nn.Parameter(torch.ones(1))
        self.mlp = nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.ReLU(inplace=True), nn.Linear(2 * hidden, hidden))

    def forward(
        self, tiles: Float[Tensor, "tile hidden"], edges: Int64[Tensor, "2 edge"]
    ) -> Float[Tensor, "tile hidden"]:
        """Tiles after one more step along the edges."""
        known = self.norm(tiles).relu_()
        mixed: Tensor = self.mlp(known + neighbour_softmax(known, self.temperature, edges)).add_(tiles)
        return mixed


class MeanLayer(nn.Module):
    """relu(LN(W (h_i + sum_j h_j) / (1 + number of neighbours)))."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(
        self, tiles: Float[Tensor, "tile hidden"], edges: Int64[Tensor, "2 edge"]
    ) -> Float[Tensor, "tile hidden"]:
        """Tiles after one more step along the edges."""
        share = (1 / (1 + degrees(edges, len(tiles)))).to(tiles.dtype)[:, None]
        mixed: Tensor = self.norm(self.linear((tiles + neighbour_sum(tiles, edges)) * share)).relu_()
        return mixed
