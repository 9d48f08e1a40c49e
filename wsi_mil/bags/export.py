"""Our bags as files that the readers of TRIDENT, CLAM and STAMP take: names, attributes and units as those write."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from wsi_mil.bags.bag import Bag
from wsi_mil.bags.grid_file import magnification
from wsi_mil.errors import BagError, unknown
from wsi_mil.layout import folder_name

STAMP_VERSION = "2.1.0"
"""The oldest version whose files have all these attributes; STAMP refuses files of a newer one than itself."""

CLAM_ROWS = 32
"""Rows of a chunk in CLAM's files."""


def export_bag(bag: Bag, layout: str) -> dict[Path, bytes]:
    """The files of a bag, by their places below the folder of all slides.

    Tiles that could not be read are left out: their vectors are no features. Raises BagError where a bag lacks what the
    layout needs, such as coordinates or a scale.
    """
    if layout not in LAYOUTS:
        raise BagError(unknown("layout", layout, LAYOUTS))
    if not bag.grid.placed:
        raise BagError(f"bag of slide {bag.slide.id!r}: it has no coordinates, which {layout} files need")
    keep = bag.usable
    if not keep.any():
        raise BagError(f"bag of slide {bag.slide.id!r}: not one of its tiles could be read")
    return LAYOUTS[layout](bag, np.asarray(bag.features[keep]), bag.grid.coords_l0[keep])


def _clam(bag: Bag, features: NDArray[np.floating], coords: NDArray[np.int64]) -> dict[Path, bytes]:
    """h5_files, pt_files and patches; the patch at level 0, so that size times downsample is its footprint."""
    import torch

    slide, wide = bag.slide, features.astype(np.float32)
    size = np.asarray(slide.size_l0)
    attributes = {
        "patch_size": round(bag.grid.extent_l0[0]),
        "patch_level": 0,
        "downsample": np.array([1.0, 1.0]),
        "downsampled_level_dim": size,
        "level_dim": size,
        "name": slide.id,
        "save_path": "",
    }
    pickled = io.BytesIO()
    torch.save(torch.from_numpy(np.array(wide)), pickled)
    rows = min(CLAM_ROWS, len(coords))
    return {
        Path("h5_files", f"{slide.id}.h5"): _hdf5(
            {"features": (wide, {}, rows), "coords": (coords.astype(np.int32), {}, rows)}
        ),
        Path("pt_files", f"{slide.id}.pt"): pickled.getvalue(),
        Path("patches", f"{slide.id}.h5"): _hdf5({"coords": (coords, attributes, 1)}),
    }


def _trident(bag: Bag, features: NDArray[np.floating], coords: NDArray[np.int64]) -> dict[Path, bytes]:
    grid, slide = bag.grid, bag.slide
    _need_scale(bag, "trident")
    overlap = round(grid.size_px * max(0.0, 1 - grid.step_l0[0] / grid.extent_l0[0]))
    attributes = {
        "patch_size": grid.size_px,
        "patch_size_level0": round(grid.extent_l0[0]),
        "level0_magnification": magnification(slide.mpp[0]),
        "target_magnification": magnification(grid.mpp),
        "overlap": overlap,
        "name": slide.id,
        "savetodir": "",
        "level0_width": slide.size_l0[0],
        "level0_height": slide.size_l0[1],
    }
    folder = Path(f"{magnification(grid.mpp)}x_{grid.size_px}px_{overlap}px_overlap")
    encoder = folder_name(bag.encoder.name)
    told = {"name": slide.id, "savetodir": "", "encoder": encoder}
    return {
        folder / f"features_{encoder}" / f"{slide.id}.h5": _hdf5(
            {"features": (features, told, 1), "coords": (coords, attributes, 1)}
        ),
        folder / "patches" / f"{slide.id}_patches.h5": _hdf5({"coords": (coords, attributes, 1)}),
    }


def _stamp(bag: Bag, features: NDArray[np.floating], coords: NDArray[np.int64]) -> dict[Path, bytes]:
    _need_scale(bag, "stamp")
    encoder = folder_name(bag.encoder.name)
    with np.errstate(over="ignore"):
        half = features.astype(np.float16)
    if not np.isfinite(half).all():
        raise BagError(f"bag of slide {bag.slide.id!r}: features too large for float16, in which STAMP keeps them")
    attributes = {
        "stamp_version": STAMP_VERSION,
        "extractor": encoder,
        "unit": "um",
        "tile_size_um": bag.grid.extent_l0[0] * bag.slide.mpp[0],
        "tile_size_px": bag.grid.size_px,
        "code_hash": "",
        "feat_type": "tile",
    }
    places = (coords * np.asarray(bag.slide.mpp)).astype(np.float32)
    return {Path(encoder, f"{bag.slide.id}.h5"): _hdf5({"coords": (places, {}, 0), "feats": (half, {}, 0)}, attributes)}


LAYOUTS: dict[str, Callable[[Bag, NDArray[np.floating], NDArray[np.int64]], dict[Path, bytes]]] = {
    "clam": _clam,
    "trident": _trident,
    "stamp": _stamp,
}
"""Writers by name."""


def _hdf5(
    datasets: dict[str, tuple[NDArray[Any], dict[str, Any], int]], attributes: dict[str, Any] | None = None
) -> bytes:
    """A file of datasets: values, attributes and rows of a chunk (0: in one piece) by name."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, (values, told, rows) in datasets.items():
            chunked = {"chunks": (rows, values.shape[1]), "maxshape": (None, values.shape[1])} if rows else {}
            file.create_dataset(name, data=values, **chunked).attrs.update(told)
        file.attrs.update(attributes or {})
    return buffer.getvalue()


def _need_scale(bag: Bag, layout: str) -> None:
    if not all(bag.slide.mpp):
        raise BagError(
            f"bag of slide {bag.slide.id!r}: nobody knows its scale, which {layout} files need; import it again with "
            "the slides (--slides) or a table of mpp (--table)"
        )
