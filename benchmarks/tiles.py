"""Slide and grid to pixels: our tile path beside OpenSlide, cuCIM and the bare decoder, on one slide, in one run."""

from __future__ import annotations

import argparse
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openslide
from PIL import Image

from wsi_mil.compute import cores
from wsi_mil.grid import TileGrid, lay_grid
from wsi_mil.slides import open_slide, read_tiles
from wsi_mil.slides.tiff import TiffReader
from wsi_mil.synthetic import draw_cohort
from wsi_mil.synthetic.mosaic import write_mosaic

NATIVE = 0.25
Place = tuple[int, int, int]
Read = Callable[[Place], object]


def grid_of(slide: object, size_px: int, mpp: float) -> TileGrid:
    """Every tile of the slide."""
    ref = slide.ref()
    coords, extent, step = lay_grid(ref, size_px=size_px, mpp=mpp)
    whole = (coords + np.array(extent) <= np.array(ref.size_l0)).all(axis=1)
    share = np.ones(len(coords), np.float32)
    return TileGrid(ref, coords, share, size_px, mpp, extent_l0=extent, step_l0=step).take(whole)


def part(grid: TileGrid, tiles: int) -> TileGrid:
    """The first tiles of a grid, in whole rows."""
    return grid.take(np.arange(min(tiles, len(grid))))


def ours(path: Path, size_px: int, mpp: float, threads: int, tiles: int, *, shrink: bool = False) -> float:
    """Tiles a second of the product's path."""
    options = {"id": "m", "mpp": None, "mpp_source": "metadata"}
    with TiffReader(path, **options, shrink=True) if shrink else open_slide(path) as slide:
        grid = part(grid_of(slide, size_px, mpp), tiles)
        start = time.perf_counter()
        done = sum(len(batch.index) for batch in read_tiles(slide, grid, batch_size=32, threads=threads, reuse=0))
        return done / (time.perf_counter() - start)


def floor(path: Path, threads: int, tiles: int) -> float:
    """Stored tiles a second of the bare decoder: nothing can be faster than this."""
    with open_slide(path) as slide:
        plane = slide._planes[0]
        numbers = range(min(tiles, len(plane.offsets)))
        local = threading.local()

        def decode(number: int) -> None:
            if not hasattr(local, "out"):
                local.out = np.empty((plane.form.height, plane.form.width, 3), np.uint8)
            plane.form.decode(slide._bytes(plane, number), local.out)

        start = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(decode, numbers, chunksize=32))
        return len(numbers) / (time.perf_counter() - start)


def places(path: Path, size_px: int, mpp: float, tiles: int) -> list[Place]:
    """What the loops below read: left, top and side in level-0 pixels."""
    with open_slide(path) as slide:
        grid = part(grid_of(slide, size_px, mpp), tiles)
    return [(x, y, round(grid.extent_l0[0])) for x, y in grid.coords_l0.tolist()]


def by_openslide(path: Path, size_px: int) -> Read:
    """The loop that most scripts have: read_region at the nearest finer level, convert, resize."""
    slide = openslide.OpenSlide(str(path))

    def read(place: Place) -> object:
        x, y, side = place
        tile = slide.read_region((x, y), 0, (side, side)).convert("RGB")
        return np.asarray(tile if side == size_px else tile.resize((size_px, size_px), Image.Resampling.BICUBIC))

    return read


def by_cucim(path: Path, size_px: int) -> Read | None:
    """cuCIM on the CPU, where its package is installed."""
    try:
        from cucim import CuImage
    except ImportError:
        return None
    slide = CuImage(str(path))

    def read(place: Place) -> object:
        x, y, side = place
        tile = np.asarray(slide.read_region((x, y), (side, side), 0))
        if side == size_px:
            return tile
        return np.asarray(Image.fromarray(tile).resize((size_px, size_px), Image.Resampling.BICUBIC))

    return read


