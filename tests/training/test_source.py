"""Where bags come from: whole or in part, kept while they fit, on the device that computes."""

from __future__ import annotations

import numpy as np
import torch

from wsi_mil.training import Bags, Cached
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


def test_a_part_of_a_bag_is_not_kept_for_the_whole() -> None:
    counted = _Counted()
    cached = Cached(counted, budget_bytes=2 * SIZE)
    assert cached.load(0, third)[0].shape == (10, 6)
    assert cached.load(0)[0].shape == (30, 6)
    assert counted.reads == [0, 0]


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
