"""Region to slide: a transformer within each region of the slide, and another between the regions."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from wsi_mil.errors import ModelError
from wsi_mil.models.aggregator import Aggregator, Clinical, Pooled, Weights
from wsi_mil.models.layers import Attention, Projection, attention_pooled, segments
from wsi_mil.models.transformer import MaskedBlock
from wsi_mil.models.windows import windows


class Hierarchical(Aggregator):
    """h = relu(P x) + position;  h = T_w(h) within each region of side x side cells;  r = mean of its tiles;

    r = T_b(r) between the regions of a bag;  h_k = h_k + U r_(region of k);  a = softmax(e(h)), z = sum_k a_k h_k.

    T_w and T_b are `depth` transformer layers each. What a region is told by the others goes back to its tiles, so that
    there is a map at the scale of tiles; their contributions are exact as a sum. Departure from HIPT: trained whole on
    tile features, no pretrained region encoder.
    """

    weights: Weights = "softmax"
    exact_contributions = True
    spatial = True
    own_logits = False
    breaks = {
        "duplication": "tiles that share a cell come into regions of their own, of which there are then more",
        "identical": "each place in a region has an embedding of its own",
    }
    use = "tissue that is organised in regions"
    paper = "after Chen et al.: Hierarchical Image Pyramid Transformer (HIPT), CVPR 2022"
    cost = "time O(N (dim + side^2) hidden + R^2 hidden), memory O(N hidden) for R = N / side^2 regions"

    def __init__(
        self,
        dim: int,
        n_out: int,
        *,
        side: int = 16,
        depth: int = 2,
        heads: int = 4,
        hidden: int = 128,
        attention: int = 128,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        if hidden % heads or min(side, depth) < 1:
            raise ModelError(
                f"hierarchical: side={side}, depth={depth}, hidden={hidden}, heads={heads}; hidden is a multiple of "
                "heads, the others are 1 or more"
            )
        self.queries = ("tiles",)
        self.embedding_dim, self.side = hidden, side
        self.projection = Projection(dim, hidden, dropout=dropout)
        self.position = nn.Parameter(torch.randn(side**2, hidden) * 0.02)
        self.within = nn.ModuleList(MaskedBlock(hidden, heads=heads) for _ in range(depth))
        self.between = nn.ModuleList(MaskedBlock(hidden, heads=heads) for _ in range(depth))
        self.back = nn.Linear(hidden, hidden)
        self.attention = Attention(hidden, attention, 1, gated=True, dropout=0.0)

    def pool(
        self,
        features: Float[Tensor, "tile dim"],
        cells: Int64[Tensor, "tile 2"],
        offsets: Int64[Tensor, "edge"],
        clinical: Clinical | None = None,
    ) -> Pooled:
        """Attention-weighted mean of each bag's tiles, after they have heard of their region and of the others."""
        parts = segments(offsets, device=features.device)
        near = windows(cells.to(features.device), parts, side=self.side)
        placed = self.projection(features) + self.position[near.places()]  #              tile hidden
        tiles, regions = torch.empty_like(placed), placed.new_empty(len(near.bag), placed.shape[1])
        for group in near.packed():
            tokens = placed[group.tiles]  #                                               set place hidden
            for block in self.within:
                tokens = block(tokens, group.mask)
            held = group.mask[..., None].to(tokens.dtype)
            mean = (tokens * held).sum(1) / held.sum(1)
            regions = regions.index_copy(0, group.windows, mean.to(regions.dtype))
            tiles = tiles.index_copy(0, group.tiles[group.mask], tokens[group.mask].to(tiles.dtype))
        told = []
        for part in torch.split(regions, torch.bincount(near.bag).tolist()):
            bag = part[None]
            for block in self.between:
                bag = block(bag, None)
            told.append(bag[0])
        tiles = tiles + self.back(torch.cat(told))[near.slots // near.side**2]
        return attention_pooled(tiles, self.attention(tiles), parts)
