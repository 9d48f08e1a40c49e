"""Batches on their way to a GPU: pinned memory and a stream for each thread, so that copies and arithmetic overlap."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from jaxtyping import UInt8
from torch import Tensor

HANDS = 2
"""Threads that feed one GPU: while it computes one's batch, the other's is copied (double buffering)."""


class Staging(threading.local):
    """What a thread needs to feed a GPU; made when it first does."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pinned = torch.empty(0, dtype=torch.uint8)

    def run(self, tiles: UInt8[Tensor, "tile size size 3"], forward: Callable[[Tensor], Tensor]) -> Tensor:
        """`forward` of the tiles on the GPU, back in the memory of the CPU as float32."""
        if self._pinned.numel() < tiles.numel():
            self._pinned = torch.empty(tiles.numel(), dtype=torch.uint8, pin_memory=True)
        # Only from pinned memory does a copy run beside the arithmetic. It may be written again as soon as this
        # returns, since fetching the result waits for the stream.
        staged = self._pinned[: tiles.numel()].view(tiles.shape).copy_(tiles)
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream), torch.inference_mode():
            return forward(staged.to(self._device, non_blocking=True)).float().cpu()
