"""Which slide a file is, whatever its name and place: a digest of its size and of a sample of its bytes."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from wsi_mil.files import digest

END_BYTES = 1 << 20
"""Read at either end, where slide formats keep their directories."""

BLOCKS = 64
BLOCK_BYTES = 1 << 16
"""Blocks spread evenly over the file: 6 MiB read of a slide of any size, a few milliseconds on a disk."""


PEEK_BYTES = 1 << 12
"""Read at the end of each quarter of a file to tell it from another of its size."""

SMALL_BYTES = 1 << 16
"""Files of a folder up to this size are read whole: metadata, and chunks of the coarse levels."""


def fingerprint(path: Path) -> str:
    """SHA-256 of a file's size, its first and last MiB and 64 evenly spaced blocks of 64 KiB.

    A MIRAX slide keeps its pixels in a folder of the same name beside the file: names and sizes of what is in it count.
    Of a slide that is a folder (OME-Zarr, DICOM instances) names and sizes of all its files count, and the content of
    the small ones.
    """
    if path.is_dir():
        return digest(*(part for inner in sorted(path.rglob("*")) if inner.is_file() for part in _member(path, inner)))
    with path.open("rb") as file:

        def read(offset: int, count: int) -> bytes:
            file.seek(offset)
            return file.read(count)

        return fingerprint_of(read, path.stat().st_size, *(f"{name} {size}" for name, size in _companions(path)))


def same_files(paths: Sequence[Path]) -> list[list[int]]:
    """Places in the list of those files that are the same by their fingerprint, a group each.

    Few are read: those of one size alone, and of these whole samples only where a few bytes of each are the same. What
    cannot be read, and slides that are folders, are left out.
    """
    found = _grouped(range(len(paths)), lambda place: _size(paths[place]))
    found = [part for group in found for part in _grouped(group, lambda place: _peek(paths[place]))]
    return [part for group in found for part in _grouped(group, lambda place: fingerprint(paths[place]))]


def _grouped(places: Iterable[int], mark: Callable[[int], object]) -> list[list[int]]:
    """Places with the same mark, two or more; those whose mark is None, or that cannot be read, are left out."""
    groups: dict[object, list[int]] = {}
    for place in places:
        try:
            told = mark(place)
        except OSError:
            continue
        if told is not None:
            groups.setdefault(told, []).append(place)
    return [group for group in groups.values() if len(group) > 1]


def _size(path: Path) -> int | None:
    told = path.stat()
    return told.st_size if stat.S_ISREG(told.st_mode) and told.st_size else None


def _peek(path: Path) -> bytes:
    size, told = path.stat().st_size, []
    with path.open("rb") as file:
        for quarter in range(1, 5):
            file.seek(max(0, size * quarter // 4 - PEEK_BYTES))
            told.append(file.read(PEEK_BYTES))
    return b"".join(told)


def fingerprint_of(read: Callable[[int, int], bytes], size: int, *beside: str) -> str:
    """The same from any bytes that are read by (offset, count), and from what else belongs to the slide."""
    return digest(
        str(size).encode(), *(read(*sample) for sample in _samples(size)), *(text.encode() for text in beside)
    )


def _member(folder: Path, inner: Path) -> tuple[bytes, bytes]:
    size = inner.stat().st_size
    name = f"{inner.relative_to(folder).as_posix()} {size}".encode()
    return name, inner.read_bytes() if size <= SMALL_BYTES else b""


def _samples(size: int) -> list[tuple[int, int]]:
    last_start = max(0, size - BLOCK_BYTES)
    blocks = [(last_start * block // (BLOCKS - 1), BLOCK_BYTES) for block in range(BLOCKS)]
    return [(0, END_BYTES), (max(0, size - END_BYTES), END_BYTES), *blocks]


def _companions(path: Path) -> list[tuple[str, int]]:
    folder = path.with_suffix("")
    if path.suffix.lower() != ".mrxs" or not folder.is_dir():
        return []
    return sorted(
        (str(inner.relative_to(folder)), inner.stat().st_size) for inner in folder.rglob("*") if inner.is_file()
    )
