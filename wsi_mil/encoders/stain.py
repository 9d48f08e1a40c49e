"""Colours of a stained slide taken apart into haematoxylin, eosin and the rest.

Light through a stain weakens by Beer and Lambert's law, so optical densities of stains add up:

    -log10(I / I0) = H * haematoxylin + E * eosin + D * residual

The three directions are those that Ruifrok & Johnston (Anal Quant Cytol Histol 2001, 23:291) measured; the matrix is
inverted to give the amounts.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

HAEMATOXYLIN = (0.650, 0.704, 0.286)
EOSIN = (0.072, 0.990, 0.105)
RESIDUAL = (0.268, 0.570, 0.776)
"""Optical density in red, green and blue of each stain; the residual is DAB's direction, here what is neither."""

DARKEST = 1.0
"""Grey levels added before the logarithm, so that black stays finite (optical density at most 2.4)."""


def unmixing() -> tuple[tuple[float, ...], ...]:
    """The matrix from optical densities (r, g, b) to amounts (H, E, residual)."""
    stains = np.array([HAEMATOXYLIN, EOSIN, RESIDUAL], dtype=np.float64)
    stains /= np.linalg.norm(stains, axis=1, keepdims=True)
    return tuple(tuple(float(value) for value in row) for row in np.linalg.inv(stains).T)


def optical_density(rgb: Float32[Tensor, "tile 3 height width"]) -> Float32[Tensor, "tile 3 height width"]:
    """Optical density of RGB values of 0 to 255, against a white of 255."""
    return torch.log10((255.0 + DARKEST) / (rgb + DARKEST))


def stain_amounts(density: Float32[Tensor, "tile 3 height width"]) -> Float32[Tensor, "tile 3 height width"]:
    """Amounts of haematoxylin, eosin and residual in each pixel; a little negative where the colour is none."""
    red, green, blue = density.unbind(dim=1)
    # Written out rather than as a matrix product: the same pixel gives the same bits wherever it lies in the tile.
    amounts = [of_red * red + of_green * green + of_blue * blue for of_red, of_green, of_blue in unmixing()]
    return torch.stack(amounts, dim=1)
