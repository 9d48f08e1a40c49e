"""Features that other programs wrote (TRIDENT, CLAM, STAMP, slideflow), read into one plain record.

Coordinates become level-0 pixels of the top left wherever the file says enough; what it does not say stays unknown and
is never guessed. Layouts as their programs wrote them in November 2026; each is told apart by its names and attributes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float, Float64
from numpy.typing import NDArray

from wsi_mil.bags.safe import opened
from wsi_mil.errors import BagError

FEATURE_NAMES = ("features", "feats", "patch_embeddings")

MAX_BYTES = 1 << 36
"""Largest array that is read (64 GiB): a claim beyond it is a forgery or a mistake."""

MARUGOTO_STRIDE_PX, MARUGOTO_STRIDE_UM = 224, 256
"""STAMP before version 2 and marugoto: coordinates in pixels of tiles of 224 px that are 256 um wide; no attributes."""

NOMINAL = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Scales that magnifications stand for (10 / magnification), in micrometres per pixel."""


@dataclass(frozen=True)
class ForeignBag:
    """What a file of another program says. Lengths are 0 where it does not say them."""

    path: Path
    layout: str
    """trident, clam, stamp, marugoto, slideflow, or features (nothing but vectors, or with bare coordinates)."""
    slide: str
    features: Float[np.ndarray, "tile dim"]
    coords: Float64[np.ndarray, "place 2"] | None
    """x and y of the top left, in `unit`."""
    unit: str = "l0"
    """l0 (level-0 pixels) or um (micrometres)."""
    centred: bool = False
    """The coordinates are of the middle of each tile."""
    tile_px: int = 0
    """Side of a tile as the encoder saw it, before its own resizing."""
    extent: float = 0.0
    """Side of a tile in `unit`."""
    overlap: float = 0.0
    """How far neighbours reach into each other, in `unit`."""
    nominal_mpp: float = 0.0
    """Scale asked for, from a nominal magnification."""
    size_l0: tuple[int, int] = (0, 0)
    encoder: str = ""


def read_foreign(path: Path, *, places: Path | None = None) -> ForeignBag:
    """Read a file of features; `places` is CLAM's file of coordinates (patches/SLIDE.h5) where it is elsewhere.

    Raises BagError where the file is broken, unsafe, of no known layout, or holds no tile features.
    """
    if path.suffix == ".pt":
        return _checked(_from_tensors(path, places))
    with opened(path) as file:
        found = _from_hdf5(file, path)
    return _checked(_with_places(found, places))


def slide_of(path: Path) -> str:
    """The slide a file is of: its name without the last suffix."""
    return path.name.rpartition(".")[0]


def nominal(mpp: float) -> float:
    """The scale that a magnification stands for near `mpp` (within a sixth), else `mpp` to two digits; 0 stays 0."""
    near = [value for value in NOMINAL if 6 / 7 <= mpp / value <= 7 / 6]
    return near[0] if near else float(f"{mpp:.2g}")


def _from_hdf5(file: h5py.File, path: Path) -> ForeignBag:
    if str(file.attrs.get("format", "")).startswith("wsi_mil "):
        raise BagError(f"{path}: is one of our own files already; copy it to where it is needed")
    if str(file.attrs.get("feat_type", "tile")) != "tile":
        raise BagError(f"{path}: holds one vector for a whole {file.attrs['feat_type']}, not tiles; give tile features")
    name = next((name for name in FEATURE_NAMES if name in file), None)
    if name is None:
        held = ", ".join(file) or "nothing"
        raise BagError(f"{path}: no features in it (it holds {held}; known names: {', '.join(FEATURE_NAMES)})")
    features = _features(_array(file, name, path), path)
    coords = _coords(file, path) if "coords" in file else None
    slide = slide_of(path)
    encoder = str(file[name].attrs.get("encoder", file.attrs.get("extractor", "")))
    plain = ForeignBag(path, "features", slide, features, coords, encoder=encoder)
    if coords is None:
        return plain
    attributes = dict(file["coords"].attrs)
    if "patch_size_level0" in attributes:
        return _trident(plain, attributes)
    if "unit" in file.attrs or "tile_size_um" in file.attrs:
        return _stamp(plain, dict(file.attrs))
    if name != "features":
        return _bare(plain)
    return replace(plain, layout="clam")


