"""NetworkEncoder: any torch network as an encoder: resize, crop and normalise on the device, forward, pool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn
from torch.nn import functional

from wsi_mil.encoders.encoder import PRECISIONS, Encoder
from wsi_mil.encoders.networks import trunk_of
from wsi_mil.errors import EncoderError
from wsi_mil.grid import EncoderContract

REDUCED_LAYERS = (nn.Linear, nn.Conv2d)
"""Layers whose weights autocast would round at every batch; they are kept rounded instead, which gives the same."""


@dataclass(frozen=True)
class Transform:
    """How a tile becomes an input: the whole tile resized, the middle cut out where that is smaller, normalised."""

    input_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Of red, green and blue, for values of 0 to 1."""
    resize_px: int = 0
    """Side a tile is brought to; 0: the input's, and nothing is cut."""
    filter: Literal["bilinear", "bicubic"] = "bilinear"

    @property
    def side_px(self) -> int:
        """Side a tile is brought to."""
        return self.resize_px or self.input_px

    @property
    def resize(self) -> str:
        """As the contract says it."""
        return f"{self.filter} with antialiasing to {self.side_px} px, on values of 0 to 255, not rounded"

    @property
    def crop(self) -> str:
        """As the contract says it."""
        return "none" if self.side_px == self.input_px else f"middle {self.input_px} px"


class NetworkEncoder(Encoder):
    """A network with its transform and its pooling, under a contract that states both."""

    def __init__(
        self,
        module: nn.Module,
        contract: EncoderContract,
        transform: Transform,
        *,
        device: str = "cpu",
        compiled: bool = False,
    ) -> None:
        super().__init__(contract, device=device)
        module = module.eval().requires_grad_(requires_grad=False)
        module = module.to(self.device).to(memory_format=torch.channels_last)
        self._dtype = PRECISIONS[contract.precision]
        if self._dtype is not torch.float32:
            for layer in module.modules():
                if isinstance(layer, REDUCED_LAYERS):
                    layer.to(self._dtype)
        self._transform = transform
        self._vectors = vectors_of(module, contract.pooling, name=contract.name)
        if compiled:
            self._vectors = torch.compile(self._vectors)
        std = torch.tensor(transform.std, device=self.device)[:, None, None] * 255
        self._gain = 1 / std
        self._offset = -torch.tensor(transform.mean, device=self.device)[:, None, None] * 255 / std
        if contract.pooling == "tokens":
            with torch.inference_mode():
                side = transform.input_px
                blank = torch.zeros(1, 3, side, side, device=self.device)
                self.tokens = self._run(blank).shape[1]

    @property
    def covered(self) -> float:
        """Share of the side of a tile that the network sees; less than 1 where the middle is cut out."""
        return self._transform.input_px / self._transform.side_px

    def _forward(self, tiles: UInt8[Tensor, "tile size size 3"]) -> Tensor:
        vectors = self._run(self._prepared(tiles).contiguous(memory_format=torch.channels_last))
        return vectors.flatten(0, 1) if vectors.ndim == 3 else vectors

    def _run(self, pixels: Tensor) -> Tensor:
        reduced = self._dtype is not torch.float32
        with torch.autocast(self.device.type, dtype=self._dtype if reduced else None, enabled=reduced):
            return self._vectors(pixels)

    def _prepared(self, tiles: UInt8[Tensor, "tile size size 3"]) -> Float32[Tensor, "tile 3 input input"]:
        pixels = tiles.permute(0, 3, 1, 2).float()
        side, kept = self._transform.side_px, self._transform.input_px
        if pixels.shape[-1] != side:
            pixels = functional.interpolate(
                pixels, size=(side, side), mode=self._transform.filter, antialias=True, align_corners=False
            ).clamp_(0, 255)
        if kept != side:
            # As torchvision rounds it, so that the same pixels are cut as by the authors' code.
            first = round((side - kept) / 2)
            pixels = pixels[..., first : first + kept, first : first + kept]
        return torch.addcmul(self._offset, pixels, self._gain)


def vectors_of(module: nn.Module, pooling: str, *, name: str) -> Callable[[Tensor], Tensor]:
    """The function from inputs [tile 3 side side] to vectors [tile dim], or with "tokens" [tile token dim].

    Raises EncoderError where the network has no tokens to pool.
    """
    if pooling == "network":
        return module
    trunk: Any = trunk_of(module)
    prefix = getattr(trunk, "num_prefix_tokens", None)
    if prefix is None or not hasattr(trunk, "forward_features") or (prefix < 1 and pooling.startswith("cls")):
        raise EncoderError(
            f"encoder {name!r} has no {'class token' if prefix is not None else 'tokens'} to pool as {pooling!r}; "
            "leave extract.pooling empty"
        )

    def pooled(pixels: Tensor) -> Tensor:
        tokens: Tensor = trunk.forward_features(pixels)
        if pooling == "cls":
            return tokens[:, 0]
        patches = tokens[:, prefix:]
        if pooling == "tokens":
            return patches
        # Summed in single precision: the mean of many tokens in half loses digits.
        mean = patches.float().mean(dim=1)
        return mean if pooling == "mean" else torch.cat([tokens[:, 0].float(), mean], dim=1)

    return pooled
