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


@runtime_checkable
class Known(Protocol):
    """A source that knows its bags before it reads their features."""

    def nbytes(self, index: int) -> int | None:
        """Bytes of one whole bag as `load` gives it; None where that is not known yet."""
        ...

    def cells(self, index: int) -> Int64[np.ndarray, "tile 2"] | None:
        """Cells of one whole bag; None where they are not to be had without its features."""
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


class _Room:
    """What may still be kept of a source, and how large its bags were found to be."""

    def __init__(self, source: BagSource, budget_bytes: int) -> None:
        self._source, self._left = source, budget_bytes
        self._found: dict[int, int] = {}

    def may_fit(self, index: int) -> bool:
        """Whether a whole bag fits, as far as its size is known."""
        size = self._found.get(index)
        if size is None and isinstance(self._source, Known):
            size = self._source.nbytes(index)
        return self._left > 0 and (size is None or size <= self._left)

    def take(self, index: int, size: int) -> bool:
        """Whether a bag of a size is kept; its room is then gone."""
        self._found[index] = size
        if size > self._left:
            return False
        self._left -= size
        return True


class Cached:
    """Bags of another source, kept in memory for as long as they fit a budget.

    A bag that fits is read whole, though some of its tiles are asked for, since other tiles will be asked for in the
    next epoch. Of what does not fit the tiles asked for are read each time, so that memory is bounded whatever the
    number of epochs.
    """

    def __init__(self, source: BagSource, *, budget_bytes: int) -> None:
        self._source = source
        self._room = _Room(source, budget_bytes)
        self._kept: dict[int, Tiles] = {}

    def __len__(self) -> int:
        return len(self._source)

    def nbytes(self, index: int) -> int | None:
        """Bytes of one bag, as far as they are known."""
        if index in self._kept:
            return sum(one.nbytes for one in self._kept[index])
        return self._source.nbytes(index) if isinstance(self._source, Known) else None

    def cells(self, index: int) -> Int64[np.ndarray, "tile 2"] | None:
        """Cells of one bag, as far as they are known."""
        if index in self._kept:
            return self._kept[index][1]
        return self._source.cells(index) if isinstance(self._source, Known) else None

    def load(self, index: int, draw: Draw | None = None) -> Tiles:
        """One bag, from memory where it was kept."""
        if index in self._kept:
            return _picked(self._kept[index], draw)
        if draw is not None and not self._room.may_fit(index):
            return self._source.load(index, draw)
        features, cells = self._source.load(index)
        if self._room.take(index, features.nbytes + cells.nbytes):
            # A copy in memory, for a memory map would keep its file open and read it again under pressure.
            features, cells = np.array(features), np.array(cells)
            self._kept[index] = (features, cells)
        return _picked((features, cells), draw)


class OnDevice:
    """Bags of a source as tensors on a device; on a GPU they stay there for as long as they fit a budget.

    Copying a bag of 10,000 x 1,024 to a GPU takes longer than attention over it. Which are kept, and when a bag is read
    whole, is as in `Cached`.
    """

    def __init__(
        self, source: BagSource, device: torch.device | str, *, budget_bytes: int, keep: bool | None = None
    ) -> None:
        """`keep` says whether bags stay; None: on every device but the CPU, whose memory is the source's to use."""
        self._source = source
        self._device = torch.device(device)
        keep = self._device.type != "cpu" if keep is None else keep
        self._room = _Room(source, budget_bytes if keep else 0)
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def load(self, index: int, draw: Draw | None = None) -> tuple[Float[Tensor, "tile dim"], Int64[Tensor, "tile 2"]]:
        """One bag, or the tiles of it that `draw` picks."""
        if index not in self._kept:
            if draw is not None and not self._room.may_fit(index):
                return self._tensors(self._source.load(index, draw))
            loaded = self._tensors(self._source.load(index))
            if not self._room.take(index, sum(one.nbytes for one in loaded)):
                return self._drawn(loaded, draw)
            self._kept[index] = loaded
        return self._drawn(self._kept[index], draw)

    def _drawn(self, bag: tuple[Tensor, Tensor], draw: Draw | None) -> tuple[Tensor, Tensor]:
        rows = draw(len(bag[0])) if draw else None
        if rows is None:
            return bag
        place = torch.from_numpy(np.asarray(rows, dtype=np.int64)).to(self._device)
        return bag[0][place], bag[1][place]

    def _tensors(self, loaded: Tiles) -> tuple[Tensor, Tensor]:
        return self._tensor(loaded[0]), self._tensor(np.asarray(loaded[1], dtype=np.int64))

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        # Torch warns of memory that it may not write; a map is such.
        return torch.from_numpy(values if values.flags.writeable else np.array(values)).to(self._device)


def _picked(tiles: Tiles, draw: Draw | None) -> Tiles:
    rows = draw(len(tiles[0])) if draw else None
    return tiles if rows is None else (tiles[0][rows], tiles[1][rows])
