"""CLAM: gated attention whose first and last tiles are also told apart by a small classifier of each class."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from wsi_mil.errors import ModelError
from wsi_mil.models.aggregator import Aggregator, Clinical, Pooled, Weights
from wsi_mil.models.layers import Attention, Projection, attention_pooled, segments


class CLAM(Aggregator):
    """h_k = relu(P x_k);  e = gated attention;  a = softmax(e);  z = sum_k a_k h_k, and in training for each class c

    u_kc = C_c h_k in R^2, judged on the `tiles` tiles with the highest and the lowest e of the bag's class (yes and no)
    and, where classes exclude each other, on the highest of the others (no).

    branches "single" (SB): one attention; "multi" (MB): each class has an attention and a head of its own.
    Loss: (1 - clusters) * bag + clusters * mean binary loss. Departure: cross-entropy or plain hinge, not smooth SVM.
    """

    weights: Weights = "softmax"
    exact_contributions = True
    spatial = False
    own_logits = False
    use = "one class a slide, when tiles should be told apart as well as slides"
    paper = (
        "Lu et al.: Data-efficient and weakly supervised computational pathology, Nature Biomedical Engineering 2021"
    )
    cost = "time O(N dim hidden + N log N), memory O(N hidden)"

    def __init__(
        self,
        dim: int,
        n_out: int,
        *,
        branches: Literal["single", "multi"] = "multi",
        hidden: int = 256,
        attention: int = 128,
        tiles: int = 8,
        clusters: float = 0.3,
        exclusive: bool = True,
        instance_loss: Literal["cross_entropy", "hinge"] = "cross_entropy",
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        _check(branches, tiles=tiles, clusters=clusters, instance_loss=instance_loss)
        self.query_per_class = branches == "multi"
        self.queries = tuple(f"class {number}" for number in range(n_out)) if self.query_per_class else ("tiles",)
        self.embedding_dim = hidden
        self.losses = {"bag": 1 - clusters, "clusters": clusters}
        self.tiles, self.exclusive, self.hinge = tiles, exclusive, instance_loss == "hinge"
        self.projection = Projection(dim, hidden, dropout=dropout)
        self.attention = Attention(hidden, attention, len(self.queries), gated=True, dropout=dropout)
        self.clusters = nn.Linear(hidden, 2 * n_out) if clusters else None

    def pool(
        self,
        features: Float[Tensor, "tile dim"],
        cells: Int64[Tensor, "tile 2"],
        offsets: Int64[Tensor, "edge"],
        clinical: Clinical | None = None,
    ) -> Pooled:
        """Attention-weighted mean of each bag's tiles; in training also what the cluster classifiers say of them."""
        parts = segments(offsets, device=features.device)
        tiles = self.projection(features)  #                                              tile hidden
        pooled = attention_pooled(tiles, self.attention(tiles), parts)
        aux = pooled.aux
        if self.training and self.clusters is not None:
            aux["cluster_logits"] = self.clusters(tiles).unflatten(1, (-1, 2))  #         tile out 2
            aux["cluster_tiles"] = torch.tensor(self.tiles)
            aux["cluster_exclusive"] = torch.tensor(self.exclusive)
            aux["cluster_hinge"] = torch.tensor(self.hinge)
        return pooled


def _check(branches: str, *, tiles: int, clusters: float, instance_loss: str) -> None:
    if branches not in ("single", "multi"):
        raise ModelError(f"clam: branches is {branches!r}; it is 'single' (SB) or 'multi' (MB)")
    if instance_loss not in ("cross_entropy", "hinge"):
        raise ModelError(f"clam: instance_loss is {instance_loss!r}; it is 'cross_entropy' or 'hinge'")
    if tiles < 1 or not 0 <= clusters < 1:
        raise ModelError(f"clam: tiles={tiles} and clusters={clusters}; one tile at least, and a share below 1")
