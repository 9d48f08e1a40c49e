"""What one bag is: a slide, or all slides of a patient side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from wsi_mil import training
from wsi_mil.bags import Bag, Draw, times_coarser
from wsi_mil.errors import EmptyItem
from wsi_mil.stages.features import bags_of, read_whole, usable

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work

APART = 100
"""Cells between two slides of a patient: further than any method looks from a tile to its neighbours."""

Tiles = tuple[NDArray[Any], NDArray[Any]]

_Told = TypeVar("_Told")


def units_of(work: Work, slides: Sequence[str]) -> list[tuple[str, ...]]:
    """Slides that make one bag together, in the order of the first of each."""
    if work.study.model.bag_of == "slide":
        return [(slide,) for slide in slides]
    units: dict[str, list[str]] = {}
    for slide, patient in zip(slides, work.rows_of(slides)["patient"], strict=True):
        units.setdefault(patient, []).append(slide)
    return [tuple(unit) for unit in units.values()]


def region_of(work: Work) -> int:
    """Cells along one tile of the coarser scale; 1 where there is one scale only."""
    tile = work.study.tile
    return times_coarser(tile.mpp, tile.coarser[0]) if len(tile.coarser) == 1 else 1


class UnitBags:
    """Bags of one or more slides each, by number."""

    def __init__(self, bags: training.BagSource, units: Sequence[Sequence[int]], *, region: int = 1) -> None:
        """`units` has the numbers of the slides of each, `region` the cells along a tile of the coarser scale."""
        self._bags, self._units, self._region = bags, units, region

    def __len__(self) -> int:
        return len(self._units)

    def nbytes(self, index: int) -> int | None:
        """Bytes of one whole bag; None where that of one of its slides is not known."""
        if not isinstance(self._bags, training.Known):
            return None
        sizes = [size for _, size in self._each(index, self._bags.nbytes)]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def cells(self, index: int) -> NDArray[np.int64] | None:
        """Cells of one whole bag; None where those of one of its slides are not to be had without its features."""
        placed = self._placed(index)
        return None if placed is None else self._joined(placed)

    def load(self, index: int, draw: Draw | None = None) -> Tiles:
        """Features and cells, all or those that `draw` picks of all slides' tiles together.

        A slide without a usable tile is left out unless all of them are.
        """
        if len(self._units[index]) == 1:
            return self._bags.load(self._units[index][0], draw)
        placed = self._placed(index) if draw else None
        if draw is None or placed is None:
            parts = [part for _, part in self._each(index, self._bags.load)]
            return _picked(side_by_side(parts, region=self._region), draw)
        rows = draw(sum(len(cells) for _, cells in placed))
        if rows is None:
            return side_by_side([self._bags.load(slide) for slide, _ in placed], region=self._region)
        starts = np.cumsum([0, *(len(cells) for _, cells in placed)])
        own = [np.asarray(rows[(rows >= start) & (rows < end)] - start) for start, end in pairwise(starts)]
        drawn = [self._bags.load(slide, _exactly(mine))[0] for (slide, _), mine in zip(placed, own, strict=True)]
        return np.concatenate(drawn), self._joined(placed)[rows]

    def _joined(self, placed: Sequence[tuple[int, NDArray[np.int64]]]) -> NDArray[np.int64]:
        return np.concatenate(apart([cells for _, cells in placed], region=self._region))

    def _placed(self, index: int) -> list[tuple[int, NDArray[np.int64]]] | None:
        """Number and cells of each slide of a bag; None where some cells come with their features only."""
        if not isinstance(self._bags, training.Known):
            return None
        found = self._each(index, self._bags.cells)
        known = [(slide, cells) for slide, cells in found if cells is not None]
        return known if len(known) == len(found) else None

    def _each(self, index: int, ask: Callable[[int], _Told]) -> list[tuple[int, _Told]]:
        """What is told of each slide of a bag that has a usable tile."""
        told = []
        for slide in self._units[index]:
            try:
                told.append((slide, ask(slide)))
            except EmptyItem:
                continue
        if not told:
            raise EmptyItem("not one tile of the patient's slides could be read and is of a quality to be used")
        return told


def side_by_side(parts: Sequence[Tiles], *, region: int = 1) -> Tiles:
    """Several slides' tiles as one bag, their cells moved as `apart` does."""
    if len(parts) == 1:
        return parts[0]
    cells = apart([cells for _, cells in parts], region=region)
    return np.concatenate([features for features, _ in parts]), np.concatenate(cells)


def apart(parts: Sequence[NDArray[np.int64]], *, region: int = 1) -> list[NDArray[np.int64]]:
    """Cells of several slides side by side: each slide's columns begin APART cells to the right of the slide before.

    Slides are moved by whole regions of `region` x `region` cells, so that what lay in one coarser tile still does.
    """
    if len(parts) == 1:
        return list(parts)
    moved, start = [], 0
    for cells in parts:
        own = cells - cells.min(axis=0) // region * region
        moved.append(own + np.array([start, 0]))
        start += -(-(int(own[:, 0].max()) + 1 + APART) // region) * region
    return moved


def _picked(tiles: Tiles, draw: Draw | None) -> Tiles:
    rows = draw(len(tiles[0])) if draw else None
    return tiles if rows is None else (tiles[0][rows], tiles[1][rows])


def _exactly(rows: NDArray[Any]) -> Draw:
    return lambda _: rows


def with_siblings(bag: Bag, work: Work) -> tuple[list[Bag], int]:
    """The bags that are read as one with the bag of a slide, in the cohort's order, and which of them is its own."""
    if work.study.model.bag_of == "slide":
        return [bag], 0
    frame, own = work.cohort.frame, bag.slide.id
    patient = frame["patient"][frame["slide"] == own].iloc[0]
    slides = list(frame["slide"][frame["patient"] == patient])
    if work.study.predict.models is None:
        from wsi_mil.stages.train import read_folds

        # Slides of a patient outside the folds are read apart from those within, as they were in training.
        learning = set(read_folds(work)["slide"])
        slides = [slide for slide in slides if (slide in learning) == (own in learning)]
    found, _ = bags_of(work, slides)
    bags = [bag if slide == own else read_whole(path, work.study.model.beside) for slide, path in found.items()]
    bags = [one for one in bags if one.usable.any() or one.slide.id == own]
    return bags, [one.slide.id for one in bags].index(own)


def read_unit(bags: Sequence[Bag], own: int, *, region: int = 1) -> tuple[Tiles, slice]:
    """The tiles of some bags as one, and where those of the bag `own` lie. Raises EmptyItem where it has none."""
    parts = [usable(bag) for bag in bags]
    start = sum(len(features) for features, _ in parts[:own])
    return side_by_side(parts, region=region), slice(start, start + len(parts[own][0]))


def cut(said: training.Inference, own: slice) -> training.Inference:
    """What was said of one slide's tiles; the logits are those of all of the patient's."""
    return replace(
        said,
        scores=said.scores[own],
        attention=None if said.attention is None else said.attention[own],
        contributions=None if said.contributions is None else said.contributions[own],
        maps={name: values[own] for name, values in said.maps.items()},
    )


def first_slide(work: Work, slide: str, bags: Sequence[Bag]) -> str:
    """The slide whose row of the table tells of the patient: the first of those that are read together."""
    return slide if work.study.model.bag_of == "slide" else bags[0].slide.id
