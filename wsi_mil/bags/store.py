"""BagWriter: batches of features in, in any order; one whole bag's file out, in bounded memory."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, cast

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8
from numpy.typing import NDArray

from wsi_mil.bags.bag import BLOCK_ROWS
from wsi_mil.bags.hdf5 import FeatureRows, write_bag
from wsi_mil.bags.scales import Scale
from wsi_mil.errors import BagError
from wsi_mil.grid import EncoderContract, TileGrid, TileStatus


class BagWriter:
    """Collects a slide's features tile by tile and saves them as one file.

    Up to `budget_bytes` the features wait in memory and the file is built there; above it they wait in a nameless
    file in `folder`, which the system removes with the process, however that ends.

        with BagWriter(grid, contract, dim=512, budget_bytes=2**30, folder=folder) as writer:
            writer.put(index, features, status)
            with drafted(path) as draft:
                writer.save(draft)
    """

    def __init__(
        self,
        grid: TileGrid,
        encoder: EncoderContract,
        *,
        dim: int,
        budget_bytes: int,
        folder: Path,
        quality: Sequence[str] = (),
        dtype: str = "float16",
    ) -> None:
        if dim != encoder.dim:
            raise BagError(f"slide {grid.slide.id!r}: features of {dim} columns for an encoder of {encoder.dim}")
        self._grid = grid
        self._encoder = encoder
        self._dtype: np.dtype[np.floating[Any]] = np.dtype(dtype)
        self._shape = (len(grid), dim)
        self._status = np.zeros(len(grid), dtype=np.uint8)
        self._quality = {name: np.zeros(len(grid), dtype=np.float32) for name in quality}
        self._put = np.zeros(len(grid), dtype=bool)
        self._rows: NDArray[np.floating] | None = None
        self._file: BinaryIO | None = None
        if len(grid) * dim * self._dtype.itemsize <= budget_bytes:
            self._rows = np.zeros(self._shape, dtype=self._dtype)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = cast(BinaryIO, tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 - closed by close()

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def status(self) -> UInt8[np.ndarray, "tile"]:
        """What became of each tile so far, a TileStatus each."""
        return self._status

    @property
    def missing(self) -> int:
        """How many tiles have no features yet."""
        return int((~self._put).sum())

    def put(
        self,
        index: Int64[np.ndarray, "batch"],
        features: Float32[np.ndarray, "batch dim"],
        status: UInt8[np.ndarray, "batch"],
        *,
        quality: Mapping[str, Float32[np.ndarray, "batch"]] | None = None,
    ) -> None:
        """Store the features of some tiles, and of each quality the writer was made with.

        Raises BagError, naming slide and tile, where a feature is not a number that can be stored. Features of
        unreadable tiles are stored as zeros, whatever they are.
        """
        if features.shape[1] != self._shape[1]:
            raise BagError(
                f"slide {self._grid.slide.id!r}: features of {features.shape[1]} columns for a bag of {self._shape[1]}"
            )
        features = np.where((status == TileStatus.UNREADABLE)[:, None], np.float32(0), features)
        with np.errstate(over="ignore"):
            stored = features.astype(self._dtype)
        bad = ~np.isfinite(stored).all(axis=1)
        if bad.any():
            self._refuse(int(index[bad.argmax()]), features[bad.argmax()])
        self._keep(index, stored)
        self._status[index] = status
        for name, values in self._quality.items():
            values[index] = (quality or {})[name]
        self._put[index] = True

    @property
    def quality(self) -> dict[str, Float32[np.ndarray, "tile"]]:
        """The measures of each tile so far, by name."""
        return self._quality

    def exclude(self, tiles: Bool[np.ndarray, "tile"]) -> None:
        """Mark tiles as left out for their quality; what could not be read stays marked so."""
        self._status[tiles & (self._status != TileStatus.UNREADABLE)] = TileStatus.EXCLUDED

    def save(self, draft: Path, *, scales: Sequence[Scale] = ()) -> None:
        """Write the whole bag to a draft, which the caller flushes and renames (`wsi_mil.files.drafted`).

        Raises BagError where tiles are missing, and OSError (disk full, no permission) with nothing but the draft left.
        """
        if self.missing:
            raise BagError(f"slide {self._grid.slide.id!r}: {self.missing} of {len(self._grid)} tiles have no features")
        rows = FeatureRows(blocks=_Blocks(self), dtype=self._dtype)
        parts: dict[str, Any] = {"grid": self._grid, "encoder": self._encoder, "status": self._status}
        parts["quality"] = self._quality
        parts["scales"] = scales
        if self._file is None:
            buffer = io.BytesIO()
            write_bag(buffer, rows, **parts)
            draft.write_bytes(buffer.getbuffer())
        else:
            # Through a file of Python's: on a full disk that raises, where HDF5's own would take the process down at
            # exit (h5py #914).
            with draft.open("w+b") as file:
                write_bag(file, rows, **parts)

    def close(self) -> None:
        """Let go of memory and of the waiting file."""
        self._rows = None
        if self._file is not None:
            self._file.close()

    def blocks(self) -> Iterator[NDArray[np.floating]]:
        """The features so far, as blocks of rows in order."""
        for start in range(0, self._shape[0], BLOCK_ROWS):
            count = min(BLOCK_ROWS, self._shape[0] - start)
            if self._rows is not None:
                yield self._rows[start : start + count]
            elif self._file is not None:
                self._file.seek(start * self._row_bytes)
                data = self._file.read(count * self._row_bytes)
                yield np.frombuffer(data, dtype=self._dtype).reshape(count, self._shape[1])

    @property
    def _row_bytes(self) -> int:
        return self._shape[1] * self._dtype.itemsize

    def _keep(self, index: Int64[np.ndarray, "batch"], stored: NDArray[np.floating]) -> None:
        if self._rows is not None:
            self._rows[index] = stored
            return
        assert self._file is not None
        # Plain writes and no memory map: on a full disk a map kills the process (SIGBUS), a write raises.
        cuts = np.flatnonzero(np.diff(index) != 1) + 1
        for run, rows in zip(np.split(index, cuts), np.split(stored, cuts), strict=True):
            if len(run):
                self._file.seek(int(run[0]) * self._row_bytes)
                self._file.write(rows.tobytes())

    def _refuse(self, tile: int, features: Float32[np.ndarray, "dim"]) -> None:
        x, y = self._grid.coords_l0[tile].tolist()
        where = f"slide {self._grid.slide.id!r}, tile {tile} at ({x}, {y})"
        if np.isfinite(features).all():
            largest = float(np.abs(features).max())
            raise BagError(
                f"{where}: encoder {self._encoder.name!r} gave {largest:.3g}, too large for {self._dtype.name}; "
                "store this encoder's features as float32"
            )
        raise BagError(f"{where}: encoder {self._encoder.name!r} gave NaN or infinity")


class _Blocks:
    """The writer's rows as something that can be gone through twice (once to write, once to digest)."""

    def __init__(self, writer: BagWriter) -> None:
        self._writer = writer

    def __iter__(self) -> Iterator[NDArray[np.floating]]:
        return self._writer.blocks()
