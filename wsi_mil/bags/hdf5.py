"""The files of a grid and of a bag: HDF5, each dataset in one piece, with the whole provenance as attributes.

    features       (tile, dim)  float16 (or float32)     bags only; the name CLAM and TRIDENT readers look for
    coords         (tile, 2)    int64    x and y of the top left, level-0 pixels
    tissue         (tile)       float32  share of the tile that is tissue
    status         (tile)       uint8    TileStatus, bags only
    scale/MPP/...               features, coords, tissue and status of a coarser scale, bags only
    quality/NAME   (tile)       float32  bags only, any number

In one piece and not compressed: features hardly shrink, and a bag of 10,000 x 1,536 reads in 9 ms where row-sized
chunks take 150. The bytes are made in memory and written with plain I/O by the caller, since HDF5 itself leaves a file
that opens and lacks rows when it is killed, and may take the process down when the disk is full.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float32, UInt8
from numpy.typing import NDArray

from wsi_mil.bags.bag import Bag, features_digest, whole_digest
from wsi_mil.bags.safe import attribute, dataset, opened
from wsi_mil.bags.scales import Scale, read_scales, write_scales
from wsi_mil.errors import BagError
from wsi_mil.grid import EncoderContract, SlideRef, TileGrid
from wsi_mil.version import __version__

FORMAT_VERSION = 1


@dataclass(frozen=True)
class BagHeader:
    """What a bag's file says of itself; read without touching the features."""

    slide: SlideRef
    encoder: EncoderContract
    tiles: int
    dim: int
    digest: str
    """SHA-256 of features and coords, as `Bag.digest`."""
    size_px: int
    mpp: float
    extent_l0: tuple[float, float]
    step_l0: tuple[float, float]


@dataclass(frozen=True)
class FeatureRows:
    """Features on their way to a file: blocks of rows in order, so that they need not fit in memory."""

    blocks: Iterable[NDArray[np.floating]]
    """Can be gone through more than once."""
    dtype: np.dtype[np.floating]


def grid_to_hdf5(grid: TileGrid, *, attributes: Mapping[str, str | int | float] | None = None) -> bytes:
    """The bytes of a grid's file; `attributes` are stored beside the grid's own."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        _write_grid(file, grid, kind="grid")
        file.attrs.update(dict(attributes or {}))
        file.attrs["complete"] = 1
    return buffer.getvalue()


def read_grid(path: Path) -> TileGrid:
    """The grid in a grid's or a bag's file; raises BagError where the file is broken, unsafe or not whole."""
    with opened(path) as file:
        _check_complete(file, path)
        return _grid(file, path)


def bag_to_hdf5(bag: Bag) -> bytes:
    """The bytes of a bag's file; the same bag gives the same bytes."""
    buffer = io.BytesIO()
    rows = FeatureRows(blocks=[bag.features], dtype=bag.features.dtype)
    parts: dict[str, Any] = {"status": bag.status, "quality": bag.quality, "scales": bag.scales}
    write_bag(buffer, rows, grid=bag.grid, encoder=bag.encoder, **parts)
    return buffer.getvalue()


def write_bag(
    target: Any,
    rows: FeatureRows,
    *,
    grid: TileGrid,
    encoder: EncoderContract,
    status: UInt8[np.ndarray, "tile"],
    quality: Mapping[str, Float32[np.ndarray, "tile"]],
    scales: Sequence[Scale] = (),
) -> None:
    """Write a bag's file into an open binary file (in memory, or a guarded one on disk)."""
    with h5py.File(target, "w") as file:
        features = file.create_dataset("features", shape=(len(grid), encoder.dim), dtype=rows.dtype)
        start = 0
        for block in rows.blocks:
            features[start : start + len(block)] = block
            start += len(block)
        _write_grid(file, grid, kind="bag")
        file.create_dataset("status", data=status)
        for name, values in sorted(quality.items()):
            file.create_dataset(f"quality/{name}", data=values)
        file.attrs["encoder"] = json.dumps(encoder.to_dict(), sort_keys=True)
        file.attrs["encoder_name"] = encoder.name
        file.attrs["encoder_revision"] = encoder.revision
        file.attrs["encoder_weights_digest"] = encoder.weights_digest
        file.attrs["dim"] = encoder.dim
        write_scales(file, scales)
        own = features_digest(grid.coords_l0, iter(rows.blocks), dtype=rows.dtype)
        file.attrs["features_digest"] = whole_digest(own, scales)
        file.attrs["complete"] = 1


def read_header(path: Path) -> BagHeader:
    """What a bag's file says of itself, in about a millisecond; features are not read."""
    with opened(path) as file:
        return _header(file, path)


