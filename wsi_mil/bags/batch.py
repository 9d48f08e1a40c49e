"""Batch: several bags as one ragged block of tiles for a model, without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from numpy.typing import NDArray
from torch import Tensor

from wsi_mil.bags.bag import Bag, cells
from wsi_mil.errors import BagError


@dataclass(frozen=True)
class Batch:
    """The tiles of several bags one after another; bag b owns tiles `offsets[b]` to `offsets[b + 1]`."""

    features: Float32[Tensor, "tile dim"]
    cells: Int64[Tensor, "tile 2"]
    """Column and row of each tile in its slide's grid."""
    offsets: Int64[Tensor, "edge"]
    """One more than there are bags, from 0 to the number of tiles."""
    rows: Int64[Tensor, "tile"]
    """Which row of its bag each tile was, so that scores find their way back to the slide."""
    slides: tuple[str, ...]
    """Slide id of each bag."""

    def __len__(self) -> int:
        return len(self.slides)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        return Batch(
            features=self.features.to(device, non_blocking=True),
            cells=self.cells.to(device, non_blocking=True),
            offsets=self.offsets.to(device, non_blocking=True),
            rows=self.rows.to(device, non_blocking=True),
            slides=self.slides,
        )


def collate(bags: Sequence[Bag], *, rows: Sequence[NDArray[Any]] | None = None) -> Batch:
    """Put bags side by side, leaving out tiles that could not be read or were left out for their quality.

    `rows` chooses tiles a bag (row numbers of that bag, in the order wanted), as sampling does. Raises BagError where
    features of different encoders would mix, or where a bag is left with no tile.
    """
    if not bags:
        raise BagError("no bags to put into a batch; give at least one")
    chosen = [_usable_rows(bag, None if rows is None else rows[i]) for i, bag in enumerate(bags)]
    for bag in bags[1:]:
        differences = bags[0].encoder.difference(bag.encoder)
        if differences:
            raise BagError(
                f"bags of slides {bags[0].slide.id!r} and {bag.slide.id!r} were made by different encoders "
                f"({'; '.join(differences)}); extract both with the same one"
            )
    counts = [len(index) for index in chosen]
    # Rows are chosen in half precision and widened afterwards: widening whole bags costs more than reading them.
    features = [torch.from_numpy(_pick(bag.features, index)).float() for bag, index in zip(bags, chosen, strict=True)]
    places = [torch.from_numpy(_pick(cells(bag.grid), index)) for bag, index in zip(bags, chosen, strict=True)]
    return Batch(
        features=torch.cat(features),
        cells=torch.cat(places),
        offsets=torch.from_numpy(np.cumsum([0, *counts], dtype=np.int64)),
        rows=torch.from_numpy(np.concatenate(chosen)),
        slides=tuple(bag.slide.id for bag in bags),
    )


def _usable_rows(bag: Bag, rows: NDArray[Any] | None) -> NDArray[np.int64]:
    if rows is None:
        index = np.flatnonzero(bag.usable)
    else:
        index = np.asarray(rows, dtype=np.int64)
        index = index[bag.usable[index]]
    if not len(index):
        raise BagError(f"bag of slide {bag.slide.id!r}: none of its tiles is usable, or none was chosen")
    return index.astype(np.int64)


def _pick(values: NDArray[Any], index: NDArray[np.int64]) -> NDArray[Any]:
    picked = values if len(index) == len(values) and np.array_equal(index, np.arange(len(values))) else values[index]
    # torch warns of memory it must not write to, and a batch never writes: a copy is the safe answer.
    return picked if picked.flags.writeable else picked.copy()
