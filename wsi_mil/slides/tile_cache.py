"""Decoded tiles kept for their neighbours: each is decoded once, by whichever thread needs it first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, final

import numpy as np
from jaxtyping import UInt8

Pixels = UInt8[np.ndarray, "h w 3"]

CACHE_BYTES = 256 << 20
"""Of decoded tiles a slide. The tile path walks in bands so narrow that what neighbours share fits into half of it."""


@final
class TileCache:
    """The tiles used last, up to a number of bytes."""

    def __init__(self, budget_bytes: int = CACHE_BYTES) -> None:
        self._budget = budget_bytes
        self._used = 0
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self.decoded = 0
        """How many tiles were made since the start."""

    def get(self, key: Hashable, make: Callable[[], Pixels]) -> Pixels:
        """The tile of a key, made by `make` if it is not here. Threads that ask for the same one wait for it."""
        with self._lock:
            entry = self._entries.get(key)
            if is_mine := entry is None:
                entry = self._entries[key] = _Entry()
                # Taken before any other thread can see the entry, and let go when the pixels are there.
                entry.making.acquire()
                self.decoded += 1
            else:
                self._entries.move_to_end(key)
        if not is_mine:
            with entry.making:
                if entry.error is not None:
                    raise entry.error
                return entry.pixels
        try:
            entry.pixels = make()
        except BaseException as error:
            entry.error = error
            with self._lock:
                self._entries.pop(key, None)
            raise
        finally:
            entry.making.release()
        self._keep(key, entry)
        return entry.pixels

    def has(self, key: Hashable) -> bool:
        """Whether a tile is here or being made."""
        return key in self._entries

    def clear(self) -> None:
        """Forget all tiles."""
        with self._lock:
            self._entries.clear()
            self._used = 0

    def _keep(self, key: Hashable, entry: _Entry) -> None:
        with self._lock:
            if self._entries.get(key) is not entry:  # cleared meanwhile
                return
            entry.bytes = entry.pixels.nbytes
            self._used += entry.bytes
            for old in list(self._entries) if self._used > self._budget else ():
                if self._used <= self._budget:
                    break
                # One that is being made has no size yet and is needed at once.
                if self._entries[old].bytes and old != key:
                    self._used -= self._entries.pop(old).bytes

    def __reduce__(self) -> tuple[Any, ...]:
        return TileCache, (self._budget,)


class _Entry:
    __slots__ = ("bytes", "error", "making", "pixels")

    pixels: Pixels

    def __init__(self) -> None:
        self.making = threading.Lock()
        self.error: BaseException | None = None
        self.bytes = 0
