"""Bag statistics and a linear classifier: what a model of tiles has to beat."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from wsi_mil.errors import ModelError
from wsi_mil.models.aggregator import Aggregator, Clinical, Pooled, Weights
from wsi_mil.models.dropout import Dropout
from wsi_mil.models.layers import Segments, segment_max, segment_mean, segments

_KNOWN = ("mean", "sd", "min", "max")
_FLOOR = 1e-6
"""Added to the variance under the root, which has no slope at 0."""


class BagStatistics(Aggregator):
    """z = [mean_k x_k; sd_k x_k; min_k x_k; max_k x_k];  logit = W z + b.

    On small, tabular bags it is as good as attention. Each statistic splits over the tiles exactly: the mean as
    x_k / N, the deviation as (x_k - mean)^2 / (N sd), the extremes at the tile that has them. Contributions are given
    in evaluation mode. The score of a tile is the logit of a bag that holds it alone.
    """

    weights: Weights = "none"
    exact_contributions = True
    spatial = False
    own_logits = True
    use = "baseline, always beside the others; seconds"
    paper = "baseline; Amores: Multiple instance classification, Artificial Intelligence 2013 (embedded space)"
    cost = "time O(N dim out), memory O(N dim)"

    def __init__(
        self, dim: int, n_out: int, *, statistics: tuple[str, ...] | list[str] = _KNOWN, dropout: float = 0.25
    ) -> None:
        super().__init__()
        if not statistics or not set(statistics) <= set(_KNOWN) or len(set(statistics)) < len(statistics):
            raise ModelError(f"stats: statistics are {list(statistics)}; name some of {list(_KNOWN)}, each once")
        self.statistics = tuple(statistics)
        self.queries = tuple(f"class {number}" for number in range(n_out))
        self.embedding_dim = dim * len(self.statistics)
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(self.embedding_dim, n_out)

    def pool(
        self,
        features: Float[Tensor, "tile dim"],
        cells: Int64[Tensor, "tile 2"],
        offsets: Int64[Tensor, "edge"],
        clinical: Clinical | None = None,
    ) -> Pooled:
        """Describe each bag by the statistics of its tiles."""
        parts = segments(offsets, device=features.device)
        low, low_rows = segment_max(-features, parts)
        high, high_rows = segment_max(features, parts)
        mean = segment_mean(features, parts)  #                                           bag dim
        variance = segment_mean((features - mean[parts.bag]) ** 2, parts)
        values = {"mean": mean, "sd": variance / (variance + _FLOOR).sqrt(), "min": -low, "max": high}
        embedding = torch.cat([values[name] for name in self.statistics], dim=1)  #       bag dims
        rows = {"min": low_rows, "max": high_rows}
        contributions = None
        weights = dict(zip(self.statistics, torch.split(self.head.weight, features.shape[1], dim=1), strict=True))
        if not self.training:
            contributions = self._contributions(features, mean, variance, weights=weights, rows=rows, parts=parts)
        alone = [features @ weight.T for name, weight in weights.items() if name != "sd"]
        return Pooled(
            embedding=embedding[:, None].expand(-1, len(self.queries), -1),
            scores=torch.stack([*alone, self.head.bias.expand(len(features), -1)]).sum(0),
            attention=None,
            logits=self.head(self.dropout(embedding)),
            contributions=contributions,
            aux={},
        )

    def _contributions(
        self,
        features: Tensor,
        mean: Tensor,
        variance: Tensor,
        *,
        weights: dict[str, Tensor],
        rows: dict[str, Tensor],
        parts: Segments,
    ) -> Tensor:
        lengths = torch.tensor(parts.lengths, dtype=mean.dtype, device=mean.device)[:, None]
        total = features.new_zeros(len(features), len(self.queries))
        for name, weight in weights.items():
            if name == "mean":
                total = total + (features / lengths[parts.bag]) @ weight.T
            elif name == "sd":
                scale = 1 / (lengths * (variance + _FLOOR).sqrt())
                total = total + ((features - mean[parts.bag]) ** 2 * scale[parts.bag]) @ weight.T
            else:
                chosen = torch.zeros_like(features).scatter(0, rows[name], 1.0)
                total = total + (features * chosen) @ weight.T
        return total
