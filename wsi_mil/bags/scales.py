"""Scale: further tiles of a slide at a coarser scale, each over a square block of the bag's own tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float, Int64, UInt8
from numpy.typing import NDArray

from wsi_mil.bags.bag import cells
from wsi_mil.bags.safe import dataset
from wsi_mil.errors import BagError
from wsi_mil.grid import SlideRef, TileGrid, TileStatus

FOLDER = "scale"


@dataclass(frozen=True)
class Scale:
    """The tiles of one coarser scale: row i of every array belongs to tile i of its grid."""

    grid: TileGrid
    features: Float[np.ndarray, "tile dim"]
    """float16 or float32, from the encoder of the bag."""
    status: UInt8[np.ndarray, "tile"]
    """A TileStatus a tile."""


def coarser_grid(grid: TileGrid, mpp: float) -> TileGrid:
    """The coarser tiles that hold at least one tile of a grid; the tissue of each is the share of its own tiles.

    Both are laid from (0, 0) without overlap and the scales are a whole number apart, so that each tile lies within one
    coarser tile. Raises BagError where they are not.
    """
    times = times_coarser(grid.mpp, mpp)
    blocks, place = np.unique(cells(grid) // times, axis=0, return_inverse=True)
    extent = (grid.extent_l0[0] * times, grid.extent_l0[1] * times)
    tissue = np.bincount(place.ravel(), weights=grid.tissue) / times**2
    coords = np.rint(blocks * np.asarray(extent)).astype(np.int64)
    return TileGrid(grid.slide, coords, tissue.astype(np.float32), grid.size_px, mpp, extent, extent)


def times_coarser(mpp: float, coarser_mpp: float) -> int:
    """How many tiles lie along one of the coarser scale. Raises BagError where that is no whole number above 1."""
    times = round(coarser_mpp / mpp)
    if times < 2 or not np.isclose(coarser_mpp, times * mpp, rtol=1e-6):
        raise BagError(f"scales {mpp:g} and {coarser_mpp:g}: the coarser must be 2, 3, 4 ... times the finer")
    return times


def beside(
    features: Float[np.ndarray, "tile dim"], places: Int64[np.ndarray, "tile 2"], scale: Scale, *, mpp: float
) -> Float[np.ndarray, "tile both"]:
    """Each tile's features with those of the coarser tile around it to their right.

    A coarser tile that could not be read counts as the mean of the bag's others. Raises BagError where a tile has none.
    """
    own = {tuple(cell): row for row, cell in enumerate(cells(scale.grid).tolist())}
    around = (places // times_coarser(mpp, scale.grid.mpp)).tolist()
    try:
        rows = np.array([own[tuple(cell)] for cell in around], dtype=np.int64)
    except KeyError as error:
        raise BagError(
            f"bag of slide {scale.grid.slide.id!r}: no tile at {scale.grid.mpp:g} um per pixel lies over cell "
            f"{error.args[0]}; run extract again"
        ) from error
    coarse, read = scale.features, scale.status != TileStatus.UNREADABLE
    if not read.all():
        coarse = coarse.copy()
        coarse[~read] = coarse[read].mean(axis=0, dtype=np.float32) if read.any() else 0
    return np.concatenate([features, coarse[rows].astype(features.dtype)], axis=1)


def write_scales(file: h5py.File, scales: Sequence[Scale]) -> None:
    """scale/<mpp>/{features, coords, tissue, status} of an open bag."""
    for scale in scales:
        group = file.create_group(f"{FOLDER}/{scale.grid.mpp:g}")
        group.create_dataset("features", data=scale.features)
        group.create_dataset("coords", data=scale.grid.coords_l0.astype(np.int64))
        group.create_dataset("tissue", data=scale.grid.tissue.astype(np.float32))
        group.create_dataset("status", data=scale.status)
        group.attrs["tile_mpp_requested"] = scale.grid.mpp
        group.attrs["tile_size_px"] = scale.grid.size_px
        group.attrs["tile_extent_l0"] = np.asarray(scale.grid.extent_l0)


def read_scales(file: h5py.File, path: Path, *, slide: SlideRef, dim: int) -> tuple[Scale, ...]:
    """The further scales of an open bag, finest first; raises BagError where one is not as written."""
    found = []
    for name in file.get(FOLDER, ()):
        place = f"{FOLDER}/{name}"

        def read(what: str, kinds: tuple[str, ...], shape: tuple[int | None, ...], place: str = place) -> NDArray[Any]:
            values: NDArray[Any] = dataset(file, f"{place}/{what}", path=path, kinds=kinds, shape=shape)[()]
            return values

        told = file[place].attrs
        if any(key not in told for key in ("tile_mpp_requested", "tile_size_px", "tile_extent_l0")):
            raise BagError(f"{path}: {place} does not say what its tiles are; remove the file and run extract again")
        coords = read("coords", ("int64",), (None, 2))
        extent = tuple(np.asarray(told["tile_extent_l0"]).tolist())
        tissue = read("tissue", ("float32",), (len(coords),))
        mpp, size_px = float(told["tile_mpp_requested"]), int(told["tile_size_px"])
        grid = TileGrid(slide, coords, tissue, size_px, mpp, extent, extent)
        features = read("features", ("float16", "float32"), (len(coords), dim))
        found.append(Scale(grid, features, read("status", ("uint8",), (len(coords),))))
    return tuple(sorted(found, key=lambda scale: scale.grid.mpp))
