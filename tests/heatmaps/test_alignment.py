"""A planted square lies on the same level-0 pixels in every export, read back by readers that are not ours.

The slide has other micrometres per pixel across than down, and steps that are no whole number of pixels. The picture
(PNG) is held to the GeoJSON in test_picture.
"""

from __future__ import annotations

import dataclasses
import io
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pandas as pd
import pytest
import shapely
import tifffile
from PIL import Image

from wsi_mil.heatmaps import (
    Heatmap,
    heatmap_to_contours,
    heatmap_to_csv,
    heatmap_to_deepzoom,
    heatmap_to_geojson,
    heatmap_to_h5ad,
    heatmap_to_ome_tiff,
    heatmap_to_parquet,
    heatmap_to_tiff,
)

SQUARE = (6000.0, 4000.0, 11_000.0, 9000.0)
"""Left, top, right and bottom of the planted lesion, level-0 pixels."""

PIXEL = np.array([1.0, 1.0])
"""Places of tiles are whole level-0 pixels, so that nothing is more exact than one."""

Found = Iterator[tuple[str, np.ndarray, np.ndarray]]
"""Name, bounds of the square in level-0 pixels, and level-0 pixels per pixel: how exact the bounds can be."""


@pytest.fixture(params=["side by side", "overlapping", "elsewhere", "sparse"])
def planted(request: pytest.FixtureRequest, make: Callable[..., Heatmap]) -> Heatmap:
    """Scores of one inside the square and of nought outside, on four kinds of grid."""
    overlap_px = 100 if request.param == "overlapping" else 0
    heatmap = make(overlap_px=overlap_px)
    grid = heatmap.grid
    if request.param == "elsewhere":
        # As bags of other programs are: the lattice starts at the tissue and not at the slide's corner.
        inside = (grid.coords_l0 + np.array([91, 133]) + grid.extent_l0 < heatmap.slide.size_l0).all(axis=1)
        grid = dataclasses.replace(grid, coords_l0=grid.coords_l0 + np.array([91, 133])).take(inside)
    if request.param == "sparse":
        grid = grid.take(np.arange(len(grid)) % 3 > 0)
    middle = grid.coords_l0 + np.array(grid.extent_l0) / 2
    high = (middle > SQUARE[:2]).all(axis=1) & (middle < SQUARE[2:]).all(axis=1)
    scores = np.stack([high, ~high], axis=1).astype(np.float32)
    return dataclasses.replace(heatmap, grid=grid, scores=scores, kinds={})


def expected(heatmap: Heatmap) -> np.ndarray:
    """Bounds of the tiles that were planted."""
    first = heatmap.grid.coords_l0[heatmap.scores[:, 0] > 0.5]
    return np.concatenate([first.min(axis=0), first.max(axis=0) + heatmap.grid.extent_l0])


def on_lattice(heatmap: Heatmap) -> bool:
    """Whether tiles fill whole pixels of the pyramids."""
    return bool(np.allclose(heatmap.grid.step_l0, heatmap.grid.extent_l0)) and heatmap.grid.coords_l0.min() == 0


def bounds(high: np.ndarray, per_px: np.ndarray) -> np.ndarray:
    """Of the true pixels, in level-0 pixels."""
    rows, columns = np.flatnonzero(high.any(axis=1)), np.flatnonzero(high.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) * np.tile(per_px, 2)


def sharpness(heatmap: Heatmap, per_px: np.ndarray, level: int) -> np.ndarray:
    """Of a pyramid whose finest level has whole pixels for each tile."""
    return PIXEL if level == 0 and on_lattice(heatmap) else per_px


def yellow(rgb: np.ndarray) -> np.ndarray:
    """The upper end of viridis; grey is none of it."""
    return rgb[..., 0].astype(int) - rgb[..., 2] > 60


def by_openslide(heatmap: Heatmap, folder: Path) -> Found:
    """The plain TIFF; its scale is all that says how it lies on the slide."""
    path = folder / "A1.tiff"
    path.write_bytes(heatmap_to_tiff(heatmap, "attention", scale="range"))
    with openslide.OpenSlide(path) as slide:
        mpp = np.array([float(slide.properties[f"openslide.mpp-{axis}"]) for axis in "xy"])
        assert slide.level_count > 1
        for level in range(slide.level_count):
            per_px = mpp / heatmap.slide.mpp * slide.level_downsamples[level]
            rgb = np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]).convert("RGB"))
            yield f"openslide, level {level}", bounds(yellow(rgb), per_px), sharpness(heatmap, per_px, level)


