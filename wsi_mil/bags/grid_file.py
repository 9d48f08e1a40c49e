"""The grid in the files of grids and bags: coordinates, tissue shares, and the provenance as attributes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from wsi_mil.bags.safe import attribute, attributes, dataset, opened
from wsi_mil.errors import BagError
from wsi_mil.grid import SlideRef, TileGrid
from wsi_mil.version import __version__

FORMAT_VERSION = 1


def grid_to_hdf5(grid: TileGrid, *, attributes: Mapping[str, str | int | float] | None = None) -> bytes:
    """The bytes of a grid's file; `attributes` are stored beside the grid's own."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        write_grid(file, grid, kind="grid")
        file.attrs.update(dict(attributes or {}))
        file.attrs["complete"] = 1
    return buffer.getvalue()


def read_grid(path: Path) -> TileGrid:
    """The grid in a grid's or a bag's file; raises BagError where the file is broken, unsafe or not whole."""
    with opened(path) as file:
        values = attributes(file)
        check_complete(values, path)
        return grid_in(file, values, path)


def write_grid(file: h5py.File, grid: TileGrid, *, kind: str) -> None:
    """Write coordinates, tissue shares and all that is known of slide and grid; `kind` is "grid" or "bag"."""
    slide, size = grid.slide, np.asarray(grid.slide.size_l0)
    effective = np.asarray(grid.extent_l0) * slide.mpp / grid.size_px
    values: dict[str, Any] = {
        "format": f"wsi_mil {kind}",
        "format_version": FORMAT_VERSION,
        "package_version": __version__,
        "slide": slide.id,
        "slide_fingerprint": slide.fingerprint,
        "slide_size_l0": size,
        "slide_mpp": np.asarray(slide.mpp),
        "slide_mpp_source": slide.mpp_source,
        "tile_size_px": grid.size_px,
        "tile_mpp_requested": grid.mpp,
        "tile_mpp_effective": effective,
        "tile_extent_l0": np.asarray(grid.extent_l0),
        "tile_step_l0": np.asarray(grid.step_l0),
        "tiles": len(grid),
        "placed": int(grid.placed),
    }
    file.attrs.update(values)
    coords = file.create_dataset("coords", data=grid.coords_l0.astype(np.int64))
    coords.attrs.update(_peer_attributes(grid))
    file.create_dataset("tissue", data=grid.tissue.astype(np.float32))


def _peer_attributes(grid: TileGrid) -> dict[str, Any]:
    """What readers of CLAM's and TRIDENT's files look for on `coords`; magnifications are nominal (10 / mpp)."""
    width, height = grid.slide.size_l0
    shares = np.asarray(grid.step_l0) / np.asarray(grid.extent_l0)
    return {
        "name": grid.slide.id,
        "patch_size": grid.size_px,
        "patch_size_level0": round(grid.extent_l0[0]),
        "patch_level": 0,
        "downsample": np.asarray(grid.extent_l0) / grid.size_px,
        "level_dim": np.asarray([width, height]),
        "downsampled_level_dim": np.asarray([width, height]),
        "level0_width": width,
        "level0_height": height,
        "level0_magnification": magnification(grid.slide.mpp[0]),
        "target_magnification": magnification(grid.mpp),
        "overlap": round(grid.size_px * (1 - float(shares[0]))),
    }


def magnification(mpp: float) -> int:
    """The nominal magnification of a scale, at least 1; 0 where the scale is unknown."""
    return max(1, round(10 / mpp)) if mpp else 0


def check_complete(values: Mapping[str, Any], path: Path) -> None:
    """Raise BagError unless a file's attributes say that it is ours, of a known version, and whole."""
    if not str(values.get("format", "")).startswith("wsi_mil "):
        raise BagError(f"{path}: not one of our grids or bags; import it as a foreign bag")
    if attribute(values, "format_version", int, path=path) > FORMAT_VERSION:
        raise BagError(f"{path}: written by a newer wsi_mil than {__version__}; update the package")
    if int(values.get("complete", 0)) != 1:
        raise BagError(f"{path}: not written to its end; remove it and run its stage again")


def grid_in(file: h5py.File, values: Mapping[str, Any], path: Path) -> TileGrid:
    """The grid of an open file with these attributes."""
    tiles = attribute(values, "tiles", int, path=path)
    return TileGrid(
        slide=slide_in(values, path),
        coords_l0=dataset(file, "coords", path=path, kinds=("int64",), shape=(tiles, 2))[()],
        tissue=dataset(file, "tissue", path=path, kinds=("float32",), shape=(tiles,))[()],
        size_px=attribute(values, "tile_size_px", int, path=path),
        mpp=attribute(values, "tile_mpp_requested", float, path=path),
        extent_l0=attribute(values, "tile_extent_l0", tuple, path=path),
        step_l0=attribute(values, "tile_step_l0", tuple, path=path),
        placed=placed_in(values),
    )


def placed_in(values: Mapping[str, Any]) -> bool:
    """Whether the places of a file's tiles are known."""
    return bool(values.get("placed", 1))


def slide_in(values: Mapping[str, Any], path: Path) -> SlideRef:
    """The slide that a file's attributes name."""
    return SlideRef(
        id=attribute(values, "slide", str, path=path),
        fingerprint=attribute(values, "slide_fingerprint", str, path=path),
        size_l0=attribute(values, "slide_size_l0", tuple, path=path),
        mpp=attribute(values, "slide_mpp", tuple, path=path),
        mpp_source=attribute(values, "slide_mpp_source", str, path=path),
    )
