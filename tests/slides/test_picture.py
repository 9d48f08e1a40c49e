"""The picture reader: PNG and JPEG with a given scale; alpha, gray, orientation, size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from contracts.slide import SlideContract, textured
from PIL import Image

from wsi_mil.errors import SlideError
from wsi_mil.slides import Slide, open_slide
from wsi_mil.slides import picture as room

RGB = textured(700, 500)


class TestPictureReader(SlideContract):
    @pytest.fixture
    def slide(self, tmp_path: Path) -> Iterator[Slide]:
        Image.fromarray(RGB).save(tmp_path / "a.png")
        with open_slide(tmp_path / "a.png", mpp=0.5) as slide:
            yield slide


def whole(slide: Slide) -> np.ndarray:
    return slide.read_level((0, 0, *slide.size_l0), level=0)


def test_a_picture_never_says_its_scale(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png", dpi=(50_800, 50_800))
    with open_slide(tmp_path / "a.png") as slide:
        assert slide.mpp_source == "missing"
        np.testing.assert_array_equal(whole(slide), RGB)


def test_gray_palette_and_alpha_become_rgb(tmp_path: Path) -> None:
    Image.fromarray(RGB).convert("L").save(tmp_path / "gray.png")
    with open_slide(tmp_path / "gray.png") as slide:
        pixels = whole(slide)
        assert (pixels[..., 0] == pixels[..., 1]).all()
    Image.fromarray(RGB).quantize(32).save(tmp_path / "palette.png")
    with open_slide(tmp_path / "palette.png") as slide:
        np.testing.assert_array_equal(whole(slide), np.asarray(Image.fromarray(RGB).quantize(32).convert("RGB")))
    alpha = np.zeros((*RGB.shape[:2], 1), np.uint8)
    Image.fromarray(np.concatenate([RGB, alpha], axis=2)).save(tmp_path / "clear.png")
    with open_slide(tmp_path / "clear.png") as slide:
        assert (whole(slide) == 255).all()


def test_the_orientation_that_a_camera_notes_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=exif, quality=95, subsampling=0)
    with open_slide(tmp_path / "a.jpg") as slide:
        assert slide.size_l0 == (500, 700)
        assert np.abs(whole(slide).astype(int) - np.rot90(RGB, -1)).mean() < 3


def test_what_is_too_large_or_too_deep_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.zeros((20, 20), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(SlideError, match="8 bits a colour"):
        open_slide(tmp_path / "deep.png")
    Image.fromarray(RGB).save(tmp_path / "a.png")
    monkeypatch.setattr(room, "MAX_PX", 1000)
    with pytest.raises(SlideError, match="write it as a tiled TIFF"):
        open_slide(tmp_path / "a.png")


def test_a_picture_cut_off_opens_and_says_so_when_it_is_read(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
    with open_slide(tmp_path / "a.png") as slide, pytest.raises(SlideError, match="'a' is damaged"):
        whole(slide)


def test_real_thumbnails_open(test_data: Path) -> None:
    for path in sorted((test_data / "slides/thumbnails").glob("*.png")):
        with open_slide(path, mpp=8.0) as slide:
            assert slide.mpp == (8.0, 8.0)
            assert whole(slide).std() > 5