def read_bag(path: Path, *, rows: NDArray[Any] | None = None) -> Bag:
    """The bag in a file, or only some rows of it (index or mask; their order is kept).

    Raises BagError where the file is broken, unsafe or not whole, or where a row read is not finite. The digest is not
    checked here, since that costs more than the reading: see `verify_bag`.
    """
    with opened(path) as file:
        header = _header(file, path)
        grid = _grid(file, path)
        kinds = ("float16", "float32")
        stored = dataset(file, "features", path=path, kinds=kinds, shape=(len(grid), header.dim))
        features = _rows(path, stored, rows)
        status = dataset(file, "status", path=path, kinds=("uint8",), shape=(len(grid),))[()]
        names = sorted(file["quality"]) if "quality" in file else []
        quality = {
            name: dataset(file, f"quality/{name}", path=path, kinds=("float32",), shape=(len(grid),))[()]
            for name in names
        }
        scales = read_scales(file, path, slide=grid.slide, dim=header.dim)
    if rows is not None:
        grid, status = grid.take(rows), status[rows]
        quality = {name: values[rows] for name, values in quality.items()}
    parts: dict[str, Any] = {"status": status, "quality": quality, "scales": scales}
    return Bag(slide=grid.slide, features=features, grid=grid, encoder=header.encoder, **parts)


def verify_bag(path: Path) -> BagHeader:
    """Read everything and compare the digest; raises BagError where a bit of features or coords is not as written."""
    header = read_header(path)
    digest = read_bag(path).digest
    if digest != header.digest:
        raise BagError(
            f"{path}: the features have changed since they were written (digest {digest[:12]}, "
            f"expected {header.digest[:12]}): damaged on disk; remove the file and run extract again"
        )
    return header


def _rows(path: Path, stored: h5py.Dataset, rows: NDArray[Any] | None) -> NDArray[np.floating]:
    """All or some rows, straight from the file's bytes: HDF5's own selections are ten times slower."""
    if stored.size == 0:
        return np.empty(stored.shape, stored.dtype)
    # A map that is kept would hold a file handle a bag, and cohorts have thousands; so copy and let go.
    mapped = np.memmap(path, mode="r", dtype=stored.dtype, shape=stored.shape, offset=stored.id.get_offset())
    return np.array(mapped if rows is None else mapped[rows], dtype=stored.dtype.newbyteorder("="))


def _write_grid(file: h5py.File, grid: TileGrid, *, kind: str) -> None:
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
        "level0_magnification": max(1, round(10 / grid.slide.mpp[0])),
        "target_magnification": max(1, round(10 / grid.mpp)),
        "overlap": round(grid.size_px * (1 - float(shares[0]))),
    }


def _check_complete(file: h5py.File, path: Path) -> None:
    if not str(file.attrs.get("format", "")).startswith("wsi_mil "):
        raise BagError(f"{path}: not one of our grids or bags; import it as a foreign bag")
    if attribute(file, "format_version", int, path=path) > FORMAT_VERSION:
        raise BagError(f"{path}: written by a newer wsi_mil than {__version__}; update the package")
    if int(file.attrs.get("complete", 0)) != 1:
        raise BagError(f"{path}: not written to its end; remove it and run its stage again")


def _grid(file: h5py.File, path: Path) -> TileGrid:
    tiles = attribute(file, "tiles", int, path=path)
    return TileGrid(
        slide=_slide(file, path),
        coords_l0=dataset(file, "coords", path=path, kinds=("int64",), shape=(tiles, 2))[()],
        tissue=dataset(file, "tissue", path=path, kinds=("float32",), shape=(tiles,))[()],
        size_px=attribute(file, "tile_size_px", int, path=path),
        mpp=attribute(file, "tile_mpp_requested", float, path=path),
        extent_l0=attribute(file, "tile_extent_l0", tuple, path=path),
        step_l0=attribute(file, "tile_step_l0", tuple, path=path),
    )


def _slide(file: h5py.File, path: Path) -> SlideRef:
    return SlideRef(
        id=attribute(file, "slide", str, path=path),
        fingerprint=attribute(file, "slide_fingerprint", str, path=path),
        size_l0=attribute(file, "slide_size_l0", tuple, path=path),
        mpp=attribute(file, "slide_mpp", tuple, path=path),
        mpp_source=attribute(file, "slide_mpp_source", str, path=path),
    )


def _header(file: h5py.File, path: Path) -> BagHeader:
    _check_complete(file, path)
    if attribute(file, "format", str, path=path) != "wsi_mil bag":
        raise BagError(f"{path}: a grid without features, where a bag was expected; run extract first")
    return BagHeader(
        slide=_slide(file, path),
        encoder=EncoderContract.from_dict(json.loads(attribute(file, "encoder", str, path=path))),
        tiles=attribute(file, "tiles", int, path=path),
        dim=attribute(file, "dim", int, path=path),
        digest=attribute(file, "features_digest", str, path=path),
        size_px=attribute(file, "tile_size_px", int, path=path),
        mpp=attribute(file, "tile_mpp_requested", float, path=path),
        extent_l0=attribute(file, "tile_extent_l0", tuple, path=path),
        step_l0=attribute(file, "tile_step_l0", tuple, path=path),
    )
