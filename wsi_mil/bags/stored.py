"""Where a bag's rows lie in its file: training reads some of them in each epoch, and HDF5 is opened only once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, Int64
from numpy.typing import NDArray

from wsi_mil.bags.grid_file import check_complete
from wsi_mil.bags.safe import attribute, attributes, dataset, opened
from wsi_mil.errors import BagError
from wsi_mil.grid import TileStatus

Draw = Callable[[int], NDArray[np.integer[Any]] | None]
"""From a number of tiles, which of them are wanted, in rising order; None: all."""

_Number = TypeVar("_Number", bound=np.generic)


@dataclass(frozen=True)
class StoredBag:
    """The usable tiles of one bag, read from the file's bytes by row: 512 of 10,000 in less than a millisecond.

    It holds no file and no features, so that a cohort of 50,000 bags costs a few megabytes.
    """

    path: Path
    stamp: tuple[int, int]
    """Size and time of change of the file that the places hold for."""
    shape: tuple[int, int]
    """Tiles and features a tile, the unusable ones counted."""
    dtype: np.dtype[np.floating[Any]]
    features_at: int
    """First byte of the features."""
    coords_at: int
    """First byte of the places."""
    step_l0: tuple[float, float]
    rows: NDArray[np.int32] | None
    """Rows of the usable tiles; None: every one is."""

    @classmethod
    def of(cls, path: Path) -> StoredBag:
        """Find the rows of a bag of one scale. Raises BagError where the file is broken, unsafe or not whole."""
        stamp = _stamp(path)
        with opened(path) as file:
            values = attributes(file)
            check_complete(values, path)
            tiles, dim = (attribute(values, name, int, path=path) for name in ("tiles", "dim"))
            features = dataset(file, "features", path=path, kinds=("float16", "float32"), shape=(tiles, dim))
            coords = dataset(file, "coords", path=path, kinds=("int64",), shape=(tiles, 2))
            status = dataset(file, "status", path=path, kinds=("uint8",), shape=(tiles,))[()]
            places = [one.id.get_offset() or 0 for one in (features, coords)]
            dtype = features.dtype
        usable = ~np.isin(status, (TileStatus.UNREADABLE, TileStatus.EXCLUDED))
        rows = None if usable.all() else np.flatnonzero(usable).astype(np.int32)
        step = attribute(values, "tile_step_l0", tuple, path=path)
        return cls(path, stamp, (tiles, dim), dtype, places[0], places[1], step, rows)

    def __len__(self) -> int:
        return self.shape[0] if self.rows is None else len(self.rows)

    @property
    def nbytes(self) -> int:
        """Of the features and cells of all usable tiles."""
        return len(self) * (self.shape[1] * self.dtype.itemsize + 2 * np.dtype(np.int64).itemsize)

    def cells(self) -> Int64[np.ndarray, "tile 2"]:
        """Cells of the usable tiles, without their features. Raises BagError as `read` does."""
        self._check_unchanged()
        return self._cells(self.rows)

    def read(self, draw: Draw | None = None) -> tuple[Float[np.ndarray, "tile dim"], Int64[np.ndarray, "tile 2"]]:
        """Features and cells of the usable tiles, or of those of them that `draw` picks.

        Raises BagError where the file is not the one that was looked at.
        """
        self._check_unchanged()
        wanted = draw(len(self)) if draw else None
        rows = self.rows if wanted is None else wanted if self.rows is None else self.rows[wanted]
        features = _rows(self.path, self.dtype, self.shape, self.features_at, rows)
        return features, self._cells(rows)

    def _cells(self, rows: NDArray[Any] | None) -> NDArray[np.int64]:
        coords = _rows(self.path, np.dtype(np.int64), (self.shape[0], 2), self.coords_at, rows)
        return np.rint(coords / np.asarray(self.step_l0)).astype(np.int64)

    def _check_unchanged(self) -> None:
        if _stamp(self.path) != self.stamp:
            raise BagError(f"{self.path}: the bag has changed while it was in use; start again")


def _rows(
    path: Path, dtype: np.dtype[_Number], shape: tuple[int, int], place: int, rows: NDArray[Any] | None
) -> NDArray[_Number]:
    if not shape[0]:
        return np.empty(shape, dtype)
    if rows is None:
        return np.fromfile(path, dtype, count=shape[0] * shape[1], offset=place).reshape(shape)
    # A map that is kept would hold a file a bag, and cohorts have thousands; so copy and let go.
    return np.array(np.memmap(path, mode="r", dtype=dtype, shape=shape, offset=place)[rows])


def _stamp(path: Path) -> tuple[int, int]:
    try:
        told = path.stat()
    except OSError as error:
        raise BagError(f"{path}: the bag cannot be read ({error.strerror}); run extract again") from None
    return told.st_size, told.st_mtime_ns
