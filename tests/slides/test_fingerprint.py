"""A fingerprint is of the content, and of nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from wsi_mil.slides.fingerprint import BLOCK_BYTES, END_BYTES, fingerprint, same_files


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = tmp_path / "big.svs"
    path.write_bytes(np.random.default_rng(0).bytes(20 << 20))
    return path


def change(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def test_name_and_place_do_not_count(big: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    there = shutil.copy(big, tmp_path / "elsewhere" / "other.tif")
    assert fingerprint(Path(there)) == fingerprint(big)


@pytest.mark.parametrize("at", [0, END_BYTES - 1, -1, -END_BYTES])
def test_either_end_counts(big: Path, at: int) -> None:
    before = fingerprint(big)
    change(big, at if at >= 0 else big.stat().st_size + at)
    assert fingerprint(big) != before


def test_blocks_in_between_count(big: Path) -> None:
    before = fingerprint(big)
    change(big, (big.stat().st_size - BLOCK_BYTES) * 30 // 63 + 7)
    assert fingerprint(big) != before


def test_size_counts_where_no_sample_differs(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(5 << 20))
    (tmp_path / "b").write_bytes(bytes((5 << 20) + 1))
    assert fingerprint(tmp_path / "a") != fingerprint(tmp_path / "b")


@pytest.mark.parametrize("size", [1, 1000, BLOCK_BYTES, END_BYTES + 1])
def test_small_files_have_one_too(tmp_path: Path, size: int) -> None:
    path = tmp_path / "small"
    path.write_bytes(bytes(size))
    before = fingerprint(path)
    change(path, size // 2)
    assert fingerprint(path) != before


def test_the_folder_of_a_mirax_slide_counts(tmp_path: Path) -> None:
    path = tmp_path / "A1.mrxs"
    path.write_bytes(b"index")
    (tmp_path / "A1").mkdir()
    alone = fingerprint(path)
    (tmp_path / "A1" / "Data0000.dat").write_bytes(bytes(10))
    with_data = fingerprint(path)
    (tmp_path / "A1" / "Data0000.dat").write_bytes(bytes(11))
    assert len({alone, with_data, fingerprint(path)}) == 3


def test_twins_are_found(test_data: Path) -> None:
    odd = test_data / "slides" / "odd"
    assert fingerprint(odd / "small.svs") == fingerprint(odd / "😐.svs")


def test_the_same_files_are_found_by_content_and_few_are_read(
    big: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, near, other = (tmp_path / name for name in ("copy.svs", "near.svs", "other.svs"))
    for path in (copy, near):
        shutil.copy(big, path)
    change(near, 100)  # found by the fingerprint alone
    other.write_bytes(np.random.default_rng(1).bytes(20 << 20))  # another slide of the same size
    lone, empty, folder = tmp_path / "lone.svs", tmp_path / "empty.svs", tmp_path / "slide.zarr"
    lone.write_bytes(b"of another size")
    empty.write_bytes(b"")
    folder.mkdir()
    read: list[Path] = []
    monkeypatch.setattr(
        "wsi_mil.slides.fingerprint.fingerprint", lambda path: (read.append(path), fingerprint(path))[1]
    )
    paths = [lone, big, empty, near, empty, other, folder, copy, tmp_path / "gone.svs", folder, big]
    assert same_files(paths) == [[1, 7, 10]]
    assert set(read) == {big, near, copy}
