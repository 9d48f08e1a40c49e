"""Golden embeddings: vectors of tiles that every machine can draw, to tell whether an encoder is still what it was.

The tiles are drawn with whole numbers only, so they are the same bytes everywhere. Their vectors are kept once, on a
machine whose features are trusted, and compared later or elsewhere: after an update of a library, on a new GPU, with
another copy of the weights.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from wsi_mil import files
from wsi_mil.encoders.encoder import Encoder
from wsi_mil.encoders.records import weights_folder
from wsi_mil.errors import EncoderError
from wsi_mil.grid import EncoderContract
from wsi_mil.layout import folder_name

TILES = 4

SAME = 0.9999
"""Cosine above which vectors of one precision are the same up to rounding."""

SAME_REDUCED = 0.999
"""And where either was made in reduced precision."""

OFFLINE = (
    ".4737 .5635 .4085 -.3745 .4395 -.3237 -1.3396 -.0559 .2957 -.7437 -1.2865 .0875 -1.7104 -1.3852 -.5687 -1.2504"
)
"""The first numbers of the offline encoder's first tile of 64 px."""


@dataclass(frozen=True)
class Golden:
    """Vectors of the golden tiles, and the contract they were made under."""

    features: Float32[np.ndarray, "tile dim"]
    contract: EncoderContract


@dataclass(frozen=True)
class Comparison:
    """How far an encoder is from a golden embedding."""

    cosine: float
    """Least over the tiles."""
    largest: float
    """Largest difference of a number."""
    same: bool
    differences: tuple[str, ...]
    """Of the contracts; some are allowed, such as another precision."""


def golden_tiles(size_px: int) -> UInt8[np.ndarray, "tile size size 3"]:
    """Tiles with a pink ground, waves and blue spots, of whole numbers only: the same bytes on every machine."""
    y, x = np.mgrid[:size_px, :size_px].astype(np.int64)
    tiles = np.empty((TILES, size_px, size_px, 3), np.int64)
    for number in range(TILES):
        # A hash of the place: linear congruences in 64-bit integers.
        noise = ((x * 73856093) ^ (y * 19349663) ^ ((number + 1) * 83492791)) >> 5
        waves = (x * (3 + number) + y * (5 - number)) % 64
        ground = np.stack([225 - waves // 4, 165 - waves // 2, 200 - waves // 3], axis=-1) + noise[..., None] % 9 - 4
        pitch = 23 + 4 * number
        near = (x % pitch - pitch // 2) ** 2 + (y % pitch - pitch // 2) ** 2 < (pitch // 4) ** 2
        tiles[number] = np.where(near[..., None], np.array([95, 65, 140]) + noise[..., None] % 25, ground)
    return np.clip(tiles, 0, 255).astype(np.uint8)


def embed(encoder: Encoder) -> Golden:
    """The encoder's vectors of the golden tiles."""
    return Golden(encoder.encode(golden_tiles(encoder.contract.tile_px)), encoder.contract)


def save_golden(golden: Golden, path: Path) -> None:
    """Keep a golden embedding as .npz (no pickle in it)."""
    buffer = io.BytesIO()
    np.savez(buffer, features=golden.features, contract=json.dumps(golden.contract.to_dict()))
    files.write_bytes(path, buffer.getvalue())


def load_golden(path: Path) -> Golden:
    """A golden embedding from its file. Raises EncoderError where it is none."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            contract = EncoderContract.from_dict(json.loads(str(kept["contract"])))
            return Golden(kept["features"].astype(np.float32), contract)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EncoderError(
            f"{path} is no golden embedding ({error}): make one with `wsi-mil encoders check NAME --save-golden FILE`"
        ) from error


def compare(now: Golden, kept: Golden | Float32[np.ndarray, "number"]) -> Comparison:
    """Compare with a golden embedding, or with its first numbers; the same where every tile's vectors point one way."""
    if not isinstance(kept, Golden):
        kept = Golden(kept[None], now.contract)
        now = Golden(now.features[:1, : kept.features.shape[1]], now.contract)
    differences = tuple(kept.contract.difference(now.contract))
    if now.features.shape != kept.features.shape:
        return Comparison(0.0, float("inf"), same=False, differences=differences)
    a, b = now.features.astype(np.float64), kept.features.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = float(((a * b).sum(axis=1) / np.maximum(norms, 1e-30)).min())
    reduced = {now.contract.precision, kept.contract.precision} != {"fp32"}
    same = cosine >= (SAME_REDUCED if reduced else SAME)
    return Comparison(cosine, float(np.abs(a - b).max()), same, differences)


def golden_of(name: str, given: Path | None) -> Golden | Float32[np.ndarray, "number"] | None:
    """What an encoder is compared with: a file that is given, or that lies in golden/ of the weights folder, or for the
    offline encoder the first numbers of its first tile of 64 px; None where nothing is known."""
    own = weights_folder() / "golden" / f"{folder_name(name)}.npz"
    if given is not None or own.is_file():
        return load_golden(given or own)
    return np.array(OFFLINE.split(), dtype=np.float32) if name == "offline" else None
