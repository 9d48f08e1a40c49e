"""Growing and shrinking, against distance transforms and plain filters of scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_closing, distance_transform_edt

from wsi_mil.tissue.morphology import closed, dilated, eroded, holes_filled, opened, square_closed, without_small


def spots(seed: int, share: float, *, height: int = 40, width: int = 55) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width)) < share


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    share=st.sampled_from([0.0, 0.004, 0.1, 0.9, 1.0]),
    radius=st.floats(0, 400),
    mpp=st.tuples(st.floats(1, 20), st.floats(1, 20)),
)
def test_growing_is_the_distance_to_the_nearest_pixel(
    seed: int, share: float, radius: float, mpp: tuple[float, float]
) -> None:
    mask = spots(seed, share)
    if mask.any():
        distance = distance_transform_edt(~mask, sampling=(mpp[1], mpp[0]))
        # A pixel whose distance is the radius to the last bit may fall to either side.
        sure = np.abs(distance - radius) > 1e-6
        np.testing.assert_array_equal(dilated(mask, radius, mpp)[sure], (distance <= radius)[sure])
    else:
        assert not dilated(mask, radius, mpp).any()
    np.testing.assert_array_equal(eroded(~mask, radius, mpp), ~dilated(mask, radius, mpp))


def test_gaps_close_and_threads_go_at_their_width() -> None:
    mask = np.zeros((60, 80), bool)
    mask[10:50, 5:35] = mask[10:50, 39:70] = True
    mask[28:31, 70:80] = True
    assert closed(mask, 40.0, (8.0, 8.0))[30, 37]
    assert not closed(mask, 20.0, (8.0, 8.0))[30, 37]
    assert not opened(mask, 40.0, (8.0, 8.0))[29, 77]
    assert opened(mask, 15.0, (8.0, 8.0))[29, 77]


@pytest.mark.parametrize("side", [1, 2, 3, 4, 7])
def test_the_square_closing_is_scipy_s(side: int) -> None:
    mask = spots(3, 0.2)
    # scipy centres an even square on the pixel after its middle, and ours is mirrored: the closing is the same.
    want = binary_closing(np.pad(mask, side), np.ones((side, side), bool))[side:-side, side:-side]
    np.testing.assert_array_equal(square_closed(mask, side), want)
    assert square_closed(mask, side)[mask].all()


def test_small_pieces_and_holes_are_counted_in_pixels() -> None:
    mask = np.zeros((30, 30), bool)
    mask[2:12, 2:12] = True
    mask[20:22, 20:22] = True
    mask[5:7, 5:7] = False
    assert not without_small(mask, 5)[20, 20]
    assert without_small(mask, 4)[20, 20]
    assert holes_filled(mask, 5)[5, 5]
    assert not holes_filled(mask, 4)[5, 5]
    assert not holes_filled(np.zeros((5, 5), bool), 100).any()
