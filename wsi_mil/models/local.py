"""Local attention: tiles attend within windows of their true neighbourhood, and to a few vectors that saw the bag."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from wsi_mil.errors import ModelError
from wsi_mil.models.aggregator import Aggregator, Clinical, Pooled, Weights
from wsi_mil.models.layers import Attention, Projection, Segments, attention_pooled, segments
from wsi_mil.models.transformer import CrossAttention, MaskedBlock
from wsi_mil.models.windows import windows


class Local(Aggregator):
    """h = relu(P x);  `depth` times: g = g + MHA(g, h, h) over the whole bag, then in each window of side x side cells

    h = h + MHA(h, [g, h] + B), h = h + MLP(h), with B a learned number for each step across and down; every second time
    the windows are moved by half a side. Then gated attention over the tiles: a = softmax(e(h)), z = sum_k a_k h_k.

    Each layer starts as a sum of what lies around (V and O near the identity, B falling with the distance, at another
    pace for each head, and low for the tile itself, which is there already): from random weights it learned noise by
    heart before it found that places matter (.52 against 1.0 on the planted arrangement).

    A tile's contribution is exact as a sum, and includes what the tile has heard. A window costs the same full or not.
    """

    weights: Weights = "softmax"
    exact_contributions = True
    spatial = True
    own_logits = False
    breaks = {
        "duplication": "tiles that share a cell come into windows of their own, where each is one of the first",
        "identical": "a tile at an edge has fewer neighbours",
    }
    use = "100,000 tiles, each read with those around it"
    paper = "after Liu et al.: Swin Transformer, ICCV 2021, and Beltagy et al.: Longformer (global tokens), 2020"
    recipe = {"lr": 3e-3, "batch_bags": 8}
    cost = "time O(N (dim + side^2) hidden + N log N), memory O(N (hidden + heads side^2))"

    def __init__(
        self,
        dim: int,
        n_out: int,
        *,
        side: int = 8,
        global_tokens: int = 8,
        depth: int = 2,
        heads: int = 4,
        hidden: int = 128,
        attention: int = 128,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        if hidden % heads or min(side, global_tokens, depth) < 1:
            raise ModelError(
                f"local: side={side}, global_tokens={global_tokens}, depth={depth}, hidden={hidden}, heads={heads}; "
                "hidden is a multiple of heads, the others are 1 or more"
            )
        self.queries = ("tiles",)
        self.embedding_dim, self.side = hidden, side
        self.projection = Projection(dim, hidden, dropout=dropout)
        self.tokens = nn.Parameter(torch.randn(global_tokens, hidden) / hidden**0.5)
        self.layers = nn.ModuleList(_Layer(hidden, heads=heads, side=side) for _ in range(depth))
        self.attention = Attention(hidden, attention, 1, gated=True, dropout=0.0)

    def pool(
        self,
        features: Float[Tensor, "tile dim"],
        cells: Int64[Tensor, "tile 2"],
        offsets: Int64[Tensor, "edge"],
        clinical: Clinical | None = None,
    ) -> Pooled:
        """Attention-weighted mean of each bag's tiles, after they have heard of those around and of the whole."""
        parts = segments(offsets, device=features.device)
        tiles = self.projection(features)  #                                              tile hidden
        tokens = self.tokens.expand(len(parts.lengths), -1, -1)  #                        bag token hidden
        for number, layer in enumerate(self.layers):
            shift = self.side // 2 if number % 2 else 0
            tokens, tiles = layer(tokens, tiles, cells.to(features.device), parts, shift=shift)
        return attention_pooled(tiles, self.attention(tiles), parts)


class _Layer(nn.Module):
    steps: Tensor

    def __init__(self, hidden: int, *, heads: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.globals = CrossAttention(hidden, heads=heads)
        self.block = MaskedBlock(hidden, heads=heads)
        self.bias = nn.Parameter(_falling(heads, side) + torch.randn(heads, (2 * side - 1) ** 2) * 0.02)
        with torch.no_grad():
            for linear in (self.block.value, self.block.outward):
                linear.weight.mul_(0.5).add_(torch.eye(hidden))
        places = torch.cartesian_prod(torch.arange(side), torch.arange(side))  #          slot 2: row, column
        apart = places[:, None] - places + side - 1
        self.register_buffer("steps", apart[..., 0] * (2 * side - 1) + apart[..., 1], persistent=False)

    def forward(
        self, tokens: Tensor, tiles: Tensor, cells: Tensor, parts: Segments, *, shift: int
    ) -> tuple[Tensor, Tensor]:
        pairs = zip(tokens, torch.split(tiles, parts.lengths), strict=True)
        tokens = torch.stack([self.globals(token, part) for token, part in pairs])
        near = windows(cells, parts, side=self.side, shift=shift)
        places, seen = near.places(), torch.empty_like(tiles)
        for group in near.packed():
            here = group.tiles, group.mask if not bool(group.mask.all()) else None
            if here[1] is None and here[0].shape[1] == self.side**2:
                steps = self.steps[None]  # whole windows: one bias for all of them
            else:
                own = places[group.tiles]
                steps = self.steps[own[:, :, None], own[:, None]]  #                      set place place
            bias = self.bias[:, steps].transpose(0, 1)  #                                 set head place place
            told = self.block(tiles[here[0]], here[1], context=tokens[near.bag[group.windows]], bias=bias)
            seen = seen.index_copy(0, group.tiles[group.mask], told[group.mask].to(seen.dtype))
        return tokens, seen


def _falling(heads: int, side: int) -> Float[Tensor, "head step"]:
    """At each step across and down, less by 4 (first head) to 1/4 (last) for each cell of distance beyond the first."""
    steps = torch.arange(2 * side - 1) - (side - 1)
    away = torch.maximum(steps[:, None].abs(), steps.abs()).flatten()
    slopes = 4.0 * (1 / 16) ** (torch.arange(heads) / max(1, heads - 1))
    return torch.where(away > 0, -slopes[:, None] * (away - 1), -4.0)
