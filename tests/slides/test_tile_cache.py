"""The cache of decoded tiles: once each, by one thread, within a budget."""

from __future__ import annotations

import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from wsi_mil.slides.tile_cache import TileCache

TILE = np.zeros((10, 10, 3), np.uint8)


def test_many_threads_that_ask_at_once_have_it_made_once() -> None:
    cache, made, start = TileCache(), [], threading.Barrier(8)

    def make() -> np.ndarray:
        time.sleep(0.05)
        made.append(1)
        return TILE

    def ask() -> np.ndarray:
        start.wait()
        return cache.get("a", make)

    with ThreadPoolExecutor(8) as pool:
        got = [future.result() for future in [pool.submit(ask) for _ in range(8)]]
    assert len(made) == cache.decoded == 1
    assert all(tile is TILE for tile in got)


def test_what_was_used_longest_ago_goes_first() -> None:
    cache = TileCache(budget_bytes=3 * TILE.nbytes)
    for key in "abc":
        cache.get(key, TILE.copy)
    cache.get("a", TILE.copy)
    cache.get("d", TILE.copy)
    assert [cache.has(key) for key in "abcd"] == [True, False, True, True]
    assert cache.decoded == 4


def test_a_failure_is_told_to_all_and_not_kept() -> None:
    cache = TileCache()

    def fail() -> np.ndarray:
        raise ValueError("damaged")

    for _ in range(2):
        with pytest.raises(ValueError, match="damaged"):
            cache.get("a", fail)
    assert cache.get("a", lambda: TILE) is TILE


def test_a_tile_larger_than_the_budget_is_still_given() -> None:
    cache = TileCache(budget_bytes=10)
    assert cache.get("a", lambda: TILE) is TILE


def test_it_travels_empty() -> None:
    cache = TileCache(budget_bytes=77)
    cache.get("a", lambda: TILE)
    there = pickle.loads(pickle.dumps(cache))
    assert not there.has("a")
    assert there._budget == 77
