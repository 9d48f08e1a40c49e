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

UNVERIFIED = "imported, unverified"
"""Where the source of an imported bag does not say something, such as the scale of its slide."""


class TileStatus(enum.IntEnum):
    """What became of a tile's pixels; one byte a tile in every bag."""

    OK = 0
    EDGE = 1
    """Reaches over the slide's edge: the part outside is background."""
    UNREADABLE = 2
    """The slide's file is damaged here: the features are zero and must not be used."""
    EXCLUDED = 3
    """Left out for its quality: it was read and has features, which models do not see."""


@dataclass(frozen=True)
class SlideRef:
    """Which slide something was made from, and how large and how fine that slide is."""

    id: str
    fingerprint: str
    """Digest of the slide's content (not of its name or place)."""
    size_l0: tuple[int, int]
    """Width and height in level-0 pixels."""
    mpp: tuple[float, float]
    """Micrometres per level-0 pixel in x and y; (0, 0) where nobody knows it, which only imported bags may say."""
    mpp_source: str
    """Where the scale came from: "metadata", "cohort", "flag", or UNVERIFIED."""


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
    placed: bool = True
    """Whether `coords_l0` are known; imported bags may lack them, and then no map and no neighbourhood exists."""

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


def split_grid(grid: TileGrid, side: int, *, covered: float = 1.0) -> TileGrid:
    """The grid of `side` by `side` equal parts of every tile, tile by tile and row by row within a tile.

    `covered` is the share of a tile's side, in its middle, that the parts fill. A part has a whole number of pixels,
    and the scale at which that number fills it. Each part has its tile's share of tissue.
    """
    extent = np.asarray(grid.extent_l0)
    pitch = extent * covered / side
    rows, columns = np.divmod(np.arange(side * side), side)
    places = np.stack([columns, rows], axis=1) * pitch + extent * (1 - covered) / 2
    coords = np.rint(grid.coords_l0[:, None] + places[None]).astype(np.int64).reshape(-1, 2)
    wide_px = grid.size_px * covered / side
    size_px = max(1, round(wide_px))
    pitch_l0 = (float(pitch[0]), float(pitch[1]))
    tissue = np.repeat(grid.tissue, side * side)
    return TileGrid(grid.slide, coords, tissue, size_px, grid.mpp * wide_px / size_px, pitch_l0, pitch_l0)


def _count(size: int, step: float) -> int:
    """How many tiles start inside the slide: top left < size after rounding."""
    count = max(1, int(np.ceil(size / step)))
    return count - 1 if count > 1 and round((count - 1) * step) >= size else count


@dataclass(frozen=True)
class EncoderContract:
    """Everything that decides which vector a tile becomes. Two contracts that differ make features that never mix."""

    name: str
    revision: str = field(compare=False)
    """Under which the weights were published (a commit of a hub), or of an encoder's code, which is in the digest."""
    weights_digest: str
    """SHA-256 of the weights, or of the constants and the revision of an encoder without weights; "" where unknown."""
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
    source: str = field(default="", compare=False)
    """Where the weights came from: a hub's repository, a file's name. The same weights from elsewhere are the same."""
    trained_mpp: tuple[float, ...] = field(default=(), compare=False)
    """Finest and coarsest micrometres per input pixel that the network was trained at; empty where it does not say."""
    licence: str = field(default="unknown", compare=False)
    paper: str = field(default="", compare=False)
    saw_tcga: str = field(default="unknown", compare=False)
    """Whether slides of TCGA were among those it was pretrained on: "yes", "probably", "no" or "unknown"."""
    versions: dict[str, str] = field(default_factory=dict, compare=False)
    """Of the libraries that ran; shown, never compared."""

    def to_dict(self) -> dict[str, Any]:
        """The contract as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> EncoderContract:
        """The contract back from `to_dict`, or from its JSON."""
        tuples = {name: tuple(value.get(name, ())) for name in ("mean", "std", "trained_mpp", "scales")}
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
