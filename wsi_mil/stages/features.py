"""The bags of the extract stage as models read them: which slides have one, and their usable tiles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_mil.bags import Bag, BagHeader, cells, read_bag, read_header
from wsi_mil.errors import BagError, EmptyItem, StageError
from wsi_mil.stages import ledger
from wsi_mil.stages.work import Work


class BagFiles:
    """Bags on disk, by number; features stay memory maps until a model picks its tiles."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def load(self, index: int) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
        """Features [tile dim] and cells [tile 2] of the usable tiles of one bag."""
        bag = read_bag(self._paths[index])
        return usable(bag)


def usable(bag: Bag) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    """Features and cells of the tiles that a model may see. Raises EmptyItem where there are none."""
    places, keep = cells(bag.grid), bag.usable
    if keep.all():
        return bag.features, places
    if not keep.any():
        raise EmptyItem(f"not one tile of slide {bag.slide.id!r} could be read and is of a quality to be used")
    return bag.features[keep], places[keep]


def bags_of(work: Work, slides: Iterable[str]) -> tuple[dict[str, Path], dict[str, tuple[str, str]]]:
    """Bags by slide, and for slides without one the outcome (empty or failed) and its reason.

    Raises StageError where a slide was never extracted: nothing is left out unseen.
    """
    stage, found, lacking = work.stage("extract"), {}, {}
    for slide in slides:
        try:
            found[slide] = ledger.require("extract", slide, work)
        except EmptyItem as empty:
            lacking[slide] = ("empty", str(empty))
        except StageError as error:
            told = ledger.read_record(stage, slide, work)
            if told is None:
                raise
            lacking[slide] = ("failed", str(error).removeprefix("extract: "))
    return found, lacking


def header_of(path: Path) -> BagHeader:
    """The header of a bag, read once as long as the file stays the same."""
    return _header(path, path.stat().st_mtime_ns)


def digests_of(paths: Iterable[Path]) -> list[str]:
    """Digests of the features of bags."""
    return [header_of(path).digest for path in paths]


def one_contract(paths: dict[str, Path]) -> BagHeader:
    """The header of the first bag, after checking that all were made alike.

    Raises BagError with the differences, and the slides, where two encoders or scales are mixed.
    """
    names = list(paths)
    first = header_of(paths[names[0]])
    faults = []
    for name in names[1:]:
        differences = first.encoder.difference(header_of(paths[name]).encoder)
        if differences:
            faults.append(f"{name}: {'; '.join(differences)}")
    if faults:
        raise BagError(
            f"the bags do not go together; against {names[0]} differ {len(faults)}: {' | '.join(faults[:3])}; "
            "extract them all with one encoder at one scale"
        )
    return first


@lru_cache(maxsize=65536)
def _header(path: Path, changed_ns: int) -> BagHeader:
    return read_header(path)
