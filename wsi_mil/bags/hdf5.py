"""The files of a grid and of a bag: HDF5, each dataset in one piece, with the whole provenance as attributes.

    features       (tile, dim)  float16 (or float32)     bags only; the name CLAM and TRIDENT readers look for
    coords         (tile, 2)    int64    x and y of the top left, level-0 pixels
    tissue         (tile)       float32  share of the tile that is tissue
    status         (tile)       uint8    TileStatus, bags only
    quality/NAME   (tile)       float32  bags only, any number: sharpness, share of ink ... by name
    scale/MPP/...               features, coords, tissue and status of a coarser scale, bags only

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

from wsi_mil.bags.bag import Bag, features_digest, first_not_finite, whole_digest
from wsi_mil.bags.grid_file import check_complete, grid_in, placed_in, slide_in, write_grid
from wsi_mil.bags.safe import attribute, attributes, dataset, opened
from wsi_mil.bags.scales import Scale, read_scales, write_scales
from wsi_mil.errors import BagError
from wsi_mil.grid import EncoderContract, SlideRef, TileGrid


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
    placed: bool
    """Whether the places of its tiles are known."""


@dataclass(frozen=True)
class FeatureRows:
    """Features on their way to a file: blocks of rows in order, so that they need not fit in memory."""

    blocks: Iterable[NDArray[np.floating]]
    """Can be gone through more than once."""
    dtype: np.dtype[np.floating]


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
    """Write a bag's file into an open binary file (in memory, or a guarded one on disk).

    Raises BagError where a feature is not a finite number: it is checked here, once, and not at each reading.
    """
    with h5py.File(target, "w") as file:
        features = file.create_dataset("features", shape=(len(grid), encoder.dim), dtype=rows.dtype)
        start = 0
        for block in rows.blocks:
            row = first_not_finite(block)
            if row is not None:
                raise BagError(
                    f"bag of slide {grid.slide.id!r}: row {start + row} of the features holds NaN or infinity"
                )
            features[start : start + len(block)] = block
            start += len(block)
        write_grid(file, grid, kind="bag")
        file.create_dataset("status", data=status)
        for name, values in sorted(quality.items()):
            file.create_dataset(f"quality/{name}", data=values)
        file.attrs["encoder"] = json.dumps(encoder.to_dict(), sort_keys=True)
        file.attrs["encoder_name"] = encoder.name
        file.attrs["encoder_revision"] = encoder.revision
        file.attrs["encoder_weights_digest"] = encoder.weights_digest
        file.attrs["dim"] = encoder.dim
        file.attrs["finite"] = 1
        write_scales(file, scales)
        own = features_digest(grid.coords_l0, iter(rows.blocks), dtype=rows.dtype)
        file.attrs["features_digest"] = whole_digest(own, scales)
        file.attrs["complete"] = 1


def read_header(path: Path) -> BagHeader:
    """What a bag's file says of itself, in about a millisecond; features are not read."""
    with opened(path) as file:
        return _header(attributes(file), path)


def read_bag(path: Path, *, rows: NDArray[Any] | None = None) -> Bag:
    """The bag in a file, or only some rows of it (index or mask; their order is kept).

    Raises BagError where the file is broken, unsafe or not whole. That each number is finite was checked when the file
    was written; that and the digest are checked again by `verify_bag`, since it costs more than the reading.
    """
    return _read_bag(path, rows=rows, known_finite=None)


def _read_bag(path: Path, *, rows: NDArray[Any] | None, known_finite: bool | None) -> Bag:
    """`known_finite` None believes the file, which says nothing where an older version wrote it."""
    with opened(path) as file:
        values = attributes(file)
        header = _header(values, path)
        grid = grid_in(file, values, path)
        kinds = ("float16", "float32")
        stored = dataset(file, "features", path=path, kinds=kinds, shape=(len(grid), header.dim))
        features = _rows(path, stored, rows)
        finite = bool(values.get("finite", 0)) if known_finite is None else known_finite
        status = dataset(file, "status", path=path, kinds=("uint8",), shape=(len(grid),))[()]
        quality = _quality(file, values, path)
        scales = read_scales(file, path, slide=grid.slide, dim=header.dim)
    if rows is not None:
        grid, status = grid.take(rows), status[rows]
        quality = {name: values[rows] for name, values in quality.items()}
    parts: dict[str, Any] = {"status": status, "quality": quality, "scales": scales, "known_finite": finite}
    return Bag(slide=grid.slide, features=features, grid=grid, encoder=header.encoder, **parts)


def read_quality(path: Path) -> tuple[TileGrid, UInt8[np.ndarray, "tile"], dict[str, Float32[np.ndarray, "tile"]]]:
    """Grid, status and measures of a bag's tiles; features are not read. A bag without measures gives none."""
    with opened(path) as file:
        values = attributes(file)
        _header(values, path)
        grid = grid_in(file, values, path)
        status = dataset(file, "status", path=path, kinds=("uint8",), shape=(len(grid),))[()]
        return grid, status, _quality(file, values, path)


def _quality(file: h5py.File, values: Mapping[str, Any], path: Path) -> dict[str, Float32[np.ndarray, "tile"]]:
    tiles = attribute(values, "tiles", int, path=path)
    names = sorted(file["quality"]) if "quality" in file else []
    return {name: dataset(file, f"quality/{name}", path=path, kinds=("float32",), shape=(tiles,))[()] for name in names}


def verify_bag(path: Path) -> BagHeader:
    """Read everything, look at each number and compare the digest.

    Raises BagError where a feature is not finite, or a bit of features or coords is not as written.
    """
    header = read_header(path)
    digest = _read_bag(path, rows=None, known_finite=False).digest
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
    if rows is None:
        # One read into its own memory: a map would fault in every page and then be copied.
        whole = np.fromfile(path, stored.dtype, count=stored.size, offset=stored.id.get_offset())
        return whole.reshape(stored.shape).astype(stored.dtype.newbyteorder("="), copy=False)
    # A map that is kept would hold a file handle a bag, and cohorts have thousands; so copy and let go.
    mapped = np.memmap(path, mode="r", dtype=stored.dtype, shape=stored.shape, offset=stored.id.get_offset())
    return np.array(mapped[rows], dtype=stored.dtype.newbyteorder("="))


def _header(values: Mapping[str, Any], path: Path) -> BagHeader:
    check_complete(values, path)
    if attribute(values, "format", str, path=path) != "wsi_mil bag":
        raise BagError(f"{path}: a grid without features, where a bag was expected; run extract first")
    return BagHeader(
        slide=slide_in(values, path),
        encoder=EncoderContract.from_dict(json.loads(attribute(values, "encoder", str, path=path))),
        tiles=attribute(values, "tiles", int, path=path),
        dim=attribute(values, "dim", int, path=path),
        digest=attribute(values, "features_digest", str, path=path),
        size_px=attribute(values, "tile_size_px", int, path=path),
        mpp=attribute(values, "tile_mpp_requested", float, path=path),
        extent_l0=attribute(values, "tile_extent_l0", tuple, path=path),
        step_l0=attribute(values, "tile_step_l0", tuple, path=path),
        placed=placed_in(values),
    )
