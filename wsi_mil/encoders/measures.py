"""Numbers that sum up a map of a tile, none of which notices a flip or a quarter turn.

Every measure keeps the axes (tile, channel) and sums over the pixels. A map is [tile channel height width].
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Map = Float[Tensor, "tile channel _ _"]
Measure = Float[Tensor, "tile channel"]

FLAT = 1e-6
"""Variance below which a map is flat: keeps roots and quotients quiet on background."""


def mean(values: Map) -> Measure:
    """Mean over the pixels."""
    return values.mean(dim=(2, 3))


def spread(values: Map) -> Measure:
    """Standard deviation over the pixels."""
    return (values - mean(values)[..., None, None]).square().mean(dim=(2, 3)).add(FLAT).sqrt()


def moments(values: Map) -> list[Measure]:
    """Mean, standard deviation, signed cube root of the third and fourth root of the fourth central moment."""
    middle = mean(values)
    rest = values - middle[..., None, None]
    squares = rest.square()
    third = (squares * rest).mean(dim=(2, 3))
    # A cube root is infinitely steep at 0, where rounding noise would grow; the added term tames it there.
    skew = third / (third.abs() + FLAT).pow(2 / 3)
    fourth = squares.square().mean(dim=(2, 3))
    return [middle, squares.mean(dim=(2, 3)).add(FLAT).sqrt(), skew, (fourth + FLAT**2).pow(0.25)]


def correlation(one: Map, other: Map) -> Measure:
    """Correlation over the pixels, pulled to 0 where either map is nearly flat."""
    a = one - mean(one)[..., None, None]
    b = other - mean(other)[..., None, None]
    variances = a.square().mean(dim=(2, 3)) * b.square().mean(dim=(2, 3))
    return (a * b).mean(dim=(2, 3)) / (variances + FLAT**1.5).sqrt()


def weighted(values: Map, weights: Float[Tensor, "tile 1 height width"]) -> list[Measure]:
    """Mean and standard deviation over the pixels, each counting as much as its weight."""
    flat = values.flatten(start_dim=2)
    shares = weights.flatten(start_dim=2).transpose(1, 2)
    total = shares.sum(dim=1) + 1.0
    middle = (flat @ shares)[..., 0] / total
    rest = (flat - middle[..., None]).square_()
    return [middle, ((rest @ shares)[..., 0] / total + FLAT).sqrt()]


def quantiles(values: Map, shares: tuple[float, ...]) -> list[Measure]:
    """The values below which these shares of the pixels lie."""
    flat = values.flatten(start_dim=2)
    if flat.device.type == "cpu":
        # Eight times as fast as torch's sort on a CPU.
        ordered = torch.from_numpy(np.sort(flat.numpy(), axis=-1))
    else:
        ordered = flat.sort(dim=-1).values
    last = ordered.shape[-1] - 1
    return [ordered[..., round(share * last)] for share in shares]


def autocorrelation(values: Map, distances: tuple[int, ...]) -> list[tuple[Measure, Measure]]:
    """How alike pixels are at each distance: along the axes (both averaged), and along the diagonals."""
    rest = values - mean(values)[..., None, None]
    variance = rest.square().mean(dim=(2, 3)) + FLAT
    found = []
    for d in distances:
        right = mean(rest[..., d:] * rest[..., :-d])
        down = mean(rest[:, :, d:] * rest[:, :, :-d])
        falling = mean(rest[:, :, d:, d:] * rest[:, :, :-d, :-d])
        rising = mean(rest[:, :, d:, :-d] * rest[:, :, :-d, d:])
        found.append(((right + down) / (2 * variance), (falling + rising) / (2 * variance)))
    return found


def patchiness(values: Map, blocks: int) -> Measure:
    """Standard deviation between the means of `blocks` by `blocks` parts of the tile."""
    return spread(pooled(values, blocks))


def pooled(values: Map, side: int) -> Map:
    """The map averaged down to `side` by `side`, each pixel over its share of the map, alike from every corner."""
    height, width = values.shape[2:]
    if height == width == 2 * side:
        # Three times as fast as the general way, and most maps are halved.
        rows = values[:, :, 0::2] + values[:, :, 1::2]
        return (rows[..., 0::2] + rows[..., 1::2]) / 4
    return functional.adaptive_avg_pool2d(values, side)


def binary_patterns(values: Map, margin: int) -> list[Measure]:
    """Share of pixels in each of ten classes of neighbourhoods, for a map of 0 to 255.

    Ojala et al., IEEE PAMI 2002, 24:971: of the eight neighbours around a pixel, those brighter than it by more than a
    margin are counted where they are adjacent (0 to 8), and all others share the last class.
    """
    # Bytes compare four times as fast as floats. Means of bytes are often halves, which rounding noise would send up or
    # down; the cut lies beside them.
    whole = (values + 0.53).floor().clamp(max=255 - margin).to(torch.uint8)
    height, width = values.shape[2:]
    centre = whole[..., 1:-1, 1:-1] + margin
    ring = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]
    above = [(whole[..., y : y + height - 2, x : x + width - 2] > centre).view(torch.uint8) for y, x in ring]
    count = torch.zeros_like(centre)
    turns = torch.zeros_like(centre)
    for index, bit in enumerate(above):
        count += bit
        turns += bit ^ above[index - 1]
    classes = torch.where(turns <= 2, count, 9).flatten(start_dim=2)
    rows = torch.arange(len(classes) * classes.shape[1], device=values.device).view(*classes.shape[:2], 1) * 10
    counts = torch.bincount((classes + rows).flatten(), minlength=10 * rows.numel())
    shares = counts.view(*classes.shape[:2], 10).float() / classes.shape[2]
    return list(shares.unbind(dim=2))


def peaks(values: Map, softness: float) -> list[Measure]:
    """Local maxima of a map that is nowhere negative: number per 100 pixels, and mean and sd of their heights.

    A pixel counts in full where it is the largest of its 3 x 3 neighbourhood and fades as it falls below it, so that
    equal neighbours and rounding change nothing.
    """
    top = functional.max_pool2d(values, kernel_size=3, stride=1, padding=1)
    weight = torch.exp((values - top) / softness) * values / (values + 2 * softness)
    total = weight.sum(dim=(2, 3))
    height = (weight * values).sum(dim=(2, 3)) / (total + 1)
    square = (weight * values.square()).sum(dim=(2, 3)) / (total + 1)
    deviation = (square - height.square()).clamp_min(0).add(FLAT).sqrt()
    return [total * (100 / (values.shape[2] * values.shape[3])), height, deviation]
