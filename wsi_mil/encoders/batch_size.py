"""How many tiles are encoded at once: on a GPU as many as make it fast, found by trying."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import numpy as np

from wsi_mil.encoders.encoder import Encoder

ON_CPU = 32
"""Tiles of a batch on a CPU: more do not make it faster, and each core has a batch of its own."""

TRIED = (32, 64, 128, 256, 512, 1024)

WORTH = 1.05
"""A batch of twice the size is taken where it is faster by this."""


def choose_batch_tiles(encoder: Encoder) -> int:
    """The batch size for an encoder on its device. On a GPU some batches of noise are encoded, for a second or two."""
    if encoder.device.type == "cpu":
        return ON_CPU
    random, side = np.random.default_rng(0), encoder.contract.tile_px
    noise = random.integers(0, 256, (TRIED[0], side, side, 3), dtype=np.uint8)

    def tiles_per_s(size: int) -> float | None:
        pixels = np.tile(noise, (size // len(noise), 1, 1, 1))
        encoder.encode(pixels)  # the first of a size compiles and allocates
        if encoder.most_tiles < size:
            return None
        start = time.perf_counter()
        for _ in range(3):
            encoder.encode(pixels)
        return 3 * size / (time.perf_counter() - start)

    return fastest(tiles_per_s, TRIED)


def fastest(tiles_per_s: Callable[[int], float | None], sizes: Iterable[int]) -> int:
    """The last of rising sizes that is worth its memory; `tiles_per_s` says None for one that does not fit."""
    best, speed = 1, 0.0
    for size in sizes:
        found = tiles_per_s(size)
        if found is None or found < WORTH * speed:
            break
        best, speed = size, found
    return best
