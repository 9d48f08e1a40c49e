"""Resampling: with and without the compiler the same bytes, and those of Pillow."""

from __future__ import annotations

import numpy as np
import pytest
from contracts.slide import textured
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wsi_mil.slides import resample as room


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    scale=st.tuples(st.floats(0.3, 6.0), st.floats(0.3, 6.0)),
    place=st.tuples(st.floats(0, 9), st.floats(0, 9)),
)
def test_both_ways_give_the_same_bytes(
    size: tuple[int, int], scale: tuple[float, float], place: tuple[float, float]
) -> None:
    pytest.importorskip("numba")
    box = (*place, place[0] + size[0] * scale[0], place[1] + size[1] * scale[1])
    rgb = np.random.default_rng(size[0]).integers(0, 256, (int(box[3]) + 3, int(box[2]) + 3, 3), np.uint8)
    assert room._compiled() is not None
    np.testing.assert_array_equal(room.resample(rgb, box, size), room._by_pillow(rgb, box, size))


def test_without_the_compiler_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    rgb, box = textured(200, 200), (1.3, 2.7, 190.1, 191.5)
    with_it = room.resample(rgb, box, (64, 64))
    monkeypatch.setattr(room, "_compiled", lambda: None)
    np.testing.assert_array_equal(room.resample(rgb, box, (64, 64)), with_it)


def test_it_is_pillows_filter() -> None:
    rgb, box = textured(400, 300), (0.5, 0.5, 390.5, 290.5)
    want = np.asarray(Image.fromarray(rgb).resize((150, 110), Image.Resampling.BICUBIC, box=box))
    assert np.abs(room.resample(rgb, box, (150, 110)).astype(int) - want).max() <= 1


def test_weights_sum_to_one_and_stay_inside() -> None:
    first, taps, fixed = room.weights(100, 3.3, 97.2, 40)
    assert (first >= 0).all()
    assert (first + taps <= 100).all()
    assert np.abs(fixed.sum(axis=1) - (1 << room.FRACTION_BITS)).max() <= fixed.shape[1]
