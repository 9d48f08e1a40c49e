"""Bag: the features of one slide's tiles, where they lie, and what made them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64, UInt8
from numpy.typing import NDArray

from wsi_mil.errors import BagError
from wsi_mil.grid import EncoderContract, SlideRef, TileGrid, TileStatus

if TYPE_CHECKING:
    from wsi_mil.bags.scales import Scale

BLOCK_ROWS = 8192
"""Rows looked at in one go by checks and digests, so that a bag larger than memory can pass through."""


@dataclass(frozen=True)
class Bag:
    """The tiles of one slide as vectors: row i of every array belongs to tile i of the grid.

    Raises BagError where the arrays differ in length, where a feature is not a finite number, or where the grid is of
    another slide; the message names the slide and the row.
    """

    slide: SlideRef
    features: Float[np.ndarray, "tile dim"]
    """float16 or float32."""
    grid: TileGrid
    encoder: EncoderContract
    status: UInt8[np.ndarray, "tile"]
    """A TileStatus a tile."""
    quality: dict[str, Float32[np.ndarray, "tile"]] = field(default_factory=dict)
    """Further measures a tile, by name (sharpness, pen, ...)."""
    scales: tuple[Scale, ...] = ()
    """The same places at coarser scales, finest first."""
    known_finite: InitVar[bool] = False
    """Says that the features were checked before, when their file was written: looking at each costs more than reading
    them."""

    def __post_init__(self, known_finite: bool) -> None:
        """Check what the annotations cannot say."""
        if self.grid.slide != self.slide:
            raise BagError(
                f"bag of slide {self.slide.id!r}: its grid is of {self.grid.slide.id!r}, or of another state of it; "
                "make the bag again from this slide's grid"
            )
        if self.features.ndim != 2 or self.features.dtype not in (np.float16, np.float32):
            raise BagError(
                f"bag of slide {self.slide.id!r}: features are {self.features.dtype} of shape {self.features.shape}, "
                "but must be float16 or float32 of shape (tile, dim)"
            )
        self._check_lengths()
        row = None if known_finite else first_not_finite(self.features)
        if row is not None:
            raise BagError(f"bag of slide {self.slide.id!r}: row {row} of the features holds NaN or infinity")

    def _check_lengths(self) -> None:
        lengths = {"features": len(self.features), "coords": len(self.grid), "tissue": len(self.grid.tissue)}
        lengths["status"] = len(self.status)
        lengths |= {f"quality/{name}": len(values) for name, values in self.quality.items()}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise BagError(f"bag of slide {self.slide.id!r}: arrays differ in length ({listed})")
        if self.features.shape[1] != self.encoder.dim:
            raise BagError(
                f"bag of slide {self.slide.id!r}: features have {self.features.shape[1]} columns, but encoder "
                f"{self.encoder.name!r} gives {self.encoder.dim}"
            )

    def __len__(self) -> int:
        return len(self.features)

    @property
    def usable(self) -> Bool[np.ndarray, "tile"]:
        """Which tiles a model may see: all that could be read and were not left out for their quality."""
        usable: NDArray[np.bool_] = ~np.isin(self.status, (TileStatus.UNREADABLE, TileStatus.EXCLUDED))
        return usable

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the features and their places."""
        own = features_digest(self.grid.coords_l0, _blocks(self.features), dtype=self.features.dtype)
        return whole_digest(own, self.scales)


def cells(grid: TileGrid) -> Int64[np.ndarray, "tile 2"]:
    """Column and row of each tile in the grid: its place divided by the step, per axis, rounded.

    Rounded and not cut off, since the step is rarely a whole number: at .499 mpp a tile of 256 px at .5 mpp is 256.513
    level-0 pixels wide, so the third one lies at 513 and 513 / 256.513 is a little less than 2.
    """
    columns_rows: NDArray[np.int64] = np.rint(grid.coords_l0 / np.asarray(grid.step_l0)).astype(np.int64)
    return columns_rows


def features_digest(
    coords_l0: Int64[np.ndarray, "tile 2"], blocks: Iterator[NDArray[np.floating]], *, dtype: np.dtype[np.floating]
) -> str:
    """SHA-256 over places and features; the features arrive as blocks of rows, in order."""
    sha = hashlib.sha256()
    sha.update(f"{len(coords_l0)} {np.dtype(dtype).name}".encode())
    sha.update(np.ascontiguousarray(coords_l0, dtype="<i8").data)
    for block in blocks:
        sha.update(np.ascontiguousarray(block, dtype=np.dtype(dtype).newbyteorder("<")).data)
    return sha.hexdigest()


def whole_digest(own: str, scales: Sequence[Scale]) -> str:
    """The digest of a bag with coarser scales: that of its own tiles, and of each scale's."""
    parts = [features_digest(one.grid.coords_l0, _blocks(one.features), dtype=one.features.dtype) for one in scales]
    return hashlib.sha256("".join([own, *parts]).encode()).hexdigest() if parts else own


def first_not_finite(features: Float[np.ndarray, "tile dim"]) -> int | None:
    """The first row that holds NaN or infinity, or None."""
    start = 0
    for block in _blocks(features):
        if not _all_finite(block):
            return start + int((~np.isfinite(block)).any(axis=1).argmax())
        start += len(block)
    return None


def _all_finite(block: NDArray[np.floating]) -> bool:
    if block.dtype == np.float16 and block.flags.c_contiguous:
        # All exponent bits set mean NaN or infinity; as integers this is five times as fast as isfinite.
        return not block.size or int((block.view(np.uint16) & 0x7FFF).max()) < 0x7C00
    return bool(np.isfinite(block).all())


def _blocks(features: Float[np.ndarray, "tile dim"]) -> Iterator[NDArray[np.floating]]:
    for start in range(0, len(features), BLOCK_ROWS):
        yield features[start : start + BLOCK_ROWS]
