"""Plain records that several rooms name: SlideRef, TileGrid (which squares, at which scale), EncoderContract."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from numpy.typing import NDArray

from wsi_mil.geometry import extent_l0


class TileStatus(enum.IntEnum):
    """What became of a tile's pixels; one byte a tile in every bag."""

    OK = 0
    EDGE = 1
    """Reaches over the slide's edge: the part outside is background."""
    UNREADABLE = 2
    """The slide's file is damaged here: the features are zero and must not be used."""


@dataclass(frozen=True)
class SlideRef:
    """Which slide something was made from, and how large and how fine that slide is."""

    id: str
    fingerprint: str
    """Digest of the slide's content (not of its name or place)."""
    size_l0: tuple[int, int]
    """Width and height in level-0 pixels."""
    mpp: tuple[float, float]
    """Micrometres per level-0 pixel in x and y."""
    mpp_source: str
    """Where the scale came from: "metadata", "cohort" or "flag"."""


@dataclass(frozen=True)
class TileGrid:
    """Squares of one slide at one physical scale.

    A tile covers the level-0 rectangle from `coords_l0` to `coords_l0 + extent_l0` and is seen as `size_px` square
    pixels at `mpp` micrometres per pixel on both axes, whatever the slide's own scale.
    """

    slide: SlideRef
    coords_l0: Int64[np.ndarray, "tile 2"]
    """x and y of each tile's top left, level-0 pixels."""
    tissue: Float32[np.ndarray, "tile"]
    """Share of each tile that is tissue, 0 to 1."""
    size_px: int
    mpp: float
    """Requested, and because reading resamples exactly, also effective micrometres per tile pixel."""
    extent_l0: tuple[float, float]
    """Width and height of a tile in level-0 pixels, not rounded."""
    step_l0: tuple[float, float]
    """Distance between neighbours in level-0 pixels, not rounded; equal to the extent where tiles do not overlap."""

    def __len__(self) -> int:
        return len(self.coords_l0)

    def take(self, index: NDArray[Any]) -> TileGrid:
        """The grid with only the tiles of an index or a mask."""
        return dataclasses.replace(self, coords_l0=self.coords_l0[index], tissue=self.tissue[index])


def lay_grid(
    slide: SlideRef, *, size_px: int, mpp: float, overlap_px: int = 0
) -> tuple[Int64[np.ndarray, "tile 2"], tuple[float, float], tuple[float, float]]:
    """Top lefts (row by row), extent and step, in level-0 pixels, of the grid anchored at (0, 0) that covers a slide.

    A tile's top left is `round(k * step)`: the step is not a whole number, and rounding each place rather than the step
    keeps the far corner right to within half a pixel. A slide narrower than a tile has one column.
    """
    extent = extent_l0(size_px, mpp, slide.mpp)
    step = extent_l0(size_px - overlap_px, mpp, slide.mpp)
    xs, ys = (
        np.rint(np.arange(_count(size, step_axis)) * step_axis).astype(np.int64)
        for size, step_axis in zip(slide.size_l0, step, strict=True)
    )
    grid_y, grid_x = np.meshgrid(ys, xs, indexing="ij")
    return np.stack([grid_x.ravel(), grid_y.ravel()], axis=1), extent, step


def _count(size: int, step: float) -> int:
    """How many tiles start inside the slide: top left < size after rounding."""
    count = max(1, int(np.ceil(size / step)))
    return count - 1 if count > 1 and round((count - 1) * step) >= size else count


@dataclass(frozen=True)
class EncoderContract:
    """Everything that decides which vector a tile becomes. Two contracts that differ make features that never mix."""

    name: str
    revision: str
    weights_digest: str
    """SHA-256 of the weights, or of the constants of an encoder without weights."""
    architecture: str
    """Name and arguments of the network, as JSON."""
    input_px: int
    """Side of the square the network sees, 0 where it takes any size."""
    resize: str
    """Filter that brings a tile to `input_px`."""
    crop: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pooling: str
    dim: int
    precision: str
    """Arithmetic of the forward pass: "fp32", "bf16" or "fp16"."""
    tile_px: int
    """Side of the tiles that were encoded."""
    tile_mpp: float
    """Scale of the tiles that were encoded."""
    stain: str = "none"
    scales: tuple[float, ...] = ()
    """Coarser scales at which each place was encoded as well; their features stand beside the tile's own."""
    licence: str = field(default="unknown", compare=False)
    versions: dict[str, str] = field(default_factory=dict, compare=False)
    """Of the libraries that ran; shown, never compared."""

    def to_dict(self) -> dict[str, Any]:
        """The contract as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> EncoderContract:
        """The contract back from `to_dict`, or from its JSON."""
        tuples = {name: tuple(value.get(name, ())) for name in ("mean", "std", "scales")}
        return cls(**{**value, **tuples})

    @property
    def width(self) -> int:
        """Columns of features that a model reads: those of every scale."""
        return self.dim * (1 + len(self.scales))

    def beside(self, other: EncoderContract) -> EncoderContract:
        """The contract of two encoders' features of the same tiles, this one's to the left."""
        joined = {
            name: f"{getattr(self, name)} + {getattr(other, name)}"
            for name in ("name", "revision", "weights_digest", "architecture", "precision", "stain", "licence")
        }
        whole = {"dim": self.dim + other.dim, "versions": self.versions | other.versions}
        return dataclasses.replace(self, **joined, **whole)  # type: ignore[arg-type]

    def difference(self, other: EncoderContract) -> list[str]:
        """Each compared field that differs, as "name: this -> other"; empty where features of both may mix."""
        return [
            f"{item.name}: {getattr(self, item.name)!r} -> {getattr(other, item.name)!r}"
            for item in dataclasses.fields(self)
            if item.compare and getattr(self, item.name) != getattr(other, item.name)
        ]
