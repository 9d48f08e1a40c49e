"""Tiles to vectors: the offline encoder beside resnet18 (timm, random weights, fp32), on the same tiles."""

from __future__ import annotations

import time

import numpy as np

from wsi_mil.compute import cores
from wsi_mil.encoders import Encoder, build_encoder, limit_threads

TILES = 128


def speed(encoder: Encoder, pixels: np.ndarray) -> float:
    """Tiles a second, best of three."""
    encoder.encode(pixels[:32])
    times = []
    for _ in range(3):
        start = time.perf_counter()
        for first in range(0, len(pixels), 32):
            encoder.encode(pixels[first : first + 32])
        times.append(time.perf_counter() - start)
    return len(pixels) / min(times)


def main() -> None:
    """Print tiles a second of both, and their ratio."""
    limit_threads(cores())
    pixels = np.random.default_rng(0).integers(0, 256, (TILES, 256, 256, 3), dtype=np.uint8)
    fast = speed(build_encoder("offline", tile_px=256, tile_mpp=0.5), pixels)
    slow = speed(build_encoder("timm:resnet18", tile_px=256, tile_mpp=0.5, weights="random"), pixels)
    print(f"256 px, {cores()} cores: offline {fast:.0f} tiles/s, resnet18 {slow:.0f} tiles/s, ratio {fast / slow:.2f}")


if __name__ == "__main__":
    main()
