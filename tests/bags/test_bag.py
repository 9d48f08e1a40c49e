"""What a bag refuses, which tiles are usable, and which cell of the grid a tile is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import jaxtyping
import numpy as np
import pytest
from contracts.store import some_bag, some_contract, some_slide
from hypothesis import given
from hypothesis import strategies as st

from wsi_mil.bags import Bag, cells
from wsi_mil.errors import BagError
from wsi_mil.grid import SlideRef, TileGrid, lay_grid


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("row", [0, 7, -1])
def test_a_feature_that_is_not_finite_names_slide_and_row(value: float, dtype: str, row: int) -> None:
    bag = some_bag(dtype=dtype)
    features = bag.features.copy()
    features[row, 3] = value
    with pytest.raises(BagError, match=rf"'A1': row {row % len(bag)} of"):
        dataclasses.replace(bag, features=features)


def test_the_largest_half_is_finite() -> None:
    bag = some_bag()
    features = bag.features.copy()
    features[0, :2] = 65504, -65504
    dataclasses.replace(bag, features=features)


def test_a_far_row_is_named() -> None:
    """Beyond the first block of rows that is looked at in one go."""
    coords = np.zeros((20_000, 2), np.int64)
    features = np.zeros((20_000, 6), np.float16)
    features[15_000, 0] = np.nan
    slide = some_slide()
    grid = TileGrid(slide, coords, np.ones(20_000, np.float32), 256, 0.5, (256.5, 280.0), (256.5, 280.0))
    with pytest.raises(BagError, match="row 15000"):
        Bag(slide, features, grid, some_contract(), np.zeros(20_000, np.uint8))


@pytest.fixture
def _unchecked() -> Iterator[None]:
    """Without the shapes in the annotations, which only tests check: what a user would see."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("_unchecked")
def test_arrays_of_other_lengths_are_listed() -> None:
    bag = some_bag()
    with pytest.raises(BagError, match=rf"features {len(bag) - 1}, coords {len(bag)}"):
        dataclasses.replace(bag, features=bag.features[1:])
    with pytest.raises(BagError, match="quality/pen 2"):
        dataclasses.replace(bag, quality={"pen": np.zeros(2, np.float32)})


def test_features_of_another_encoder_are_refused() -> None:
    with pytest.raises(BagError, match="6 columns, but encoder 'some' gives 7"):
        dataclasses.replace(some_bag(), encoder=some_contract(7))


def test_a_grid_of_another_slide_is_refused() -> None:
    with pytest.raises(BagError, match="'B2'.*'A1'"):
        dataclasses.replace(some_bag(), slide=some_slide("B2"))


def test_double_precision_is_refused() -> None:
    bag = some_bag()
    with pytest.raises(BagError, match="float64"):
        dataclasses.replace(bag, features=bag.features.astype(np.float64))


def test_only_unreadable_tiles_are_not_usable() -> None:
    bag = some_bag()
    assert np.flatnonzero(~bag.usable).tolist() == [2]


def test_the_digest_sees_features_places_and_dtype() -> None:
    bag = some_bag()
    features, coords = bag.features.copy(), bag.grid.coords_l0.copy()
    features[4, 0] = np.nextafter(features[4, 0], np.float16(9))
    coords[4, 0] += 1
    others = [
        dataclasses.replace(bag, features=features),
        dataclasses.replace(bag, grid=dataclasses.replace(bag.grid, coords_l0=coords)),
        dataclasses.replace(bag, features=bag.features.astype(np.float32)),
    ]
    assert len({bag.digest, *(other.digest for other in others)}) == 4
    assert bag.digest == some_bag().digest


@given(
    mpp_x=st.floats(0.1, 4),
    mpp_y=st.floats(0.1, 4),
    size_px=st.integers(32, 300),
    overlap=st.floats(0, 0.75),
    scale=st.floats(0.7, 8),
)
def test_cells_are_the_columns_and_rows_of_the_grid(
    mpp_x: float, mpp_y: float, size_px: int, overlap: float, scale: float
) -> None:
    mpp = scale * max(mpp_x, mpp_y)
    slide = SlideRef(
        "A", "f", (int(20 * size_px * mpp / mpp_x), int(9 * size_px * mpp / mpp_y)), (mpp_x, mpp_y), "flag"
    )
    coords, extent, step = lay_grid(slide, size_px=size_px, mpp=mpp, overlap_px=int(overlap * size_px))
    found = cells(TileGrid(slide, coords, np.ones(len(coords), np.float32), size_px, mpp, extent, step))
    columns, rows = found.max(axis=0) + 1
    assert columns * rows == len(coords)
    expected = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2)
    np.testing.assert_array_equal(found, expected)
