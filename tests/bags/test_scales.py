"""Coarser scales of a bag: which tiles they have, that they come back from disk, and what stands beside each tile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from contracts.store import some_contract

from wsi_mil.bags import Bag, Scale, bag_to_hdf5, beside, cells, coarser_grid, read_bag, verify_bag
from wsi_mil.errors import BagError
from wsi_mil.grid import SlideRef, TileGrid, TileStatus, lay_grid

SLIDE = SlideRef("A1", "f" * 64, (5000, 4000), (0.499, 0.499), "metadata")


def _grid(keep: int = 3) -> TileGrid:
    coords, extent, step = lay_grid(SLIDE, size_px=256, mpp=0.5)
    grid = TileGrid(SLIDE, coords, np.full(len(coords), 0.5, np.float32), 256, 0.5, extent, step)
    return grid.take(np.arange(len(coords)) % keep == 0)


def _bag() -> Bag:
    grid = _grid()
    coarse = coarser_grid(grid, 2.0)
    random = np.random.default_rng(0)
    encoder = replace(some_contract(dim=6), scales=(2.0,))
    features, low = (random.normal(size=(len(one), 6)).astype(np.float16) for one in (grid, coarse))
    scale = Scale(coarse, low, np.zeros(len(coarse), np.uint8))
    return Bag(SLIDE, features, grid, encoder, np.zeros(len(grid), np.uint8), scales=(scale,))


def test_every_tile_lies_within_its_coarser_tile() -> None:
    grid = _grid()
    coarse = coarser_grid(grid, 2.0)
    assert coarse.extent_l0 == pytest.approx((4 * grid.extent_l0[0], 4 * grid.extent_l0[1]))
    blocks = {tuple(cell): row for row, cell in enumerate(cells(coarse).tolist())}
    own = [blocks[tuple(cell)] for cell in (cells(grid) // 4).tolist()]
    corner = coarse.coords_l0[own]
    assert (grid.coords_l0 >= corner - 1).all(), "to within the rounding of places"
    assert (grid.coords_l0 + grid.extent_l0 <= corner + coarse.extent_l0 + 1).all()
    assert set(own) == set(range(len(coarse))), "none is empty"
    assert coarse.tissue.sum() * 16 == pytest.approx(grid.tissue.sum(), rel=1e-4)


def test_a_bag_comes_back_with_its_scales(tmp_path: Path) -> None:
    bag = _bag()
    path = tmp_path / "A1.h5"
    path.write_bytes(bag_to_hdf5(bag))
    again = read_bag(path)
    np.testing.assert_array_equal(again.scales[0].features, bag.scales[0].features)
    np.testing.assert_array_equal(again.scales[0].grid.coords_l0, bag.scales[0].grid.coords_l0)
    assert again.scales[0].grid.mpp == 2.0
    assert again.encoder.scales == (2.0,)
    assert verify_bag(path).digest == bag.digest
    assert replace(bag, scales=()).digest != bag.digest
    with h5py.File(path, "r+") as file:
        file["scale/2/features"][3] = 7
    with pytest.raises(BagError, match="have changed"):
        verify_bag(path)


def test_what_stands_beside_a_tile_is_the_coarser_tile_around_it() -> None:
    bag = _bag()
    scale, places = bag.scales[0], cells(bag.grid)
    both = beside(bag.features, places, scale, mpp=0.5)
    np.testing.assert_array_equal(both[:, :6], bag.features)
    for row in (0, 7, len(bag) - 1):
        inside = (bag.grid.coords_l0[row] + 10 >= scale.grid.coords_l0) & (
            bag.grid.coords_l0[row] + 10 < scale.grid.coords_l0 + scale.grid.extent_l0
        )
        np.testing.assert_array_equal(both[row, 6:], scale.features[inside.all(axis=1)][0])


def test_a_coarser_tile_that_could_not_be_read_is_the_mean_of_the_others() -> None:
    bag = _bag()
    status = bag.scales[0].status.copy()
    status[0] = TileStatus.UNREADABLE
    scale = replace(bag.scales[0], status=status)
    both = beside(bag.features, cells(bag.grid), scale, mpp=0.5)
    wanted = scale.features[1:].astype(np.float32).mean(axis=0)
    np.testing.assert_allclose(both[0, 6:], wanted, atol=2e-3)


def test_scales_that_do_not_fit_are_refused() -> None:
    for mpp in (0.5, 0.25, 1.3):
        with pytest.raises(BagError, match="must be 2, 3, 4"):
            coarser_grid(_grid(), mpp)
    bag = _bag()
    part = replace(bag.scales[0], grid=bag.scales[0].grid.take(np.arange(1, len(bag.scales[0].features))))
    with pytest.raises(BagError, match="no tile at 2 um per pixel lies over cell"):
        beside(bag.features, cells(bag.grid), part, mpp=0.5)
