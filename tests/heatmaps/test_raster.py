"""Painting to fractions of a pixel, against a picture painted a hundred times finer."""

from __future__ import annotations

import numpy as np
import pytest

from wsi_mil.heatmaps.colours import Colouring
from wsi_mil.heatmaps.raster import muted, paint

WHITE = np.full((12, 16, 3), 255, np.uint8)


def black_at(*positions: float) -> Colouring:
    """A colouring whose map is grey, from black to white."""
    return Colouring(np.array(positions, np.float32), "gray", ((0.0, ""),), "")


def test_a_tile_covers_exactly_its_place() -> None:
    """2.25 to 5.75 across, 3.5 to 6.0 down: edges in part, inside in full."""
    painted = paint(WHITE, np.array([[2.25, 3.5]]), (3.5, 2.5), black_at(0), alpha=1.0)
    covered = 1 - painted[..., 0] / 255
    expected = np.zeros((12, 16))
    expected[3:6, 2:6] = np.outer([0.5, 1, 1], [0.75, 1, 1, 0.75])
    np.testing.assert_allclose(covered, expected, atol=0.003)


def test_random_tiles_as_painted_finer() -> None:
    random = np.random.default_rng(0)
    for _ in range(5):
        place, extent = random.uniform(-2, 12, 2), tuple(random.uniform(0.3, 6, 2))
        painted = paint(WHITE, place[None], extent, black_at(0), alpha=1.0)
        finer = np.zeros((1200, 1600))
        x0, y0 = np.clip(np.rint(place * 100), 0, None).astype(int)
        x1, y1 = np.clip(np.rint((place + extent) * 100), 0, None).astype(int)
        finer[y0:y1, x0:x1] = 1
        expected = finer.reshape(12, 100, 16, 100).mean(axis=(1, 3))
        np.testing.assert_allclose(1 - painted[..., 0] / 255, expected, atol=0.03)


def test_neighbours_leave_no_seam() -> None:
    places = np.array([[0, 0], [3.3, 0], [6.6, 0]])
    painted = paint(WHITE, places, (3.3, 12), black_at(0, 0, 0), alpha=1.0)
    assert painted[:, :9].max() == 0


def test_where_tiles_overlap_their_scores_are_averaged() -> None:
    painted = paint(WHITE, np.array([[0.0, 0], [2, 0]]), (4, 12), black_at(0.0, 1.0), alpha=1.0)
    assert painted[0, :7, 0].tolist() == pytest.approx([0, 0, 128, 128, 255, 255, 255], abs=1)


def test_alpha_lets_the_slide_through_and_no_score_leaves_it() -> None:
    painted = paint(WHITE, np.array([[0.0, 0], [8, 0]]), (4, 12), black_at(0, np.nan), alpha=0.4)
    assert painted[0, 0, 0] == 153
    assert (painted[:, 4:] == 255).all()


def test_tiles_outside_are_cut_off() -> None:
    painted = paint(WHITE, np.array([[-100.0, -100], [15, 11], [500, 3]]), (4, 4), black_at(0, 0, 0), alpha=1.0)
    assert (painted[..., 0] == 0).sum() == 1


def test_no_tiles_leave_the_picture() -> None:
    assert (paint(WHITE, np.empty((0, 2)), (4, 4), black_at(), alpha=1.0) == WHITE).all()


def test_muting_keeps_the_lightness() -> None:
    pink = np.full((2, 2, 3), (230, 120, 180), np.uint8)
    assert muted(pink).std(axis=2).max() < pink.std(axis=2).max() / 3
    assert abs(int(muted(pink)[0, 0] @ [0.299, 0.587, 0.114]) - int(pink[0, 0] @ [0.299, 0.587, 0.114])) <= 1
