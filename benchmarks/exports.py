"""Every export of a heatmap of 100,000 tiles, in seconds, and GeoJSON and contours beside shapely and json.

    python benchmarks/exports.py [--tiles 100000]

A third of the tiles of a square slide is left out, in large patches, as glass. The slide is not read: the picture is
drawn over a white overview of 1,400 pixels. The peer of the GeoJSON is a loop over tiles with shapely's mapping, uuid4
and json.dumps; that of the contours is shapely's union of the same boxes. One thread; the best of three.
"""

from __future__ import annotations

import argparse
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import shapely
from scipy.ndimage import gaussian_filter
from shapely.geometry import mapping

from wsi_mil.grid import SlideRef, TileGrid, lay_grid
from wsi_mil.heatmaps import (
    Heatmap,
    heatmap_to_contours,
    heatmap_to_csv,
    heatmap_to_deepzoom,
    heatmap_to_geojson,
    heatmap_to_hdf5,
    heatmap_to_ome_tiff,
    heatmap_to_parquet,
    heatmap_to_tiff,
    overlay,
    top_thresholds,
)

GOAL_S = 2.0
"""For GeoJSON, PNG, TIFF and DeepZoom."""

CHANNEL = "contribution_tumour"


def main() -> None:
    """Print seconds for each, and the ratios to the peers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiles", type=int, default=100_000)
    heatmap = draw(parser.parse_args().tiles)
    width, height = heatmap.slide.size_l0
    white = np.full((1400, 1400, 3), 255, np.uint8)
    thresholds = top_thresholds(heatmap, CHANNEL, [0.1])
    rows: dict[str, Callable[[], Any]] = {
        "geojson": lambda: heatmap_to_geojson(heatmap),
        "png": lambda: overlay(white, (width / 1400, height / 1400), heatmap, CHANNEL),
        "tiff": lambda: heatmap_to_tiff(heatmap, CHANNEL),
        "deepzoom": lambda: heatmap_to_deepzoom(heatmap, CHANNEL, name="slide"),
        "deepzoom, JPEG": lambda: heatmap_to_deepzoom(heatmap, CHANNEL, name="slide", kind="jpeg"),
        "ome_tiff": lambda: heatmap_to_ome_tiff(heatmap),
        "contours": lambda: heatmap_to_contours(heatmap, CHANNEL, thresholds),
        "csv": lambda: heatmap_to_csv(heatmap),
        "parquet": lambda: heatmap_to_parquet(heatmap),
        "hdf5": lambda: heatmap_to_hdf5(heatmap),
    }
    print(f"{len(heatmap.grid):,} tiles of a slide of {width:,} x {height:,} px, {len(heatmap.channels)} channels")
    seconds = {}
    for name, make in rows.items():
        seconds[name] = best(make)
        goal = f"   goal {GOAL_S:.0f} s" if name in ("geojson", "png", "tiff", "deepzoom") else ""
        print(f"{name:16} {seconds[name]:7.2f} s  {size(make()) / 1e6:7.1f} MB{goal}", flush=True)
    print(f"geojson, ratio to shapely and json: {best(lambda: peer_geojson(heatmap)) / seconds['geojson']:.1f}")
    ratio = best(lambda: peer_contours(heatmap, thresholds[0])) / seconds["contours"]
    print(f"contours, ratio to shapely's union: {ratio:.1f}")


def draw(tiles: int) -> Heatmap:
    """A heatmap of about so many tiles, smooth with noise, a third of the slide left out in patches."""
    random = np.random.default_rng(0)
    side = round(256 * 0.5 / 0.4991 * (tiles * 1.5) ** 0.5)
    slide = SlideRef("slide", "f" * 64, (side, side), (0.4991, 0.4571), "metadata")
    coords, extent, step = lay_grid(slide, size_px=256, mpp=0.5)
    cells = np.rint(coords / np.asarray(step)).astype(int)
    shape = cells.max(axis=0)[::-1] + 1
    glass, tumour = (gaussian_filter(random.normal(size=shape), 12)[cells[:, 1], cells[:, 0]] for _ in range(2))
    keep = np.argsort(glass, kind="stable")[:tiles]
    coords, tumour = coords[np.sort(keep)], tumour[np.sort(keep)]
    scores = (tumour / tumour.std())[:, None] + random.normal(scale=0.2, size=(len(coords), 4))
    grid = TileGrid(slide, coords, np.ones(len(coords), np.float32), 256, 0.5, extent, step)
    channels = ("attention_logit", "attention", "contribution_normal", CHANNEL)
    return Heatmap(slide, grid, scores.astype(np.float32), channels, model="", prediction={})


def peer_geojson(heatmap: Heatmap) -> str:
    """The plain way: a shape, a mapping and a dictionary a tile, and one json.dumps."""
    wide, high = heatmap.grid.extent_l0
    features = []
    for (x, y), scores in zip(heatmap.grid.coords_l0.tolist(), heatmap.scores.tolist(), strict=True):
        told = dict(zip(heatmap.channels, scores, strict=True))
        features.append(
            {
                "type": "Feature",
                "id": str(uuid.uuid4()),
                "geometry": mapping(shapely.box(x, y, x + wide, y + high)),
                "properties": {"objectType": "tile", "measurements": told, "isLocked": True},
            }
        )
    return json.dumps({"type": "FeatureCollection", "features": features})


def peer_contours(heatmap: Heatmap, threshold: float) -> Any:
    """The union of the boxes, each from its place to the place of the next."""
    cells = np.rint(heatmap.grid.coords_l0 / np.asarray(heatmap.grid.step_l0))
    first, last = (np.rint((cells + ahead) * heatmap.grid.step_l0) for ahead in (0, 1))
    boxes = shapely.box(first[:, 0], first[:, 1], last[:, 0], last[:, 1])
    return shapely.union_all(boxes[heatmap.column(CHANNEL) >= threshold])


def size(made: Any) -> int:
    """Bytes of an export, of all files together."""
    return sum(map(len, made.values())) if isinstance(made, dict) else len(made)


def best(action: Callable[[], Any]) -> float:
    """Seconds of the best of three."""
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


if __name__ == "__main__":
    main()
