"""The direct TIFF reader on files that are damaged, cut off or make no sense: refused, or read as far as they go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tifffile
from contracts.slide import textured
from slides.raw_tiff import LONG, SHORT, tiled_page, write_raw

from wsi_mil.errors import SlideError
from wsi_mil.slides import Slide, open_slide

Write = Callable[..., Path]


def direct(path: Path) -> Slide:
    return open_slide(path, reader="tiff")


def test_damage_is_where_it_is_and_nowhere_else(write_slide: Write, break_tile: Callable[[Path, int], None]) -> None:
    path = write_slide(downsamples=(1,))
    break_tile(path, 1)
    with direct(path) as slide:
        for _ in range(2):
            with pytest.raises(SlideError, match="'slide' is damaged at level 0, x 128, y 0, 128 x 128 px"):
                slide.read_level((130, 5, 10, 10), level=0)
        assert slide.read_level((260, 5, 10, 10), level=0).shape == (10, 10, 3)


def test_a_file_cut_off_after_its_directory_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    page = tiled_page(textured(300, 200))
    first = write_raw(tmp_path / "a.tiff", [page]).stat().st_size
    # The directory first, then the tiles: cut in the last tile.
    with tifffile.TiffWriter(tmp_path / "b.tiff") as tiff:
        tiff.write(textured(300, 200), tile=(64, 64), photometric="rgb", compression="jpeg")
    data = (tmp_path / "b.tiff").read_bytes()
    (tmp_path / "b.tiff").write_bytes(data[:-100])
    assert first
    with direct(tmp_path / "b.tiff") as slide:
        assert slide.read_level((0, 0, 64, 64), level=0).shape == (64, 64, 3)
        with pytest.raises(SlideError, match="cut off"):
            slide.read_level((290, 190, 5, 5), level=0)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({258: (SHORT, [16, 16, 16])}, "16 bits"),
        ({259: (SHORT, [9])}, "scheme 9"),
        ({262: (SHORT, [8])}, "photometric kind 8"),
        ({256: (LONG, [0])}, "no pixels"),
        ({322: (LONG, [0])}, "pixels|tiles|cannot be read"),
        ({322: (LONG, [1 << 16]), 323: (LONG, [1 << 16])}, "too large to read in parts"),
        ({257: (LONG, [100_000])}, "names 6 tiles where"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(tmp_path: Path, tags: dict[int, Any], words: str) -> None:
    page = tiled_page(textured(300, 200))
    page.tags.update(tags)
    path = write_raw(tmp_path / "odd.tiff", [page])
    with pytest.raises(SlideError, match=words):
        direct(path)


def test_a_circle_of_directories_ends(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "circle.tiff", [tiled_page(textured(300, 200)), tiled_page(textured(150, 100))])
    data = bytearray(path.read_bytes())
    first = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[first : first + 2], "little")
    second = int.from_bytes(data[first + 2 + 12 * count :][:4], "little")
    count = int.from_bytes(data[second : second + 2], "little")
    data[second + 2 + 12 * count :][:4] = b""
    data[second + 2 + 12 * count : second + 6 + 12 * count] = first.to_bytes(4, "little")
    path.write_bytes(data)
    with direct(path) as slide:
        assert slide.size_l0 == (300, 200)