def by_tifffile(heatmap: Heatmap, folder: Path) -> Found:
    """The plain TIFF by its resolution tags, the OME-TIFF by its XML."""
    with tifffile.TiffFile(io.BytesIO(heatmap_to_tiff(heatmap, "attention", scale="range"))) as tiff:
        for number, page in enumerate(tiff.pages):
            cm_per_px = [page.tags[name].value[1] / page.tags[name].value[0] for name in ("XResolution", "YResolution")]
            per_px = np.array(cm_per_px) * 1e4 / heatmap.slide.mpp
            found = bounds(yellow(page.asarray()), per_px)
            yield f"tifffile, page {number}", found, sharpness(heatmap, per_px, number)
    with tifffile.TiffFile(io.BytesIO(heatmap_to_ome_tiff(heatmap))) as tiff:
        pixels = next(one for one in ElementTree.fromstring(tiff.ome_metadata).iter() if one.tag.endswith("}Pixels"))
        mpp = np.array([float(pixels.attrib[f"PhysicalSize{axis}"]) for axis in "XY"])
        assert len(tiff.series[0].levels) > 1
        for number, level in enumerate(tiff.series[0].levels):
            per_px = mpp * 2**number / heatmap.slide.mpp
            found = bounds(level.asarray()[0] > 0.75, per_px)
            yield f"OME-TIFF, level {number}", found, sharpness(heatmap, per_px, number)


def by_pil(heatmap: Heatmap, folder: Path) -> Found:
    """DeepZoom of both kinds, put together tile by tile as the descriptor says, at its five finest levels."""
    for kind in ("png", "jpeg"):
        files = heatmap_to_deepzoom(heatmap, "attention", name="A1", kind=kind, scale="range")
        image = ElementTree.fromstring(next(data for place, data in files.items() if place.suffix == ".dzi"))
        tile, overlap = int(image.attrib["TileSize"]), int(image.attrib["Overlap"])
        width, height = (int(image[0].attrib[name]) for name in ("Width", "Height"))
        finest = int(np.ceil(np.log2(max(width, height))))
        pixel = 2.0 ** round(np.log2(heatmap.slide.size_l0[0] / width))
        for level in range(finest, finest - 5, -1):
            shrink = 2 ** (finest - level)
            rgb = np.zeros((-(-height // shrink), -(-width // shrink), 3), np.uint8)
            for row in range(-(-rgb.shape[0] // tile)):
                for column in range(-(-rgb.shape[1] // tile)):
                    data = next(
                        files[place] for place in files if str(place) == f"A1_files/{level}/{column}_{row}.{kind}"
                    )
                    part = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
                    top, left = (max(0, place * tile - overlap) for place in (row, column))
                    rgb[top : top + part.shape[0], left : left + part.shape[1]] = part
            per_px = np.array([pixel * shrink] * 2)
            yield f"{kind}, level {level}", bounds(yellow(rgb), per_px), per_px


def by_shapely(heatmap: Heatmap, folder: Path) -> Found:
    """Tiles and contours for QuPath."""
    tiles = [
        shapely.geometry.shape(feature["geometry"])
        for feature in json.loads(heatmap_to_geojson(heatmap))["features"]
        if feature["properties"]["measurements"]["attention"] > 0.5
    ]
    yield "tiles", np.array(shapely.union_all(tiles).bounds), np.array([0.01, 0.01])
    pieces = json.loads(heatmap_to_contours(heatmap, "attention", [0.75]))["features"]
    whole = shapely.union_all([shapely.geometry.shape(piece["geometry"]) for piece in pieces])
    yield "contours", np.array(whole.bounds), PIXEL if on_lattice(heatmap) else np.array(heatmap.grid.step_l0) / 4


def by_pandas(heatmap: Heatmap, folder: Path) -> Found:
    """The tables."""
    tables = {
        "csv": pd.read_csv(io.BytesIO(heatmap_to_csv(heatmap))),
        "parquet": pd.read_parquet(io.BytesIO(heatmap_to_parquet(heatmap))),
    }
    for name, table in tables.items():
        high = table[table["attention"] > 0.5]
        right, bottom = (high["x_l0"] + high["width_l0"]).max(), (high["y_l0"] + high["height_l0"]).max()
        yield name, np.array([high["x_l0"].min(), high["y_l0"].min(), right, bottom]), np.array([0.01, 0.01])


def by_anndata(heatmap: Heatmap, folder: Path) -> Found:
    """The middles, as squidpy takes them."""
    anndata = pytest.importorskip("anndata")
    path = folder / "A1.h5ad"
    path.write_bytes(heatmap_to_h5ad(heatmap))
    data: Any = anndata.read_h5ad(path)
    middle = data.obsm["spatial"][np.asarray(data[:, "attention"].X).ravel() > 0.5]
    half = np.array(heatmap.grid.extent_l0) / 2
    yield "h5ad", np.concatenate([middle.min(axis=0) - half, middle.max(axis=0) + half]), np.array([0.01, 0.01])


@pytest.mark.parametrize("read", [by_openslide, by_tifffile, by_pil, by_shapely, by_pandas, by_anndata])
def test_the_planted_square_lies_where_its_tiles_are(
    read: Callable[[Heatmap, Path], Found], planted: Heatmap, tmp_path: Path
) -> None:
    # Where tiles overlap, the outermost share of high tiles is a mean with low ones.
    reach = np.array(planted.grid.extent_l0) - planted.grid.step_l0
    names = []
    for name, found, per_px in read(planted, tmp_path):
        np.testing.assert_array_less(np.abs(found - expected(planted)), np.tile(1.01 * per_px + reach, 2), name)
        names.append(name)
    assert names
