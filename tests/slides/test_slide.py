"""What every reader inherits, held against a slide in memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from contracts.slide import ArraySlide, shrunk, textured
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import wsi_mil.slides.regions as module
from wsi_mil.errors import ScaleError, SlideError
from wsi_mil.geometry import Level
from wsi_mil.slides import open_slide
from wsi_mil.slides.slide import SlideInfo


def ramp(width: int, height: int) -> np.ndarray:
    """x in red and y in green, so that a pixel tells where it was read."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.zeros_like(x)], axis=2).astype(np.uint8)


def test_the_far_corner_of_a_level_that_is_no_whole_factor_does_not_drift() -> None:
    full = textured(2008, 2008)
    slide = ArraySlide([full, shrunk(full, 500, 500)])
    x = 4.016 * 430
    got = slide.read(x, x, size_px=64, mpp=0.5 * 4.016).astype(int)
    assert slide.asked[-1][1] == 1

    def off(shift: float) -> float:
        box = (x + shift, x + shift, x + shift + 257.024, x + shift + 257.024)
        want = Image.fromarray(full).resize((64, 64), Image.Resampling.BICUBIC, box=box)
        return float(np.abs(got - np.asarray(want)).mean())

    assert off(0) < 1
    assert off(0) < min(off(1), off(-1))


def test_each_axis_has_its_own_scale() -> None:
    slide = ArraySlide([ramp(200, 200)], mpp=(0.25, 0.5))
    got = slide.read(40, 40, size_px=30, mpp=1.0)
    # A pixel is 4 level-0 pixels wide and 2 high; its value is the place of its middle.
    np.testing.assert_allclose(got[10, :, 0], 40 + 4 * np.arange(30) + 1.5, atol=0.6)
    np.testing.assert_allclose(got[:, 10, 1], 40 + 2 * np.arange(30) + 0.5, atol=0.6)


@settings(deadline=None, max_examples=40)
@given(
    place=st.floats(20, 100),
    factor=st.floats(0.7, 1.9),
)
def test_a_fractional_place_is_read_there_and_not_beside_it(place: float, factor: float) -> None:
    slide = ArraySlide([ramp(250, 250)], mpp=(1.0, 1.0))
    got = slide.read(place, place, size_px=40, mpp=factor)
    want = place + (np.arange(40) + 0.5) * factor - 0.5
    np.testing.assert_allclose(got[20, :, 0], want, atol=1.01)


def test_neighbours_meet_without_a_seam() -> None:
    slide = ArraySlide([textured(400, 400)])
    both = slide.read(30, 30, size_px=80, mpp=0.8)
    right = slide.read(30 + 40 * 1.6, 30, size_px=40, mpp=0.8)
    np.testing.assert_array_equal(both[:40, 40:], right)


def test_a_read_in_parts_is_the_read_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ArraySlide([textured(700, 500)]).overview(max_px=90)[0]
    tile = ArraySlide([textured(700, 500)]).read(11, 13, size_px=50, mpp=3.3)
    monkeypatch.setattr(module, "BLOCK_PX", 5000)
    slide = ArraySlide([textured(700, 500)])
    in_parts = slide.overview(max_px=90)[0]
    assert max(width * height for (_, _, width, height), _ in slide.asked) <= 5000
    assert np.abs(in_parts.astype(int) - whole).mean() <= 1
    assert np.abs(slide.read(11, 13, size_px=50, mpp=3.3).astype(int) - tile).max() <= 1


def test_no_white_is_mixed_into_the_edge() -> None:
    slide = ArraySlide([np.full((300, 400, 3), 90, np.uint8)])
    assert (slide.overview(max_px=37)[0] == 90).all()
    assert (slide.read(0, 0, size_px=20, mpp=1.37) == 90).all()
    assert (slide.read(400 - 20 * 2.74, 0, size_px=20, mpp=1.37) == 90).all()


def test_a_tile_over_the_edge_is_white_from_there_on() -> None:
    got = ArraySlide([np.full((300, 400, 3), 90, np.uint8)]).read(360, 260, size_px=40, mpp=1.0)
    assert (got[:16, :16] == 90).all()  # nearer the filter feels the white
    assert (got[24:] == 255).all()
    assert (got[:, 24:] == 255).all()


def test_an_overview_takes_the_coarsest_level_that_is_fine_enough() -> None:
    full = textured(1600, 1600)
    slide = ArraySlide([full, shrunk(full, 400, 400), shrunk(full, 100, 100)])
    slide.overview(max_px=200)
    assert {level for _, level in slide.asked} == {1}


def test_a_huge_slide_without_a_pyramid_is_refused_an_overview(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsi_mil.slides.slide.MAX_OVERVIEW_PX", 1000)
    with pytest.raises(SlideError, match="pyramid"):
        ArraySlide([textured(64, 64)]).overview(max_px=8)


def test_one_pixel_of_the_whole_world_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_PX", 100)
    with pytest.raises(ScaleError, match="no level coarse enough"):
        ArraySlide([textured(64, 64)]).read(0, 0, size_px=1, mpp=32)


def test_an_unknown_scale_is_refused_with_the_two_ways_to_give_it() -> None:
    slide = ArraySlide([textured(64, 64)], mpp=None)
    assert slide.mpp_source == "missing"
    for ask in (lambda: slide.mpp, lambda: slide.ref(), lambda: slide.read(0, 0, size_px=8, mpp=1)):
        with pytest.raises(ScaleError, match=r"column `mpp`.*--mpp"):
            ask()
    assert slide.overview(max_px=8)[0].shape == (8, 8, 3)
    assert "unknown um/px" in repr(slide)


@pytest.mark.parametrize(("size", "words"), [((0, 5), "no pixels"), ((2_000_000, 2_000_000), "broken")])
def test_an_impossible_size_is_refused(size: tuple[int, int], words: str) -> None:
    class Claims(ArraySlide):
        def __init__(self) -> None:
            info = SlideInfo((Level(*size, (1.0, 1.0)),), (0.5, 0.5), "array")
            super(ArraySlide, self).__init__(Path("x"), info, id="claims", mpp=None, mpp_source="metadata")

    with pytest.raises(SlideError, match=words):
        Claims()


def test_an_overview_of_a_damaged_slide_is_refused_or_grey_there_and_says_so(
    write_slide: Callable[..., Path], break_tile: Callable[[Path, int], None], caplog: pytest.LogCaptureFixture
) -> None:
    path = write_slide(rgb=textured(1024, 768), downsamples=(1,))
    break_tile(path, 9)  # the second tile of the second row of 8
    for reader in ("tiff", "openslide"):
        caplog.clear()
        with open_slide(path, reader=reader) as slide:
            with pytest.raises(SlideError, match="damaged"):
                slide.overview(max_px=512)
            with caplog.at_level(logging.WARNING, logger="wsi_mil"):
                rgb, _ = slide.overview(max_px=512, patch=True)
        assert "shown grey" in caplog.text
        lost = (np.abs(rgb.astype(int) - module.DAMAGED) <= 2).all(axis=2)
        assert lost[70:122, 70:122].all()
        assert lost.mean() < (0.03 if reader == "tiff" else 0.10)


def test_an_overview_of_which_nothing_can_be_read_is_refused(test_data: Path) -> None:
    with open_slide(test_data / "slides/broken/unreadable.svs") as slide, pytest.raises(SlideError):
        slide.overview(max_px=16, patch=True)
