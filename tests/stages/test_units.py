"""Slides of a patient side by side: far apart, in order, and taken apart again for their maps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from studies import open_work

from wsi_mil.errors import EmptyItem
from wsi_mil.stages import Work
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
