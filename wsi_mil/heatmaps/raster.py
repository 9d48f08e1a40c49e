"""Tiles painted over a picture of their slide, each at its exact place, to fractions of a pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64, UInt8

from wsi_mil.heatmaps.colours import COLOURS, Colouring


def paint(
    rgb: UInt8[np.ndarray, "h w 3"],
    coords_px: Float[np.ndarray, "tile 2"],
    extent_px: tuple[float, float],
    colours: Colouring,
    *,
    alpha: float,
) -> UInt8[np.ndarray, "h w 3"]:
    """The picture with its tiles coloured; places and extent in its own pixels, where pixel i reaches from i to i + 1.

    A pixel that a tile covers in part takes its colour in part; where tiles overlap, their positions on the colour map
    are averaged. Tiles without a score are left as they are.
    """
    known = np.isfinite(colours.positions)
    cover, mean = splat(coords_px[known], extent_px, colours.positions[known], rgb.shape[:2])
    index = np.rint(mean * (COLOURS - 1)).astype(np.int64)
    opacity = (alpha * np.minimum(cover, 1))[..., None]
    painted = rgb * (1 - opacity) + colours.table()[index] * opacity
    return np.asarray(np.rint(painted), dtype=np.uint8)


def muted(rgb: UInt8[np.ndarray, "h w 3"], *, share: float = 0.75) -> UInt8[np.ndarray, "h w 3"]:
    """The picture with most of its colour taken out, so that the colours over it are not mistaken for stain."""
    grey = rgb @ np.array([0.299, 0.587, 0.114])
    return np.asarray(np.rint(rgb * (1 - share) + grey[..., None] * share), dtype=np.uint8)


def splat(
    coords_px: Float[np.ndarray, "tile 2"],
    extent_px: tuple[float, float],
    positions: Float32[np.ndarray, "tile"],
    shape: tuple[int, int],
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    """How much of each pixel is covered by tiles, and their mean position, weighted by what each covers.

    A tile covers a pixel by the product of a column share and a row share, so that the sum over tiles is a product of
    two sparse matrices.
    """
    columns = _shares(coords_px[:, 0], extent_px[0], shape[1])
    rows = _shares(coords_px[:, 1], extent_px[1], shape[0])
    cover = (rows.T @ columns).toarray()
    total = (rows.T @ columns.multiply(positions[:, None]).tocsr()).toarray()
    return cover, np.divide(total, cover, out=np.zeros_like(total), where=cover > 0)


def _shares(starts: Float[np.ndarray, "tile"], extent: float, size: int) -> Any:
    """Sparse [tile, pixel]: how much of each pixel of one axis lies between a tile's start and its end."""
    from scipy.sparse import csr_array

    reach = int(np.ceil(extent)) + 1
    pixels: Int64[np.ndarray, "tile reach"] = np.floor(starts).astype(np.int64)[:, None] + np.arange(reach)
    ends = (starts + extent)[:, None]
    share = np.minimum(ends, pixels + 1) - np.maximum(starts[:, None], pixels)
    keep: Bool[np.ndarray, "tile reach"] = (share > 1e-9) & (pixels >= 0) & (pixels < size)
    tiles = np.repeat(np.arange(len(starts)), keep.sum(axis=1))
    return csr_array((share[keep], (tiles, pixels[keep])), shape=(len(starts), size))
