"""Stain normalisation: against torchstain where it is there, and on stains that are known; augmentation."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from wsi_mil.encoders import StainMap, draw_jitter, fit_macenko
from wsi_mil.encoders.macenko import REFERENCE, REFERENCE_MOST, WHITE
from wsi_mil.errors import EncoderError

OTHER = np.array([[0.65, 0.10], [0.70, 0.93], [0.29, 0.35]])
"""Haematoxylin and eosin of another laboratory, as columns."""


def painted(stains: np.ndarray, *, strength: tuple[float, float] = (1.0, 1.0), seed: int = 0) -> np.ndarray:
    """64 x 64 pixels of tissue in these stains: everywhere eosin, in places nuclei, in places either alone."""
    random = np.random.default_rng(seed)
    amounts = random.gamma(4.0, 0.2, (64, 64, 2)) * (random.random((64, 64, 2)) < 0.7) + 0.02
    densities = (amounts * np.array(strength)) @ (stains / np.linalg.norm(stains, axis=0)).T
    return np.clip(WHITE * np.exp(-densities) - 1, 0, 255).round().astype(np.uint8)


def test_two_laboratories_come_out_alike() -> None:
    ours, theirs = painted(OTHER), painted(np.array(REFERENCE), strength=(1.5, 0.7))
    before = np.abs(ours.astype(int) - theirs).mean()
    mapped = [fit_macenko(pixels, where="A1").apply(pixels).astype(int) for pixels in (ours, theirs)]
    assert np.abs(mapped[0] - mapped[1]).mean() < 3
    assert before > 15


def test_what_is_like_the_reference_already_stays_as_it_is() -> None:
    pixels = painted(np.array(REFERENCE))
    stains = np.array(REFERENCE) / np.linalg.norm(REFERENCE, axis=0)
    densities = -np.log((pixels.reshape(-1, 3) + 1.0) / WHITE)
    stained = densities[(densities >= 0.15).all(axis=1)]
    strength = np.array(REFERENCE_MOST) / np.percentile(stained @ np.linalg.pinv(stains).T, 99, axis=0)
    pixels = painted(np.array(REFERENCE), strength=tuple(strength))
    change = fit_macenko(pixels, where="A1").apply(pixels).astype(int) - pixels
    assert np.abs(change).mean() < 3


def test_glass_stays_glass_and_black_stays_dark() -> None:
    found = fit_macenko(painted(OTHER), where="A1")
    glass = found.apply(np.full((1, 3), 239, np.uint8))
    assert (np.abs(glass.astype(int) - 239) <= 1).all()
    assert found.apply(np.zeros((1, 3), np.uint8)).max() < 60


def test_as_torchstain() -> None:
    """The oracle; it takes the 99th percentile over glass too, so the picture has none."""
    normalizers: Any = pytest.importorskip("torchstain.numpy.normalizers", reason="torchstain is the oracle")
    pixels = painted(OTHER)
    pixels[(pixels >= 200).any(axis=2)] = (180, 110, 160)
    theirs, _, _ = normalizers.NumpyMacenkoNormalizer().normalize(pixels, stains=False)
    ours = fit_macenko(pixels, where="A1").apply(pixels)
    assert np.abs(ours.astype(int) - np.asarray(theirs).astype(int)).max() <= 2


def test_too_little_or_one_stain_is_refused() -> None:
    with pytest.raises(EncoderError, match=r"A1: only 0 stained pixels.*extract\.stain to none"):
        fit_macenko(np.full((64, 64, 3), 240, np.uint8), where="A1")
    amounts = np.linspace(0.3, 2, 4096)[:, None]
    one = np.clip(WHITE * np.exp(-amounts * np.array([[0.5, 0.7, 0.5]])) - 1, 0, 255).astype(np.uint8)
    with pytest.raises(EncoderError, match="A1: .*stain"):
        fit_macenko(one, where="A1")


def test_maps_can_be_joined() -> None:
    for seed in (1, 2, 3):
        first, second = (draw_jitter(0.2, np.random.default_rng(draw)) for draw in (seed, seed + 9))
        point = np.array([0.4, 0.7, 0.3])
        joined_point = second.after(first).matrix @ point + second.after(first).shift
        np.testing.assert_allclose(
            joined_point, second.matrix @ (first.matrix @ point + first.shift) + second.shift, rtol=1e-9
        )
    first = fit_macenko(painted(OTHER), where="A1")
    pixels = painted(OTHER, seed=1)
    apart, joined = second.apply(first.apply(pixels)), second.after(first).apply(pixels)
    inside = (first.apply(pixels) > 2) & (first.apply(pixels) < 250)
    assert np.abs(apart.astype(int) - joined)[inside].max() <= 4


def test_jitter_is_small_for_small_strengths_and_the_same_for_the_same_seed() -> None:
    pixels = painted(OTHER)
    none = draw_jitter(0.0, np.random.default_rng(0)).apply(pixels).astype(int)
    assert np.abs(none - pixels)[pixels < 250].max() <= 1
    changes = []
    for strength in (0.05, 0.2):
        maps = [draw_jitter(strength, np.random.default_rng(seed)) for seed in range(8)]
        changes.append(np.mean([np.abs(one.apply(pixels).astype(int) - pixels).mean() for one in maps]))
    assert 0.5 < changes[0] < changes[1] / 2
    again = [draw_jitter(0.2, np.random.default_rng(3)).apply(pixels) for _ in range(2)]
    np.testing.assert_array_equal(*again)


def test_a_map_takes_pixels_of_any_shape() -> None:
    found = StainMap(np.eye(3), np.zeros(3))
    pixels = np.random.default_rng(0).integers(0, 240, (2, 5, 7, 3), dtype=np.uint8)
    changed = found.apply(pixels)
    assert changed.shape == pixels.shape
    assert np.abs(changed.astype(int) - pixels).max() <= 1
    assert importlib.import_module("wsi_mil.encoders").StainMap is StainMap
