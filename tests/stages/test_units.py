"""Slides of a patient side by side: far apart, in order, and taken apart again for their maps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from studies import open_work

from wsi_mil.errors import EmptyItem
from wsi_mil.stages import Work
from wsi_mil.stages.features import BagFiles
from wsi_mil.stages.trained import read_checked_bag
from wsi_mil.stages.units import APART, UnitBags, read_unit, side_by_side, units_of, with_siblings


class Two:
    """Two slides of 3 and 2 tiles, and one without any."""

    def __len__(self) -> int:
        return 3

    def load(self, index: int, draw: object = None) -> tuple[np.ndarray, np.ndarray]:
        if index == 2:
            raise EmptyItem("no tile")
        count = 3 - index
        cells = np.stack([np.arange(count) + 40, np.arange(count) * 2 + 7], axis=1)
        return np.full((count, 4), index, np.float32), cells.astype(np.int64)


class Known(Two):
    """The same with cells that are known beforehand; the rows that are read are counted."""

    def __init__(self) -> None:
        self.read = 0

    def cells(self, index: int) -> np.ndarray:
        return Two.load(self, index)[1]

    def nbytes(self, index: int) -> int:
        return sum(one.nbytes for one in Two.load(self, index))

    def load(self, index: int, draw: Callable[[int], np.ndarray] | None = None) -> tuple[np.ndarray, np.ndarray]:
        features, cells = super().load(index)
        rows = np.arange(len(features)) if draw is None else draw(len(features))
        self.read += len(rows)
        return features[rows], cells[rows]


@pytest.mark.parametrize("region", [1, 4])
@pytest.mark.parametrize("rows", [[0, 4], [3], [1, 2], None])
def test_of_a_patients_slides_only_the_drawn_rows_are_read(rows: list[int] | None, region: int) -> None:
    asked = []

    def draw(count: int) -> np.ndarray | None:
        asked.append(count)
        return None if rows is None else np.array(rows)

    known = Known()
    bags, whole = (UnitBags(one, [[0, 2, 1]], region=region) for one in (known, Two()))
    features, cells = bags.load(0, draw)
    assert known.read == (5 if rows is None else len(rows))
    want = whole.load(0, draw)
    np.testing.assert_array_equal(features, want[0])
    np.testing.assert_array_equal(cells, want[1])
    assert asked == [5, 5]
    assert bags.nbytes(0) == sum(one.nbytes for one in whole.load(0))
    np.testing.assert_array_equal(bags.cells(0), whole.load(0)[1])
    assert whole.nbytes(0) is None
    assert whole.cells(0) is None


def test_slides_lie_a_hundred_cells_apart() -> None:
    features, cells = side_by_side([Two().load(0), Two().load(1)])
    assert features[:, 0].tolist() == [0, 0, 0, 1, 1]
    assert cells.tolist() == [[0, 0], [1, 2], [2, 4], [3 + APART, 0], [4 + APART, 2]]
    one = Two().load(0)
    assert side_by_side([one])[1] is one[1]  # a slide alone stays where it was


@pytest.mark.parametrize("region", [2, 3, 4])
def test_tiles_of_one_coarser_tile_stay_in_one(region: int) -> None:
    parts = [Two().load(number) for number in (0, 1, 0)]
    _, cells = side_by_side(parts, region=region)
    start = 0
    for _, own in parts:
        moved = cells[start : start + len(own)]
        assert ((moved - own) % region == 0).all()
        start += len(own)
    assert cells[3, 0] - cells[2, 0] > APART


def test_a_slide_without_tiles_is_left_out_unless_it_is_all() -> None:
    bags = UnitBags(Two(), [[0], [0, 2, 1], [2]])  # type: ignore[arg-type]
    assert len(bags) == 3
    assert len(bags.load(0)[0]) == 3
    assert len(bags.load(1)[0]) == 5
    with pytest.raises(EmptyItem):
        bags.load(2)


def test_bags_on_disk_tell_their_size_and_cells_beforehand(copy_of: Callable[..., Work]) -> None:
    work = copy_of("tissue", "tile", "extract", "split")
    paths = [work.root / "extract" / "offline" / f"S0{number}.h5" for number in (1, 2)]
    bags = BagFiles(paths)
    for number in range(2):
        features, cells = bags.load(number)
        assert bags.nbytes(number) == features.nbytes + cells.nbytes
        np.testing.assert_array_equal(bags.cells(number), cells)
    joined = BagFiles(paths, beside=["offline"])
    assert (joined.nbytes(0), joined.cells(0)) == (None, None)


def test_siblings_are_the_patients_slides_and_no_others(copy_of: Callable[..., Work], cohort: object) -> None:
    work = copy_of("tissue", "tile", "extract", "split")
    joined = open_work(cohort, work.root, "model.bag_of=patient")  # type: ignore[arg-type]
    frame = joined.cohort.frame
    slides = list(frame["slide"])
    assert units_of(work, slides) == [(slide,) for slide in slides]
    units = units_of(joined, slides)
    assert [slide for unit in units for slide in unit] == slides
    assert {frame.set_index("slide")["patient"][unit[0]] for unit in units} == set(frame["patient"])
    pair = next(unit for unit in units if len(unit) == 2)
    bags, own = with_siblings(read_checked_bag(pair[1], joined), joined)
    assert ([bag.slide.id for bag in bags], own) == (list(pair), 1)
    (features, cells), place = read_unit(bags, own)
    assert len(features) == len(cells) == sum(int(bag.usable.sum()) for bag in bags)
    np.testing.assert_array_equal(features[place], np.asarray(bags[1].features)[bags[1].usable])
    bags, own = with_siblings(read_checked_bag(pair[1], work), work)
    assert (len(bags), own) == (1, 0)
