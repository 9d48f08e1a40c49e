"""Smoothing: within a piece of tissue and nowhere else, with nothing added and nothing lost at the edge."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from wsi_mil.grid import SlideRef, TileGrid
from wsi_mil.heatmaps import Heatmap, Shared, colouring, smoothed

SLIDE = SlideRef(id="A1", fingerprint="ff", size_l0=(4000, 4000), mpp=(0.5, 0.5), mpp_source="metadata")


def heatmap(cells: np.ndarray, values: np.ndarray, *, step: float = 100.0) -> Heatmap:
    grid = TileGrid(
        slide=SLIDE,
        coords_l0=(cells * step).astype(np.int64),
        tissue=np.ones(len(cells), np.float32),
        size_px=50,
        mpp=1.0,
        extent_l0=(100.0, 100.0),
        step_l0=(step, step),
    )
    scores = np.stack([values, values], axis=1).astype(np.float32)
    return Heatmap(SLIDE, grid, scores, ("a", "b"), model="m", prediction={}, kinds={"a": "contribution"})


def square(side: int, *, right: int = 0) -> np.ndarray:
    return np.argwhere(np.ones((side, side))) + [right, 0]


def test_even_scores_stay_even_to_the_edge() -> None:
    one = heatmap(square(7), np.full(49, 3.0))
    np.testing.assert_allclose(smoothed(one, "a", tiles=2).column("a"), 3.0, rtol=1e-6)


def test_two_pieces_do_not_speak_for_each_other() -> None:
    cells = np.concatenate([square(4), square(4, right=5)])  # a column of glass between
    one = heatmap(cells, np.repeat([0.0, 1.0], 16))
    np.testing.assert_allclose(smoothed(one, "a", tiles=3).column("a"), np.repeat([0.0, 1.0], 16), atol=1e-7)


def test_a_spot_spreads_and_other_channels_stay() -> None:
    values = np.zeros(49)
    values[24] = 1.0
    one = heatmap(square(7), values)
    soft = smoothed(one, "a", tiles=1)
    assert soft.column("a")[24] == soft.column("a").max() < 0.3
    assert soft.column("a")[25] == pytest.approx(soft.column("a")[24] * np.exp(-0.5), rel=0.01)
    np.testing.assert_array_equal(soft.column("b"), one.column("b"))
    assert soft.kinds["a"] == "contribution, smoothed over 1 tile"
    assert smoothed(one, "a", tiles=0) is one


def test_tiles_without_a_score_take_no_part() -> None:
    values = np.ones(49)
    values[10] = np.nan
    soft = smoothed(heatmap(square(7), values), "a", tiles=1).column("a")
    assert np.flatnonzero(np.isnan(soft)).tolist() == [10]
    np.testing.assert_allclose(soft[~np.isnan(soft)], 1.0, rtol=1e-6)


def test_overlapping_tiles_are_said() -> None:
    assert heatmap(square(3), np.zeros(9), step=50.0).overlapping
    one = heatmap(square(3), np.zeros(9))
    assert not one.overlapping
    assert one.provenance()["overlapping"] is False
    assert dataclasses.replace(one.grid, step_l0=(100.0, 25.0)).step_l0 == (100.0, 25.0)


def test_slides_on_one_scale() -> None:
    own, others = np.array([1.0, 2.0, np.nan], np.float32), np.array([1.0, 2.0, 3.0, 4.0, 5.0], np.float32)
    shared = Shared(others, "the cohort")
    ranks = colouring(own, "rank", limits=shared)
    np.testing.assert_allclose(ranks.positions, [0.0, 0.25, np.nan])
    assert ranks.meaning == "coloured by rank among the tiles of the cohort"
    values = colouring(own, "range", limits=shared)
    np.testing.assert_allclose(values.positions, [0.0, 0.25, np.nan])
    assert values.ticks[-1][1] == "5"
    # alone on its scale, a slide is coloured as ever
    np.testing.assert_array_equal(
        colouring(others, "rank", limits=Shared(others, "x")).positions, colouring(others, "rank").positions
    )
