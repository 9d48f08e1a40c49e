"""Frames and scales: nothing is truncated, both axes count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_mil.geometry import Box, Level, best_level, extent_l0, too_fine

scales = st.floats(0.05, 40)
places = st.floats(-1e6, 1e6)
sizes = st.floats(0.5, 1e5)


@given(places, places, sizes, sizes, st.tuples(st.floats(1, 64), st.floats(1, 64)))
def test_frame_to_frame_and_back_is_the_identity(
    x: float, y: float, width: float, height: float, downsample: tuple[float, float]
) -> None:
    box = Box(x, y, width, height)
    back = Level(10, 10, downsample).box(box).scaled(*downsample)
    assert (back.x, back.y, back.width, back.height) == pytest.approx((x, y, width, height), rel=1e-9, abs=1e-6)


@given(places, places, sizes, sizes, st.integers(0, 5))
def test_the_outer_rectangle_holds_the_box(x: float, y: float, width: float, height: float, margin: int) -> None:
    box = Box(x, y, width, height)
    left, top, w, h = box.outer(margin)
    assert left - 1e-5 <= x - margin
    assert top - 1e-5 <= y - margin
    assert left + w + 1e-5 >= box.right + margin or w == 1
    assert top + h + 1e-5 >= box.bottom + margin or h == 1


def test_a_whole_box_is_its_own_outer_rectangle_despite_rounding_noise() -> None:
    assert Box(0.1 + 0.2 - 0.3, 7, 240 - 1e-9, 240 + 1e-9).outer() == (0, 7, 240, 240)


def test_extent_honours_both_axes() -> None:
    assert extent_l0(256, 0.5, (0.25, 0.5)) == (512.0, 256.0)


def test_the_level_is_the_coarsest_that_is_fine_enough_on_both_axes() -> None:
    levels = [Level(4000, 4000, (1, 1)), Level(1000, 1000, (4.016, 3.9998)), Level(250, 250, (16.1, 16.0))]
    assert best_level(levels, (0.25, 0.25), 1.0) == 0  # 4.016 is coarser than asked for, on one axis
    assert best_level(levels, (0.25, 0.25), 1.004) == 1
    assert best_level(levels, (0.25, 0.25), 100) == 2
    assert best_level(levels, (0.25, 0.5), 1.1) == 0  # y has half the scale of x
    assert best_level(levels, (0.25, 0.25), 0.2) == 0


def test_a_downsample_of_3_9998_is_not_3() -> None:
    assert Level(1000, 1000, (3.9998, 3.9998)).box(Box(3.9998e5, 0, 3.9998, 3.9998)).x == pytest.approx(1e5)


@given(scales)
def test_too_fine_begins_at_one_and_a_half(native: float) -> None:
    assert not too_fine((native, native), native / 1.5)
    assert too_fine((native, native), native / 1.51)
    assert too_fine((native, native * 2), native)
