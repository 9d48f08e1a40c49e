"""The exception tree: every error says what was wrong, the value, where, and what to do.

WsiMilError
├── ConfigError      a study file, a flag or an environment variable
├── CohortError      a table of slides, labels or tiles
├── SlideError       a slide that cannot be opened, placed or read
│   └── ScaleError   a slide whose scale is not known, or a scale it cannot give
├── BagError         a bag of features that is broken, unsafe or of another kind
├── EncoderError     an encoder, its weights or its contract
├── ModelError       an aggregator, its options or its checkpoint
├── TaskError        labels that do not fit the question asked
├── StageError       a stage that cannot run as asked
├── MissingExtra     a library that an optional part of the package needs
└── EmptyItem        not a fault: an item with nothing in it (no tissue, no tiles)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class WsiMilError(Exception):
    """Root of all errors that the package raises on purpose."""


class ConfigError(WsiMilError):
    """A study file, a flag or an environment variable is wrong."""


class CohortError(WsiMilError):
    """A table of slides, labels or tiles is wrong."""


class SlideError(WsiMilError):
    """A slide cannot be opened or read."""


class ScaleError(SlideError):
    """The scale of a slide is not known, or the slide cannot give the scale asked for."""


class BagError(WsiMilError):
    """A bag of features is broken, unsafe or of another kind than asked for."""


class EncoderError(WsiMilError):
    """An encoder, its weights or its contract is wrong."""


class ModelError(WsiMilError):
    """An aggregator, its options or its checkpoint is wrong."""


class TaskError(WsiMilError):
    """Labels do not fit the question asked."""


class StageError(WsiMilError):
    """A stage cannot run as asked."""


class MissingExtra(WsiMilError):
    """A library is not installed that an optional part of the package needs."""

    def __init__(self, library: str, *, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the library {library!r}, which is not installed: pip install 'wsi_mil[{extra}]'"
        )


class EmptyItem(WsiMilError):
    """Nothing is in this item (no tissue, no tiles): it ends as `empty`, which is an answer and not a failure."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """A clause that names the nearest known name, or lists them all; empty where nothing is known."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f": did you mean {near[0]!r}?"
    return f"; known: {', '.join(names)}" if names else ""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The sentence for a name that is not in a table, with the nearest one that is."""
    return f"unknown {kind} {name!r}{suggestion(name, known)}"
