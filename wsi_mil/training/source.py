"""Where training and inference take their bags from, one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Tiles = tuple[NDArray[Any], NDArray[Any]]
"""Features [tile dim] (float16 or float32) and cells [tile 2] (int64) of one bag."""


@runtime_checkable
class BagSource(Protocol):
    """Bags by number.

    `features` may be a memory map: training picks its tiles first and converts only those, so that no more than they
    is read from disk.
    """

    def __len__(self) -> int: ...

    def load(self, index: int) -> Tiles:
        """Features and cells of one bag."""
        ...


class Bags:
    """Bags that lie in memory already."""

    def __init__(self, bags: Sequence[Tiles]) -> None:
        self._bags = bags

    def __len__(self) -> int:
        return len(self._bags)

    def load(self, index: int) -> Tiles:
        """One of the bags."""
        return self._bags[index]


class Cached:
    """Bags of another source, kept in memory once read for as long as they fit a budget.

    What does not fit is read again each time, so that memory is bounded whatever the number of epochs.
    """

    def __init__(self, source: BagSource, *, budget_bytes: int) -> None:
        self._source = source
        self._left = budget_bytes
        self._kept: dict[int, Tiles] = {}

    def __len__(self) -> int:
        return len(self._source)

    def load(self, index: int) -> Tiles:
        """One bag, from memory where it was kept."""
        if index in self._kept:
            return self._kept[index]
        features, cells = self._source.load(index)
        size = features.nbytes + cells.nbytes
        if size <= self._left:
            # A copy in memory, for a memory map would keep its file open and read it again under pressure.
            features, cells = np.array(features), np.array(cells)
            self._kept[index] = (features, cells)
            self._left -= size
        return features, cells
