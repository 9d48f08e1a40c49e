"""What every reader of slides must keep; a reader inherits all of it by giving an open slide.

Inherit as `class TestMine(SlideContract)` with a fixture `slide` that opens one of at least 300 x 300 pixels.
"""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from jaxtyping import UInt8
from PIL import Image

from wsi_mil.errors import ScaleError, SlideError
from wsi_mil.geometry import Level
from wsi_mil.slides import Slide
from wsi_mil.slides.slide import SlideInfo

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


class ArraySlide(Slide):
    """A slide in memory, so that what every reader inherits can be held against known pixels."""

    def __init__(
        self,
        planes: list[Pixels],
        *,
        mpp: tuple[float, float] | None = (0.5, 0.5),
        size_l0: tuple[int, int] | None = None,
    ) -> None:
        height, width, _ = planes[0].shape
        levels = tuple(
            Level(plane.shape[1], plane.shape[0], (width / plane.shape[1], height / plane.shape[0])) for plane in planes
        )
        self.planes = planes
        self.fingerprint = "of an array"
        self.asked: list[tuple[tuple[int, int, int, int], int]] = []
        super().__init__(Path("array"), SlideInfo(levels, mpp, "array"), id="array", mpp=None, mpp_source="metadata")

    def _read(self, box: tuple[int, int, int, int], level: int) -> UInt8[np.ndarray, "h w 3"]:
        self.asked.append((box, level))
        left, top, width, height = box
        plane = self.planes[level]
        assert 0 <= left < left + width <= plane.shape[1]
        assert 0 <= top < top + height <= plane.shape[0]
        return plane[top : top + height, left : left + width]

    def close(self) -> None:
        self.planes = []


def textured(width: int, height: int, *, seed: int = 0) -> Pixels:
    """A smooth, many-coloured picture without symmetry."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 32 + 2, width // 32 + 2, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def shrunk(rgb: Pixels, width: int, height: int) -> Pixels:
    """The same picture, smaller. (Pillow's box filter takes pixels whole or not at all, so it is not used here.)"""
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC))


