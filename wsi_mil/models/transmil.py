"""TransMIL: two layers of Nystrom attention with convolutions between that stand for positions; for comparability."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from wsi_mil.errors import ModelError
from wsi_mil.models.aggregator import Aggregator, Clinical, Pooled, Weights
from wsi_mil.models.dropout import Dropout
from wsi_mil.models.layers import Projection, segments

_ITERATIONS = 6
"""Steps to the pseudo-inverse, as in the paper."""
_RUN = 64
"""Tokens in a run of the convolution along them: twice its reach on both sides, so that few products are with 0."""
_REACH = 4
"""Cells beyond which the widest of the convolutions, 7 cells, does not reach."""


class TransMIL(Aggregator):
    """h = [class token; relu(P x)];  h = h + A(LN(h));  h = h + (conv7 + conv5 + conv3)(h) over a grid of the tiles;

    h = h + A(LN(h));  logits = W LN(class token). A is Nystrom attention: softmax(Q K~') pinv(softmax(Q~ K~'))
    softmax(Q~ K') V, Q~ and K~ the means of `landmarks` runs of tokens, plus a convolution of V along the tokens. A bag
    of no more tokens than landmarks has exact attention.

    As published, tiles lie row by row in a square in the order in which they come, so that another order is another
    answer. With `coordinates` they are sorted by and lie in their true cells, and the order changes nothing. The score
    of a tile is its likeness to the class token in the second layer, before the softmax. Bags are read one by one, so
    that nothing is padded; the square is filled up with zeros, not with the first tiles.
    """

    weights: Weights = "none"
    exact_contributions = False
    spatial: bool
    own_logits = True
    use = "to compare; it reads the order of tiles as places unless told otherwise"
    paper = "Shao et al.: TransMIL, Transformer based Correlated Multiple Instance Learning, NeurIPS 2021"
    cost = "time O(N (dim + landmarks) hidden), memory O(N (hidden + heads landmarks))"

    def __init__(
        self,
        dim: int,
        n_out: int,
        *,
        hidden: int = 512,
        heads: int = 8,
        landmarks: int = 256,
        coordinates: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if hidden % heads or landmarks < 1:
            raise ModelError(
                f"transmil: hidden={hidden}, heads={heads}, landmarks={landmarks}; hidden is a multiple of heads, and "
                "there is a landmark at least"
            )
        self.spatial = self.coordinates = coordinates
        self.breaks = {"duplication": "copies of a tile take places of their own in the grid"}
        if not coordinates:
            self.breaks["permutation"] = "published so: the order of the tiles is taken for their place"
        self.queries = ("class token",)
        self.embedding_dim = hidden
        self.projection = Projection(dim, hidden, dropout=0.0)
        self.start = nn.Parameter(torch.randn(1, hidden) * 0.02)
        self.first = Nystrom(hidden, heads=heads, landmarks=landmarks, dropout=dropout)
        self.second = Nystrom(hidden, heads=heads, landmarks=landmarks, dropout=dropout)
        self.positions = nn.ModuleList(
            nn.Conv2d(hidden, hidden, size, padding=size // 2, groups=hidden) for size in (7, 5, 3)
        )
        self.norm = nn.LayerNorm(hidden)
        self.head = nn.Linear(hidden, n_out)

    def pool(
        self,
        features: Float[Tensor, "tile dim"],
        cells: Int64[Tensor, "tile 2"],
        offsets: Int64[Tensor, "edge"],
        clinical: Clinical | None = None,
    ) -> Pooled:
        """Read each bag by a class token."""
        parts = segments(offsets, device=features.device)
        tiles = self.projection(features)  #                                              tile hidden
        places = torch.split(cells.to(features.device), parts.lengths)
        pairs = zip(torch.split(tiles, parts.lengths), places, strict=True)
        read, scores = zip(*(self._bag(bag, place) for bag, place in pairs), strict=True)
        embedding = self.norm(torch.stack(read))  #                                       bag hidden
        return Pooled(embedding[:, None], torch.cat(scores), None, self.head(embedding), None, {})

    def _bag(self, tiles: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Class token of a bag, and the score of each tile."""
        count = len(tiles)
        if self.coordinates:
            column, row = close_ranks(cells[:, 0]), close_ranks(cells[:, 1])
            order = (row * (int(column.max()) + 1) + column).argsort(stable=True)
            tiles, column, row = tiles[order], column[order], row[order]
        else:
            side = math.ceil(math.sqrt(count))
            order = torch.arange(count, device=tiles.device)
            column, row = order % side, order // side
        tokens = self.first(torch.cat([self.start.to(tiles.dtype), tiles]))
        tokens = torch.cat([tokens[:1], self._place(tokens[1:], column, row)])
        read, likeness = self.second.first(tokens)
        likeness = likeness[1:, None]
        return read, torch.zeros_like(likeness).index_copy(0, order, likeness)

    def _place(self, tiles: Tensor, column: Tensor, row: Tensor) -> Tensor:
        """Tiles with what the convolutions make of the grid around them."""
        width, height = int(column.max()) + 1, int(row.max()) + 1
        slots = row * width + column
        grid = tiles.new_zeros(width * height, tiles.shape[1]).index_add(0, slots, tiles)
        picture = grid.T.reshape(1, -1, height, width)
        around = torch.stack([convolution(picture) for convolution in self.positions]).sum(0)
        placed: Tensor = tiles + around[0].flatten(1).T[slots]
        return placed


def close_ranks(positions: Int64[Tensor, "tile"]) -> Int64[Tensor, "tile"]:
    """Positions from 0 on, gaps that no convolution spans cut down: pieces far apart take no room between them."""
    found, place = torch.unique(positions, return_inverse=True)
    steps = found.diff().clamp_max(_REACH)
    return torch.cat([steps.new_zeros(1), steps.cumsum(0)])[place]


class Nystrom(nn.Module):
    """h + O (Nystrom attention of LN(h) + convolution of its values along the tokens); softmax, inverse in float32."""

    def __init__(self, hidden: int, *, heads: int, landmarks: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.landmarks = heads, landmarks
        self.norm = nn.LayerNorm(hidden)
        self.inward = nn.Linear(hidden, 3 * hidden, bias=False)
        self.outward = nn.Linear(hidden, hidden)
        self.dropout = Dropout(dropout)
        self.residual = nn.Conv1d(heads, heads, 33, padding=16, groups=heads, bias=False)

    def forward(self, tokens: Float[Tensor, "token hidden"]) -> Float[Tensor, "token hidden"]:
        """Tokens that have seen one another."""
        whole: Tensor = self.inward(self.norm(tokens))
        query, key, value = self._heads(whole, 3)  #                                      head token part, each
        if len(tokens) <= self.landmarks:
            seen = functional.scaled_dot_product_attention(query[None], key[None], value[None])[0]
        else:
            seen = nystrom(query, key, value, landmarks=self.landmarks)
        seen = seen + along(value, self.residual.weight[:, 0])
        mixed: Tensor = tokens + self.dropout(self.outward(seen.transpose(0, 1).flatten(1)))
        return mixed

    def first(self, tokens: Float[Tensor, "token hidden"]) -> tuple[Float[Tensor, "hidden"], Float[Tensor, "token"]]:
        """The first token alone after seeing all others, at half the cost of `forward`, and its likeness to each token:

        before any softmax, mean over heads.
        """
        known = self.norm(tokens)
        asking, telling = self.inward.weight.tensor_split([len(self.inward.weight) // 3])
        key, value = self._heads(functional.linear(known, telling), 2)
        (query,) = self._heads(functional.linear(known[:1], asking), 1)
        if len(tokens) <= self.landmarks:
            seen = functional.scaled_dot_product_attention(query[None], key[None], value[None])[0]
        else:
            # the mean of the queries is the query of the mean, so the other queries are not needed
            means = _means_of_runs(known[None], self.landmarks)[0].to(known.dtype)
            (few,) = self._heads(functional.linear(means, asking), 1)
            seen = _through(query, few, key, value)
        taps = self.residual.weight[:, 0, 16 : 16 + len(tokens)].to(value.dtype)  #        head tap
        seen = seen[:, 0] + (taps[:, :, None] * value[:, : taps.shape[1]]).sum(1)
        mixed: Tensor = tokens[0] + self.dropout(self.outward(seen.flatten()))
        return mixed, (query @ key.mT)[:, 0].mean(0) / key.shape[2] ** 0.5

    def _heads(self, whole: Tensor, parts: int) -> Tensor:
        return whole.reshape(len(whole), parts, self.heads, -1).permute(1, 2, 0, 3)


def nystrom(
    query: Float[Tensor, "head token part"],
    key: Float[Tensor, "head token part"],
    value: Float[Tensor, "head token part"],
    *,
    landmarks: int,
) -> Float[Tensor, "head token part"]:
    """Attention through the means of runs of tokens, all runs as long as another or one longer."""
    return _through(query, _means_of_runs(query, landmarks), key, value)


def _through(query: Tensor, query_few: Tensor, key: Tensor, value: Tensor) -> Tensor:
    precision = torch.promote_types(query.dtype, torch.float32)
    with torch.autocast(query.device.type, enabled=False):
        query, query_few = (part.to(precision) / query.shape[2] ** 0.5 for part in (query, query_few))
        key_few, key = _means_of_runs(key, query_few.shape[1]), key.to(precision)
        left = (query @ key_few.mT).softmax(-1)
        middle = (query_few @ key_few.mT).softmax(-1)
        right = (query_few @ key.mT).softmax(-1)
        seen = left @ (pseudo_inverse(middle) @ (right @ value.to(precision)))
    return seen.to(value.dtype)


def _means_of_runs(rows: Tensor, runs: int) -> Tensor:
    """Of [any row part], in float32 at least."""
    whole = rows.to(torch.promote_types(rows.dtype, torch.float32))
    run = torch.arange(rows.shape[1], device=rows.device) * runs // rows.shape[1]
    lengths = torch.bincount(run, minlength=runs).to(whole.dtype)[:, None]
    return whole.new_zeros(len(rows), runs, rows.shape[2]).index_add(1, run, whole) / lengths


def along(
    values: Float[Tensor, "head token part"], taps: Float[Tensor, "head tap"]
) -> Float[Tensor, "head token part"]:
    """Convolution along the tokens, of an odd number of taps for each head, zeros beyond the ends.

    As products of runs of tokens and a band matrix, which took a third of the time of torch's grouped convolution.
    """
    heads, tokens, part = values.shape
    reach, runs = taps.shape[1] // 2, -(-tokens // _RUN)
    padded = functional.pad(values, (0, 0, _RUN, (runs + 1) * _RUN - tokens)).reshape(heads, runs + 2, _RUN, part)
    near = torch.cat([padded[:, :-2, _RUN - reach :], padded[:, 1:-1], padded[:, 2:, :reach]], dim=2)
    # row i of the band has the taps from column i on
    band = functional.pad(taps, (0, _RUN)).repeat(1, _RUN)[:, : _RUN * near.shape[2]]
    band = band.reshape(heads, 1, _RUN, near.shape[2]).to(values.dtype)
    return (band @ near).flatten(1, 2)[:, :tokens]


def pseudo_inverse(matrices: Float[Tensor, "head row row"]) -> Float[Tensor, "head row row"]:
    """Z = Z (13 I - A Z (15 I - A Z (7 I - A Z))) / 4, six times, from A' over its largest sums (Razavi et al. 2014).

    Each matrix has a scale of its own; the reference code takes one for all heads.
    """
    sums = matrices.abs().sum(-1).amax(-1) * matrices.abs().sum(-2).amax(-1)
    inverse = matrices.mT / sums[:, None, None]
    one = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    for _ in range(_ITERATIONS):
        product = matrices @ inverse
        inverse = inverse @ (13 * one - product @ (15 * one - product @ (7 * one - product))) / 4
    return inverse
