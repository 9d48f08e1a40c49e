"""LCA-DB: two branches, at low and at high magnification, look at the same regions and check each other."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from wsi_mil.errors import ModelError
from wsi_mil.models.aggregator import Aggregator, Clinical, Pooled, Weights
from wsi_mil.models.layers import Attention, Projection, Segments, segment_softmax, segment_sum, segments

_SHARE = 0.1
"""Of an even share 1 / regions: a region whose weight is below it gets none."""


class LCADB(Aggregator):
    """Columns of x: first those of the tile, then as many of the larger tile around it at the low magnification.

    g_r = relu(G mean of the low columns in region r);  p_r = sum_k a_k relu(P x_k), a = softmax over the tiles k of r;
    in each branch s_r = | W h_r + b |_2 over classes, t = s / sum s, t = relu(t - .1 / regions) / sum of the same;
    logit = V (sum_r tR_r g_r + sum_r tP_r p_r) + c.

    Losses: focal on the logit; of each branch sum_r t_r CE(W h_r + b, label), times u; the same with the other
    branch's t, times u / 4; and (1 - cos(tR, tP)) / 4. u rises to .2 over the first 24 % of training. Regions are
    squares of `region` x `region` cells, which must be how many tiles at the high magnification lie along one at the
    low. `detach` stops gradients through the other branch's t. Each tile's contribution is exact as a sum; a region's
    share at the low magnification is dealt evenly to its tiles. Scores are logarithms of the weights before the cut.

    Claims the mechanism, not the published accuracy, which is of MRI volumes. Departures (and repairs): regions of a
    slide for squares of a picture; p_r by attention; the number of regions in the cut of both branches; all terms a
    mean over bags.
    """

    weights: Weights = "softmax"
    exact_contributions = True
    spatial = True
    own_logits = True
    tile_maps = {"low": "contribution", "high": "contribution"}
    breaks = {
        "translation": "regions are the tiles of the low magnification, which lie where the slide has them",
        "identical": "regions share alike, however many tiles each holds",
    }
    use = "what shows at two magnifications: `tile.mpp` with two scales"
    paper = "Wang et al.: LCA-DB, lesion classification with a dual branch and cross-attention guided losses, 2024"
    cost = "time O(N dim hidden + N log N), memory O(N hidden)"

    def __init__(
        self,
        dim: int,
        n_out: int,
        *,
        region: int = 4,
        hidden: int = 256,
        attention: int = 128,
        dropout: float = 0.25,
        focal: bool = True,
        detach: bool = False,
    ) -> None:
        super().__init__()
        if dim % 2 or region < 1:
            raise ModelError(
                f"lca_db: {dim} features a tile and region={region}; it reads bags of two scales (tile.mpp: [1.0, "
                "4.0]), as many features for each, and region is 1 or more"
            )
        self.queries = ("regions", "tiles")
        self.embedding_dim, self.region, self.detach = hidden, region, detach
        self.losses = {"bag": 0.0 if focal else 1.0, "focal": float(focal), "region_labels": 1.0, "branches": 0.25}
        self.low, self.high = (Projection(dim // 2, hidden, dropout=dropout) for _ in range(2))
        self.within = Attention(hidden, attention, 1, gated=True, dropout=0.0)
        self.low_head, self.high_head = nn.Linear(hidden, n_out), nn.Linear(hidden, n_out)
        self.head = nn.Linear(hidden, n_out)

    def pool(
        self,
        features: Float[Tensor, "tile dim"],
        cells: Int64[Tensor, "tile 2"],
        offsets: Int64[Tensor, "edge"],
        clinical: Clinical | None = None,
    ) -> Pooled:
        """Regions of each bag, weighed by either branch, and their sum."""
        parts = segments(offsets, device=features.device)
        order, within, bags = regions(cells.to(features.device), parts, side=self.region)
        high_columns, low_columns = features[order].chunk(2, dim=1)
        counts = torch.bincount(within.bag)[:, None].to(features.dtype)
        low = self.low(_sums(low_columns, within) / counts)  #                            region hidden
        tiles = self.high(high_columns)
        inside = segment_softmax(self.within(tiles), within)  #                           tile 1
        high = _sums(inside.to(tiles.dtype) * tiles, within)
        seen = {"low": self.low_head(low), "high": self.high_head(high)}  #               region out, twice
        even, cut = zip(*(region_weights(seen[name], bags) for name in ("low", "high")), strict=True)
        embedding = torch.stack(
            [segment_sum(weight.to(low.dtype) * part, bags) for weight, part in zip(cut, (low, high), strict=True)], 1
        )
        spread = torch.cat([1 / counts[within.bag], inside], dim=1)  #                    tile 2
        attention = torch.cat(cut, dim=1)[within.bag] * spread
        scores = (torch.cat(even, dim=1)[within.bag] * spread).clamp_min(torch.finfo(spread.dtype).tiny).log()
        spoken = functional.linear(low, self.head.weight)[within.bag], functional.linear(tiles, self.head.weight)
        by_scale = attention[:, :1] * spoken[0], attention[:, 1:] * spoken[1]
        back = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=order.device))
        return Pooled(
            embedding=embedding,
            scores=scores[back],
            attention=attention[back],
            logits=self.head(embedding.sum(dim=1)),
            contributions=(by_scale[0] + by_scale[1])[back],
            aux={
                "low": by_scale[0][back],
                "high": by_scale[1][back],
                "region_logits": torch.stack([seen["low"], seen["high"]]),
                "region_weights": torch.stack(cut)[:, :, 0],
                "region_bag": bags.bag,
                "region_detach": torch.tensor(self.detach),
            },
        )


def regions(
    cells: Int64[Tensor, "tile 2"], parts: Segments, *, side: int
) -> tuple[Int64[Tensor, "tile"], Segments, Segments]:
    """Squares of side x side cells, laid from cell (0, 0) as the tiles of the low magnification are.

    An order of the tiles in which those of a region follow one another, bags as they stand; which tiles (in that order)
    belong to which region; which regions belong to which bag.
    """
    across, down = torch.div(cells, side, rounding_mode="floor").unbind(dim=1)
    width, height = (int(one.amax() - one.amin()) + 1 for one in (across, down))
    keys = (parts.bag * width + across - across.amin()) * height + down - down.amin()
    order = keys.argsort(stable=True)
    found, region = torch.unique_consecutive(keys[order], return_inverse=True)
    bag = torch.div(found, width * height, rounding_mode="floor")
    return order, Segments(torch.bincount(region).tolist(), region), Segments(torch.bincount(bag).tolist(), bag)


def region_weights(
    logits: Float[Tensor, "region out"], bags: Segments
) -> tuple[Float[Tensor, "region 1"], Float[Tensor, "region 1"]]:
    """Each region's share by the length of its logits, before and after small shares are cut; both sum to 1 a bag."""
    whole = logits.to(torch.promote_types(logits.dtype, torch.float32))
    lengths = torch.linalg.vector_norm(whole, dim=1, keepdim=True)
    lengths = lengths.clamp_min(torch.finfo(lengths.dtype).eps)  # regions that say nothing share evenly
    share = lengths / _sums(lengths, bags)[bags.bag]
    count = torch.tensor(bags.lengths, dtype=share.dtype, device=share.device)[:, None]
    kept = (share - (_SHARE / count)[bags.bag]).relu()
    return share, kept / _sums(kept, bags)[bags.bag]


def _sums(values: Tensor, parts: Segments) -> Tensor:
    """Per segment; there are too many regions for a loop."""
    return values.new_zeros(len(parts.lengths), values.shape[1]).index_add(0, parts.bag, values)
