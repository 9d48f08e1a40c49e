"""The direct TIFF reader: the same pixels as OpenSlide, every kind of tile, orientation, holes, damage."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from contracts.slide import Pixels, SlideContract, shrunk, textured
from PIL import Image
from slides.raw_tiff import SHORT, tiled_page, tiles_of, write_raw

from wsi_mil.slides import Slide, open_slide
from wsi_mil.slides.tiff import TiffReader

Write = Callable[..., Path]

REAL = (
    "good/cmu-1-small-region.svs",
    "odd/tcga-cr-7395-01a-01-ts1.svs",
    "odd/boxes.tiff",
    "odd/small.svs",
)


def direct(path: Path, **options: Any) -> Slide:
    return open_slide(path, reader="tiff", **options)


def whole(slide: Slide, level: int = 0) -> Pixels:
    return slide.read_level((0, 0, slide.levels[level].width, slide.levels[level].height), level=level)


class TestTiffReader(SlideContract):
    @pytest.fixture
    def slide(self, write_slide: Write) -> Iterator[Slide]:
        with direct(write_slide(downsamples=(1, 2, 7.5))) as slide:
            yield slide


class TestTurned(SlideContract):
    @pytest.fixture
    def slide(self, write_slide: Write) -> Iterator[Slide]:
        with direct(write_slide(downsamples=(1, 4), extratags=[(274, 3, 1, 6, True)])) as slide:
            yield slide


class TestRealAperio(SlideContract):
    @pytest.fixture
    def slide(self, test_data: Path) -> Iterator[Slide]:
        with direct(test_data / "slides/good/cmu-1-small-region.svs") as slide:
            yield slide


class TestRealOme(SlideContract):
    @pytest.fixture
    def slide(self, test_data: Path) -> Iterator[Slide]:
        with direct(test_data / "slides/good/OS-1-detail.ome.tif") as slide:
            yield slide


class TestShrunkByTheDecoder(SlideContract):
    tolerance = 4.0

    @pytest.fixture
    def slide(self, write_slide: Write) -> Iterator[Slide]:
        path = write_slide(rgb=textured(1024, 768), downsamples=(1,))
        with TiffReader(path, id="slide", mpp=None, mpp_source="metadata", shrink=True) as slide:
            assert [level.downsample[0] for level in slide.levels] == [1, 2, 4, 8]
            yield slide


@pytest.mark.parametrize("name", REAL)
def test_real_slides_are_the_same_through_both_readers(test_data: Path, name: str) -> None:
    path = test_data / "slides" / name
    with direct(path) as ours, open_slide(path, reader="openslide") as theirs:
        assert ours.levels == theirs.levels
        assert ours.metadata_mpp == theirs.metadata_mpp
        assert ours.vendor == theirs.vendor
        assert ours.associated == theirs.associated
        assert ours.fingerprint == theirs.fingerprint
        for number, level in enumerate(ours.levels):
            # The far corner of level 0; OpenSlide interpolates at places of a level that are no whole level-0 pixels.
            left, top = (max(0, level.width - 700), max(0, level.height - 700)) if not number else (0, 0)
            box = left, top, min(700, level.width - left), min(700, level.height - top)
            np.testing.assert_array_equal(ours.read_level(box, level=number), theirs.read_level(box, level=number))


@pytest.mark.parametrize(
    ("compression", "options"),
    [
        ("jpeg", {"bigtiff": False}),
        ("jpeg", {"bigtiff": True}),
        ("jpeg2000", {}),
        ("lzw", {"predictor": True}),
        ("lzw", {}),
        ("deflate", {"predictor": True}),
        ("packbits", {}),
        ("zstd", {}),
        ("webp", {}),
        (None, {}),
    ],
)
def test_every_compression_gives_the_pixels_that_were_written(
    tmp_path: Path, compression: str | None, options: dict[str, Any]
) -> None:
    rgb = textured(500, 300)
    big = options.pop("bigtiff", False)
    with tifffile.TiffWriter(tmp_path / "a.tiff", bigtiff=big) as tiff:
        lossless = {"reversible": True} if compression == "jpeg2000" else {"lossless": True}
        extra = {"compressionargs": lossless} if compression in ("jpeg2000", "webp") else {}
        tiff.write(rgb, tile=(128, 128), photometric="rgb", compression=compression, **extra, **options)
    with direct(tmp_path / "a.tiff") as slide:
        want = tifffile.imread(tmp_path / "a.tiff") if compression == "jpeg" else rgb
        np.testing.assert_array_equal(whole(slide), want)
        np.testing.assert_array_equal(slide.read_level((100, 50, 200, 180), level=0), want[50:230, 100:300])


@pytest.mark.parametrize("compression", ["jpeg", "lzw", None])
@pytest.mark.parametrize("separate", [False, True])
def test_a_level_as_wide_as_one_tile_has_whole_tiles_beyond_its_edge(
    tmp_path: Path, compression: str | None, separate: bool
) -> None:
    """Small levels of real pyramids are: their last tile is as high as the others, which the last strip is not."""
    rgb, options = textured(128, 300), {"photometric": "rgb", "compression": compression}
    if separate and compression == "jpeg":
        pytest.skip("three separate planes of JPEG are not written by anything known")
    stored = rgb.transpose(2, 0, 1) if separate else rgb
    options |= {"planarconfig": "separate"} if separate else {}
    for name, parts in (("tiles", {"tile": (128, 128)}), ("strips", {"rowsperstrip": 128})):
        tifffile.imwrite(tmp_path / f"{name}.tiff", stored, **options, **parts)
        with direct(tmp_path / f"{name}.tiff") as slide:
            want = tifffile.imread(tmp_path / f"{name}.tiff") if compression == "jpeg" else rgb
            np.testing.assert_array_equal(whole(slide), want)


def test_gray_inverted_and_strips_are_read(tmp_path: Path) -> None:
    gray = textured(300, 200)[..., 0]
    for name, data, options in (
        ("gray", gray, {"photometric": "minisblack", "tile": (64, 64)}),
        ("inverted", 255 - gray, {"photometric": "miniswhite", "tile": (64, 64)}),
        ("strips", gray, {"photometric": "minisblack", "rowsperstrip": 48, "compression": "deflate"}),
        ("jpeg", gray, {"photometric": "minisblack", "rowsperstrip": 48, "compression": "jpeg"}),
    ):
        tifffile.imwrite(tmp_path / f"{name}.tiff", data, **options)
        with direct(tmp_path / f"{name}.tiff") as slide:
            want = tifffile.imread(tmp_path / f"{name}.tiff") if name == "jpeg" else gray
            np.testing.assert_array_equal(whole(slide), np.repeat(want[..., None], 3, axis=2))


def test_colours_apart_from_each_other_are_put_together(tmp_path: Path) -> None:
    rgb = textured(300, 200)
    path = tmp_path / "planes.tiff"
    tifffile.imwrite(
        path, rgb.transpose(2, 0, 1), tile=(64, 64), photometric="rgb", planarconfig="separate", compression="lzw"
    )
    with direct(path) as slide:
        np.testing.assert_array_equal(whole(slide), rgb)


@pytest.mark.parametrize(("kind", "multiplied"), [("unassalpha", False), ("assocalpha", True)])
def test_alpha_is_laid_over_white(tmp_path: Path, kind: str, multiplied: bool) -> None:
    rgba = np.concatenate([textured(200, 100), np.full((100, 200, 1), 64, np.uint8)], axis=2)
    rgba[:, :100, 3] = 0
    if multiplied:
        rgba[..., :3] = rgba[..., :3].astype(int) * rgba[..., 3:] // 255
    tifffile.imwrite(tmp_path / "a.tiff", rgba, tile=(64, 64), photometric="rgb", extrasamples=[kind])
    with direct(tmp_path / "a.tiff") as ours, open_slide(tmp_path / "a.tiff", reader="openslide") as theirs:
        assert (whole(ours)[:, :100] == 255).all()
        assert np.abs(whole(ours).astype(int) - whole(theirs)).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    rgb = textured(300, 200)
    seen = {
        1: rgb,
        2: rgb[:, ::-1],
        3: np.rot90(rgb, 2),
        4: rgb[::-1],
        5: rgb.transpose(1, 0, 2),
        6: np.rot90(rgb, -1),
        7: np.rot90(rgb, 2).transpose(1, 0, 2),
        8: np.rot90(rgb, 1),
    }[orientation]
    path = tmp_path / "turned.tiff"
    tag = (274, 3, 1, orientation, True)
    tifffile.imwrite(path, rgb, tile=(64, 64), photometric="rgb", compression="lzw", extratags=[tag])
    with direct(path) as slide:
        assert slide.size_l0 == (seen.shape[1], seen.shape[0])
        np.testing.assert_array_equal(whole(slide), seen)
        np.testing.assert_array_equal(slide.read_level((30, 20, 90, 110), level=0), seen[20:130, 30:120])


def test_a_turned_slide_has_its_scales_turned(write_slide: Write) -> None:
    tags = [(274, 3, 1, 6, True)]
    path = write_slide(mpp=None, downsamples=(1,), extratags=tags)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tags_of = tiff.pages.first.tags
        tags_of["XResolution"].overwrite((20_000, 1))
        tags_of["YResolution"].overwrite((40_000, 1))
        tags_of["ResolutionUnit"].overwrite(3)
    with direct(path) as slide:
        assert slide.mpp == pytest.approx((0.25, 0.5))


def test_a_tile_that_is_not_stored_is_white(tmp_path: Path) -> None:
    page = tiled_page(textured(300, 200))
    page.pieces[1] = b""
    with direct(write_raw(tmp_path / "sparse.tiff", [page])) as slide:
        pixels = whole(slide)
        assert (pixels[:128, 128:256] == 255).all()
        assert pixels[:128, :128].mean() < 200


def test_what_an_aperio_level_lost_comes_from_the_finer_one(tmp_path: Path) -> None:
    rgb = textured(512, 512)
    first, second = tiled_page(rgb), tiled_page(shrunk(rgb, 256, 256))
    first.tags[270] = 2, "Aperio Image Library v11\n512x512 (128x128) JPEG|AppMag = 20|MPP = 0,5"
    second.pieces[0] = b""
    with direct(write_raw(tmp_path / "lost.svs", [first, second])) as slide:
        assert slide.mpp == (0.5, 0.5)
        got, want = whole(slide, 1)[:128, :128].astype(int), shrunk(rgb, 256, 256)[:128, :128]
        assert np.abs(got - want).mean() < 3


def test_a_fork_reads_the_same(write_slide: Write) -> None:
    with direct(write_slide()) as slide:
        want = slide.read_level((0, 0, 200, 200), level=0)
        child = os.fork()
        if not child:
            same = bool(np.array_equal(slide.read_level((0, 0, 200, 200), level=0), want))
            os._exit(0 if same else 1)
        assert os.waitpid(child, 0)[1] == 0
        np.testing.assert_array_equal(slide.read_level((0, 0, 200, 200), level=0), want)


def test_the_far_corner_of_a_level_that_is_no_whole_factor_is_in_place(write_slide: Write) -> None:
    """Tiles at 4.016 are placed without drift: the last one shows what level 0 has there."""
    rgb = textured(4016, 3012)
    with direct(write_slide(rgb=rgb, mpp=0.25, downsamples=(1, 4.016))) as slide:
        assert slide.levels[1].downsample == pytest.approx((4.016, 4.016), rel=1e-3)
        mpp = 0.25 * 4.016
        side_l0 = 64 * 4.016
        x, y = 4016 - side_l0 - 1, 3012 - side_l0 - 1
        got = slide.read(x, y, size_px=64, mpp=mpp).astype(int)
        errors = []
        for shift in (-1, 0, 1):
            box = slide.read(x + shift * 4.016, y, size_px=64, mpp=mpp).astype(int)
            fine = shrunk(rgb[round(y) :, round(x) :][: round(side_l0), : round(side_l0)], 64, 64)
            errors.append(np.abs(box - fine).mean())
        assert errors[1] == min(errors)
        assert np.abs(got - fine).mean() < 2


def test_aperio_tiles_of_separate_colour_differences_are_those_of_openslide(tmp_path: Path) -> None:
    """Compression 33003: JPEG 2000 of YCbCr, which the file alone says."""
    import imagecodecs

    rgb = textured(300, 200)
    page = tiled_page(rgb)
    tiles = tiles_of(np.asarray(Image.fromarray(rgb).convert("YCbCr")), 128)
    # A last tile of every colour there is.
    tiles[-1] = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    page.pieces = [imagecodecs.jpeg2k_encode(tile, reversible=True, codecformat="j2k", mct=False) for tile in tiles]
    page.tags[259] = SHORT, [33003]
    page.tags[262] = SHORT, [6]
    page.tags[270] = 2, "Aperio Image Library v11\n300x200 (128x128) J2K/YUV16|MPP = 0.5"
    path = write_raw(tmp_path / "a.svs", [page])
    with direct(path) as ours, open_slide(path, reader="openslide") as theirs:
        assert np.abs(whole(ours).astype(int) - rgb)[:, :256].mean() < 2
        np.testing.assert_array_equal(whole(ours), whole(theirs))
