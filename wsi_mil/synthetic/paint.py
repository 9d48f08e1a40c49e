"""A scene as pixels: stains laid on in optical density, then light sent through them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8
from PIL import Image, ImageDraw
from shapely import get_parts
from shapely.geometry.base import BaseGeometry

from wsi_mil.synthetic.nuclei import Grain
from wsi_mil.synthetic.scene import Rng, Scene


@dataclass(frozen=True)
class Site:
    """How one laboratory's slides look: optical density per unit of each stain in R, G, B, and its empty glass."""

    name: str
    haematoxylin: tuple[float, float, float]
    eosin: tuple[float, float, float]
    glass: tuple[float, float, float]


SITES = (
    Site("north", (0.62, 0.70, 0.30), (0.07, 0.52, 0.22), (243.0, 243.0, 244.0)),
    Site("south", (0.52, 0.80, 0.34), (0.13, 0.60, 0.38), (247.0, 243.0, 241.0)),
)


SPACING_PX = 26.0
"""Between nuclei of normal tissue; those of a lesion, having four times their area, lie wider."""

GLAND_SPACING_PX = 330.0

HALF = 127
"""Of a pixel's cover, above which it counts as covered."""

STRIP_PX = 128
"""Rows painted at once: a few MB, which stay in the processor's cache."""


@dataclass(frozen=True)
class _Layers:
    """What lies where on a slide; covers are 0 to 255 with a soft edge."""

    tissue: UInt8[np.ndarray, "h w"]
    lesion: UInt8[np.ndarray, "h w"]
    fold: UInt8[np.ndarray, "h w"]
    dust: UInt8[np.ndarray, "h w"]
    inks: Sequence[tuple[UInt8[np.ndarray, "h w"], tuple[int, int, int]]]
    lumen: Bool[np.ndarray, "h w"]
    nuclei: Float32[np.ndarray, "h w"]
    clouds: Float32[np.ndarray, "h w"]
    fibres: Float32[np.ndarray, "side side"]
    noise: Float32[np.ndarray, "side side"]
    strength: tuple[float, float]
    """How strongly this slide took haematoxylin and eosin."""


def paint(scene: Scene, site: Site, grain: Grain, rng: Rng) -> UInt8[np.ndarray, "h w 3"]:
    """The slide's level 0."""
    width, height = scene.size
    covers = [_cover(areas, scene.size) for areas in ([scene.tissue], scene.lesions, scene.patches, scene.folds)]
    tissue, lesion, patch, fold = (cover > HALF for cover in covers)
    nuclei, lumen = _nuclei(scene.size, tissue, lesion, patch, grain=grain, rng=rng)
    layers = _Layers(
        tissue=covers[0],
        lesion=covers[1],
        fold=covers[3],
        dust=_cover(scene.dust, scene.size),
        inks=[(_cover([area], scene.size), colour) for area, colour in scene.pens],
        lumen=lumen,
        nuclei=nuclei,
        clouds=_clouds(scene.size, rng),
        fibres=_rolled(grain.fibres, rng),
        noise=_rolled(grain.noise, rng),
        # Stain varies between slides of one laboratory far more than a lesion changes the slide's mean.
        strength=(float(rng.uniform(0.8, 1.2)), float(rng.uniform(0.8, 1.2))),
    )
    gain = np.ones(3, np.float32)
    if lesion.any():
        sparse = np.s_[::3], np.s_[::3]
        light = _through_stains(layers, site, *sparse)
        usual = (tissue & ~lesion & ~patch & ~fold)[sparse]
        gain = light[:, usual].mean(axis=1) / light[:, lesion[sparse]].mean(axis=1)
    picture = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, STRIP_PX):
        rows = slice(top, min(top + STRIP_PX, height))
        picture[rows] = _strip(layers, site, gain, rows)
    return picture


def _through_stains(layers: _Layers, site: Site, rows: slice, columns: slice) -> Float32[np.ndarray, "3 h w"]:
    """Share of the light of each channel that stained tissue lets pass, by Beer's law."""
    at = rows, columns
    rough = layers.lesion[at] * np.float32(1 / 255)
    depth = layers.tissue[at] * np.float32(1 / 255) * (1 + layers.fold[at] * np.float32(0.9 / 255))
    depth *= np.where(layers.lumen[at], np.float32(0.08), np.float32(1))
    fibres = _sheet(layers.fibres, layers.tissue.shape, rows, columns)
    eosin = 0.60 + np.float32(0.10) * layers.clouds[at] + np.float32(0.09) * fibres * (1 - np.float32(0.6) * rough)
    eosin = np.maximum(eosin, np.float32(0.1)) * depth * layers.strength[1]
    haematoxylin = (layers.nuclei[at] + np.float32(0.10)) * depth * layers.strength[0]
    densities = [site.haematoxylin[c] * haematoxylin + site.eosin[c] * eosin for c in range(3)]
    return np.exp(np.float32(-math.log(10)) * np.stack(densities))


