"""Latent cross-attention: a few learned vectors read all tiles, and all tiles read them back."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from wsi_mil.errors import ModelError
from wsi_mil.models.aggregator import Aggregator, Clinical, Pooled, Weights
from wsi_mil.models.layers import Attention, Projection, attention_pooled, segments
from wsi_mil.models.transformer import CrossAttention


class Latent(Aggregator):
    """h = relu(P x);  `depth` times: l' = l + MHA(l, h, h), l' = l' + MLP(l'), h' = h + MHA(h, l', l');

    then gated attention over the tiles so informed: a = softmax(e(h)), z = sum_k a_k h_k. Each tile hears of the whole
    bag through `latents` vectors, at the cost of N x latents in place of N x N. A tile's contribution is exact as a
    sum, and includes what the tile has heard.
    """

    weights: Weights = "softmax"
    exact_contributions = True
    spatial = False
    own_logits = False
    use = "100,000 tiles that must hear of one another, places ignored"
    paper = "Jaegle et al.: Perceiver, ICML 2021; Xiang, Zhang: Exploring Low-Rank Property in MIL (ILRA), ICLR 2023"
    cost = "time O(64 N hidden + N dim hidden), memory O(N hidden)"

    def __init__(
        self,
        dim: int,
        n_out: int,
        *,
        latents: int = 64,
        depth: int = 1,
        heads: int = 4,
        hidden: int = 256,
        attention: int = 128,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        if hidden % heads or depth < 1 or latents < 1:
            raise ModelError(
                f"latent: hidden={hidden}, heads={heads}, depth={depth}, latents={latents}; hidden is a multiple of "
                "heads, the others are 1 or more"
            )
        self.queries = ("tiles",)
        self.embedding_dim = hidden
        self.projection = Projection(dim, hidden, dropout=dropout)
        self.latents = nn.Parameter(torch.randn(latents, hidden) / hidden**0.5)
        self.blocks = nn.ModuleList(_Exchange(hidden, heads=heads) for _ in range(depth))
        self.attention = Attention(hidden, attention, 1, gated=True, dropout=0.0)

    def pool(
        self,
        features: Float[Tensor, "tile dim"],
        cells: Int64[Tensor, "tile 2"],
        offsets: Int64[Tensor, "edge"],
        clinical: Clinical | None = None,
    ) -> Pooled:
        """Attention-weighted mean of each bag's tiles, after they have heard of one another."""
        parts = segments(offsets, device=features.device)
        tiles = self.projection(features)  #                                              tile hidden
        bags = []
        for bag in torch.split(tiles, parts.lengths):
            latents = self.latents
            for block in self.blocks:
                latents, bag = block(latents, bag)
            bags.append(bag)
        tiles = torch.cat(bags)
        return attention_pooled(tiles, self.attention(tiles), parts)


class _Exchange(nn.Module):
    def __init__(self, hidden: int, *, heads: int) -> None:
        super().__init__()
        self.down, self.up = CrossAttention(hidden, heads=heads), CrossAttention(hidden, heads=heads)
        self.mlp = nn.Sequential(
            nn.LayerNorm(hidden), nn.Linear(hidden, 2 * hidden), nn.GELU(), nn.Linear(2 * hidden, hidden)
        )

    def forward(self, latents: Tensor, tiles: Tensor) -> tuple[Tensor, Tensor]:
        latents = self.down(latents, tiles)
        latents = latents + self.mlp(latents)
        return latents, self.up(tiles, latents)
