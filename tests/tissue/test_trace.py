"""Borders of masks against marching squares, which draw the same lines another way."""

from __future__ import annotations

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from skimage.measure import find_contours, label

from wsi_mil.tissue.trace import borders


def lines(mask: np.ndarray) -> list[np.ndarray]:
    found = borders(mask)
    return [found.corners[found.line == number] for number in range(len(found.piece))]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    share=st.sampled_from([0.05, 0.3, 0.5, 0.7, 0.97, 1.0]),
    smooth=st.booleans(),
)
def test_the_lines_are_those_of_marching_squares(seed: int, size: tuple[int, int], share: float, smooth: bool) -> None:
    noise = np.random.default_rng(seed).random(size)
    mask = gaussian_filter(noise, 1.5) < np.quantile(noise, share) if smooth else noise < share
    contours = find_contours(np.pad(mask, 1).astype(float), 0.5)
    want = [shapely.Polygon(ring[:, ::-1] - 1).normalize() for ring in contours]
    got = [shapely.Polygon(ring).normalize() for ring in lines(mask)]
    assert len(got) == len(want)
    # The same areas, each at its place; corners on straight runs are left out here.
    ours, theirs = (np.array(sorted((one.area, *one.bounds) for one in rings)) for rings in (got, want))
    np.testing.assert_allclose(ours, theirs, atol=1e-9)
    union = shapely.union_all(want).symmetric_difference(shapely.union_all(got))
    assert union.area < 1e-9


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_each_piece_has_one_outside_and_holes_lie_in_it(seed: int) -> None:
    mask = gaussian_filter(np.random.default_rng(seed).normal(size=(50, 60)), 1.2) > 0
    found, pieces = borders(mask), label(mask, connectivity=1)
    assert sorted(found.piece[found.is_outside]) == list(range(1, pieces.max() + 1))
    rings = [shapely.Polygon(ring) for ring in lines(mask)]
    outside = {int(found.piece[number]): rings[number] for number in np.flatnonzero(found.is_outside)}
    for number in np.flatnonzero(~found.is_outside):
        assert outside[int(found.piece[number])].contains(rings[number].representative_point())
    # A ring through the middles of sides cuts half a corner off each pixel: its area is near its pixels'.
    counts = np.bincount(pieces.ravel())
    for piece, ring in outside.items():
        x, y = ring.representative_point().coords[0]
        assert ring.area + 1e-9 >= 0.5 * counts[piece]
        assert 0 <= round(x) < 60
        assert 0 <= round(y) < 50


def test_one_pixel_is_a_diamond_and_a_straight_side_has_no_corners() -> None:
    mask = np.zeros((4, 5), bool)
    mask[1, 2] = True
    assert sorted(map(tuple, lines(mask)[0].tolist())) == [(1.5, 1.0), (2.0, 0.5), (2.0, 1.5), (2.5, 1.0)]
    (ring,) = lines(np.ones((20, 30), bool))
    assert len(ring) == 8


def test_nothing_has_no_borders() -> None:
    assert len(borders(np.zeros((3, 4), bool)).line) == 0
    assert len(borders(np.zeros((3, 4), bool)).piece) == 0
