"""The DICOM reader: a file, a folder of instances, a concatenation; beside OpenSlide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from contracts.slide import SlideContract

from wsi_mil.errors import SlideError
from wsi_mil.slides import Slide, open_slide

wsidicom = pytest.importorskip("wsidicom")
REAL = "slides/good/multi_frame_jpeg_camelyon_challenge_image.dcm"


@pytest.fixture
def series(test_data: Path, tmp_path: Path) -> Path:
    """A real slide written again as a folder of four instances, one a level."""
    with wsidicom.WsiDicom.open(test_data / REAL) as slide:
        slide.save(tmp_path, add_missing_levels=True, workers=1)
    return tmp_path


class TestDicomReader(SlideContract):
    # Its levels were made with another filter.
    tolerance = 4.0

    @pytest.fixture
    def slide(self, series: Path) -> Iterator[Slide]:
        with open_slide(series) as slide:
            assert slide.vendor == "dicom"
            assert len(slide.levels) == 4
            yield slide


def test_a_folder_is_the_slide_that_each_of_its_files_is(series: Path) -> None:
    with open_slide(series) as folder, open_slide(next(series.glob("*.dcm"))) as file:
        assert type(folder).__name__ == "DicomReader"
        assert type(file).__name__ == "OpenSlideReader"
        assert folder.levels == file.levels
        assert folder.mpp == file.mpp == pytest.approx((28.969, 28.968))
        box = 0, 0, *folder.size_l0
        np.testing.assert_array_equal(folder.read_level(box, level=0), file.read_level(box, level=0))


@pytest.mark.parametrize("name", [REAL, REAL.replace("jpeg_", "jpeg2000_")])
def test_real_files_read_the_same_through_both_readers(test_data: Path, name: str) -> None:
    with (
        open_slide(test_data / name, reader="dicom") as ours,
        open_slide(test_data / name, reader="openslide") as theirs,
    ):
        box = 300, 100, 400, 500
        np.testing.assert_array_equal(ours.read_level(box, level=0), theirs.read_level(box, level=0))


def test_a_concatenation_is_one_slide(test_data: Path, tmp_path: Path) -> None:
    from wsidicom.options import ConcatenationByFrames

    with wsidicom.WsiDicom.open(test_data / REAL) as slide:
        slide.save(tmp_path, workers=1, concatenation=ConcatenationByFrames(5))
    assert len(list(tmp_path.glob("*.dcm"))) > 1
    with open_slide(tmp_path) as ours, open_slide(test_data / REAL) as whole:
        assert ours.size_l0 == whole.size_l0
        box = 0, 0, *whole.size_l0
        np.testing.assert_array_equal(ours.read_level(box, level=0), whole.read_level(box, level=0))


def test_the_fingerprint_of_a_folder_is_that_of_its_content(
    series: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("moved") / "series"
    with open_slide(series) as slide:
        before = slide.fingerprint
    series.rename(other)
    with open_slide(other) as slide:
        assert slide.fingerprint == before
        file = min(other.glob("*.dcm"), key=lambda one: one.stat().st_size)
    data = bytearray(file.read_bytes())
    data[-10] ^= 1
    file.write_bytes(data)
    with open_slide(other) as slide:
        assert slide.fingerprint != before


def test_a_folder_without_slides_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(SlideError, match="neither of OME-Zarr nor of DICOM"):
        open_slide(tmp_path)