class SlideContract:
    """Promises of Slide."""

    tolerance: ClassVar[float] = 2.0
    """Mean difference allowed between a read and the level-0 picture, in grey levels: JPEG levels differ a little."""

    def whole(self, slide: Slide) -> Pixels:
        return slide.read_level((0, 0, *slide.size_l0), level=0)

    def test_levels_shrink_from_the_first(self, slide: Slide) -> None:
        assert slide.levels[0].downsample == (1.0, 1.0)
        widths = [level.width for level in slide.levels]
        assert widths == sorted(widths, reverse=True)
        for level in slide.levels:
            assert level.downsample[0] * level.width == pytest.approx(slide.size_l0[0])
            assert level.downsample[1] * level.height == pytest.approx(slide.size_l0[1])

    @pytest.mark.parametrize("factor", [0.7, 1.0, 1.37, 2.0, 3.3])
    def test_a_read_agrees_with_the_level_0_picture(self, slide: Slide, factor: float) -> None:
        mpp = max(slide.mpp) * factor
        size = 64
        x, y = slide.size_l0[0] // 3, slide.size_l0[1] // 3
        got = slide.read(x, y, size_px=size, mpp=mpp)
        assert got.shape == (size, size, 3)
        assert got.dtype == np.uint8
        extent = size * mpp / slide.mpp[0], size * mpp / slide.mpp[1]
        box = (x, y, x + extent[0], y + extent[1])
        want = Image.fromarray(self.whole(slide)).resize((size, size), Image.Resampling.BICUBIC, box=box)
        assert np.abs(got.astype(int) - np.asarray(want)).mean() <= self.tolerance

    def test_native_scale_is_a_plain_crop(self, slide: Slide) -> None:
        if slide.mpp[0] != slide.mpp[1]:
            pytest.skip("the axes have different scales, so every read resamples")
        got = slide.read(17, 23, size_px=50, mpp=slide.mpp[0])
        np.testing.assert_array_equal(got, self.whole(slide)[23:73, 17:67])

    def test_outside_is_white(self, slide: Slide) -> None:
        width, height = slide.size_l0
        mpp = max(slide.mpp)
        for x, y in [(-5000, 10), (10, -5000), (width + 100, 0), (0, height + 100)]:
            assert (slide.read(x, y, size_px=32, mpp=mpp) == 255).all()

    def test_a_level_is_the_same_whatever_lies_around_it(self, slide: Slide) -> None:
        for number, level in enumerate(slide.levels):
            plane = slide.read_level((0, 0, level.width, level.height), level=number)
            for margin in (1, 2, 5, 9):
                box = -margin, -margin, level.width + 2 * margin, level.height + 2 * margin
                wide = slide.read_level(box, level=number)
                np.testing.assert_array_equal(wide[margin:-margin, margin:-margin], plane)
                assert (wide[:margin] == 255).all()
                assert (wide[:, :margin] == 255).all()
                assert (wide[-margin:] == 255).all()
                assert (wide[:, -margin:] == 255).all()

    def test_a_scale_too_fine_is_refused_with_the_one_to_ask_for(self, slide: Slide) -> None:
        with pytest.raises(ScaleError, match="ask for"):
            slide.read(0, 0, size_px=8, mpp=max(slide.mpp) / 1.6)

    @pytest.mark.parametrize("mpp", [0.0, -1.0, float("nan"), float("inf")])
    def test_a_scale_that_is_none_is_refused(self, slide: Slide, mpp: float) -> None:
        with pytest.raises(ScaleError, match="above 0"):
            slide.read(0, 0, size_px=8, mpp=mpp)

    @pytest.mark.parametrize("max_px", [1, 60, 300, 100_000])
    def test_an_overview_shows_the_whole_slide(self, slide: Slide, max_px: int) -> None:
        rgb, downsample = slide.overview(max_px=max_px)
        height, width, _ = rgb.shape
        assert max(width, height) <= max(max_px, 1)
        assert (width * downsample[0], height * downsample[1]) == pytest.approx(slide.size_l0)
        if min(width, height) > 1:
            want = shrunk(self.whole(slide), width, height)
            assert np.abs(rgb.astype(int) - want).mean() <= self.tolerance

    def test_it_travels_and_reads_the_same(self, slide: Slide) -> None:
        here = slide.read(40, 50, size_px=32, mpp=max(slide.mpp) * 1.3)
        with pickle.loads(pickle.dumps(slide)) as there:
            np.testing.assert_array_equal(there.read(40, 50, size_px=32, mpp=max(slide.mpp) * 1.3), here)
            assert there.ref() == slide.ref()

    def test_threads_read_the_same(self, slide: Slide) -> None:
        places = [(x, y) for x in range(0, 240, 40) for y in range(0, 240, 40)]

        def read(place: tuple[int, int]) -> Pixels:
            return slide.read(*place, size_px=32, mpp=max(slide.mpp) * 1.3)

        with ThreadPoolExecutor(4) as pool:
            for threaded, alone in zip(pool.map(read, places), map(read, places), strict=True):
                np.testing.assert_array_equal(threaded, alone)

    def test_a_lazy_array_is_the_level(self, slide: Slide) -> None:
        level = len(slide.levels) - 1
        lazy = slide.as_dask(level)
        size = slide.levels[level].width, slide.levels[level].height
        assert lazy.shape == (size[1], size[0], 3)
        np.testing.assert_array_equal(
            lazy.compute(scheduler="synchronous"), slide.read_level((0, 0, *size), level=level)
        )

    def test_closed_is_closed(self, slide: Slide) -> None:
        with slide:
            slide.read(0, 0, size_px=8, mpp=max(slide.mpp))
        with pytest.raises(SlideError, match="closed"):
            slide.read(0, 0, size_px=8, mpp=max(slide.mpp))

    def test_nothing_kept_can_name_a_patient(self, slide: Slide) -> None:
        allowed = {"vendor", "objective-power", "bounds-x", "bounds-y", "bounds-width", "bounds-height"}
        assert {key.rsplit(".", 1)[-1] for key in slide.properties} <= allowed