def _trident(plain: ForeignBag, told: dict[str, Any]) -> ForeignBag:
    tile_px, extent = int(told["patch_size"]), float(told["patch_size_level0"])
    magnification = float(told.get("target_magnification") or 0)
    return replace(
        plain,
        layout="trident",
        tile_px=tile_px,
        extent=extent,
        overlap=float(told.get("overlap") or 0) * extent / tile_px,
        nominal_mpp=10 / magnification if magnification else 0.0,
        size_l0=(int(told.get("level0_width") or 0), int(told.get("level0_height") or 0)),
    )


def _stamp(plain: ForeignBag, told: dict[str, Any]) -> ForeignBag:
    if str(told.get("unit", "um")) != "um":
        raise BagError(f"{plain.path}: coordinates in {told['unit']!r}, where STAMP writes um; convert them first")
    extent = float(told.get("tile_size_um", told.get("tile_size", 0)) or 0)
    tile_px = int(told.get("tile_size_px", 0) or 0)
    scale = extent / tile_px if tile_px else 0.0
    return replace(plain, layout="stamp", unit="um", extent=extent, tile_px=tile_px, nominal_mpp=scale)


def _bare(plain: ForeignBag) -> ForeignBag:
    """Coordinates without a word: of marugoto where they are 224 apart, else taken for level-0 pixels."""
    assert plain.coords is not None
    step = spacing(plain.coords)
    if min(step) != MARUGOTO_STRIDE_PX:
        return plain
    ratio = MARUGOTO_STRIDE_UM / MARUGOTO_STRIDE_PX
    return replace(
        plain, layout="marugoto", unit="um", coords=plain.coords * ratio, extent=float(MARUGOTO_STRIDE_UM),
        tile_px=MARUGOTO_STRIDE_PX, nominal_mpp=ratio,
    )  # fmt: skip


def _with_places(found: ForeignBag, places: Path | None) -> ForeignBag:
    """Add what CLAM's patches/SLIDE.h5 says: coordinates, patch size, level."""
    if places is None and found.layout in ("clam", "features") and found.path.parent.name in ("h5_files", "pt_files"):
        beside = [found.path.parents[number] / "patches" / f"{found.slide}.h5" for number in (1, 2)]
        places = next((path for path in beside if path.is_file()), None)
    if places is None or found.layout not in ("clam", "features"):
        return found
    with opened(places) as file:
        if "coords" not in file:
            raise BagError(f"{places}: no coordinates in it, where CLAM's patches/ has them")
        told, coords = dict(file["coords"].attrs), _coords(file, places)
        # CLAM's older pipeline keeps the pixels too, and then writes coordinates of that level, not of level 0.
        pixels = dict(file["imgs"].attrs) if "imgs" in file else None
    told = pixels or told
    downsample = float(np.atleast_1d(np.asarray(told.get("downsample", 1.0), dtype=float))[0])
    patch_px = int(told.get("patch_size", 0) or 0)
    if pixels is not None:
        coords = coords * downsample
    if found.coords is not None and not np.array_equal(np.rint(found.coords), np.rint(coords)):
        raise BagError(f"{found.path}: its coordinates are not those of {places}: made from another run of patching")
    if len(coords) != len(found.features):
        raise BagError(f"{found.path}: {len(found.features)} vectors, but {places} has {len(coords)} coordinates")
    whole = np.asarray(told.get("level_dim", (0, 0)), dtype=np.int64)
    size = (int(whole[0]), int(whole[1])) if int(told.get("patch_level", 0)) == 0 else (0, 0)
    return replace(found, layout="clam", coords=coords, tile_px=patch_px, extent=patch_px * downsample, size_l0=size)


