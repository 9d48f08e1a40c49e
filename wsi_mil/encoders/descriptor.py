"""A tile as a few hundred numbers of colour, texture and nuclei, the same however the tile is flipped or turned.

The pixels are averaged down to at most WORK_PX a side. What is measured there:

    colour      moments and quantiles of red, green, blue, haematoxylin, eosin, residual, density, chroma; correlations
    texture     first and second Gaussian derivatives of haematoxylin, eosin and density on four octaves: strength,
                spread, blobs, ridges, how strongly they share a direction; within and across octaves and stains
    patterns    rotation-invariant local binary patterns of red and green on two octaves; autocorrelation
    nuclei      share, contrast, boundary and colour of what takes haematoxylin; blobs of three sizes; patchiness
    sharpness   differences of neighbouring pixels at the full resolution of the tile

A flip or a quarter turn swaps or negates derivatives. Only sums that do not notice enter: squares, products that keep
their sign, and moduli of the second and fourth angular harmonic.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional

from wsi_mil.encoders import measures
from wsi_mil.encoders.measures import Map, Measure
from wsi_mil.encoders.stain import optical_density, stain_amounts

WORK_PX = 128
"""Largest side on which textures are measured; at 0.5 mpp and 256 px a nucleus is then 6 to 12 pixels wide."""

OCTAVES = 4
QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
DISTANCES_PX = (1, 2, 4, 8)
QUANTILE_PX = 64
COLOURS = ("red", "green", "blue", "haematoxylin", "eosin", "residual", "density", "chroma")
STAINS = ("haematoxylin", "eosin", "density")

TISSUE_DENSITY = 0.06
"""Optical density at which a pixel counts half as tissue."""

Columns = list[tuple[str, Tensor]]
"""Name and values [tile] of each number."""


def describe(tiles: UInt8[Tensor, "tile size size 3"]) -> Columns:
    """All numbers of each tile, not scaled, in a fixed order."""
    full = tiles.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    side = working_px(tiles.shape[1])
    rgb = full if side == full.shape[-1] else measures.pooled(full, side)
    density = optical_density(rgb)
    amounts = stain_amounts(density)
    grey = density.mean(dim=1, keepdim=True)
    chroma = density.amax(dim=1, keepdim=True) - density.amin(dim=1, keepdim=True)
    colours = torch.cat([rgb / 255, amounts, grey, chroma], dim=1)
    stains = torch.cat([amounts[:, :2], grey], dim=1)
    return [
        *_colour(colours),
        *_texture(stains),
        *_patterns(rgb, stains),
        *_nuclei(colours),
        *_sharpness(full),
    ]


def working_px(size_px: int) -> int:
    """Side of the square on which a tile of `size_px` is measured."""
    return math.ceil(size_px / math.ceil(size_px / WORK_PX))


def _columns(group: str, channels: tuple[str, ...], **values: Measure) -> Columns:
    """Name each channel of each measure."""
    return [
        (f"{group}/{channel}/{name}", measure[:, number])
        for name, measure in values.items()
        for number, channel in enumerate(channels)
    ]


def _colour(colours: Map) -> Columns:
    average, deviation, skew, tails = measures.moments(colours)
    columns = _columns("colour", COLOURS, mean=average, sd=deviation, skew=skew, tails=tails)
    side = min(QUANTILE_PX, colours.shape[-1])
    small = measures.pooled(colours, side)
    named = dict(zip((f"q{share:g}" for share in QUANTILES), measures.quantiles(small, QUANTILES), strict=True))
    columns += _columns("colour", COLOURS, **named)
    pairs = [(a, b) for a in range(6) for b in range(a)]
    firsts, seconds = small[:, [a for a, _ in pairs]], small[:, [b for _, b in pairs]]
    names = tuple(f"{COLOURS[a]}-{COLOURS[b]}" for a, b in pairs)
    return columns + _columns("colour", names, correlation=measures.correlation(firsts, seconds))


def _texture(stains: Map) -> Columns:
    columns: Columns = []
    finer: Map | None = None
    values = stains
    for octave in range(OCTAVES):
        smooth = _smooth(values)
        x, y, xx, xy, yy = _derivatives(smooth)
        edges = (x.square() + y.square() + 1e-8).sqrt()
        blobs = xx + yy
        group = f"octave{octave}"
        columns += _columns(group, STAINS, **_first_order(x, y, edges), **_second_order(blobs, xx - yy, 2 * xy))
        columns += _columns(group, STAINS, band=measures.spread(values - smooth), whole=measures.spread(values))
        columns += _pairs(group, smooth[..., 1:-1, 1:-1], edges, blobs)
        if finer is not None:
            pooled = measures.pooled(finer, edges.shape[-1])
            columns += _columns(group, STAINS, finer=measures.correlation(pooled, edges))
        finer, values = edges, _halved(smooth)
    return columns


def _first_order(x: Map, y: Map, edges: Map) -> dict[str, Measure]:
    squares = edges.square()
    along, across = x.square() - y.square(), 2 * x * y
    energy = measures.mean(squares)
    direction = torch.hypot(measures.mean(along), measures.mean(across))
    fourth = torch.hypot(measures.mean(along.square() - across.square()), measures.mean(2 * along * across))
    return {
        "edges": measures.mean(edges),
        "edges_sd": measures.spread(edges),
        "edges_patchy": measures.patchiness(edges, 4),
        "direction": direction / (energy + measures.FLAT),
        "lattice": fourth / (measures.mean(squares.square()) + measures.FLAT**2).clamp_min(1e-9),
    }


def _second_order(blobs: Map, stretch: Map, shear: Map) -> dict[str, Measure]:
    """Of the second derivatives: their trace, and the two components that turn with twice the angle."""
    ridges = (stretch.square() + shear.square() + 1e-8).sqrt()
    second = torch.hypot(measures.mean(blobs * stretch), measures.mean(blobs * shear))
    fourth = torch.hypot(measures.mean(stretch.square() - shear.square()), measures.mean(2 * stretch * shear))
    energy = measures.mean(ridges.square()) + measures.FLAT
    _, deviation, skew, tails = measures.moments(blobs)
    return {
        "blobs_sd": deviation,
        "blobs_skew": skew,
        "blobs_tails": tails,
        "blobs_dark": measures.mean((-blobs).clamp_min(0)),
        "ridges": measures.mean(ridges),
        "ridges_sd": measures.spread(ridges),
        "lines_dark": measures.mean(((ridges - blobs) / 2).clamp_min(0)),
        "saddles": measures.mean((ridges - blobs.abs()).clamp_min(0)),
        "ridges_direction": second / energy,
        "ridges_lattice": fourth / energy,
    }


def _pairs(group: str, smooth: Map, edges: Map, blobs: Map) -> Columns:
    """How the stains go together: haematoxylin with eosin, at one octave."""
    maps = torch.cat([smooth[:, :2], edges[:, :2], blobs[:, :2], edges[:, :1], blobs[:, :1]], dim=1)
    firsts, seconds = maps[:, [0, 2, 4, 6, 7]], torch.cat([maps[:, [1, 3, 5]], smooth[:, :1], smooth[:, :1]], dim=1)
    names = ("stains", "stain-edges", "stain-blobs", "edges-on-haematoxylin", "blobs-on-haematoxylin")
    return _columns(group, names, correlation=measures.correlation(firsts, seconds))


def _patterns(rgb: Map, stains: Map) -> Columns:
    columns: Columns = []
    values = rgb[:, :2]
    for octave in range(2):
        shares = measures.binary_patterns(values, margin=3)
        named = {f"pattern{number}": share for number, share in enumerate(shares)}
        columns += _columns(f"octave{octave}", ("red", "green"), **named)
        values = _halved(values)
    found = measures.autocorrelation(stains, DISTANCES_PX)
    for distance, (straight, diagonal) in zip(DISTANCES_PX, found, strict=True):
        columns += _columns(f"distance{distance}", STAINS, straight=straight, diagonal=diagonal)
    return columns


def _nuclei(colours: Map) -> Columns:
    stain, grey = colours[:, 3:4], colours[:, 6:7]
    tissue = torch.sigmoid((grey - TISSUE_DENSITY) / 0.015)
    average, deviation = measures.weighted(stain, tissue)
    # Nuclei stand out from their own tile, whatever the strength of its stain.
    threshold = (average + 0.7 * deviation)[..., None, None]
    nuclei = tissue * torch.sigmoid((stain - threshold) / (0.2 * deviation[..., None, None] + 0.01))
    rest = tissue - nuclei
    inside, inside_sd = measures.weighted(colours, nuclei)
    outside, outside_sd = measures.weighted(colours, rest)
    x, y, *_ = _derivatives(nuclei)
    boundary = measures.mean((x.square() + y.square() + 1e-8).sqrt())
    share = measures.mean(nuclei)
    columns = _columns("nuclei", COLOURS, inside=inside, inside_sd=inside_sd, outside=outside, outside_sd=outside_sd)
    columns += _columns("nuclei", ("all",), share=share, boundary=boundary, roundness=boundary / (share + 0.02))
    columns += _columns("tissue", ("all",), share=measures.mean(tissue), patchy=measures.patchiness(tissue, 4))
    return columns + _layout(torch.cat([stain, colours[:, 4:7], nuclei], dim=1)) + _blob_counts(stain)


def _layout(maps: Map) -> Columns:
    """How much of the tile each stain takes, and how unevenly it lies in it."""
    small = _halved(maps)
    levels = {f"above{level:g}": torch.sigmoid((small[:, :3] - level) / 0.03) for level in (0.1, 0.2, 0.35, 0.5)}
    columns = _columns("stain", COLOURS[3:6], **{name: measures.mean(mask) for name, mask in levels.items()})
    names = ("haematoxylin", "eosin", "density", "nuclei")
    patchy = {f"patchy{blocks}": measures.patchiness(small[:, [0, 1, 3, 4]], blocks) for blocks in (2, 4, 8)}
    return columns + _columns("layout", names, **patchy)


def _blob_counts(stain: Map) -> Columns:
    columns: Columns = []
    values = stain
    for octave in range(3):
        smooth = _smooth(_smooth(values))
        _, _, xx, _, yy = _derivatives(smooth)
        number, height, deviation = measures.peaks((-(xx + yy)).clamp_min(0), softness=0.01)
        columns += _columns(f"octave{octave}", ("peaks",), number=number, height=height, height_sd=deviation)
        values = _halved(values)
    return columns


def _sharpness(full: Map) -> Columns:
    down, right = full[:, :, 1:] - full[:, :, :-1], full[..., 1:] - full[..., :-1]
    squares = ((measures.mean(down * down) + measures.mean(right * right)) / 2).sqrt()
    steps = (measures.mean(down.abs_()) + measures.mean(right.abs_())) / 2
    return _columns("sharpness", ("red", "green", "blue"), steps=steps / 255, squares=squares / 255)


def _smooth(values: Map) -> Map:
    """Binomial filter of five taps on both axes (sd one pixel), mirrored at the edge."""
    padded = functional.pad(values, (2, 2, 2, 2), mode="reflect")
    columns = _five_taps(padded[..., :-4], padded[..., 1:-3], padded[..., 2:-2], padded[..., 3:-1], padded[..., 4:])
    rows = columns
    return _five_taps(rows[:, :, :-4], rows[:, :, 1:-3], rows[:, :, 2:-2], rows[:, :, 3:-1], rows[:, :, 4:])


def _five_taps(a: Map, b: Map, c: Map, d: Map, e: Map) -> Map:
    return ((a + e) + 4 * (b + d) + 6 * c) / 16


def _derivatives(values: Map) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """First and second central differences: x, y, xx, xy, yy, one pixel smaller on each side."""
    middle, left, right = values[..., 1:-1, 1:-1], values[..., 1:-1, :-2], values[..., 1:-1, 2:]
    up, down = values[..., :-2, 1:-1], values[..., 2:, 1:-1]
    corners = (values[..., 2:, 2:] + values[..., :-2, :-2]) - (values[..., 2:, :-2] + values[..., :-2, 2:])
    return (right - left) / 2, (down - up) / 2, left + right - 2 * middle, corners / 4, up + down - 2 * middle


def _halved(values: Map) -> Map:
    """Half the size by averaging; an odd side is rounded up, evenly from both ends."""
    return measures.pooled(values, (values.shape[-1] + 1) // 2)
