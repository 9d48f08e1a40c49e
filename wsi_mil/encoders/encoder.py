"""Encoder: a batch of tiles in, one vector a tile out, under a contract that says how."""

from __future__ import annotations

import logging
import sys
from abc import ABC, abstractmethod
from typing import final

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from wsi_mil.encoders.staging import Staging
from wsi_mil.errors import EncoderError
from wsi_mil.grid import EncoderContract

_LOG = logging.getLogger("wsi_mil")

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Arithmetic of the forward pass, by name."""


class Encoder(ABC):
    """Turns tiles of one size and scale into vectors; the same tile gives the same vector in whichever batch it comes.

    A subclass sets `contract` and implements `_forward`.
    """

    def __init__(self, contract: EncoderContract, *, device: str = "cpu") -> None:
        if contract.precision not in PRECISIONS:
            raise EncoderError(
                f"encoder {contract.name!r}: unknown precision {contract.precision!r}; known: {', '.join(PRECISIONS)}"
            )
        self.contract = contract
        self.device = torch.device(device)
        self.most_tiles = sys.maxsize
        """Tiles that fit the device's memory at once, as far as is known: halved each time they do not."""
        self._staging = Staging(self.device) if self.device.type == "cuda" else None
        self.tokens = 1
        """Vectors a tile: more than one where the parts of a tile have one each, row by row."""

    @property
    def covered(self) -> float:
        """Share of the side of a tile that its vectors see, in the middle."""
        return 1.0

    @property
    def name(self) -> str:
        """The name it is built by."""
        return self.contract.name

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.contract.dim

    @final
    def encode(
        self, pixels: UInt8[np.ndarray, "tile size size 3"], *, finite: bool = True
    ) -> Float32[np.ndarray, "row dim"]:
        """One vector for each RGB tile of `contract.tile_px` pixels a side; `tokens` for each, tile by tile.

        Raises EncoderError where the tiles have another size, and, naming the row, where a vector is not finite: that
        is left to the caller with `finite` False, who knows the tile.
        """
        wanted = self.contract.tile_px
        if pixels.ndim != 4 or pixels.shape[1:] != (wanted, wanted, 3):
            raise EncoderError(
                f"encoder {self.name!r} was built for tiles of {wanted} x {wanted} RGB pixels, but got shape "
                f"{pixels.shape}; build it with the tile size of the grid"
            )
        if not len(pixels):
            return np.empty((0, self.dim), dtype=np.float32)
        # torch warns of read-only memory, and memory maps and shared buffers are that.
        tiles = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())
        features = self._within_memory(tiles).numpy()
        bad = ~np.isfinite(features).all(axis=1) if finite else np.zeros(1, dtype=bool)
        if bad.any():
            tile = int(bad.argmax()) // self.tokens
            raise EncoderError(f"encoder {self.name!r} gave NaN or infinity for row {tile} of {len(pixels)} tiles")
        return np.ascontiguousarray(features, dtype=np.float32)

    def _within_memory(self, tiles: UInt8[Tensor, "tile size size 3"]) -> Float32[Tensor, "row dim"]:
        """The vectors of a batch, in parts where the whole does not fit the memory of the device.

        Raises EncoderError where a single tile does not.
        """
        found, start = [], 0
        while start < len(tiles):
            part = tiles[start : start + self.most_tiles]
            vectors = self._tried(part)
            if vectors is None:
                if len(part) == 1:
                    raise EncoderError(
                        f"encoder {self.name!r} has no room for a single tile on {self.device}: take a smaller one, or "
                        "extract.precision=bf16, or another device (runtime.device)"
                    )
                self.most_tiles = min(self.most_tiles, len(part) // 2)
                _LOG.warning("%s: out of memory; from now on %d tiles at once", self.name, self.most_tiles)
                continue
            found.append(vectors)
            start += len(part)
        return torch.cat(found)

    def _tried(self, tiles: UInt8[Tensor, "tile size size 3"]) -> Tensor | None:
        """The vectors of some tiles, or None where the memory of the device is full."""
        try:
            if self._staging is not None:
                return self._staging.run(tiles, self._forward)
            with torch.inference_mode():
                return self._forward(tiles.to(self.device)).float().cpu()
        except torch.OutOfMemoryError:
            pass  # cleared below: while the handler runs, the failed tensors are held by the traceback
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    @abstractmethod
    def _forward(self, tiles: UInt8[Tensor, "tile size size 3"]) -> Tensor:
        """The vectors [tile dim] of tiles that lie on the device already; called in inference mode."""
