"""Where the highest tile of each channel lies in every file of a heatmap, by readers that are not ours."""

from __future__ import annotations

import importlib.util
import io
import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

import numpy as np
import openslide
import pandas as pd
import pytest
import shapely
import tifffile
from PIL import Image

from wsi_mil.heatmaps import (
    FRAME_KEY,
    Colouring,
    Heatmap,
    colouring,
    heatmap_to_contours,
    heatmap_to_deepzoom,
    heatmap_to_tiff,
    overlay,
    top_thresholds,
)

EXPORTS = "png, geojson, contours, tiff, ome_tiff, deepzoom, deepzoom_jpeg, csv, parquet" + (
    ", h5ad" if importlib.util.find_spec("anndata") else ""
)
"""What `exported_alike` wants to find in the folder, as a study asks for it; with `heatmap.alpha=1`."""

SHOWN = 0.1
"""`heatmap.contours`: the share of the tiles that contours go round."""

Sampled = Callable[[np.ndarray], np.ndarray]
"""The colours (place 3) of a picture at places (place 2) in level-0 pixels."""


def exported_alike(folder: Path, heatmap: Heatmap, *, shown: str, scale: str) -> None:
    """Every export is there, has every channel, and its highest tile where the raw scores have it.

    `shown` is the channel of the stage's pictures and contours, and `scale` how they are coloured.
    """
    _numbers(folder, heatmap)
    _planes(folder, heatmap)
    _squares(folder, heatmap)
    stem = folder / folder.name
    files = {PurePosixPath(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    told = (stem.with_suffix(".contours.geojson").read_text(), stem.with_suffix(".tiff").read_bytes())
    _pictures(heatmap, shown, scale, *told, files, stem.with_suffix(".png").read_bytes())


def pictured_alike(heatmap: Heatmap, channels: Iterable[str]) -> None:
    """The same of the files that have room for one channel only, which the stage makes of the shown one alone."""
    for channel in channels:
        contours = heatmap_to_contours(heatmap, channel, top_thresholds(heatmap, channel, [SHOWN]))
        tiff = heatmap_to_tiff(heatmap, channel, scale="rank", px_per_tile=4)
        deepzoom = heatmap_to_deepzoom(heatmap, channel, name="A1", scale="rank", px_per_tile=4)
        _pictures(heatmap, channel, "rank", contours, tiff, deepzoom, _picture(heatmap, channel))


def _numbers(folder: Path, heatmap: Heatmap) -> None:
    """The tables: a row a tile, at its place, with its scores."""
    table = pd.read_csv(folder / f"{folder.name}.csv")
    pd.testing.assert_frame_equal(table, pd.read_parquet(folder / f"{folder.name}.parquet"), check_dtype=False)
    tables = [(table[["x_l0", "y_l0"]].to_numpy(), table[list(heatmap.channels)].to_numpy())]
    if "h5ad" in EXPORTS:
        data: Any = importlib.import_module("anndata").read_h5ad(folder / f"{folder.name}.h5ad")
        assert list(data.var_names) == list(heatmap.channels)
        tables.append((data.obsm["spatial"] - np.array(heatmap.grid.extent_l0) / 2, np.asarray(data.X)))
    for places, scores in tables:
        np.testing.assert_allclose(scores, heatmap.scores, rtol=1e-5)
        best = _best(heatmap)
        np.testing.assert_array_equal(scores[best, np.arange(len(best))], scores.max(axis=0))
        np.testing.assert_array_equal(places[best], heatmap.grid.coords_l0[best])


def _planes(folder: Path, heatmap: Heatmap) -> None:
    """The OME-TIFF: the plane of each channel, named in the XML, is highest where the tile lies."""
    with tifffile.TiffFile(folder / f"{folder.name}.ome.tiff") as tiff:
        planes = tiff.series[0].levels[0].asarray()
        found = list(ElementTree.fromstring(str(tiff.ome_metadata)).iter())
    pixels = next(one for one in found if one.tag.endswith("}Pixels"))
    names = [one.attrib["Name"] for one in found if one.tag.endswith("}Channel")]
    mpp = np.array([float(pixels.attrib[f"PhysicalSize{axis}"]) for axis in "XY"])
    columns, rows = (_middles(heatmap)[_best(heatmap)] / (mpp / heatmap.slide.mpp)).astype(int).T
    for number, channel in enumerate(heatmap.channels):
        plane = planes[names.index(channel)]
        assert plane[rows[number], columns[number]] == pytest.approx(np.nanmax(plane)), channel
        assert np.nanmax(plane) == pytest.approx(heatmap.scores[:, number].max(), rel=1e-5), channel


def _squares(folder: Path, heatmap: Heatmap) -> None:
    """QuPath's tiles: the one with the highest measurement lies on the pixels of the tile."""
    tiles = json.loads((folder / f"{folder.name}.geojson").read_text())["features"]
    assert len(tiles) == len(heatmap.grid)
    for number, channel in enumerate(heatmap.channels):
        measured = np.array([tile["properties"]["measurements"][channel] for tile in tiles])
        np.testing.assert_allclose(measured, heatmap.scores[:, number], rtol=1e-5)
        # written with six digits, so that two tiles may share the highest one
        best = int(heatmap.scores[:, number].argmax())
        assert measured[best] == measured.max()
        square = shapely.geometry.shape(tiles[best]["geometry"]).bounds
        first = heatmap.grid.coords_l0[best]
        last = np.minimum(first + np.array(heatmap.grid.extent_l0), heatmap.slide.size_l0)
        np.testing.assert_allclose(square, [*first, *last], atol=0.01)


def _pictures(
    heatmap: Heatmap,
    channel: str,
    scale: str,
    contours: str,
    tiff: bytes,
    deepzoom: dict[PurePosixPath, bytes],
    png: bytes,
) -> None:
    """Contours go round the highest tile of the channel, and every picture has its highest colour there."""
    scores = heatmap.column(channel)
    highest, middles = int(scores.argmax()), _middles(heatmap)
    pieces = [shapely.geometry.shape(one["geometry"]) for one in json.loads(contours)["features"]]
    within = shapely.contains_xy(shapely.union_all(pieces), middles)
    assert within[highest], channel
    np.testing.assert_array_equal(within, scores >= scores[within].min())
    colours = colouring(scores, scale)
    inside = (middles < heatmap.slide.size_l0).all(axis=1)
    pictures = {"TIFF": _of_tiff(tiff, heatmap), "DeepZoom": _of_deepzoom(deepzoom, "png"), "PNG": _of_png(png)}
    if any(place.suffix == ".jpeg" for place in deepzoom):
        pictures["DeepZoom JPEG"] = _of_deepzoom(deepzoom, "jpeg")
    for name, sample in pictures.items():
        found = _positions(sample(middles[inside]), colours)
        # A JPEG is right to a few of the 256 colours; the highest tile is told from all that differ by more.
        atol = 0.06 if "JPEG" in name else 0.009
        np.testing.assert_allclose(found, colours.positions[inside], atol=atol, err_msg=f"{name} {channel}")
        here = np.flatnonzero(inside).tolist().index(highest)
        assert found[here] >= found.max() - atol, f"{name} {channel}"


def _positions(rgb: np.ndarray, colours: Colouring) -> np.ndarray:
    """Back from colours to places on their map, 0 to 1: that of the nearest colour."""
    table = colours.table().astype(int)
    apart = np.abs(rgb[:, None].astype(int) - table[None]).sum(axis=2)
    return np.asarray(apart.argmin(axis=1) / (len(table) - 1))


def _of_tiff(data: bytes, heatmap: Heatmap) -> Sampled:
    """By OpenSlide, which knows of the slide nothing but the file's own micrometres per pixel."""
    with tempfile.NamedTemporaryFile(suffix=".tiff") as file:
        file.write(data)
        file.flush()
        with openslide.OpenSlide(file.name) as slide:
            mpp = np.array([float(slide.properties[f"openslide.mpp-{axis}"]) for axis in "xy"])
            rgb = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
    return _at(rgb, mpp / heatmap.slide.mpp)


def _of_deepzoom(files: dict[PurePosixPath, bytes], kind: str) -> Sampled:
    """Its finest level put together tile by tile; the descriptor's comment says how fine it is."""
    place, text = next(
        (place, data.decode())
        for place, data in files.items()
        if place.suffix == ".dzi" and f'Format="{kind}"' in data.decode()
    )
    image = ElementTree.fromstring(text)
    side, overlap = int(image.attrib["TileSize"]), int(image.attrib["Overlap"])
    width, height = (int(image[0].attrib[name]) for name in ("Width", "Height"))
    level = int(np.ceil(np.log2(max(width, height))))
    rgb = np.zeros((height, width, 3), np.uint8)
    for row in range(-(-height // side)):
        for column in range(-(-width // side)):
            data = files[PurePosixPath(f"{place.stem}_files", str(level), f"{column}_{row}.{kind}")]
            part = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
            top, left = (max(0, number * side - overlap) for number in (row, column))
            rgb[top : top + part.shape[0], left : left + part.shape[1]] = part
    by = int(text.partition("one pixel is ")[2].split()[0])
    return _at(rgb, np.array([by, by]))


def _of_png(data: bytes) -> Sampled:
    image = Image.open(io.BytesIO(data))
    frame = json.loads(image.text[FRAME_KEY])  # type: ignore[attr-defined]
    left, top = frame["left"], frame["top"]
    page = np.asarray(image.convert("RGB"))[top : top + frame["height"], left : left + frame["width"]]
    return _at(page, np.array(frame["downsample"]))


def _at(rgb: np.ndarray, per_px: np.ndarray) -> Sampled:
    def sample(places: np.ndarray) -> np.ndarray:
        columns, rows = (places / per_px).astype(int).T
        return np.asarray(rgb[rows, columns])

    return sample


def _picture(heatmap: Heatmap, channel: str) -> bytes:
    """As the stage draws it, over white in place of the slide."""
    width, height = heatmap.slide.size_l0
    shrink = max(width, height) / 400
    out = round(width / shrink), round(height / shrink)
    white = np.full((out[1], out[0], 3), 255, np.uint8)
    return overlay(white, (width / out[0], height / out[1]), heatmap, channel, scale="rank", alpha=1.0)


def _best(heatmap: Heatmap) -> np.ndarray:
    return np.asarray(heatmap.scores.argmax(axis=0))


def _middles(heatmap: Heatmap) -> np.ndarray:
    """tile xy, level-0 pixels."""
    return np.asarray(heatmap.grid.coords_l0 + np.array(heatmap.grid.extent_l0) / 2)
