"""Which slide a file is, whatever its name and place: a digest of its size and of a sample of its bytes."""

from __future__ import annotations

from pathlib import Path

from wsi_mil.files import digest

END_BYTES = 1 << 20
"""Read at either end, where slide formats keep their directories."""

BLOCKS = 64
BLOCK_BYTES = 1 << 16
"""Blocks spread evenly over the file: 6 MiB read of a slide of any size, a few milliseconds on a disk."""


def fingerprint(path: Path) -> str:
    """SHA-256 of a file's size, its first and last MiB and 64 evenly spaced blocks of 64 KiB.

    A MIRAX slide keeps its pixels in a folder of the same name beside the file: names and sizes of what is in it count.
    """
    size = path.stat().st_size
    parts = [str(size).encode()]
    with path.open("rb") as file:
        for start, length in _samples(size):
            file.seek(start)
            parts.append(file.read(length))
    parts += [f"{name} {bytes_}".encode() for name, bytes_ in _companions(path)]
    return digest(*parts)


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
