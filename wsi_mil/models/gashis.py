"""GasHis: a global stream, attention with relative places, beside a local one, convolutions of several sizes."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from wsi_mil.errors import ModelError
from wsi_mil.models.aggregator import Aggregator, Clinical, Pooled, Weights
from wsi_mil.models.dropout import Dropout
from wsi_mil.models.graph import SquareConvolution, squares
from wsi_mil.models.layers import Projection, segment_softmax, segment_sum, segments
from wsi_mil.models.transformer import rolled


class GasHis(Aggregator):
    """h = relu(P x);  global: g = T(h), `depth` layers, in which tile i attends to j by q_i k_j + q_i r(place j - i);

    local: l = [relu A h; conv3 B h; conv3 conv3 C h; D (mean of h over 3 x 3)], ReLU after each, on the grid of tiles;
    logit = W mean_k [g_k; l_k] + b. Scores are W [g_k; l_k], a map for each class; contributions are exact as a sum.

    r is learned for each step across and each step down, added up, and the same beyond `reach` cells. Two 3 x 3 in a
    row stand for 5 x 5, as in Inception-V3. A slide turned by 90 degrees gets another answer, for r tells directions
    apart; a slide moved does not. Departure from the paper: both streams read the grid of tiles of a slide in
    place of the pixels of one picture, and start untrained.
    """

    weights: Weights = "none"
    exact_contributions = True
    spatial = True
    own_logits = True
    use = "small bags: full attention beside convolutions over the grid"
    paper = "Chen et al.: GasHis-Transformer, Pattern Recognition 2022"
    cost = "time O(N^2 hidden), memory O(N^2 heads), so up to some 10,000 tiles"
    tile_maps = {"global": "contribution", "local": "contribution"}
    breaks = {"linear": "each two tiles of a bag have a weight that hangs on their places: N x N"}

    def __init__(
        self,
        dim: int,
        n_out: int,
        *,
        hidden: int = 128,
        heads: int = 4,
        depth: int = 1,
        reach: int = 16,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        if hidden % heads or hidden % 4 or min(depth, reach) < 1:
            raise ModelError(
                f"gashis: hidden={hidden}, heads={heads}, depth={depth}, reach={reach}; hidden is a multiple of heads "
                "and of 4, the others are 1 or more"
            )
        self.queries = tuple(f"class {number}" for number in range(n_out))
        self.embedding_dim = 2 * hidden
        self.projection = Projection(dim, hidden, dropout=dropout)
        self.wide = nn.ModuleList(_GlobalLayer(hidden, heads=heads, reach=reach) for _ in range(depth))
        self.norm = nn.LayerNorm(hidden)
        self.near = _LocalStream(hidden)
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(2 * hidden, n_out)

    def pool(
        self,
        features: Float[Tensor, "tile dim"],
        cells: Int64[Tensor, "tile 2"],
        offsets: Int64[Tensor, "edge"],
        clinical: Clinical | None = None,
    ) -> Pooled:
        """Mean over each bag's tiles of what both streams make of them."""
        parts, cells = segments(offsets, device=features.device), cells.to(features.device)
        tiles = self.projection(features)  #                                              tile hidden
        wide = []
        for bag, places in zip(torch.split(tiles, parts.lengths), torch.split(cells, parts.lengths), strict=True):
            for layer in self.wide:
                bag = layer(bag, places)
            wide.append(bag)
        both = torch.cat([self.norm(torch.cat(wide)), self.near(tiles, squares(cells, parts))], dim=1)
        even = segment_softmax(torch.zeros_like(both[:, :1]), parts)  #                   tile 1: 1/N
        mean = segment_sum(both * even.to(both.dtype), parts)  #                          bag 2*hidden
        scores = functional.linear(both, self.head.weight)  #                             tile out
        aux = {}
        if not self.training:  # each stream's part of the contributions
            streams = zip(both.chunk(2, dim=1), self.head.weight.chunk(2, dim=1), strict=True)
            wide_part, near_part = (functional.linear(part, weight) * even for part, weight in streams)
            aux = {"global": wide_part, "local": near_part}
        return Pooled(
            embedding=mean[:, None].expand(-1, len(self.queries), -1),
            scores=scores,
            attention=None,
            logits=self.head(self.dropout(mean)),
            contributions=None if self.training else scores * even,
            aux=aux,
        )

    def rollout(
        self,
        features: Float[Tensor, "tile dim"],
        cells: Int64[Tensor, "tile 2"],
        clinical: Clinical | None = None,
    ) -> Float[Tensor, "tile 1"]:
        """Of the global stream, whose tiles the logit reads evenly; of one bag. Sums to 1."""
        tiles, flow = self.projection(features), None
        for layer in self.wide:
            assert isinstance(layer, _GlobalLayer)
            flow, tiles = rolled(flow, layer.attention(layer.norm_mixing(tiles), cells)), layer(tiles, cells)
        assert flow is not None  # there is one layer at least
        return flow.mean(dim=0)[:, None]


