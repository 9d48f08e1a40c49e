"""Tiles to vectors: the offline encoder beside resnet18 and ViT-S (timm, untrained), in full and reduced precision."""

from __future__ import annotations

import time

import numpy as np

from wsi_mil.compute import cores
from wsi_mil.encoders import Encoder, build_encoder, choose_device, limit_threads

TILES = 128
NETWORKS = ("timm:resnet18", "timm:vit_small_patch16_224")


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
    """Print tiles a second of each, and the ratio to fp32 of the same network."""
    limit_threads(cores())
    device = choose_device("auto")
    pixels = np.random.default_rng(0).integers(0, 256, (TILES, 256, 256, 3), dtype=np.uint8)
    print(f"256 px, {device}, {cores()} cores")
    print(f"{'offline':28} {speed(build_encoder('offline', tile_px=256, tile_mpp=0.5, device=device), pixels):8.0f} /s")
    for name in NETWORKS:
        full = 0.0
        for precision in ("fp32", "bf16", *(("fp16",) if device != "cpu" else ())):
            encoder = build_encoder(
                name, tile_px=256, tile_mpp=0.5, weights="random", precision=precision, device=device
            )
            found = speed(encoder, pixels)
            full = full or found
            print(f"{name.removeprefix('timm:')[:22]:22} {precision:5} {found:8.0f} /s  {found / full:5.2f} x fp32")


if __name__ == "__main__":
    main()
