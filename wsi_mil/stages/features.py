"""The bags of the extract stage as models read them: which slides have one, and their usable tiles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_mil.bags import Bag, BagHeader, Draw, Scale, StoredBag, beside, cells, read_bag, read_header
from wsi_mil.errors import BagError, EmptyItem, StageError
from wsi_mil.layout import folder_name
from wsi_mil.stages import ledger
from wsi_mil.stages.work import Work


class BagFiles:
    """Bags on disk, by number. Of a bag of one encoder and one scale only the rows that are asked for are read."""

    def __init__(self, paths: Sequence[Path], *, beside: Sequence[str] = ()) -> None:
        """`beside` names further encoders, as `read_whole` takes them."""
        self._paths, self._beside = paths, beside
        self._stored: dict[int, StoredBag | None] = {}

    def __len__(self) -> int:
        return len(self._paths)

    def load(self, index: int, draw: Draw | None = None) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
        """Features [tile dim] and cells [tile 2] of the usable tiles of one bag, or of those that `draw` picks."""
        stored = self._where(index)
        if stored is not None:
            return stored.read(draw)
        features, places = usable(read_whole(self._paths[index], self._beside))
        rows = draw(len(features)) if draw else None
        return (features, places) if rows is None else (features[rows], places[rows])

    def nbytes(self, index: int) -> int | None:
        """Bytes of one whole bag; None where it has to be put together first."""
        stored = self._where(index)
        return None if stored is None else stored.nbytes

    def cells(self, index: int) -> NDArray[np.int64] | None:
        """Cells of the usable tiles of one bag, read without features; None where it is put together first."""
        stored = self._where(index)
        return None if stored is None else stored.cells()

    def _where(self, index: int) -> StoredBag | None:
        if index not in self._stored:
            self._stored[index] = self._plain(index)
        return self._stored[index]

    def _plain(self, index: int) -> StoredBag | None:
        """Where the rows of a bag lie; None where features of several encoders or scales have to be put together."""
        bag = read_bag(self._paths[index], rows=np.zeros(0, np.int64))
        if self._beside or bag.scales:
            return None
        stored = StoredBag.of(self._paths[index])
        if not len(stored):
            raise EmptyItem(f"not one tile of slide {bag.slide.id!r} could be read and is of a quality to be used")
        return stored


def read_whole(path: Path, encoders: Sequence[str]) -> Bag:
    """A bag with the features of further encoders of the same tiles to the right of its own.

    Their bags lie in the folders beside, `extract/<encoder>/`. A tile that one of them could not read is unreadable.
    Of bags of several scales each scale has the features of all encoders. Raises BagError where the tiles are not the
    very same.
    """
    bag = read_bag(path)
    for encoder in encoders:
        other = read_bag(_beside(path, encoder))
        if other.slide != bag.slide or not np.array_equal(other.grid.coords_l0, bag.grid.coords_l0):
            raise BagError(
                f"slide {bag.slide.id!r}: {encoder} and {bag.encoder.name} did not see the same tiles; "
                "extract with both from one tile/ folder"
            )
        bag = replace(
            bag,
            features=np.concatenate([bag.features, other.features.astype(bag.features.dtype)], axis=1),
            status=np.maximum(bag.status, other.status),
            encoder=bag.encoder.beside(other.encoder),
            scales=_joined_scales(bag, other),
        )
    return bag


def _joined_scales(bag: Bag, other: Bag) -> tuple[Scale, ...]:
    """The coarser scales with the features of both encoders, so that each scale's columns stay together."""
    told = [[(one.grid.mpp, one.grid.coords_l0.tolist()) for one in each.scales] for each in (bag, other)]
    if told[0] != told[1]:
        raise BagError(
            f"slide {bag.slide.id!r}: {bag.encoder.name} has tiles at {1 + len(bag.scales)} scale(s) and "
            f"{other.encoder.name} at {1 + len(other.scales)}, or not the very same; extract with both from one tile/ "
            "folder"
        )
    return tuple(
        replace(
            own,
            features=np.concatenate([own.features, added.features.astype(own.features.dtype)], axis=1),
            status=np.maximum(own.status, added.status),
        )
        for own, added in zip(bag.scales, other.scales, strict=True)
    )


def _beside(path: Path, encoder: str) -> Path:
    found = path.parents[1] / folder_name(encoder) / path.name
    if not found.exists():
        raise BagError(f"{found} is not there: run `wsi-mil extract STUDY.yaml extract.encoder={encoder}` as well")
    return found


def usable(bag: Bag) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    """Features and cells of the tiles that a model may see. Raises EmptyItem where there are none.

    Of a bag of several scales, each tile's features and to their right those of the coarser tiles around it.
    """
    places, keep, features = cells(bag.grid), bag.usable, bag.features
    if not keep.any():
        raise EmptyItem(f"not one tile of slide {bag.slide.id!r} could be read and is of a quality to be used")
    if not keep.all():
        places, features = places[keep], features[keep]
    for scale in bag.scales:
        features = beside(features, places, scale, mpp=bag.grid.mpp)
    return features, places


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


def header_of(path: Path, encoders: Sequence[str] = ()) -> BagHeader:
    """The header of a bag, read once as long as the file stays the same; with what `read_whole` puts beside it."""
    header = _header(path, path.stat().st_mtime_ns)
    for encoder in encoders:
        other = header_of(_beside(path, encoder))
        both = f"{header.digest} + {other.digest}"
        header = replace(header, encoder=header.encoder.beside(other.encoder), digest=both)
    return header


def digests_of(paths: Iterable[Path], encoders: Sequence[str] = ()) -> list[str]:
    """Digests of the features of bags."""
    return [header_of(path, encoders).digest for path in paths]


def one_contract(paths: dict[str, Path], encoders: Sequence[str] = ()) -> BagHeader:
    """The header of the first bag, after checking that all were made alike.

    Raises BagError with the differences, and the slides, where two encoders or scales are mixed.
    """
    names = list(paths)
    first = header_of(paths[names[0]], encoders)
    faults = []
    for name in names[1:]:
        differences = first.encoder.difference(header_of(paths[name], encoders).encoder)
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
