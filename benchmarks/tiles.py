"""Slide and grid to pixels: our tile path beside a plain OpenSlide loop, on the same slide, in the same run."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import openslide
from PIL import Image

from wsi_mil.compute import cores
from wsi_mil.grid import TileGrid, lay_grid
from wsi_mil.slides import open_slide, read_tiles
from wsi_mil.synthetic import draw_cohort

SIZE_PX = 256


def ours(path: Path, mpp: float, threads: int) -> tuple[int, float]:
    """Tiles read, and seconds."""
    with open_slide(path) as slide:
        coords, extent, step = lay_grid(slide.ref(), size_px=SIZE_PX, mpp=mpp)
        share = np.ones(len(coords), np.float32)
        grid = TileGrid(slide.ref(), coords, share, SIZE_PX, mpp, extent_l0=extent, step_l0=step)
        start = time.perf_counter()
        tiles = sum(len(batch.index) for batch in read_tiles(slide, grid, batch_size=32, threads=threads))
        return tiles, time.perf_counter() - start


def plain(path: Path, mpp: float) -> tuple[int, float]:
    """The loop that most scripts have: read_region at the nearest finer level, convert, resize."""
    slide = openslide.OpenSlide(str(path))
    native = float(slide.properties["openslide.mpp-x"])
    level = slide.get_best_level_for_downsample(mpp / native)
    side_l0 = round(SIZE_PX * mpp / native)
    side = round(side_l0 / slide.level_downsamples[level])
    start, tiles = time.perf_counter(), 0
    for y in range(0, slide.dimensions[1], side_l0):
        for x in range(0, slide.dimensions[0], side_l0):
            tile = slide.read_region((x, y), level, (side, side)).convert("RGB")
            np.asarray(tile if side == SIZE_PX else tile.resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC))
            tiles += 1
    return tiles, time.perf_counter() - start


def main() -> None:
    """Print tiles a second and their ratio, at three scales."""
    with tempfile.TemporaryDirectory() as folder:
        draw_cohort(Path(folder), slides=12, seed=0, side_px=(4000, 4000))
        path = Path(folder) / "slides" / "S01.tiff"
        print(f"{'scale':>12} {'threads':>8} {'ours, tiles/s':>14} {'OpenSlide loop':>15} {'ratio':>6}")
        for mpp in (0.5, 0.685, 1.0):
            for threads in (1, cores()):
                told = [ours(path, mpp, threads) for _ in range(3)]
                peer = [plain(path, mpp) for _ in range(3)]
                fast, slow = (max(tiles / seconds for tiles, seconds in runs) for runs in (told, peer))
                print(f"{mpp:>9} um/px {threads:>5} {fast:>14.0f} {slow:>15.0f} {fast / slow:>6.2f}")


if __name__ == "__main__":
    main()
