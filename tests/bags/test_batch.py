"""Batches: ragged, without unreadable tiles, traceable to their rows, and never of two encoders."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from contracts.store import some_bag, some_contract

from wsi_mil.bags import cells, collate
from wsi_mil.errors import BagError
from wsi_mil.grid import TileStatus


def test_bags_lie_one_after_another_without_unreadable_tiles() -> None:
    bags = [some_bag("A1"), some_bag("B2", tiles=5, seed=1)]
    batch = collate(bags)
    assert len(batch) == 2
    assert batch.slides == ("A1", "B2")
    assert batch.offsets.tolist() == [0, len(bags[0]) - 1, len(bags[0]) - 1 + 4]
    assert batch.features.dtype == torch.float32
    for number, bag in enumerate(bags):
        part = slice(*batch.offsets[number : number + 2].tolist())
        np.testing.assert_array_equal(batch.features[part], bag.features[bag.usable].astype(np.float32))
        np.testing.assert_array_equal(batch.cells[part], cells(bag.grid)[bag.usable])
        np.testing.assert_array_equal(batch.rows[part], np.flatnonzero(bag.usable))


def test_chosen_rows_keep_their_order_and_lose_the_unreadable() -> None:
    bag = some_bag()
    batch = collate([bag], rows=[np.array([9, 2, 0])])
    assert batch.rows.tolist() == [9, 0]
    np.testing.assert_array_equal(batch.features, bag.features[[9, 0]].astype(np.float32))


def test_a_batch_does_not_share_memory_with_its_bag() -> None:
    bag = some_bag(dtype="float32", tiles=2)
    frozen = bag.features.copy()
    frozen.flags.writeable = False
    batch = collate([dataclasses.replace(bag, features=frozen)])
    batch.features.zero_()
    assert frozen.any()


def test_a_bag_without_a_usable_tile_is_named() -> None:
    bag = some_bag(tiles=3)
    broken = dataclasses.replace(bag, status=np.full(3, TileStatus.UNREADABLE, np.uint8))
    with pytest.raises(BagError, match="'A1': none of its tiles"):
        collate([broken])


def test_two_encoders_do_not_mix() -> None:
    one, other = some_bag("A1"), dataclasses.replace(some_bag("B2"), encoder=some_contract(name="other"))
    with pytest.raises(BagError, match="'A1' and 'B2'.*name: 'some' -> 'other'"):
        collate([one, other])


def test_no_bags_make_no_batch() -> None:
    with pytest.raises(BagError, match="at least one"):
        collate([])


def test_a_batch_moves_as_a_whole() -> None:
    batch = collate([some_bag()]).to("meta")
    assert {tensor.device.type for tensor in (batch.features, batch.cells, batch.offsets, batch.rows)} == {"meta"}
