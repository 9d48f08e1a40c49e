"""CLAM's recipe: the steps as they are published, done the slow way."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_closing, median_filter
from skimage.color import rgb2hsv
from skimage.filters import threshold_otsu

from wsi_mil.tissue import find_tissue
from wsi_mil.tissue.saturation import saturated


def picture() -> np.ndarray:
    """Pink discs and single specks on glass, with noise."""
    random = np.random.default_rng(2)
    y, x = np.mgrid[:120, :150]
    rgb = np.full((120, 150, 3), 240.0)
    rgb[(x - 60) ** 2 + (y - 60) ** 2 < 1400] = (205, 130, 180)
    rgb[(x - 120) ** 2 + (y - 30) ** 2 < 120] = (232, 215, 228)
    rgb[random.random((120, 150)) < 0.01] = (150, 60, 110)
    return np.clip(rgb + random.normal(0, 4, rgb.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("threshold", [8, 25, 0])
def test_as_published(threshold: int) -> None:
    rgb = picture()
    saturation = np.floor(rgb2hsv(rgb)[..., 1] * 255 + 1e-6).astype(np.uint8)
    median = median_filter(saturation, 7, mode="nearest")
    above = median > (threshold or threshold_otsu(median))
    want = binary_closing(np.pad(above, 4), np.ones((4, 4), bool))[4:-4, 4:-4]
    found = saturated(rgb, threshold=threshold)
    assert (found != want).mean() < 0.002
    assert 0.1 < found.mean() < 0.5


def test_it_keeps_pen_as_clam_does_and_drops_small_pieces() -> None:
    rgb = np.full((120, 150, 3), 240, np.uint8)
    rgb[20:100, 20:70] = (28, 120, 92)
    rgb[50:60, 120:130] = (205, 130, 180)
    found = find_tissue(rgb, mpp=(8.0, 8.0), method="hsv", min_area_um2=64 * 1000.0)
    assert found.mask[50, 40]
    assert not found.mask[55, 125]
    assert [step for step, _ in found.steps] == ["saturated", "pieces under 64,000 um2", "holes"]


def test_a_slide_of_one_value_has_no_tissue() -> None:
    rgb = np.full((40, 50, 3), 255, np.uint8)
    assert not find_tissue(rgb, mpp=(8.0, 8.0), method="hsv").mask.any()
    assert not find_tissue(rgb, mpp=(8.0, 8.0), method="hsv", saturation=0).mask.any()
