"""MIL-VT: a transformer over the tiles of a bag with two heads, a class token and attention over the tiles."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from wsi_mil.errors import ModelError
from wsi_mil.models.aggregator import Aggregator, Clinical, Pooled, Weights
from wsi_mil.models.dropout import Dropout
from wsi_mil.models.layers import Projection, attention_pooled, segments
from wsi_mil.models.transformer import MaskedBlock, rolled


class MILVT(Aggregator):
    """[t_0; t] = LN(T([start; relu(P x)])), T of `depth` transformer layers over the whole bag;

    g_k = relu(LN(G t_k));  e_k = w dropout(relu(LN(E g_k)));  a = softmax(e);  z = sum_k a_k g_k;
    logit = ((W t_0 + b) + (V z + c)) / 2;  loss = (loss of class token + loss of tiles) / 2.

    No positions, no tanh and no gate in the attention; the head over the tiles learns five times as fast (the recipe).
    Departure from the paper: tokens are tiles of a slide, not patches of one picture, and T starts untrained.
    """

    weights: Weights = "softmax"
    exact_contributions = False
    spatial = False
    own_logits = True
    use = "small bags: full attention, two heads"
    paper = "Yu et al.: MIL-VT, Multiple Instance Learning Enhanced Vision Transformer, MICCAI 2021"
    cost = "time O(N^2 hidden), so up to some 10,000 tiles; memory O(N hidden)"
    losses = {"bag": 0.0, "streams": 1.0}
    faster = {"mil": 5.0}
    breaks = {"duplication": "the class token is one voice among those of the tiles, and their number counts"}

    def __init__(
        self, dim: int, n_out: int, *, hidden: int = 256, depth: int = 2, heads: int = 4, dropout: float = 0.2
    ) -> None:
        super().__init__()
        if hidden % heads or hidden < 2 or depth < 1:
            raise ModelError(
                f"mil_vt: hidden={hidden}, heads={heads}, depth={depth}; hidden is a multiple of heads and 2 or more, "
                "depth 1 or more"
            )
        self.queries = ("tiles",)
        self.embedding_dim = hidden
        self.projection = Projection(dim, hidden, dropout=0.0)
        self.start = nn.Parameter(torch.randn(1, hidden) * 0.02)
        self.blocks = nn.ModuleList(MaskedBlock(hidden, heads=heads) for _ in range(depth))
        self.norm = nn.LayerNorm(hidden)
        self.class_head = nn.Linear(hidden, n_out)
        self.mil = _MILHead(hidden, n_out, dropout=dropout)

    def pool(
        self,
        features: Float[Tensor, "tile dim"],
        cells: Int64[Tensor, "tile 2"],
        offsets: Int64[Tensor, "edge"],
        clinical: Clinical | None = None,
    ) -> Pooled:
        """Both heads, and their mean."""
        parts = segments(offsets, device=features.device)
        tiles = self.projection(features)  #                                              tile hidden
        first, read = [], []
        for bag in torch.split(tiles, parts.lengths):
            tokens = torch.cat([self.start.to(bag.dtype), bag])[None]
            mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
            for block in self.blocks:
                tokens = block(tokens, mask)
            first.append(tokens[0, 0])
            read.append(tokens[0, 1:])
        by_token = self.class_head(self.norm(torch.stack(first)))  #                      bag out
        values, scores = self.mil(self.norm(torch.cat(read)))
        pooled = attention_pooled(values, scores, parts)
        by_tiles = self.mil.out(pooled.embedding[:, 0])
        aux = {"stream_logits": torch.stack([by_token, by_tiles])}
        return pooled._replace(logits=(by_token + by_tiles) / 2, aux=aux)

    def rollout(
        self,
        features: Float[Tensor, "tile dim"],
        cells: Int64[Tensor, "tile 2"],
        clinical: Clinical | None = None,
    ) -> Float[Tensor, "tile query"]:
        """Half by the class token, half by the tiles that the other head weighs; of one bag. Sums to 1 with token 0."""
        tokens = torch.cat([self.start.to(features.dtype), self.projection(features)])[None]
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        flow: Tensor | None = None
        for block in self.blocks:
            assert isinstance(block, MaskedBlock)
            flow, tokens = rolled(flow, block.attention(tokens)[0]), block(tokens, mask)
        assert flow is not None  # there is one block at least
        weights = self.mil(self.norm(tokens[0, 1:]))[1].softmax(dim=0)  #                 tile 1
        return (flow[:1].T + flow[1:].T @ weights)[1:] / 2


class _MILHead(nn.Module):
    def __init__(self, hidden: int, n_out: int, *, dropout: float) -> None:
        super().__init__()
        self.value = nn.Sequential(nn.Linear(hidden, hidden), nn.LayerNorm(hidden), nn.ReLU())
        width = hidden // 2
        # no bias for the score: it would cancel in the softmax
        self.score = nn.Sequential(
            nn.Linear(hidden, width),
            nn.LayerNorm(width),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(width, 1, bias=False),
        )
        self.out = nn.Linear(hidden, n_out)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        values = self.value(tokens)
        return values, self.score(values)
