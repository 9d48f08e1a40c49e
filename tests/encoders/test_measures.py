"""Measures of a map against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wsi_mil.encoders import measures


@pytest.fixture
def maps() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(0.4, 0.2, (2, 3, 24, 24)).astype(np.float32))


def test_moments(maps: torch.Tensor) -> None:
    average, deviation, skew, tails = (value[1, 2].item() for value in measures.moments(maps))
    values = maps[1, 2].numpy().astype(np.float64)
    rest = values - values.mean()
    assert average == pytest.approx(values.mean(), abs=1e-6)
    assert deviation == pytest.approx(values.std(), rel=1e-3)
    assert skew == pytest.approx(np.cbrt((rest**3).mean()), rel=0.02)
    assert tails == pytest.approx((rest**4).mean() ** 0.25, rel=1e-3)


def test_correlation(maps: torch.Tensor) -> None:
    mixed = maps + 0.5 * maps.flip(1)
    found = measures.correlation(maps, mixed)[1]
    expected = [np.corrcoef(maps[1, c].flatten(), mixed[1, c].flatten())[0, 1] for c in range(3)]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_flat_map_correlates_with_nothing() -> None:
    flat = torch.full((1, 2, 8, 8), 0.3)
    assert measures.correlation(flat, flat).abs().max() < 1e-3


def test_quantiles(maps: torch.Tensor) -> None:
    low, middle = measures.quantiles(maps, (0.0, 0.5))
    assert low[0, 0] == maps[0, 0].min()
    assert abs(middle[0, 0] - maps[0, 0].median()) < 0.01


def test_weights_choose_the_pixels(maps: torch.Tensor) -> None:
    weights = torch.zeros(2, 1, 24, 24)
    weights[:, :, :12] = 1000.0
    average, deviation = measures.weighted(maps, weights)
    torch.testing.assert_close(average, maps[:, :, :12].mean(dim=(2, 3)), atol=1e-4, rtol=0)
    torch.testing.assert_close(deviation, maps[:, :, :12].std(dim=(2, 3), correction=0), atol=1e-4, rtol=0)


def test_stripes_are_alike_at_their_period() -> None:
    stripes = torch.tensor([0.0, 1.0] * 8).expand(1, 1, 16, 16).contiguous()
    (straight, diagonal), (again, _) = measures.autocorrelation(stripes, (1, 2))
    assert straight.item() == pytest.approx(0.0, abs=0.1), "alike downwards, opposite sideways"
    assert diagonal.item() == pytest.approx(-1, abs=0.1)
    assert again.item() == pytest.approx(1, abs=0.1)


def test_binary_patterns_counted_by_hand() -> None:
    values = np.random.default_rng(0).integers(0, 200, (40, 40), dtype=np.uint8)
    shares = measures.binary_patterns(torch.from_numpy(values).float()[None, None], margin=1)
    counts = np.zeros(10)
    for y in range(1, 39):
        for x in range(1, 39):
            ring = [(-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)]
            bits = [int(values[y + dy, x + dx]) > int(values[y, x]) + 1 for dy, dx in ring]
            turns = sum(a != b for a, b in zip(bits, bits[1:] + bits[:1], strict=True))
            counts[sum(bits) if turns <= 2 else 9] += 1
    np.testing.assert_allclose([share.item() for share in shares], counts / counts.sum(), atol=1e-6)


def test_peaks_are_counted_once_even_where_two_pixels_are_equal() -> None:
    values = torch.zeros(1, 1, 20, 20)
    values[0, 0, 4, 4] = values[0, 0, 12, 5] = 1.0
    number, height, _ = measures.peaks(values, softness=0.01)
    assert number.item() * 4 == pytest.approx(2, rel=0.05)
    assert height.item() * 3 == pytest.approx(2, rel=0.05)
