"""The OpenSlide reader: scale, white, damage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contracts.slide import SlideContract, textured

from wsi_mil.errors import SlideError
from wsi_mil.slides import Slide, open_slide

Write = Callable[..., Path]


def openslide(*place: Any, **options: Any) -> Slide:
    """A slide through OpenSlide, whatever other reader would take it."""
    return open_slide(*place, reader="openslide", **options)


class TestOpenSlideReader(SlideContract):
    @pytest.fixture
    def slide(self, write_slide: Write) -> Iterator[Slide]:
        with openslide(write_slide(downsamples=(1, 2, 7.5))) as slide:
            yield slide


class TestOddAxes(SlideContract):
    @pytest.fixture
    def slide(self, write_slide: Write) -> Iterator[Slide]:
        with openslide(write_slide(), mpp=(0.5, 0.4)) as slide:
            yield slide


class TestRealAperio(SlideContract):
    @pytest.fixture
    def slide(self, test_data: Path) -> Iterator[Slide]:
        with openslide(test_data / "slides/good/cmu-1-small-region.svs") as slide:
            yield slide


def test_the_resolution_tag_is_the_scale(write_slide: Write) -> None:
    with openslide(write_slide(mpp=0.25)) as slide:
        assert slide.mpp == pytest.approx((0.25, 0.25))
        assert slide.mpp_source == "metadata"
        assert slide.ref().mpp_source == "metadata"


@pytest.mark.parametrize("dpi", [72, 96, 300])
def test_a_screen_resolution_is_no_scale(write_slide: Write, dpi: float) -> None:
    with openslide(write_slide(mpp=None, dpi=dpi)) as slide:
        assert slide.mpp_source == "missing"


def test_a_resolution_near_to_none_of_them_is_a_scale(write_slide: Write) -> None:
    with openslide(write_slide(mpp=None, dpi=1000)) as slide:
        assert slide.mpp == pytest.approx((25.4, 25.4))


def test_levels_are_measured_and_not_truncated(write_slide: Write) -> None:
    with openslide(write_slide(rgb=textured(1001, 803), downsamples=(1, 4, 16))) as slide:
        assert [level.downsample for level in slide.levels] == [
            (1.0, 1.0),
            (1001 / 250, 803 / 201),
            (1001 / 63, 803 / 50),
        ]


@pytest.mark.parametrize("orientation", [2, 6, 8])
def test_a_turned_slide_is_refused(write_slide: Write, orientation: int) -> None:
    path = write_slide(extratags=[(274, 3, 1, orientation, True)])
    with pytest.raises(SlideError, match=f"orientation {orientation}"):
        openslide(path)


def test_an_upright_slide_is_not(write_slide: Write) -> None:
    openslide(write_slide(extratags=[(274, 3, 1, 1, True)])).close()


def test_damage_is_where_it_is_and_nowhere_else(write_slide: Write, break_tile: Callable[[Path, int], None]) -> None:
    path = write_slide()
    with openslide(path) as slide:
        whole = slide.read_level((0, 0, 128, 900), level=0)
    break_tile(path, 1)
    with openslide(path) as slide:
        for _ in range(2):
            np.testing.assert_array_equal(slide.read_level((0, 0, 128, 128), level=0), whole[:128])
            with pytest.raises(SlideError, match=r"'slide' is damaged at level 0, x 130, y 5, 10 x 10 px"):
                slide.read_level((130, 5, 10, 10), level=0)
            np.testing.assert_array_equal(slide.read_level((0, 128, 128, 128), level=0), whole[128:256])


def test_one_bad_tile_costs_one_new_handle(write_slide: Write, break_tile: Callable[[Path, int], None]) -> None:
    path = write_slide()
    break_tile(path, 1)
    with openslide(path) as slide:
        first = slide._handle.get()
        with pytest.raises(SlideError):
            slide.read_level((130, 5, 10, 10), level=0)
        second = slide._handle.get()
        slide.read_level((0, 0, 10, 10), level=0)
        assert first is not second is slide._handle.get()


def test_an_open_handle_stays_home(write_slide: Write) -> None:
    import pickle

    with openslide(write_slide()) as slide:
        travelled = pickle.loads(pickle.dumps(slide))
        assert travelled._handle._handle is None
        travelled.read(0, 0, size_px=8, mpp=0.5)
        assert travelled._handle._handle is not slide._handle._handle
        travelled.close()


def test_comments_and_serial_numbers_are_not_kept(test_data: Path) -> None:
    with openslide(test_data / "slides/good/cmu-1-small-region.svs") as slide:
        assert dict(slide.properties) == {"openslide.vendor": "aperio", "openslide.objective-power": "20"}
        assert slide.associated == ("label", "macro", "thumbnail")
