"""The dialects of scanners, on files written from their documented layouts and read by OpenSlide too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from contracts.slide import SlideContract, shrunk, textured
from slides.scanners import write_bif, write_ndpi, write_philips, write_scn

from wsi_mil.errors import SlideError
from wsi_mil.slides import Slide, open_slide

RGB = textured(640, 512, seed=3)
WRITERS: dict[str, Callable[..., Path]] = {
    "hamamatsu": write_ndpi,
    "leica": write_scn,
    "philips": write_philips,
    "ventana": write_bif,
}


class TestDialects(SlideContract):
    @pytest.fixture(params=sorted(WRITERS))
    def slide(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Slide]:
        options = {"at_um": (20, 30)} if request.param == "leica" else {}
        path = WRITERS[request.param](tmp_path / "slide.bin", RGB, **options)
        with open_slide(path, reader="tiff") as slide:
            assert slide.vendor == request.param
            yield slide


@pytest.mark.parametrize("vendor", sorted(WRITERS))
def test_openslide_reads_the_same(tmp_path: Path, vendor: str) -> None:
    # The name matters to OpenSlide in no case; the content does.
    options = {"at_um": (20, 30)} if vendor == "leica" else {}
    path = WRITERS[vendor](tmp_path / "slide.bin", RGB, **options)
    with open_slide(path, reader="tiff") as ours, open_slide(path, reader="openslide") as theirs:
        assert ours.vendor == theirs.vendor
        assert ours.size_l0 == theirs.size_l0
        assert ours.mpp == pytest.approx((0.5, 0.5))
        if theirs.metadata_mpp:
            assert ours.mpp == pytest.approx(theirs.mpp)
        same = [(n, m) for n, a in enumerate(ours.levels) for m, b in enumerate(theirs.levels) if a == b]
        # OpenSlide adds levels to an NDPI that the JPEG decoder makes of the one above; that one is not stored.
        assert len(same) == len(ours.levels)
        for number, other in same if vendor != "hamamatsu" else same[:1]:
            box = 0, 0, ours.levels[number].width, ours.levels[number].height
            np.testing.assert_array_equal(ours.read_level(box, level=number), theirs.read_level(box, level=other))


def test_an_ndpi_is_known_by_its_content_and_shows_what_was_scanned(tmp_path: Path) -> None:
    with open_slide(write_ndpi(tmp_path / "renamed.tiff", RGB)) as slide:
        assert type(slide).__name__ == "TiffReader"
        assert slide.properties == {"objective-power": "20"}
        assert slide.associated == ("macro",)
        got = slide.read_level((0, 0, 640, 512), level=0).astype(int)
        assert np.abs(got - RGB).mean() < 2


def test_a_leica_area_lies_where_it_was_scanned(tmp_path: Path) -> None:
    with open_slide(write_scn(tmp_path / "a.scn", RGB, at_um=(100, 50))) as slide:
        pixels = slide.read_level((0, 0, *slide.size_l0), level=0)
        inside = np.zeros(pixels.shape[:2], bool)
        inside[100 : 100 + 512, 200 : 200 + 640] = True
        assert (pixels[~inside] == 255).all()
        assert np.abs(pixels[inside].reshape(RGB.shape).astype(int) - RGB).mean() < 2


def test_a_philips_tile_that_was_not_scanned_is_white(tmp_path: Path) -> None:
    path = write_philips(tmp_path / "a.tiff", RGB, empty_tiles=(2,))
    with open_slide(path, reader="tiff") as ours, open_slide(path, reader="openslide") as theirs:
        assert (ours.read_level((256, 0, 128, 128), level=0) == 255).all()
        np.testing.assert_array_equal(
            ours.read_level((0, 0, 640, 512), level=0), theirs.read_level((0, 0, 640, 512), level=0)
        )


def test_a_padded_philips_level_ends_where_its_spacing_says(tmp_path: Path) -> None:
    with open_slide(write_philips(tmp_path / "a.tiff", textured(500, 300)), reader="tiff") as slide:
        assert [(one.width, one.height) for one in slide.levels] == [(512, 384), (256, 192), (128, 96)]


def test_a_ventana_with_overlaps_is_left_to_openslide(tmp_path: Path) -> None:
    path = write_bif(tmp_path / "a.bif", RGB, overlap=6)
    with pytest.raises(SlideError, match="tiles overlap"):
        open_slide(path, reader="tiff")
    with open_slide(path) as slide:
        assert type(slide).__name__ == "OpenSlideReader"


def write_ome(path: Path, *, levels: int = 3, **metadata: Any) -> Path:
    with tifffile.TiffWriter(path, ome=True) as tiff:
        options: dict[str, Any] = {"tile": (128, 128), "photometric": "rgb", "compression": "deflate"}
        tiff.write(RGB, subifds=levels - 1, metadata={"axes": "YXS", **metadata}, **options)
        for level in range(1, levels):
            tiff.write(shrunk(RGB, 640 >> level, 512 >> level), subfiletype=1, **options)
    return path


def test_an_ome_tiff_has_its_sub_resolutions_and_scale(tmp_path: Path) -> None:
    path = write_ome(tmp_path / "a.ome.tif", PhysicalSizeX=250.0, PhysicalSizeXUnit="nm", PhysicalSizeY=0.5)
    with open_slide(path) as slide:
        assert slide.vendor == "ome-tiff"
        assert slide.mpp == pytest.approx((0.25, 0.5))
        assert [(one.width, one.height) for one in slide.levels] == [(640, 512), (320, 256), (160, 128)]
        np.testing.assert_array_equal(slide.read_level((0, 0, 640, 512), level=0), RGB)
        np.testing.assert_array_equal(slide.read_level((0, 0, 160, 128), level=2), shrunk(RGB, 160, 128))


def test_an_ome_tiff_of_fluorescence_is_refused(tmp_path: Path) -> None:
    stack = np.zeros((5, 64, 64), np.uint16)
    tifffile.imwrite(tmp_path / "f.ome.tif", stack, ome=True, metadata={"axes": "CYX"})
    with pytest.raises(SlideError, match="without a plane of RGB"):
        open_slide(tmp_path / "f.ome.tif", reader="tiff")


def test_only_smaller_pictures_of_the_same_are_levels(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tiff") as tiff:
        for picture in (RGB, shrunk(RGB, 320, 256), shrunk(RGB, 300, 100)):
            tiff.write(
                picture, tile=(128, 128), photometric="rgb", compression="lzw", subfiletype=0 if picture is RGB else 1
            )
    with open_slide(tmp_path / "a.tiff", reader="tiff") as slide:
        assert [(one.width, one.height) for one in slide.levels] == [(640, 512), (320, 256)]
