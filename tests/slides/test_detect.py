"""open_slide: which reader, which scale, and why not."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from contracts.slide import textured
from slides.raw_tiff import ASCII, tiled_page, write_raw

from wsi_mil.errors import ScaleError, SlideError
from wsi_mil.slides import READERS, open_slide
from wsi_mil.slides.openslide import OpenSlideReader

Write = Callable[..., Path]


def test_a_given_scale_wins_and_says_who_gave_it(write_slide: Write, caplog: pytest.LogCaptureFixture) -> None:
    path = write_slide(mpp=0.5)
    with caplog.at_level(logging.WARNING, logger="wsi_mil"), open_slide(path, mpp=0.25, mpp_source="cohort") as slide:
        assert slide.mpp == (0.25, 0.25)
        assert slide.mpp_source == "cohort"
    assert "its file says 0.5" in caplog.text


def test_a_scale_that_hardly_differs_is_no_contradiction(write_slide: Write, caplog: pytest.LogCaptureFixture) -> None:
    with open_slide(write_slide(mpp=0.499), mpp=0.5) as slide:
        assert slide.mpp_source == "flag"
    assert not caplog.text


def test_two_axes_may_be_given(write_slide: Write) -> None:
    with open_slide(write_slide(mpp=None), mpp=(0.25, 0.5)) as slide:
        assert slide.mpp == (0.25, 0.5)


@pytest.mark.parametrize("mpp", [0.0, -0.5, float("nan"), float("inf"), (0.5, 0.0)])
def test_a_scale_that_cannot_be_is_refused(write_slide: Write, mpp: float | tuple[float, float]) -> None:
    with pytest.raises(ScaleError, match="above 0"):
        open_slide(write_slide(), mpp=mpp)


def test_the_id_is_the_stem_or_what_is_given(write_slide: Write) -> None:
    with open_slide(write_slide("a.b.tiff")) as slide:
        assert slide.id == "a.b"
    with open_slide(write_slide("c.tiff"), id="mine") as slide:
        assert slide.id == "mine"


def test_a_reader_may_be_forced_and_a_wrong_name_gets_a_hint(write_slide: Write) -> None:
    with open_slide(str(write_slide()), reader="openslide") as slide:
        assert isinstance(slide, OpenSlideReader)
    with pytest.raises(SlideError, match="did you mean 'openslide'"):
        open_slide(write_slide(), reader="openslid")
    assert list(READERS)[:2] == ["tiff", "openslide"]


def test_what_is_no_file_is_said_in_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "link.svs").symlink_to(tmp_path / "gone.svs")
    (tmp_path / "loop.svs").symlink_to(tmp_path / "loop.svs")
    (tmp_path / "empty.svs").touch()
    os.mkfifo(tmp_path / "pipe.svs")
    for name, words in {
        "missing.svs": "does not exist",
        "link.svs": "is a link to .*gone.svs, which does not exist",
        "loop.svs": "cannot be reached",
        "empty.svs": "0 bytes",
        "pipe.svs": "is a pipe",
        ".": "is a folder, and neither",
    }.items():
        with pytest.raises(SlideError, match=words):
            open_slide(tmp_path / name)


def test_a_file_that_may_not_be_read_is_said_to_be(write_slide: Write) -> None:
    path = write_slide()
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(SlideError, match="Permission denied"):
        open_slide(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "picture that cannot be opened"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "picture that cannot be opened"),
        (b"%PDF-1.7" + bytes(100), "PDF document"),
        (b"PK\x03\x04" + bytes(100), "ZIP archive"),
        (b"slide,patient\n", "no slide format"),
        (b"II*\0\xff\xff\xff\x7f", "cut off"),
        (b"II*\0\x08\0\0\0\xff", "cut off"),
        (b"MM\0*\0\0\0\x08\xff\xff" + bytes(50), "OpenSlide says"),
        (b"II+\0\x08\0\0\0" + b"\xff" * 8, "cut off"),
    ],
)
def test_what_is_no_slide_is_named_by_its_content(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "A1.svs"
    path.write_bytes(data)
    with pytest.raises(SlideError, match=words) as caught:
        open_slide(path)
    assert "A1.svs" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken/broken.svs", "no slide format"),
        ("broken/label_only.dcm", "No pyramid levels"),
        ("broken/truncated.svs", "cut off: its directory lies at byte 1275950 of a file of 900000"),
        ("broken/unopenable.tiff", "Unsupported TIFF compression"),
        ("broken/zero_bytes.svs", "0 bytes"),
        ("broken/zero_gi.tif", r"no pixels \(2 x 0\)"),
    ],
)
def test_real_files_that_are_refused(test_data: Path, name: str, words: str) -> None:
    with pytest.raises(SlideError, match=words):
        open_slide(test_data / "slides" / name)


@pytest.mark.parametrize(
    ("name", "size_l0", "mpp"),
    [
        ("good/cmu-1-small-region.svs", (2220, 2967), (0.499, 0.499)),
        ("good/multi_frame_jpeg_camelyon_challenge_image.dcm", (1152, 700), (28.969, 28.968)),
        ("good/multi_frame_jpeg2000_camelyon_challenge_image.dcm", (1696, 812), (28.969, 28.968)),
        ("odd/tcga-cr-7395-01a-01-ts1.svs", (4443, 3567), None),
        ("odd/boxes.tiff", (300, 250), None),
        ("odd/small.svs", (16, 16), (0.499, 0.499)),
        ("odd/😐.svs", (16, 16), (0.499, 0.499)),
        ("broken/unreadable.svs", (16, 16), (0.499, 0.499)),
        ("good/OS-1-detail.ome.tif", (1101, 1101), (0.2271, 0.2271)),
        ("good/OS-2-ndpi.ome.tif", (2202, 2202), (0.2271, 0.2271)),
        ("good/OS-2-vsi.ome.tif", (1445, 1445), (0.34605, 0.34605)),
        ("odd/test_orient6.tif", (180, 120), None),
    ],
)
def test_real_files_that_open(
    test_data: Path, name: str, size_l0: tuple[int, int], mpp: tuple[float, float] | None
) -> None:
    with open_slide(test_data / "slides" / name) as slide:
        assert slide.size_l0 == size_l0
        assert slide.mpp_source == ("metadata" if mpp else "missing")
        if mpp:
            assert slide.mpp == pytest.approx(mpp, rel=1e-4)


def test_a_slide_that_opens_but_cannot_be_read_says_so(test_data: Path) -> None:
    path = test_data / "slides/broken/unreadable.svs"
    with open_slide(path) as slide, pytest.raises(SlideError, match="'unreadable' is damaged at level 0"):
        slide.overview(max_px=16)


def test_formats_of_one_maker_are_refused_with_the_way_out(tmp_path: Path, write_slide: Write) -> None:
    path = write_slide("case.vsi")
    with open_slide(path):
        pass  # a plain TIFF under that name is a TIFF
    stack = tmp_path / "_case_" / "stack1"
    stack.mkdir(parents=True)
    (stack / "frame_t.ets").write_bytes(b"SIS")
    with pytest.raises(SlideError, match="Olympus VSI: convert"):
        open_slide(path)
    (tmp_path / "a.isyntax").write_text('<DataObject ObjectType="DPUfsImport">')
    with pytest.raises(SlideError, match="iSyntax: convert"):
        open_slide(tmp_path / "a.isyntax")


@pytest.mark.parametrize(("mpp", "warned"), [(0.5, False), (0.45, False), (0.25, True), (1.0, True)])
def test_a_scale_far_from_its_objective_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mpp: float, warned: bool
) -> None:
    page = tiled_page(textured(300, 200))
    page.tags[270] = ASCII, f"Aperio Image Library v11\n300x200 (128x128) JPEG|AppMag = 20|MPP = {mpp}"
    path = write_raw(tmp_path / "a.svs", [page])
    with caplog.at_level(logging.WARNING, logger="wsi_mil"), open_slide(path) as slide:
        assert slide.mpp == (mpp, mpp)
    assert ("objective of 20x" in caplog.text) is warned


def test_a_power_is_never_a_scale(tmp_path: Path) -> None:
    page = tiled_page(textured(300, 200))
    page.tags[270] = ASCII, "Aperio Image Library v11\n300x200 (128x128) JPEG|AppMag = 20"
    with open_slide(write_raw(tmp_path / "a.svs", [page])) as slide:
        assert slide.mpp_source == "missing"


def test_the_content_chooses_and_not_the_name(write_slide: Write, tmp_path: Path) -> None:
    path = write_slide("slide.tiff")
    for name in ("a.png", "b.dcm", "c"):
        (tmp_path / name).write_bytes(path.read_bytes())
        with open_slide(tmp_path / name) as slide:
            assert type(slide).__name__ == "TiffReader"
