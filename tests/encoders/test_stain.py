"""Colour deconvolution against scikit-image's, which uses the same stains."""

from __future__ import annotations

import numpy as np
import torch
from skimage.color import rgb2hed

from wsi_mil.encoders.stain import EOSIN, HAEMATOXYLIN, optical_density, stain_amounts


def test_pure_stains_come_out_pure() -> None:
    for number, stain in enumerate((HAEMATOXYLIN, EOSIN)):
        direction = torch.tensor(stain) / torch.tensor(stain).norm()
        amounts = stain_amounts(0.7 * direction.view(1, 3, 1, 1)).flatten()
        expected = torch.zeros(3)
        expected[number] = 0.7
        torch.testing.assert_close(amounts, expected, atol=1e-5, rtol=0)


def test_white_holds_no_stain_and_black_is_finite() -> None:
    density = optical_density(torch.tensor([255.0, 0.0]).view(1, 1, 1, 2).expand(1, 3, 1, 2))
    assert density[..., 0].abs().max() == 0
    assert torch.isfinite(density).all()


def test_as_scikit_image() -> None:
    rgb = np.random.default_rng(0).integers(30, 255, (16, 16, 3), dtype=np.uint8)
    tiles = torch.from_numpy(rgb).permute(2, 0, 1)[None].float()
    ours = stain_amounts(optical_density(tiles))[0].permute(1, 2, 0).numpy()
    theirs = rgb2hed(rgb)
    # scikit-image clips at 0, and its logarithm has another base and floor.
    for stain in range(2):
        positive = theirs[..., stain] > 0.02
        assert np.corrcoef(ours[..., stain][positive], theirs[..., stain][positive])[0, 1] > 0.995
