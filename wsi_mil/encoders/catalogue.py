"""The table of encoders and the one function that builds any of them by name."""

from __future__ import annotations

from collections.abc import Callable

from wsi_mil.encoders.encoder import Encoder
from wsi_mil.encoders.offline import OfflineEncoder
from wsi_mil.encoders.timm_hub import PREFIX, TimmEncoder
from wsi_mil.errors import EncoderError, unknown

Builder = Callable[..., Encoder]


def _offline(name: str, *, tile_px: int, tile_mpp: float, precision: str, weights: str | None, device: str) -> Encoder:
    if weights:
        raise EncoderError(f"encoder {name!r} has no weights, but {weights!r} was given; leave extract.weights empty")
    return OfflineEncoder(tile_px=tile_px, tile_mpp=tile_mpp, precision=precision, device=device)


def _timm(name: str, *, tile_px: int, tile_mpp: float, precision: str, weights: str | None, device: str) -> Encoder:
    return TimmEncoder(name, tile_px=tile_px, tile_mpp=tile_mpp, precision=precision, weights=weights, device=device)


ENCODERS: dict[str, Builder] = {"offline": _offline, PREFIX: _timm}
"""Builder by name; a name that ends in a colon stands for all names that begin with it."""


def build_encoder(
    name: str,
    *,
    tile_px: int,
    tile_mpp: float,
    precision: str = "fp32",
    weights: str | None = None,
    device: str = "cpu",
) -> Encoder:
    """The encoder of a name, for tiles of `tile_px` pixels at `tile_mpp` micrometres per pixel.

    `weights` is a file, or "random" where the encoder allows an untrained network. Raises EncoderError for an unknown
    name (with the nearest known one), or for weights, sizes or precisions the encoder cannot take.
    """
    family = name[: name.index(":") + 1] if ":" in name else name
    if family not in ENCODERS or name == PREFIX:
        known = [f"{key}MODEL" if key.endswith(":") else key for key in ENCODERS]
        raise EncoderError(unknown("encoder", name, known))
    return ENCODERS[family](
        name, tile_px=tile_px, tile_mpp=tile_mpp, precision=precision, weights=weights, device=device
    )
