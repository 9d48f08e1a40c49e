"""TIFF files written byte by byte, with any tag in any place: for the dialects of scanners, and for damage."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from contracts.slide import Pixels
from PIL import Image

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SIGNED, FLOAT = 1, 2, 3, 4, 5, 7, 9, 11
_CODES = {BYTE: "B", ASCII: "B", SHORT: "H", LONG: "I", SIGNED: "i", FLOAT: "f", UNDEFINED: "B"}

Tag = tuple[int, Sequence[float] | bytes | str]


@dataclass
class Page:
    """One directory: its tags, and the data that the offset and count tags point to."""

    tags: dict[int, Tag]
    pieces: list[bytes] = field(default_factory=list)
    tiled: bool = True


def write_raw(path: Path, pages: Sequence[Page], *, big: bool = False, ndpi: bool = False) -> Path:
    """A little-endian TIFF, BigTIFF or NDPI (classic, with the high halves of offsets after each directory)."""
    file = bytearray(b"II+\0\x08\0\0\0" + bytes(8) if big else b"II*\0" + bytes(8 if ndpi else 4))
    link = 8 if big else 4
    for page in pages:
        tags = dict(page.tags)
        offsets = []
        for piece in page.pieces:
            offsets.append(len(file) if piece else 0)
            file += piece + bytes(len(piece) % 2)
        if page.pieces:
            tags[324 if page.tiled else 273] = LONG, offsets
            tags[325 if page.tiled else 279] = LONG, [len(piece) for piece in page.pieces]
        at = _directory(file, tags, big=big, ndpi=ndpi)
        struct.pack_into("<Q" if big else "<I", file, link, at[0])
        link = at[1]
    path.write_bytes(file)
    return path


def _directory(file: bytearray, tags: dict[int, Tag], *, big: bool, ndpi: bool) -> tuple[int, int]:
    """Append a directory; where it lies, and where it keeps the place of the next one."""
    entries = b""
    inline = 8 if big else 4
    for code, (kind, values) in sorted(tags.items()):
        data, count = _pack(kind, values)
        if len(data) > inline:
            file += bytes(len(file) % 2)
            place = struct.pack("<Q" if big else "<I", len(file))
            file += data
            data = place
        entries += struct.pack("<HHQ" if big else "<HHI", code, kind, count) + data.ljust(inline, b"\0")
    file += bytes(len(file) % 2)
    start = len(file)
    file += struct.pack("<Q" if big else "<H", len(tags)) + entries
    link = len(file)
    file += bytes(8 if big or ndpi else 4)
    if ndpi:
        file += bytes(4 * len(tags))
    return start, link


def _pack(kind: int, values: Sequence[float] | bytes | str) -> tuple[bytes, int]:
    if isinstance(values, str):
        values = values.encode() + b"\0"
    if isinstance(values, bytes):
        return values, len(values)
    if kind == RATIONAL:
        return b"".join(struct.pack("<II", round(value * 1000), 1000) for value in values), len(values)
    return struct.pack(f"<{len(values)}{_CODES[kind]}", *values), len(values)


def jpeg(rgb: Pixels, *, restart_blocks: int = 0) -> bytes:
    """A picture as JPEG with colour at full resolution, with a restart marker every so many blocks."""
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=90, subsampling=0, restart_marker_blocks=restart_blocks)
    return file.getvalue()


def bare_jpeg(rgb: Pixels) -> bytes:
    """The same without the marker that names its colours: the TIFF around it has to say them."""
    data = jpeg(rgb)
    length = struct.unpack(">H", data[4:6])[0]
    assert data[2:4] == b"\xff\xe0"
    return data[:2] + data[4 + length :]


def tiles_of(rgb: Pixels, side: int) -> list[Pixels]:
    """A picture cut into squares, row by row; those on the edge padded with gray."""
    height, width, _ = rgb.shape
    padded = np.full((-(-height // side) * side, -(-width // side) * side, 3), 128, np.uint8)
    padded[:height, :width] = rgb
    return [
        np.ascontiguousarray(padded[y : y + side, x : x + side])
        for y in range(0, height, side)
        for x in range(0, width, side)
    ]


def tiled_page(rgb: Pixels, *, side: int = 128, more: dict[int, Tag] | None = None, bare: bool = True) -> Page:
    """A page of YCbCr JPEG tiles."""
    height, width, _ = rgb.shape
    tags: dict[int, Tag] = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [8, 8, 8]),
        259: (SHORT, [7]),
        262: (SHORT, [6]),
        277: (SHORT, [3]),
        284: (SHORT, [1]),
        322: (LONG, [side]),
        323: (LONG, [side]),
        530: (SHORT, [1, 1]),
    }
    return Page({**tags, **(more or {})}, [(bare_jpeg if bare else jpeg)(tile) for tile in tiles_of(rgb, side)])
