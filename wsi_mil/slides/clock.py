"""Where the time of reading goes: seconds of each step, added up over all threads."""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Any, final


@final
class Clock:
    """Busy seconds by step: "fetch" (bytes from disk), "transform" (to the scale asked for), and "busy", which is all
    that the reader threads did; the rest of it is decoding."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = defaultdict(float)

    def add(self, step: str, seconds: float) -> None:
        """Add seconds to a step."""
        with self._lock:
            self._seconds[step] += seconds

    @property
    def steps(self) -> dict[str, float]:
        """Seconds of fetching, decoding and transforming so far."""
        with self._lock:
            fetch, transform = self._seconds["fetch"], self._seconds["transform"]
            decode = max(0.0, self._seconds["busy"] - fetch - transform)
        return {"fetch": fetch, "decode": decode, "transform": transform}

    def __reduce__(self) -> tuple[Any, ...]:
        return Clock, ()
