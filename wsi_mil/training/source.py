"""Where training and inference take their bags from, one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from wsi_mil.bags import Draw as Draw

Tiles = tuple[NDArray[Any], NDArray[Any]]
"""Features [tile dim] (float16 or float32) and cells [tile 2] (int64) of one bag."""


@runtime_checkable
class BagSource(Protocol):
    """Bags by number, whole or in part."""

    def __len__(self) -> int: ...

    def load(self, index: int, draw: Draw | None = None) -> Tiles:
        """Features and cells of one bag: of all its tiles, or of those that `draw` picks from their number.

        A source on disk reads those only.
        """
        ...


class Bags:
    """Bags that lie in memory already."""

    def __init__(self, bags: Sequence[Tiles]) -> None:
        self._bags = bags

    def __len__(self) -> int:
        return len(self._bags)

    def load(self, index: int, draw: Draw | None = None) -> Tiles:
        """One of the bags."""
        return _picked(self._bags[index], draw)


class Cached:
    """Bags of another source, kept in memory for as long as they fit a budget.

    A bag is kept once it was read whole; what does not fit is read again each time, so that memory is bounded whatever
    the number of epochs.
    """

    def __init__(self, source: BagSource, *, budget_bytes: int) -> None:
        self._source = source
        self._left = budget_bytes
        self._kept: dict[int, Tiles] = {}

    def __len__(self) -> int:
        return len(self._source)

    def load(self, index: int, draw: Draw | None = None) -> Tiles:
        """One bag, from memory where it was kept."""
        if index in self._kept:
            return _picked(self._kept[index], draw)
        features, cells = self._source.load(index, draw)
        size = features.nbytes + cells.nbytes
        if draw is None and size <= self._left:
            # A copy in memory, for a memory map would keep its file open and read it again under pressure.
            features, cells = np.array(features), np.array(cells)
            self._kept[index] = (features, cells)
            self._left -= size
        return features, cells


class OnDevice:
    """Bags of a source as tensors on a device; on a GPU they stay there for as long as they fit a budget.

    Copying a bag of 10,000 x 1,024 to a GPU takes longer than attention over it.
    """

    def __init__(self, source: BagSource, device: torch.device | str, *, budget_bytes: int) -> None:
        self._source = source
        self._device = torch.device(device)
        self._left = budget_bytes
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def load(self, index: int, draw: Draw | None = None) -> tuple[Float[Tensor, "tile dim"], Int64[Tensor, "tile 2"]]:
        """One bag, or the tiles of it that `draw` picks."""
        if index in self._kept:
            features, cells = self._kept[index]
            rows = draw(len(features)) if draw else None
            if rows is None:
                return features, cells
            place = torch.from_numpy(np.asarray(rows, dtype=np.int64)).to(self._device)
            return features[place], cells[place]
        loaded = self._source.load(index, draw)
        tensors = self._tensor(loaded[0]), self._tensor(np.asarray(loaded[1], dtype=np.int64))
        size = sum(one.nbytes for one in tensors)
        if draw is None and size <= self._left and self._device.type != "cpu":
            self._kept[index] = tensors
            self._left -= size
        return tensors

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        # Torch warns of memory that it may not write; a map is such.
        return torch.from_numpy(values if values.flags.writeable else np.array(values)).to(self._device)


def _picked(tiles: Tiles, draw: Draw | None) -> Tiles:
    rows = draw(len(tiles[0])) if draw else None
    return tiles if rows is None else (tiles[0][rows], tiles[1][rows])