def _from_tensors(path: Path, places: Path | None) -> ForeignBag:
    """A .pt of CLAM (a tensor) or slideflow (with SLIDE.index.npz of tile centres)."""
    import pickle

    import torch

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BagError(
            f"{path}: holds more than tensors, and opening it could run a stranger's code; refused. Save the features "
            "alone: torch.save(tensor, path)"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise BagError(f"{path}: broken or no file of tensors ({str(error).splitlines()[0]})") from error
    coords = None
    if isinstance(loaded, dict):
        coords = loaded.get("coords")
        loaded = next((loaded[name] for name in FEATURE_NAMES if name in loaded), None)
    if not isinstance(loaded, torch.Tensor):
        raise BagError(f"{path}: not a tensor of features, and no dictionary with one ({', '.join(FEATURE_NAMES)})")
    features = _features(loaded.float().numpy() if loaded.dtype == torch.bfloat16 else loaded.numpy(), path)
    plain = ForeignBag(path, "features", slide_of(path), features, None)
    index = path.with_name(f"{slide_of(path)}.index.npz")
    if index.is_file():
        with np.load(index, allow_pickle=False) as kept:
            middles = np.asarray(kept["arr_0"], dtype=np.float64)
        return replace(plain, layout="slideflow", coords=middles.reshape(-1, 2), centred=True)
    if isinstance(coords, torch.Tensor):
        return replace(plain, coords=coords.double().numpy().reshape(-1, 2))
    return _with_places(plain, places)


def spacing(coords: NDArray[Any]) -> tuple[float, float]:
    """The commonest distance between neighbouring columns and rows; 0 where there is only one."""
    found = []
    for axis in (0, 1):
        steps = np.diff(np.unique(coords[:, axis]))
        values, counts = np.unique(steps, return_counts=True)
        found.append(float(values[counts.argmax()]) if len(values) else 0.0)
    return found[0], found[1]


def _array(file: h5py.File, name: str, path: Path) -> NDArray[Any]:
    """A dataset whose numbers lie in this very file, chunked or not."""
    item = file[name]
    if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "iuf":
        raise BagError(f"{path}: {name!r} is no array of numbers")
    if item.is_virtual or item.external:
        raise BagError(f"{path}: dataset {name!r} keeps its data in other files, which is refused")
    claimed = int(np.prod(item.shape, dtype=object)) * item.dtype.itemsize
    if claimed > MAX_BYTES or (claimed and not item.id.get_storage_size()):
        raise BagError(f"{path}: dataset {name!r} claims {claimed} bytes that it does not hold: forged or broken")
    return np.asarray(item[()])


def _features(values: NDArray[Any], path: Path) -> Float[np.ndarray, "tile dim"]:
    """(1, N, D) is (N, D), as PANTHER and Patho-Bench read it."""
    if values.ndim == 3 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 2:
        raise BagError(f"{path}: features of shape {values.shape}, expected (tiles, dim): not features of tiles")
    if not len(values):
        raise BagError(f"{path}: no tiles in it: the program that wrote it found no tissue")
    return values if values.dtype in (np.float16, np.float32) else values.astype(np.float32)


def _coords(file: h5py.File, path: Path) -> Float64[np.ndarray, "tile 2"]:
    # TRIDENT squeezes the one coordinate of a slide with one tile.
    return _array(file, "coords", path).astype(np.float64).reshape(-1, 2)


def _checked(found: ForeignBag) -> ForeignBag:
    if found.coords is not None and len(found.coords) != len(found.features):
        raise BagError(f"{found.path}: {len(found.features)} vectors, but {len(found.coords)} coordinates")
    if found.coords is not None and not np.isfinite(found.coords).all():
        raise BagError(f"{found.path}: coordinates that are not finite")
    return found
