"""DTFD-MIL: a bag is dealt out into pseudo-bags, each is read alone, and what they say is read once more."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from wsi_mil.errors import ModelError
from wsi_mil.models.aggregator import Aggregator, Clinical, Pooled, Weights
from wsi_mil.models.layers import Attention, Projection, Segments, segment_softmax, segments, weighted_sum


class DTFD(Aggregator):
    """h_k = relu(P x_k);  in each pseudo-bag m: a = softmax(e_1(h)), z_m = sum_k a_k h_k;

    then b = softmax(e_2(z)), z = sum_m b_m z_m. Loss: bag + the task's loss on W_1 z_m with the label of the bag. A
    tile's attention is b_m a_k, so that it sums to 1 over the bag and its contributions are exact.

    In training the tiles are dealt at random, anew each time. Otherwise they are put in order along one fixed random
    direction of their features and dealt in turn: the same tiles always give the same answer. Good where one tile
    decides; a grade that hangs on the whole slide is not that of each pseudo-bag (worst of ten methods on PANDA), so do
    not use it for ordered targets. Distillation is AFS: the whole z_m goes up.
    """

    weights: Weights = "softmax"
    exact_contributions = True
    spatial = False
    own_logits = False
    losses = {"pseudo_bags": 1.0}
    judges_parts = True
    breaks = {"duplication": "copies of a tile are dealt to different pseudo-bags"}
    use = "a needle in a haystack (metastases); never for ordered grades"
    paper = "Zhang et al.: DTFD-MIL, Double-Tier Feature Distillation Multiple Instance Learning, CVPR 2022"
    cost = "time O(N dim hidden + N log N), memory O(N hidden)"

    direction: Tensor

    def __init__(
        self,
        dim: int,
        n_out: int,
        *,
        pseudo_bags: int = 4,
        hidden: int = 256,
        attention: int = 128,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        if pseudo_bags < 1:
            raise ModelError(f"dtfd: pseudo_bags is {pseudo_bags}; it must be 1 or more")
        self.queries = ("tiles",)
        self.embedding_dim, self.pseudo_bags = hidden, pseudo_bags
        self.projection = Projection(dim, hidden, dropout=dropout)
        self.first = Attention(hidden, attention, 1, gated=True, dropout=0.0)
        self.second = Attention(hidden, attention, 1, gated=True, dropout=0.0)
        self.pseudo_head = nn.Linear(hidden, n_out)
        self.register_buffer("direction", torch.randn(dim))

    def pool(
        self,
        features: Float[Tensor, "tile dim"],
        cells: Int64[Tensor, "tile 2"],
        offsets: Int64[Tensor, "edge"],
        clinical: Clinical | None = None,
    ) -> Pooled:
        """Read each bag in two tiers."""
        parts = segments(offsets, device=features.device)
        order, pseudo, above = self._deal(features.detach(), parts)
        tiles = self.projection(features)  #                                              tile hidden
        scores = self.first(tiles)  #                                                     tile 1
        within = segment_softmax(scores[order], pseudo)  #                                dealt 1
        lower = weighted_sum(tiles[order], within, pseudo)[:, 0]  #                       pseudo hidden
        between = segment_softmax(self.second(lower), above)  #                           pseudo 1
        dealt = within * between[pseudo.bag]
        attention = torch.zeros_like(dealt).index_copy(0, order, dealt)
        aux = {"tiles": tiles, "pseudo_logits": self.pseudo_head(lower), "pseudo_bag": above.bag}
        return Pooled(weighted_sum(lower, between, above), scores, attention, None, None, aux)

    def _deal(self, features: Tensor, parts: Segments) -> tuple[Tensor, Segments, Segments]:
        """An order that puts tiles of one pseudo-bag together, the tiles of each, and the pseudo-bags of each bag."""
        if self.training:
            keys = torch.rand(len(features), device=features.device)
        else:
            keys = (features * self.direction).sum(dim=1)
        groups, counts, start = [], [], 0
        for part in torch.split(keys, parts.lengths):
            count = min(self.pseudo_bags, len(part))
            turn = torch.arange(len(part), device=keys.device) % count
            groups.append(torch.zeros_like(turn).scatter(0, part.argsort(stable=True), turn) + start)
            counts.append(count)
            start += count
        group = torch.cat(groups)
        order = group.argsort(stable=True)
        bag = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(keys.device)
        return order, Segments(torch.bincount(group).tolist(), group[order]), Segments(counts, bag)
