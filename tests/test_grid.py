"""Grids cover the slide without drift; contracts tell what differs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_mil.grid import EncoderContract, SlideRef, TileGrid, lay_grid, split_grid


def _ref(width: int, height: int, mpp: tuple[float, float]) -> SlideRef:
    return SlideRef("A1", "0" * 64, (width, height), mpp, "metadata")


@given(
    st.integers(1, 20_000),
    st.integers(1, 20_000),
    st.floats(0.1, 2),
    st.floats(0.1, 2),
    st.integers(64, 512),
    st.integers(0, 32),
    st.floats(0.4, 4),
)
def test_tiles_start_inside_cover_the_slide_and_never_drift(
    width: int, height: int, mpp_x: float, mpp_y: float, size_px: int, overlap_px: int, mpp: float
) -> None:
    ref = _ref(width, height, (mpp_x, mpp_y))
    coords, extent, step = lay_grid(ref, size_px=size_px, mpp=mpp, overlap_px=overlap_px)
    assert (coords >= 0).all()
    assert (coords < [width, height]).all()
    assert len(np.unique(coords, axis=0)) == len(coords)
    for axis, size in enumerate((width, height)):
        starts = np.unique(coords[:, axis])
        assert np.abs(starts - np.arange(len(starts)) * step[axis]).max() <= 0.5  # no drift, however far
        assert starts[-1] + extent[axis] >= size - 1  # the far edge is covered, to within the rounding of a place
        if overlap_px == 0 and len(starts) > 1:
            assert (extent[axis] - np.diff(starts)).max() <= 1  # no overlap beyond one pixel


def test_row_by_row_from_the_top_left() -> None:
    coords, extent, step = lay_grid(_ref(500, 300, (0.5, 0.5)), size_px=256, mpp=0.5)
    assert coords.tolist() == [[0, 0], [256, 0], [0, 256], [256, 256]]
    assert extent == step == (256.0, 256.0)


def test_both_axes_of_the_scale_count() -> None:
    coords, extent, _ = lay_grid(_ref(1000, 1000, (0.25, 0.5)), size_px=256, mpp=0.5)
    assert extent == (512.0, 256.0)
    assert sorted(set(coords[:, 0].tolist())) == [0, 512]
    assert sorted(set(coords[:, 1].tolist())) == [0, 256, 512, 768]


def test_take_keeps_rows_together() -> None:
    coords, extent, step = lay_grid(_ref(500, 300, (0.5, 0.5)), size_px=256, mpp=0.5)
    grid = TileGrid(
        _ref(500, 300, (0.5, 0.5)), coords, np.arange(4, dtype=np.float32), 256, 0.5, extent_l0=extent, step_l0=step
    )
    part = grid.take(np.array([3, 1]))
    assert part.tissue.tolist() == [3, 1]
    assert part.coords_l0.tolist() == [[256, 256], [256, 0]]


def _contract(**changes: object) -> EncoderContract:
    fields: dict[str, object] = {
        "name": "offline", "revision": "1", "weights_digest": "d", "architecture": "{}", "input_px": 0,
        "resize": "none", "crop": "none", "mean": (0.5,), "std": (0.5,), "pooling": "mean", "dim": 8,
        "precision": "fp32", "tile_px": 256, "tile_mpp": 0.5,
    }  # fmt: skip
    return EncoderContract(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [{"name": "x"}, {"weights_digest": "x"}, {"tile_mpp": 0.25}, {"precision": "bf16"}, {"pooling": "cls"}, {"dim": 9}],
)
def test_a_contract_tells_what_differs(changes: dict[str, object]) -> None:
    told = _contract().difference(_contract(**changes))
    assert len(told) == 1
    assert told[0].startswith(next(iter(changes)))


def test_licence_and_versions_are_shown_and_never_compared() -> None:
    assert _contract(licence="MIT", versions={"torch": "2"}).difference(_contract()) == []


def test_a_contract_survives_json() -> None:
    contract = _contract(versions={"torch": "2"})
    assert EncoderContract.from_dict(json.loads(json.dumps(contract.to_dict()))) == contract


@pytest.mark.parametrize("covered", [1.0, 224 / 256])
def test_parts_of_a_tile_lie_row_by_row_and_fill_what_is_seen(covered: float) -> None:
    coords, extent, step = lay_grid(_ref(2000, 900, (0.499, 0.4571)), size_px=256, mpp=0.5)
    tissue = np.linspace(0, 1, len(coords), dtype=np.float32)
    grid = TileGrid(_ref(2000, 900, (0.499, 0.4571)), coords, tissue, 256, 0.5, extent, step)
    parts = split_grid(grid, 16, covered=covered)
    assert len(parts) == 256 * len(grid)
    np.testing.assert_allclose(parts.extent_l0, np.array(extent) * covered / 16)
    assert parts.size_px * parts.mpp == pytest.approx(256 * 0.5 * covered / 16)
    first = parts.coords_l0[:256].reshape(16, 16, 2)
    margin = np.array(extent) * (1 - covered) / 2
    pitch = np.array(parts.extent_l0)
    np.testing.assert_allclose(first[3, 5], margin + pitch * (5, 3), atol=0.5)
    np.testing.assert_allclose(parts.coords_l0[256] - coords[1], margin, atol=0.5)
    np.testing.assert_array_equal(parts.tissue[::256], tissue)
    assert parts.step_l0 == parts.extent_l0
