"""Rows of a bag straight from its file: what reading it whole gives, all or some, and never from another file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from contracts.store import some_bag

from wsi_mil.bags import Bag, StoredBag, bag_to_hdf5, cells, read_bag
from wsi_mil.errors import BagError
from wsi_mil.grid import TileStatus

Change = Callable[[Bag], Bag]


def with_bad_tiles(bag: Bag) -> Bag:
    status = bag.status.copy()
    status[[0, 3]] = TileStatus.UNREADABLE, TileStatus.EXCLUDED
    return dataclasses.replace(bag, status=status)


@pytest.mark.parametrize("change", [lambda bag: bag, with_bad_tiles])
def test_it_gives_what_reading_the_whole_bag_gives(tmp_path: Path, change: Change) -> None:
    path = tmp_path / "A1.h5"
    path.write_bytes(bag_to_hdf5(change(some_bag())))
    whole = read_bag(path)
    features, places = whole.features[whole.usable], cells(whole.grid)[whole.usable]
    stored = StoredBag.of(path)
    assert len(stored) == len(features)
    assert stored.nbytes == sum(one.nbytes for one in stored.read())
    np.testing.assert_array_equal(stored.cells(), places)
    for draw in (None, lambda _: None, lambda count: np.arange(1, count, 2)):
        got = stored.read(draw)
        want = slice(1, None, 2) if draw and draw(len(stored)) is not None else slice(None)
        np.testing.assert_array_equal(got[0], features[want])
        np.testing.assert_array_equal(got[1], places[want])
        assert got[0].dtype == whole.features.dtype


def test_a_bag_that_changed_meanwhile_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "A1.h5"
    path.write_bytes(bag_to_hdf5(some_bag()))
    stored = StoredBag.of(path)
    path.write_bytes(path.read_bytes() + b" ")
    for look in (stored.read, stored.cells):
        with pytest.raises(BagError, match="has changed"):
            look()
    path.unlink()
    with pytest.raises(BagError, match="cannot be read"):
        stored.read()


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "A1.h5"
    path.write_bytes(bag_to_hdf5(some_bag())[:-2000])
    with pytest.raises(BagError):
        StoredBag.of(path)