def _strip(layers: _Layers, site: Site, gain: Float32[np.ndarray, "3"], rows: slice) -> UInt8[np.ndarray, "h w 3"]:
    """Some rows of the picture: stains, the lesion's mean colour set to its surroundings', then ink, dust, noise."""
    columns = slice(None)
    light = _through_stains(layers, site, rows, columns)
    light *= 1 + (gain[:, None, None] - 1) * (layers.lesion[rows] * np.float32(1 / 255))
    for cover, colour in layers.inks:
        absorbed = 0.95 * (1 - np.asarray(colour, np.float32) / 255)
        light *= 1 - absorbed[:, None, None] * (cover[rows] * np.float32(1 / 255))
    light *= 1 - layers.dust[rows] * np.float32(0.35 / 255)
    light *= np.asarray(site.glass, np.float32)[:, None, None]
    light += _sheet(layers.noise, layers.tissue.shape, rows, columns) + np.float32(0.5)
    return np.moveaxis(np.clip(light, 0, 255, out=light).astype(np.uint8), 0, 2)


def _cover(areas: Sequence[BaseGeometry], size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """How much of each pixel lies in one of some areas, 0 to 255: drawn at half size, so that edges come out soft."""
    width, height = size
    if not areas:
        return np.zeros((height, width), np.uint8)
    picture = Image.new("L", ((width + 1) // 2, (height + 1) // 2))
    draw = ImageDraw.Draw(picture)
    for polygon in (part for area in areas for part in get_parts(area) if part.area > 0):
        for fill, ring in [(255, polygon.exterior), *((0, hole) for hole in polygon.interiors)]:
            draw.polygon([(x / 2, y / 2) for x, y, *_ in ring.coords], fill=fill)
    whole = (0, 0, width / 2, height / 2)
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR, box=whole))


def _clouds(size: tuple[int, int], rng: Rng) -> Float32[np.ndarray, "h w"]:
    """Slow waves of mean 0 and deviation about 1."""
    coarse = rng.normal(size=(size[1] // 400 + 4, size[0] // 400 + 4)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))


def _rolled(sheet: Float32[np.ndarray, "side side"], rng: Rng) -> Float32[np.ndarray, "side side"]:
    """A sheet that tiles, begun at a random place."""
    y, x = (int(value) for value in rng.integers(0, len(sheet), 2))
    return np.roll(sheet, (y, x), (0, 1))


def _sheet(
    sheet: Float32[np.ndarray, "side side"], shape: tuple[int, ...], rows: slice, columns: slice
) -> Float32[np.ndarray, "h w"]:
    """Part of a plane paved with a sheet."""
    y = np.arange(shape[0])[rows] % len(sheet)
    x = np.arange(shape[1])[columns] % len(sheet)
    return sheet[y].take(x, axis=1)


def _nuclei(
    size: tuple[int, int],
    tissue: Bool[np.ndarray, "h w"],
    lesion: Bool[np.ndarray, "h w"],
    patch: Bool[np.ndarray, "h w"],
    *,
    grain: Grain,
    rng: Rng,
) -> tuple[Float32[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Haematoxylin of all nuclei, and the lumens of glands."""
    field = np.zeros((size[1], size[0]), np.float32)
    usual = tissue & ~lesion
    centres = _among(_scattered(size, GLAND_SPACING_PX, 0.35, rng), usual & ~patch)
    radii = rng.uniform(16, 34, len(centres))
    picture = Image.new("L", size)
    draw = ImageDraw.Draw(picture)
    rings = [np.empty((0, 2), np.int64)]
    for (x, y), radius in zip(centres.tolist(), radii.tolist(), strict=True):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)
        angle = np.arange(0, 2 * np.pi, 11 / (radius + 9))
        rings.append(np.rint([x, y] + (radius + 9) * np.stack([np.cos(angle), np.sin(angle)], 1)).astype(np.int64))
    lumen = (np.asarray(picture) > 0) & usual
    _stamp(field, grain.normal, _among(np.concatenate(rings), usual), rng)
    _stamp(field, grain.normal, _among(_scattered(size, SPACING_PX, 0.45, rng), usual & ~lumen), rng)
    _stamp(field, grain.small, _among(_scattered(size, 13.0, 0.35, rng), patch & usual & ~lumen), rng)
    _stamp(field, grain.large, _among(_scattered(size, 1.45 * SPACING_PX, 0.5, rng), lesion), rng)
    return field, lumen


def _scattered(size: tuple[int, int], spacing: float, jitter: float, rng: Rng) -> Int64[np.ndarray, "place 2"]:
    """Places (x, y) all over a slide, on a grid of some spacing but each moved by up to a part of it."""
    y, x = np.mgrid[spacing / 2 : size[1] : spacing, spacing / 2 : size[0] : spacing]
    places = np.stack([x.ravel(), y.ravel()], axis=1)
    return np.rint(places + rng.uniform(-jitter, jitter, places.shape) * spacing).astype(np.int64)


def _among(places: Int64[np.ndarray, "place 2"], area: Bool[np.ndarray, "h w"]) -> Int64[np.ndarray, "some 2"]:
    height, width = area.shape
    x, y = places.T
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    inside[inside] = area[y[inside], x[inside]]
    return places[inside]


def _stamp(
    field: Float32[np.ndarray, "h w"], stamps: Sequence[np.ndarray], places: Int64[np.ndarray, "place 2"], rng: Rng
) -> None:
    """Print a random stamp at each place; tissue lies far enough from the edge for every stamp to fit."""
    picks = rng.integers(0, len(stamps), len(places)).tolist()
    for (x, y), pick in zip(places.tolist(), picks, strict=True):
        stamp = stamps[pick]
        reach = len(stamp) // 2
        window = field[y - reach : y + reach + 1, x - reach : x + reach + 1]
        np.maximum(window, stamp, out=window)
