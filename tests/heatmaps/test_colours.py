"""How scores are spread over colours."""

from __future__ import annotations

import numpy as np
import pytest

from wsi_mil.errors import StageError
from wsi_mil.heatmaps import SCALES, colouring, score_colours

VALUES = np.array([-4, 0, 1, 1, np.nan, 96], np.float32)


def test_ranks_are_even_and_ties_share() -> None:
    np.testing.assert_allclose(colouring(VALUES, "rank").positions, [0, 0.25, 0.625, 0.625, np.nan, 1])


def test_range_reaches_from_end_to_end() -> None:
    np.testing.assert_allclose(colouring(VALUES, "range").positions, [0, 0.04, 0.05, 0.05, np.nan, 1])
    assert [text for _, text in colouring(VALUES, "range").ticks] == ["\N{MINUS SIGN}4", "46", "96"]


def test_percentiles_do_not_care_for_one_far_out() -> None:
    values = np.arange(1000, dtype=np.float32)
    values[-1] = 1e9
    positions = colouring(values, "percentile").positions
    assert positions[500] == pytest.approx(0.5, abs=0.01)
    assert positions[-1] == 1


def test_zero_lies_in_the_middle_of_signed() -> None:
    found = colouring(np.array([-1, 0, 0.5, 2], np.float32), "signed")
    assert found.positions[1] == 0.5
    assert found.positions[0] < 0.5 < found.positions[2]
    assert found.ticks[0][1].replace("\N{MINUS SIGN}", "") == found.ticks[2][1]
    middle = found.table()[127:129].astype(int)
    assert middle.min() > 240, "nothing to see at zero"


def test_limits_are_shared_by_slides() -> None:
    one = colouring(np.array([0, 1], np.float32), "range", limits=(0, 4))
    other = colouring(np.array([1, 3], np.float32), "range", limits=(0, 4))
    assert one.positions[1] == other.positions[0] == 0.25
    assert "shared" in one.meaning
    with pytest.raises(StageError, match="'rank' has no limits"):
        colouring(VALUES, "rank", limits=(0, 1))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("values", [[], [2.0], [3.0, 3.0], [0.0, 0.0], [np.nan], [np.nan, 1.0], [np.inf, 1.0, 2.0]])
def test_odd_values_have_colours(scale: str, values: list[float]) -> None:
    found = colouring(np.array(values, np.float32), scale)
    known = found.positions[np.isfinite(found.positions)]
    assert ((known >= 0) & (known <= 1)).all()
    assert np.isnan(found.positions[np.isnan(np.array(values, np.float32))]).all()


def test_colours_are_transparent_where_there_is_no_score() -> None:
    colours = score_colours(VALUES)
    assert colours.dtype == np.uint8
    assert colours[:, 3].tolist() == [255, 255, 255, 255, 0, 255]
    assert colours[0, :3].tolist() == [68, 1, 84], "viridis begins in dark violet"


def test_lightness_grows_evenly() -> None:
    """What perceptually uniform means: equal steps of score are about equal steps of lightness."""
    from skimage.color import rgb2lab

    lightness = rgb2lab(colouring(VALUES, "rank").table()[None] / 255)[0, :, 0]
    steps = np.diff(lightness[::16])
    assert steps.min() > 0.5 * steps.mean()
    assert steps.max() < 1.6 * steps.mean()


def test_an_unknown_scale_gets_a_suggestion() -> None:
    with pytest.raises(StageError, match="did you mean 'rank'"):
        colouring(VALUES, "ranks")