def loop(read: Read, wanted: list[Place], threads: int) -> float:
    """Tiles a second of a peer's loop."""
    start = time.perf_counter()
    if threads == 1:
        for place in wanted:
            read(place)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(read, wanted, chunksize=8))
    return len(wanted) / (time.perf_counter() - start)


def rows(path: Path, stored_px: int, tiles: int) -> Iterator[tuple[str, int, float, float, float, float | None]]:
    """Each case: its name, threads, ours, the floor, OpenSlide (one thread), cuCIM (as many threads)."""
    cases = (
        ("native, aligned", stored_px, NATIVE),
        ("native, 256 px", 256, NATIVE),
        ("1.37x coarser", 256, NATIVE * 1.37),
        ("2x coarser (usual case)", 256, NATIVE * 2),
    )
    for name, size_px, mpp in cases:
        wanted = places(path, size_px, mpp, tiles)
        few = wanted[: max(100, tiles // 4)]
        for threads in (1, cores()):
            fast = max(ours(path, size_px, mpp, threads, tiles) for _ in range(3))
            slow = max(loop(by_openslide(path, size_px), few, 1) for _ in range(3))
            reader = by_cucim(path, size_px)
            other = max(loop(reader, few, threads) for _ in range(3)) if reader else None
            yield name, threads, fast, floor(path, threads, tiles), slow, other
        if mpp == NATIVE * 2:
            fast = max(ours(path, size_px, mpp, cores(), tiles, shrink=True) for _ in range(3))
            yield "2x, shrunk by the decoder", cores(), fast, floor(path, cores(), tiles), slow, other


def whole_path(side_px: int, source: Path, folder: Path) -> None:
    """Slide to batches of the largest slides: seconds and memory at the whole and at half of each side."""
    for side in (side_px // 2, side_px):
        path = folder / f"large{side}.svs"
        write_mosaic(path, source, side_px=side, mpp=NATIVE)
        start = time.perf_counter()
        with open_slide(path) as slide:
            grid = grid_of(slide, 256, NATIVE * 2)
            opened = time.perf_counter() - start
            start = time.perf_counter()
            for _ in read_tiles(slide, grid, batch_size=32, threads=cores(), reuse=0):
                pass
            seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{side:>7} px a side: {len(grid):>7} tiles in {seconds:6.1f} s, {len(grid) / seconds:5.0f} tiles/s, "
            f"peak memory {peak:.2f} GiB, opened in {opened * 1e3:.0f} ms"
        )
        path.unlink()


def main() -> None:
    """Print tiles a second and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", type=Path, help="a JPEG slide whose tiles are repeated; default: drawn")
    parser.add_argument("--tiles", type=int, default=4000)
    parser.add_argument("--large", type=int, default=0, help="also the whole path over a slide of this side")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, source = Path(name), arguments.source
        if source is None:
            draw_cohort(folder, slides=12, seed=0, side_px=(4000, 4000))
            source = folder / "slides" / "S01.tiff"
        path = folder / "mosaic.svs"
        write_mosaic(path, source, side_px=20_000, mpp=NATIVE)
        start = time.perf_counter()
        with open_slide(path) as slide:
            stored_px = slide.tile_px(0)[0]
            print(f"{slide}, opened in {(time.perf_counter() - start) * 1e3:.1f} ms, tiles of {stored_px} px")
        heads = ("threads", "ours", "stored/s", "OpenSlide", "ratio", "cuCIM", "ratio")
        print(f"{'case':>26} " + " ".join(f"{head:>9}" for head in heads))
        for case, threads, fast, bare, slow, other in rows(path, stored_px, arguments.tiles):
            peer = f"{other:>9.0f} {fast / other:>9.2f}" if other else f"{'-':>9} {'-':>9}"
            mine = f"{fast:>9.0f} {bare:>9.0f} {slow:>9.0f} {fast / slow:>9.2f}"
            print(f"{case:>26} {threads:>9} {mine} {peer}", flush=True)
        path.unlink()
        if arguments.large:
            whole_path(arguments.large, source, folder)


if __name__ == "__main__":
    main()
