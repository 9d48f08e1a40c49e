"""The pace of extraction: tiles a second of each step, what waited for what, and which step holds up the rest."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

Batch = TypeVar("Batch")

READING = ("fetch", "decode", "transform")
"""Steps of the reader threads; they run beside the others."""

ENCODING = ("stain", "encode", "measure")
"""Steps of the threads that encode, a batch each."""

STEPS = (*READING, *ENCODING, "write")

KEPT_UP = 0.05
"""Share of the time that encoding may wait for pixels before reading is called the bottleneck."""


class Stopwatch:
    """Seconds of each step, added up over threads, and of waiting for the next batch."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.waited_s = 0.0
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        """Add the seconds of a block to a step."""
        start = time.perf_counter()
        yield
        with self._lock:
            self.seconds[step] += time.perf_counter() - start

    def waits(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches; the time until each comes is waiting."""
        coming = iter(batches)
        while True:
            start = time.perf_counter()
            batch = next(coming, None)
            self.waited_s += time.perf_counter() - start
            if batch is None:
                return
            yield batch


def pace(
    seconds: Mapping[str, float], *, wall_s: float, waited_s: float, threads: int, hands: int = 1
) -> dict[str, Any]:
    """Facts of one slide, to be stored: busy seconds a step, seconds in all, seconds of waiting for pixels.

    `threads` read, and `hands` encode, side by side.
    """
    return {
        "seconds": {name: round(seconds.get(name, 0.0), 4) for name in STEPS},
        "wall_s": round(wall_s, 3),
        "waited_s": round(waited_s, 3),
        "threads": threads,
        "hands": hands,
    }


def told_pace(slides: Iterable[tuple[int, Mapping[str, Any]]]) -> tuple[list[tuple[str, str, str]], str]:
    """Of slides (tiles, pace): a row a step (name, share of the time, tiles/s), and a sentence on the bottleneck."""
    busy: dict[str, float] = defaultdict(float)
    tiles, wall, waited, threads, hands = 0, 0.0, 0.0, 1, 1
    for count, one in slides:
        tiles += count
        for name, seconds in one["seconds"].items():
            busy[name] += seconds
        wall, waited = wall + one["wall_s"], waited + one["waited_s"]
        threads, hands = max(threads, one["threads"]), max(hands, one["hands"])
    if not tiles or not wall:
        return [], ""
    rows = []
    for name in STEPS:
        side = threads if name in READING else hands if name in ENCODING else 1
        if busy[name] > 0:
            rows.append((name, f"{busy[name] / wall / side:.0%}", f"{tiles * side / busy[name]:,.0f}"))
    share = waited / wall
    slowest = max(READING if share > KEPT_UP else STEPS[len(READING) :], key=lambda name: busy[name])
    if share > KEPT_UP:
        why = f"encoding waited {share:.0%} of the time for pixels, most of it for {slowest}: more runtime.readers help"
    else:
        why = f"reading kept up (encoding waited {share:.0%} of the time); {slowest} takes the time"
    return rows, f"{tiles / wall:,.0f} tiles/s a process; {why}"
