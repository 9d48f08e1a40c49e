"""Encoder: a batch of tiles in, one vector a tile out, under a contract that says how."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from wsi_mil.errors import EncoderError
from wsi_mil.grid import EncoderContract

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
        with torch.inference_mode():
            vectors = self._forward(tiles.to(self.device, non_blocking=True))
        features = vectors.float().cpu().numpy()
        bad = ~np.isfinite(features).all(axis=1) if finite else np.zeros(1, dtype=bool)
        if bad.any():
            tile = int(bad.argmax()) // self.tokens
            raise EncoderError(f"encoder {self.name!r} gave NaN or infinity for row {tile} of {len(pixels)} tiles")
        return np.ascontiguousarray(features, dtype=np.float32)

    @abstractmethod
    def _forward(self, tiles: UInt8[Tensor, "tile size size 3"]) -> Tensor:
        """The vectors [tile dim] of tiles that lie on the device already; called in inference mode."""
