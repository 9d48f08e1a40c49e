"""What every way of reading a bag promises: tiles of several bags in, one embedding and a score for each tile out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, final

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from wsi_mil.errors import ModelError

Weights = Literal["softmax", "sigmoid", "none"]


class Clinical(NamedTuple):
    """What is known of each bag's patient: numbers, and which of them are missing."""

    values: Float[Tensor, "bag column"]
    missing: Bool[Tensor, "bag column"]


class Pooled(NamedTuple):
    """What was read from a ragged batch: the tiles of all bags one after the other."""

    embedding: Float[Tensor, "bag query dim"]
    scores: Float[Tensor, "tile query"]
    """Raw, before any normalisation: what heatmaps and rankings use."""
    attention: Float[Tensor, "tile query"] | None
    """Weights as the class says: softmax (sum to 1 over a bag's tiles), sigmoid, or None where the method has none."""
    logits: Float[Tensor, "bag out"] | None
    """None where the method stops at an embedding; `MIL` then adds the head."""
    contributions: Float[Tensor, "tile out"] | None
    """What each tile adds to each logit: over a bag they sum to its logit less a bias that is the same for all bags."""
    aux: dict[str, Tensor]
    """What a training loss needs besides, by name."""


class Padded(NamedTuple):
    """`Pooled` in the padded form: scores are -inf, attention and contributions 0, where there is no tile."""

    embedding: Float[Tensor, "bag query dim"]
    scores: Float[Tensor, "bag row query"]
    attention: Float[Tensor, "bag row query"] | None
    logits: Float[Tensor, "bag out"] | None
    contributions: Float[Tensor, "bag row out"] | None
    aux: dict[str, Tensor]
    """As the ragged form gives it."""


class Aggregator(nn.Module, ABC):
    """A method that reads bags. It is constructed as `Method(dim, n_out, *, option=default, ...)`.

    A method writes `pool` and nothing else of these. Calling the module checks the batch and brings half-precision
    features to the precision of the weights. Labels are no argument, so that no method can look at them.
    """

    weights: Weights
    """What the attention is: "softmax", "sigmoid", or "none"."""
    exact_contributions: bool
    """Whether contributions are given and add up to the logit."""
    spatial: bool
    """Whether the place of a tile matters; where not, cells are ignored entirely."""
    own_logits: bool
    """Whether `pool` gives logits; where not, `MIL` puts a linear head on the embedding."""
    use: str
    """When to take it, in some words."""
    paper: str
    cost: str
    """Time and memory in the number of tiles N."""
    recipe: Mapping[str, float] = {}
    """Settings of training (lr, batch_bags) that the method needs where a study sets none; found on planted bags."""
    faster: Mapping[str, float] = {}
    """Parts (names of submodules) that learn with a multiple of the learning rate."""
    breaks: Mapping[str, str] = {}
    """Properties of the contract that the method breaks on purpose, each with the reason."""

    judges_parts: bool = False
    """Whether training gives single tiles or parts of a slide its label: wrong for grades that hang on the whole."""

    tile_maps: Mapping[str, Literal["attention", "contribution", "tile logit"]] = {}
    """What `aux` has for each tile besides, in evaluation mode, and what its numbers are: shape [tile, out], or [tile,
    1]. Contributions are parts of those that the method gives."""

    losses: Mapping[str, float] = {}
    """Terms of the training loss by their name in `training/auxiliary.py`, with their weights; "bag" is the task's own
    loss, of weight 1 where it is not listed. May be set by the constructor."""

    queries: tuple[str, ...]
    """What each column of scores and attention asks; set by the constructor."""
    embedding_dim: int
    """Length of one query's embedding; set by the constructor."""
    query_per_class: bool = False
    """Whether query c speaks for output c alone: the head then has no weights from other queries."""

    @abstractmethod
    def pool(
        self,
        features: Float[Tensor, "tile dim"],
        cells: Int64[Tensor, "tile 2"],
        offsets: Int64[Tensor, "edge"],
        clinical: Clinical | None = None,
    ) -> Pooled:
        """Read bags of which each has one tile at least; bag b holds tiles `offsets[b]` to `offsets[b + 1]`.

        `cells` are column and row of each tile in its slide's grid. `offsets` has one entry more than there are bags,
        and may lie on the CPU whatever the device of the features, which saves waiting for the device.
        """

    def forward(
        self,
        features: Float[Tensor, "tile dim"],
        cells: Int64[Tensor, "tile 2"],
        offsets: Int64[Tensor, "edge"],
        clinical: Clinical | None = None,
    ) -> Pooled:
        """`pool`, after the checks. Raises ModelError for an empty bag or offsets that do not fit."""
        _check(features, cells, offsets)
        return self.pool(features.to(next(self.parameters()).dtype), cells, offsets, clinical)

    def at(self, progress: float) -> None:  # noqa: B027  (most methods have nothing to do here)
        """Hear, before each training step, what share of the training is done: 0 to 1.

        A method that changes on the way (annealing) keeps where it is in a buffer, so that a checkpoint holds it.
        """

    @final
    def padded(
        self,
        features: Float[Tensor, "bag row dim"],
        cells: Int64[Tensor, "bag row 2"],
        mask: Bool[Tensor, "bag row"],
        clinical: Clinical | None = None,
    ) -> Padded:
        """The same answer for bags padded to one length; what lies outside the mask is never read."""
        lengths = mask.sum(dim=1).cpu()
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        pooled = self(features[mask], cells[mask], offsets, clinical)

        def spread(values: Tensor | None, empty: float) -> Any:
            if values is None:
                return None
            return values.new_full((*mask.shape, values.shape[1]), empty).masked_scatter(mask[..., None], values)

        return Padded(
            embedding=pooled.embedding,
            scores=spread(pooled.scores, float("-inf")),
            attention=spread(pooled.attention, 0.0),
            logits=pooled.logits,
            contributions=spread(pooled.contributions, 0.0),
            aux=pooled.aux,
        )


def _check(features: Tensor, cells: Tensor, offsets: Tensor) -> None:
    edges = offsets.tolist()
    if len(features) != len(cells):
        raise ModelError(f"{len(features)} tiles have features and {len(cells)} have cells; each tile needs both")
    if len(edges) < 2 or edges[0] != 0 or edges[-1] != len(features):
        raise ModelError(
            f"offsets {edges[:3]}...{edges[-1:]} do not run from 0 to the number of tiles, {len(features)}"
        )
    for bag, (start, stop) in enumerate(zip(edges, edges[1:], strict=False)):
        if stop <= start:
            raise ModelError(f"bag {bag} of {len(edges) - 1} is empty; leave slides without tiles out of the batch")
