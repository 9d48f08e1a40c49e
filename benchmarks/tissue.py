"""The tissue step of a large slide beside CLAM's recipe on the same picture; shares of its tiles, and their quality.

    python benchmarks/tissue.py [--mm 17]

The slide is written anew: synthetic slides side by side as a pyramidal JPEG TIFF of 17 mm a side with levels at 2, 8
and 32 um per pixel (a finer level 0 would take minutes to write, and no tissue step reads it). The overview has 4.6
megapixels at 8 um per pixel. The peer is the recipe that CLAM
describes (saturation, median 7, threshold 8, closing 4), by scipy and Pillow, on the picture already in memory. One
thread; the best of three.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image, ImageFilter
from scipy.ndimage import binary_closing

from wsi_mil.grid import lay_grid
from wsi_mil.slides import open_slide
from wsi_mil.stages import Study, Work
from wsi_mil.stages.stage import Item
from wsi_mil.synthetic import draw_cohort
from wsi_mil.tissue import find_tissue, mask_to_outline, measure_tiles, tissue_share

MPP = 8.0
"""Scale of the picture that is searched."""


def main() -> None:
    """Print seconds, and the ratio to the peer."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mm", type=float, default=17.2)
    side_px = round(parser.parse_args().mm * 1000 / MPP)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = write_slide(folder, side_px)
        work = Work(folder / "work", Study())
        item = Item("slide", path=str(path))
        step = best(lambda: work.study.tissue.make(item, work, folder / "draft.geojson", lambda done, total: None))
        with open_slide(path) as slide:
            rgb, downsample = slide.overview(max_px=side_px)
            reading = best(lambda: slide.overview(max_px=side_px))
            ref = slide.ref()
        found = find_tissue(rgb, mpp=(MPP, MPP))
        outline = mask_to_outline(found.mask, downsample)
        rows = {
            "tissue step of the slide, whole": step,
            "  of it: the overview": reading,
            "  of it: the mask": best(lambda: find_tissue(rgb, mpp=(MPP, MPP))),
            "  of it: the outline": best(lambda: mask_to_outline(found.mask, downsample)),
            "hsv, on the picture": best(lambda: find_tissue(rgb, mpp=(MPP, MPP), method="hsv")),
            "CLAM's recipe by scipy and Pillow, on the picture": best(lambda: peer(rgb)),
        }
        coords, extent, _ = lay_grid(ref, size_px=64, mpp=2.0)
        rows[f"shares of {len(coords):,} tiles"] = best(lambda: tissue_share(outline, coords, extent))
        corners = sum(len(ring.coords) for part in outline.geoms for ring in (part.exterior, *part.interiors))
        print(
            f"{ref.size_l0[0]:,} x {ref.size_l0[1]:,} px, overview {rgb.shape[1]} x {rgb.shape[0]}, {corners:,} corners"
        )
        for what, seconds in rows.items():
            print(f"{what:52} {seconds:8.3f} s")
        rows["quality of 64 tiles of 256 px"] = quality = best(lambda: measure_tiles(tiles_of(rgb, 64)))
        mask, theirs = rows["  of it: the mask"], rows["CLAM's recipe by scipy and Pillow, on the picture"]
        print(f"mask, ratio to the peer: {theirs / mask:.2f}; goal for the whole step: 2 s")
        print(f"quality: {64 / quality:,.0f} tiles/s; goal 1,000")


def tiles_of(rgb: np.ndarray, count: int) -> np.ndarray:
    """Tiles cut from a picture."""
    places = [(y, x) for y in range(0, len(rgb) - 256, 256) for x in range(0, rgb.shape[1] - 256, 256)]
    return np.stack([rgb[y : y + 256, x : x + 256] for y, x in (places * count)[:count]])


def peer(rgb: np.ndarray) -> np.ndarray:
    """Saturation, median of 7 x 7, threshold 8, closing with a square of 4: as CLAM describes it."""
    saturation = Image.fromarray(rgb).convert("HSV").getchannel("S")
    median = np.asarray(saturation.filter(ImageFilter.MedianFilter(7)))
    return binary_closing(median > 8, np.ones((4, 4), bool))


def write_slide(folder: Path, side_px: int) -> Path:
    """A pyramid that shows synthetic slides side by side."""
    draw_cohort(folder / "cohort", slides=8, seed=0, side_px=(2600, 3200))
    pieces = []
    for path in sorted((folder / "cohort" / "slides").glob("*.tiff")):
        with open_slide(path) as slide:
            pieces.append(slide.overview(max_px=round(max(slide.size_l0) / 4))[0][:640, :640])
    count = -(-4 * side_px // 640)
    rows = [np.concatenate([pieces[(r * 3 + c) % len(pieces)] for c in range(count)], axis=1) for r in range(count)]
    finest = Image.fromarray(np.concatenate(rows)[: 4 * side_px, : 4 * side_px])
    path = folder / "slide.tiff"
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for number, shrink in enumerate((1, 4, 16)):
            level = finest.resize((4 * side_px // shrink,) * 2, Image.Resampling.BOX)
            per_cm = 1e4 / (MPP / 4 * shrink)
            tiff.write(
                np.asarray(level), tile=(256, 256), photometric="rgb", compression="jpeg",
                subfiletype=1 if number else 0, resolution=(per_cm, per_cm), resolutionunit="CENTIMETER",
                metadata=None,
            )  # fmt: skip
    return path


def best(work: Callable[[], Any]) -> float:
    """Seconds of the fastest of three."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main()