class _GlobalLayer(nn.Module):
    """x + O MHA(LN(x)) with relative places, then x + MLP(LN(x))."""

    def __init__(self, hidden: int, *, heads: int, reach: int) -> None:
        super().__init__()
        self.heads, self.reach = heads, reach
        self.norm_mixing, self.norm_mlp = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.query, self.value = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        # no bias for keys: it would cancel in the softmax
        self.key = nn.Linear(hidden, hidden, bias=False)
        self.steps = nn.Parameter(torch.randn(2, 2 * reach + 1, hidden // heads) * (hidden // heads) ** -0.5)
        self.outward = nn.Linear(hidden, hidden)
        self.mlp = nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.GELU(), nn.Linear(2 * hidden, hidden))

    def forward(self, tiles: Tensor, cells: Tensor) -> Tensor:
        known = self.norm_mixing(tiles)
        value = self.value(known).unflatten(1, (self.heads, -1)).transpose(0, 1)  #       head tile part
        attention = self.attention(known, cells)  #                                       head tile tile
        tiles = tiles + self.outward((attention.to(value.dtype) @ value).transpose(0, 1).flatten(1))
        mixed: Tensor = tiles + self.mlp(self.norm_mlp(tiles))
        return mixed

    def attention(self, known: Tensor, cells: Tensor) -> Tensor:
        """How much each tile looks at each other one, for each head."""
        likeness = self.likeness(known, cells)
        return likeness.to(torch.promote_types(likeness.dtype, torch.float32)).softmax(dim=-1)

    def likeness(self, known: Tensor, cells: Tensor) -> Tensor:
        """(q_i k_j + q_i r_across + q_i r_down) / sqrt(part), for each head."""
        query, key = (layer(known).unflatten(1, (self.heads, -1)).transpose(0, 1) for layer in (self.query, self.key))
        total = query @ key.mT
        for axis in range(2):
            # the product with each step once, then each pair takes the one of its step: N x N x part is never made
            by_step = query @ self.steps[axis].T  #                                       head tile step
            apart = (cells[None, :, axis] - cells[:, None, axis]).clamp(-self.reach, self.reach) + self.reach
            total = total + by_step.gather(2, apart.expand(self.heads, -1, -1))
        return total / query.shape[2] ** 0.5


class _LocalStream(nn.Module):
    """Four branches side by side, a quarter of the columns each: 1 x 1, 3 x 3, 5 x 5 and the mean of 3 x 3."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        width = hidden // 4
        self.point, self.before_three, self.before_five, self.mean = (nn.Linear(hidden, width) for _ in range(4))
        self.three, self.five_first, self.five_second = (SquareConvolution(width, width) for _ in range(3))

    def forward(self, tiles: Tensor, around: Tensor) -> Tensor:
        five = self.five_first(self.before_five(tiles).relu(), around).relu()
        held = (around >= 0).to(tiles.dtype)
        # a last row of zeros, for cells without a tile
        padded = torch.cat([tiles, tiles.new_zeros(1, tiles.shape[1])])
        total = torch.zeros_like(tiles)
        for rows in around.T:
            total = total + padded[rows]
        branches = (
            self.point(tiles),
            self.three(self.before_three(tiles).relu(), around),
            self.five_second(five, around),
            self.mean(total / held.sum(dim=1, keepdim=True)),
        )
        return torch.cat(branches, dim=1).relu()
