"""On a CUDA device: ViT-L/16 on real tiles as a share of the measured matrix peak, and JPEG decoding there and here.

    pip install '.[timm,gpu]'
    python benchmarks/gpu.py SLIDE.svs
    python benchmarks/extraction.py SLIDE.svs --encoders timm:vit_large_patch16_224 --precisions bf16 --tiles 20000

The second command prints what share of the encoder's own speed the whole extraction reaches. Without a CUDA device this
says so and ends.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tifffile
import torch

from wsi_mil.compute import cores
from wsi_mil.encoders import build_encoder, choose_batch_tiles
from wsi_mil.grid import TileGrid, lay_grid
from wsi_mil.slides import open_slide, read_tiles

GFLOP = 123.1
"""Of one 224 px picture through ViT-L/16, multiplications and additions, by torch.utils.flop_counter."""

SIDE = 8192
"""Of the square matrices whose product tells the peak."""


def main() -> int:
    """Print the three measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path, help="an Aperio SVS with JPEG tiles")
    parser.add_argument("--tiles", type=int, default=4096)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device here: nothing was measured")
        return 0
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {cores()} cores")
    peak = matrix_peak()
    print(f"product of {SIDE} x {SIDE} in bf16: {peak / 1e12:.0f} TFLOP/s")
    pixels = tiles_of(arguments.slide, arguments.tiles)
    for compiled in (False, True):
        encoder = build_encoder(
            "timm:vit_large_patch16_224", tile_px=256, tile_mpp=0.5, weights="random", precision="bf16", device="cuda",
            compiled=compiled,
        )  # fmt: skip
        batch = choose_batch_tiles(encoder)
        parts = [pixels[first : first + batch] for first in range(0, len(pixels), batch)]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(encoder.encode, parts[:2]))
            seconds = timed(lambda pool=pool, encode=encoder.encode, parts=parts: list(pool.map(encode, parts)))
        speed = len(pixels) / seconds
        title = "ViT-L/16 bf16" + (", compiled" if compiled else "")
        print(f"{title}: {speed:,.0f} tiles/s in batches of {batch}, {speed * GFLOP * 1e9 / peak:.0%} of the peak")
    decoding(arguments.slide)
    return 0


def matrix_peak() -> float:
    """Operations a second of a large product, multiplications and additions."""
    left, right = (torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 20 * 2 * SIDE**3 / timed(lambda: [left @ right for _ in range(20)])


def tiles_of(path: Path, count: int) -> np.ndarray:
    """Real tiles of 256 px at 0.5 um per pixel, again and again until there are enough."""
    with open_slide(path) as slide:
        ref = slide.ref()
        coords, extent, step = lay_grid(ref, size_px=256, mpp=0.5)
        grid = TileGrid(ref, coords, np.ones(len(coords), np.float32), 256, 0.5, extent_l0=extent, step_l0=step)
        pixels = np.concatenate([one.pixels for one in read_tiles(slide, grid, batch_size=64, threads=cores())])
    return np.tile(pixels, (-(-count // len(pixels)), 1, 1, 1))[:count]


def decoding(path: Path) -> None:
    """Stored JPEG tiles a second: libjpeg-turbo on all cores, nvImageCodec on the GPU."""
    import simplejpeg

    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        handle = tiff.filehandle
        tables = page.jpegtables[:-2]  # its quantisation and Huffman tables go into each tile
        stored = []
        for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True):
            handle.seek(offset)
            stored.append(tables + handle.read(size)[2:])
    stored = (stored * -(-2048 // len(stored)))[:2048]
    with ThreadPoolExecutor(cores()) as pool:
        seconds = timed(lambda: list(pool.map(simplejpeg.decode_jpeg, stored)))
    print(f"JPEG tiles decoded: {len(stored) / seconds:,.0f} /s on {cores()} cores", end="")
    try:
        from nvidia import nvimgcodec
    except ImportError:
        print("; nvImageCodec is not installed (extra `gpu`)")
        return
    decoder = nvimgcodec.Decoder()
    seconds = timed(lambda: [decoder.decode(stored[first : first + 256]) for first in range(0, len(stored), 256)])
    print(f", {len(stored) / seconds:,.0f} /s on the GPU")


def timed(work: Callable[[], object]) -> float:
    """Seconds of a second run, the GPU's work ended."""
    for _ in range(2):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
