"""Where bags come from: whole or in part, kept while they fit, on the device that computes."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from contracts.planted import two_classes

from wsi_mil.models import build_model
from wsi_mil.training import Bags, Cached, FitSettings, feature_moments, fit, fitting
from wsi_mil.training.source import Draw, OnDevice, Tiles

FEATURES = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float16)
CELLS = np.stack([np.arange(30) % 6, np.arange(30) // 6], axis=1)
SIZE = FEATURES.nbytes + CELLS.nbytes


class _Counted:
    """Bags of 30 tiles that count how often each is read."""

    def __init__(self) -> None:
        self.reads: list[int] = []

    def __len__(self) -> int:
        return 3

    def load(self, index: int, draw: Draw | None = None) -> Tiles:
        self.reads.append(index)
        return Bags([(FEATURES + one, CELLS) for one in range(3)]).load(index, draw)


def third(count: int) -> np.ndarray | None:
    return np.arange(0, count, 3)


def test_the_cache_keeps_what_fits_and_no_more() -> None:
    counted = _Counted()
    cached = Cached(counted, budget_bytes=2 * SIZE)
    for _ in range(3):
        for bag in range(3):
            assert np.array_equal(cached.load(bag)[0], FEATURES + bag)
            assert np.array_equal(cached.load(bag, third)[0], (FEATURES + bag)[::3])
    assert counted.reads == [0, 1, 2, 2, 2, 2, 2, 2]
    assert len(cached) == 3


class _Told(_Counted):
    """The same, with sizes that are known beforehand; what was drawn is counted apart."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[int] = []

    def nbytes(self, index: int) -> int | None:
        return SIZE

    def cells(self, index: int) -> np.ndarray | None:
        return CELLS

    def load(self, index: int, draw: Draw | None = None) -> Tiles:
        if draw is not None:
            self.drawn.append(index)
        return super().load(index, draw)


def test_a_bag_that_fits_is_kept_whole_though_a_part_is_asked_for() -> None:
    counted = _Counted()
    cached = Cached(counted, budget_bytes=2 * SIZE)
    for _ in range(3):
        for bag in range(2):
            assert np.array_equal(cached.load(bag, third)[0], (FEATURES + bag)[::3])
    assert counted.reads == [0, 1]


def test_of_a_bag_that_does_not_fit_only_the_drawn_rows_are_read() -> None:
    told = _Told()
    cached = Cached(told, budget_bytes=SIZE)
    for _ in range(2):
        for bag in range(3):
            assert cached.load(bag, third)[0].shape == (10, 6)
    assert told.reads == [0, 1, 2, 1, 2]
    assert told.drawn == [1, 2, 1, 2]
    unknown = _Counted()  # its size is found by reading it once
    cached = Cached(unknown, budget_bytes=SIZE - 1)
    for _ in range(2):
        assert cached.load(0, third)[0].shape == (10, 6)
    assert cached.nbytes(0) is None
    assert Cached(told, budget_bytes=0).nbytes(1) == SIZE


def test_a_draw_of_all_tiles_is_the_whole_bag() -> None:
    features, cells = Bags([(FEATURES, CELLS)]).load(0, lambda _: None)
    assert features is FEATURES
    assert cells is CELLS


def test_bags_become_tensors_and_a_map_is_copied() -> None:
    fixed = FEATURES.copy()
    fixed.flags.writeable = False
    features, cells = OnDevice(Bags([(fixed, CELLS.astype(np.int32))]), "cpu", budget_bytes=0).load(0, third)
    assert features.dtype == torch.float16
    assert cells.dtype == torch.int64
    np.testing.assert_array_equal(features.numpy(), FEATURES[::3])
    np.testing.assert_array_equal(cells.numpy(), CELLS[::3])


def test_a_device_that_is_no_cpu_keeps_what_fits() -> None:
    """The meta device stands for a GPU: what is kept is not read again."""
    counted = _Counted()
    kept = OnDevice(counted, "meta", budget_bytes=2 * SIZE)
    for _ in range(2):
        for bag in range(3):
            assert kept.load(bag)[0].shape == (30, 6)
    assert kept.load(0, third)[0].shape == (10, 6)
    assert counted.reads == [0, 1, 2, 2]


def test_drawn_bags_stay_on_the_device() -> None:
    told = _Told()
    kept = OnDevice(told, "meta", budget_bytes=2 * SIZE)
    for _ in range(3):
        for bag in range(3):
            assert kept.load(bag, third)[0].shape == (10, 6)
    assert told.reads == [0, 1, 2, 2, 2]
    assert told.drawn == [2, 2, 2]


def test_what_is_kept_on_a_device_gives_what_reading_gives() -> None:
    kept = OnDevice(_Told(), "cpu", budget_bytes=3 * SIZE, keep=True)
    for _ in range(2):
        features, cells = kept.load(1, third)
        np.testing.assert_array_equal(features.numpy(), (FEATURES + 1)[::3])
        np.testing.assert_array_equal(cells.numpy(), CELLS[::3])


def test_the_moments_are_taken_of_what_the_device_keeps() -> None:
    told = _Told()
    kept = OnDevice(told, "cpu", budget_bytes=3 * SIZE, keep=True)
    mean, spread, read = feature_moments(kept, [0, 1])
    assert read == (0, 1)
    want = feature_moments(Bags([(FEATURES, CELLS), (FEATURES + 1, CELLS)]), [0, 1])
    assert mean.equal(want[0])
    assert spread.equal(want[1])
    kept.load(0, third)
    assert told.reads == [0, 1]


@pytest.mark.parametrize("standardise", [True, False])
def test_a_fit_on_a_device_reads_each_bag_once(standardise: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles are drawn anew in each epoch, from bags that lie on the device."""
    monkeypatch.setattr(fitting, "OnDevice", partial(OnDevice, keep=True))
    told = _Told()
    fit(
        build_model("abmil", dim=6, n_out=2, seed=0, hidden=4, attention=2),
        told,
        fit_index=[0, 1, 2],
        select_index=[],
        targets=torch.tensor([0, 1, 0]),
        task=two_classes(),
        settings=FitSettings(epochs=4, tiles_per_bag=10, standardise=standardise),
        seed=0,
        device_budget_bytes=3 * SIZE,
    )
    assert sorted(told.reads) == [0, 1, 2]
    assert not told.drawn
