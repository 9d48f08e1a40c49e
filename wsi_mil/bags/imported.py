"""A foreign record as one of our bags: geometry in level-0 pixels, scale checked, and what nobody said marked so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from wsi_mil.bags.bag import Bag, features_digest, first_not_finite
from wsi_mil.bags.foreign import ForeignBag, nominal, spacing
from wsi_mil.errors import BagError
from wsi_mil.grid import UNVERIFIED, EncoderContract, SlideRef, TileGrid, TileStatus

SCALE_TOLERANCE = 0.1
"""How far the scale of tiles may be from what their file claims before it is told."""


@dataclass(frozen=True)
class Given:
    """What the person who imports knows, beyond the file; empty or 0 where nothing."""

    slide: SlideRef | None = None
    """Of the slide itself, or from a table (then without fingerprint and size)."""
    encoder: str = ""
    tile_px: int = 0
    tile_mpp: float = 0.0
    saw_tcga: str = "unknown"
    """Whether the encoder was pretrained on TCGA, where its name tells."""


def import_bag(found: ForeignBag, given: Given) -> tuple[Bag, str]:
    """The bag, and a note of what is not verified or does not agree ("" where all is well).

    Raises BagError where features are not finite, where coordinates need a scale that nobody gave, or lie outside the
    slide.
    """
    row = first_not_finite(found.features)
    if row is not None:
        raise BagError(f"{found.path}: row {row} of the features holds NaN or infinity")
    mpp = given.slide.mpp if given.slide is not None else (0.0, 0.0)
    coords, extent, step = _geometry(found, mpp)
    size = _size(found, given, coords, extent)
    digest = features_digest(coords, iter([found.features]), dtype=found.features.dtype)
    ref = SlideRef(
        id=given.slide.id if given.slide is not None else found.slide,
        # Without the slide, the same features under two names are at least seen to be the same.
        fingerprint=(given.slide.fingerprint if given.slide is not None else "") or f"imported-{digest}",
        size_l0=size,
        mpp=mpp,
        mpp_source=given.slide.mpp_source if given.slide is not None else UNVERIFIED,
    )
    tile_px = given.tile_px or found.tile_px
    seen = extent[0] * mpp[0] / tile_px if tile_px and found.coords is not None else 0.0
    asked = given.tile_mpp or found.nominal_mpp
    size_px = tile_px or max(1, round(extent[0]))
    grid = TileGrid(
        ref, coords, np.ones(len(coords), np.float32), size_px, seen or asked, extent, step,
        placed=found.coords is not None,
    )  # fmt: skip
    status = np.full(len(coords), TileStatus.OK, dtype=np.uint8)
    contract = _contract(found, given, tile_px=tile_px, tile_mpp=asked or nominal(seen))
    bag = Bag(ref, found.features, grid, contract, status, known_finite=True)
    return bag, _note(found, given, seen=seen, asked=asked)


def _geometry(
    found: ForeignBag, mpp: tuple[float, float]
) -> tuple[Int64[np.ndarray, "tile 2"], tuple[float, float], tuple[float, float]]:
    """Top lefts, extent and step in level-0 pixels."""
    if found.coords is None:
        # Every tile at one place: nothing may read places that nobody knows.
        return np.zeros((len(found.features), 2), np.int64), (1.0, 1.0), (1.0, 1.0)
    to_l0 = np.ones(2)
    if found.unit == "um":
        if not all(mpp):
            raise BagError(
                f"{found.path}: its coordinates are micrometres, which need the slide's scale to become pixels: give "
                "the slides (--slides FOLDER), a table with slide and mpp (--table), or --mpp"
            )
        to_l0 = 1 / np.asarray(mpp)
    places = found.coords * to_l0
    extent = found.extent * to_l0
    step = (found.extent - found.overlap) * to_l0
    if not found.extent:
        between = np.asarray(spacing(places))
        step = np.where(between > 0, between, between.max() or 1.0)
        extent = step
    if found.centred:
        places = places - extent / 2
    pairs = [(float(one[0]), float(one[1])) for one in (extent, step)]
    return np.rint(places).astype(np.int64), pairs[0], pairs[1]


def _size(
    found: ForeignBag, given: Given, coords: Int64[np.ndarray, "tile 2"], extent: tuple[float, float]
) -> tuple[int, int]:
    """The slide's size, or where nobody says it as far as the tiles reach."""
    reach = coords.max(axis=0) + np.ceil(np.asarray(extent)).astype(np.int64)
    told = given.slide.size_l0 if given.slide is not None and all(given.slide.size_l0) else found.size_l0
    if not all(told):
        return int(reach[0]), int(reach[1])
    if found.coords is not None and (coords >= np.asarray(told)).any():
        x, y = coords[(coords >= np.asarray(told)).any(axis=1)][0].tolist()
        raise BagError(
            f"{found.path}: tile ({x}, {y}) lies outside the slide's {told[0]} x {told[1]} pixels: of another slide, "
            "or in another unit"
        )
    return told


def _contract(found: ForeignBag, given: Given, *, tile_px: int, tile_mpp: float) -> EncoderContract:
    """What is known of the encoder: a name and the shape; the rest is unknown and says so."""
    return EncoderContract(
        name=given.encoder or found.encoder or "unknown",
        revision=UNVERIFIED,
        weights_digest="",
        architecture="unknown",
        input_px=0,
        resize="unknown",
        crop="unknown",
        mean=(),
        std=(),
        pooling="unknown",
        dim=found.features.shape[1],
        precision="unknown",
        tile_px=tile_px,
        tile_mpp=tile_mpp,
        source=f"imported from {found.layout}",
        saw_tcga=given.saw_tcga,
        versions={"layout": found.layout},
    )


def _note(found: ForeignBag, given: Given, *, seen: float, asked: float) -> str:
    notes = []
    if found.coords is None:
        notes.append("no coordinates: it trains and is predicted, but has no map")
    elif not found.extent:
        notes.append("tile size from the distance of its tiles")
    if given.slide is None:
        notes.append(f"scale {UNVERIFIED}")
    elif seen and asked and abs(seen / asked - 1) > SCALE_TOLERANCE:
        notes.append(f"its tiles are at {seen:.3g} um per pixel, though it says {asked:g}")
    if not (given.encoder or found.encoder):
        notes.append("encoder unknown: name it with --encoder")
    return "; ".join(notes)
