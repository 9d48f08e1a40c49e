"""Heatmap: the raw scores behind one prediction, tile by tile, and the HDF5 they are kept in."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float32

from wsi_mil.errors import StageError, unknown
from wsi_mil.grid import SlideRef, TileGrid
from wsi_mil.version import __version__

FORMAT = "wsi_mil heatmap"

SHAPES = {"coords": ("int64", 2), "tissue": ("float32", 1), "scores": ("float32", 2)}
"""Dtype and rank of each dataset."""


@dataclass(frozen=True)
class Heatmap:
    """What a model says of each tile of a slide; NaN where a tile could not be read.

    Raises StageError where the scores do not fit the grid or the channels.
    """

    slide: SlideRef
    grid: TileGrid
    scores: Float32[np.ndarray, "tile channel"]
    channels: tuple[str, ...]
    """Name of each column of the scores."""
    model: str
    prediction: dict[str, float]
    """What the same forward pass said of the whole slide, by class or target."""
    kinds: dict[str, str] = field(default_factory=dict)
    """What the numbers of a channel are ("attention", "contribution", "raw score", "mean rank"), by channel."""

    def __post_init__(self) -> None:
        """Check that every tile of the slide has a score in every channel."""
        if self.grid.slide != self.slide:
            raise StageError(f"heatmap of slide {self.slide.id!r}: its grid is of {self.grid.slide.id!r}")
        if self.scores.shape != (len(self.grid), len(self.channels)) or len(set(self.channels)) < len(self.channels):
            raise StageError(
                f"heatmap of slide {self.slide.id!r}: scores of shape {self.scores.shape} for {len(self.grid)} tiles "
                f"and the channels {', '.join(self.channels)}"
            )
        for name in self.kinds:
            self.column(name)

    def column(self, channel: str) -> Float32[np.ndarray, "tile"]:
        """The scores of one channel; raises StageError, naming the nearest, where there is none of that name."""
        if channel not in self.channels:
            raise StageError(f"heatmap of slide {self.slide.id!r}: {unknown('channel', channel, self.channels)}")
        return self.scores[:, self.channels.index(channel)]

    @property
    def overlapping(self) -> bool:
        """Whether tiles reach into one another: a bag of its own, with more tiles, and with a prediction of its own."""
        pairs = zip(self.grid.extent_l0, self.grid.step_l0, strict=True)
        return any(extent > step * (1 + 1e-6) for extent, step in pairs)

    def provenance(self) -> dict[str, Any]:
        """What an export has to say of where it comes from, as plain JSON values."""
        return {
            "slide": self.slide.id,
            "slide_fingerprint": self.slide.fingerprint,
            "slide_size_l0": self.slide.size_l0,
            "slide_mpp": self.slide.mpp,
            "tile_extent_l0": self.grid.extent_l0,
            "tile_step_l0": self.grid.step_l0,
            "overlapping": self.overlapping,
            "model": self.model,
            "prediction": self.prediction,
            "kinds": self.kinds,
            "package_version": __version__,
        }


def heatmap_to_hdf5(heatmap: Heatmap) -> bytes:
    """The bytes of a heatmap's file: `coords` (level-0 px), `tissue`, `scores` (tile, channel), the rest as attributes.

    The same heatmap gives the same bytes.
    """
    buffer, grid, slide = io.BytesIO(), heatmap.grid, heatmap.slide
    with h5py.File(buffer, "w") as file:
        file.create_dataset("coords", data=grid.coords_l0.astype(np.int64))
        file.create_dataset("tissue", data=grid.tissue.astype(np.float32))
        file.create_dataset("scores", data=heatmap.scores)
        values: dict[str, Any] = {
            "format": FORMAT,
            "package_version": __version__,
            "slide": slide.id,
            "slide_fingerprint": slide.fingerprint,
            "slide_size_l0": np.asarray(slide.size_l0),
            "slide_mpp": np.asarray(slide.mpp),
            "slide_mpp_source": slide.mpp_source,
            "tile_size_px": grid.size_px,
            "tile_mpp_requested": grid.mpp,
            "tile_extent_l0": np.asarray(grid.extent_l0),
            "tile_step_l0": np.asarray(grid.step_l0),
            "channels": json.dumps(heatmap.channels),
            "kinds": json.dumps(heatmap.kinds, sort_keys=True),
            "model": heatmap.model,
            "prediction": json.dumps(heatmap.prediction),
            "complete": 1,
        }
        file.attrs.update(values)
    return buffer.getvalue()


def heatmap_from_hdf5(data: bytes) -> Heatmap:
    """The heatmap in a file's bytes; raises StageError where they are broken, or lead to other files."""
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            if file.attrs.get("format") != FORMAT or int(file.attrs.get("complete", 0)) != 1:
                raise StageError("not a heatmap's file, or not written to its end; run heatmap again")
            return _read(file)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise StageError(f"a heatmap's file is broken ({error}); run heatmap again") from error


def _read(file: h5py.File) -> Heatmap:
    values, arrays = dict(file.attrs), {name: _array(file, name) for name in SHAPES}
    slide = SlideRef(
        id=str(values["slide"]),
        fingerprint=str(values["slide_fingerprint"]),
        size_l0=_pair(values["slide_size_l0"]),
        mpp=_pair(values["slide_mpp"]),
        mpp_source=str(values["slide_mpp_source"]),
    )
    grid = TileGrid(
        slide=slide,
        coords_l0=arrays["coords"],
        tissue=arrays["tissue"],
        size_px=int(values["tile_size_px"]),
        mpp=float(values["tile_mpp_requested"]),
        extent_l0=_pair(values["tile_extent_l0"]),
        step_l0=_pair(values["tile_step_l0"]),
    )
    return Heatmap(
        slide,
        grid,
        arrays["scores"],
        tuple(json.loads(values["channels"])),
        model=str(values["model"]),
        prediction=json.loads(values["prediction"]),
        kinds=json.loads(values["kinds"]),
    )


def _array(file: h5py.File, name: str) -> Any:
    """A dataset whose data lie in the file itself: a stranger's file must not show one of this machine's."""
    dtype, rank = SHAPES[name]
    link = file.get(name, getlink=True)
    stored = file[name] if isinstance(link, h5py.HardLink) else None
    if not isinstance(stored, h5py.Dataset) or stored.is_virtual or stored.external:
        raise ValueError(f"{name} is missing or keeps its data elsewhere")
    if stored.dtype.name != dtype or stored.ndim != rank or stored.id.get_storage_size() < stored.nbytes:
        raise ValueError(f"{name} is {stored.dtype} of shape {stored.shape}, or cut short")
    return stored[()]


def _pair(values: Any) -> tuple[Any, Any]:
    first, second = np.asarray(values).tolist()
    return first, second
