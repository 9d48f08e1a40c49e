"""What a file is by its own bytes, before a reader sees it, so that a refusal can say why."""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from wsi_mil.errors import SlideError

_MAGIC = (
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "BigTIFF"),
    (0, b"MM\0+", "BigTIFF"),
    (128, b"DICM", "DICOM"),
    (0, b"\x89PNG\r\n", "PNG picture"),
    (0, b"\xff\xd8\xff", "JPEG picture"),
    (0, b"GIF8", "GIF picture"),
    (0, b"BM", "BMP picture"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000 picture"),
    (0, b"%PDF", "PDF document"),
    (0, b"PK\x03\x04", "ZIP archive"),
    (0, b"\x1f\x8b", "gzip archive"),
    (0, b"\x89HDF\r\n", "HDF5 file"),
    (0, b"ZISRAWFILE", "Zeiss CZI"),
    (0, b"SQLite format 3", "SQLite database"),
    (0, b"<?xml", "XML text"),
)

_FIRST_FILES = 64  # of a folder are looked at
_MAX_TAGS = 4096
_MAX_TAG_BYTES = 1 << 20
_SHORT, _LONG = 3, 4
_TAG_DESCRIPTION = 270
_NUMBERS = {256: "width", 257: "height", 274: "orientation"}


@dataclass(frozen=True)
class TiffHead:
    """The little of a TIFF's first directory that decides who may read it."""

    directory_at: int
    """Byte at which the first directory lies."""
    size: int
    """Of the file, in bytes."""
    width: int = 1
    height: int = 1
    orientation: int = 1
    description: str = ""
    tags: frozenset[int] = frozenset()
    """Numbers of the tags it has."""

    @property
    def is_cut_off(self) -> bool:
        """Whether the directory lies past the end."""
        return self.directory_at >= self.size

    @property
    def is_ome(self) -> bool:
        """Whether it is an OME-TIFF, by its description and not by its name."""
        return "<OME" in self.description[:4096] or self.description.rstrip().endswith("</OME>")


def check_file(path: Path) -> None:
    """Raise SlideError unless `path` is a readable file with something in it; the message says which it is not."""
    try:
        status = path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            raise SlideError(f"slide file {path} is a link to {os.readlink(path)}, which does not exist") from None
        raise SlideError(f"slide file {path} does not exist") from None
    except OSError as error:  # a loop of links, a folder that may not be entered, a name too long
        raise SlideError(f"slide file {path} cannot be reached: {error.strerror}") from None
    if stat.S_ISDIR(status.st_mode):
        if is_zarr(path) or has_dicom(path):
            return
        raise SlideError(
            f"slide file {path} is a folder, and neither of OME-Zarr nor of DICOM: give the file in it that names the "
            f"slide"
        )
    if not stat.S_ISREG(status.st_mode):
        raise SlideError(f"slide file {path} is a pipe, socket or device, not a file")
    if status.st_size == 0:
        raise SlideError(f"slide file {path} is empty (0 bytes): copy it again from its source")
    try:
        path.open("rb").close()
    except OSError as error:
        raise SlideError(f"slide file {path} cannot be opened: {error.strerror}") from None


def is_zarr(path: Path) -> bool:
    """Whether a path is the folder of a zarr group (version 2 or 3 of the format)."""
    return path.is_dir() and any((path / name).is_file() for name in (".zgroup", ".zattrs", "zarr.json"))


def has_dicom(path: Path) -> bool:
    """Whether a path is a folder with DICOM files in it."""
    if not path.is_dir():
        return False
    files = (inner for inner in sorted(path.iterdir())[:_FIRST_FILES] if inner.is_file())
    return any(kind(inner) == "DICOM" for inner in files)


def closed_format(path: Path) -> str | None:
    """A clause on a format that only its maker's programs can read, with the way out of it; None for any other file.

    An Olympus VSI is a TIFF by its first bytes, but what it holds is a thumbnail; the pixels lie in a folder beside it.
    """
    if path.is_dir():
        return None
    beside = path.parent / f"_{path.stem}_"
    if beside.is_dir() and any(beside.glob("stack*/*.ets")):
        return "it is an Olympus VSI: convert it to a pyramidal OME-TIFF, for example with QuPath or bfconvert"
    with path.open("rb") as file:
        head = file.read(1024)
    if head.lstrip().startswith(b"<DataObject") and b"DPUfsImport" in head:
        return "it is a Philips iSyntax: convert it to TIFF with the maker's converter, or to OME-TIFF with isyntax2raw"
    return None


def kind(path: Path) -> str | None:
    """What the first bytes say a file is ("TIFF", "DICOM", "PNG picture"), or None where they are of no known kind."""
    with path.open("rb") as file:
        head = file.read(160)
    return next((name for offset, magic, name in _MAGIC if head[offset:].startswith(magic)), None)


def finding(path: Path) -> str | None:
    """A clause on why no reader could open a file, from its own bytes; None where they look like a slide's."""
    if path.is_dir():
        return None
    found = kind(path)
    if found in ("TIFF", "BigTIFF"):
        head = head_of(path)
        if head and head.is_cut_off:
            return (
                f"it is cut off: its directory lies at byte {head.directory_at} of a file of {head.size}; "
                f"copy it again from its source"
            )
        if head and 0 in (head.width, head.height):
            return f"its picture has no pixels ({head.width} x {head.height})"
        return None
    if found in ("DICOM", "Zeiss CZI", "PNG picture", "JPEG picture", "BMP picture"):
        return None
    if found:
        return f"by its content it is a {found}, not a slide"
    with path.open("rb") as file:
        return f"its first bytes {file.read(8)!r} are of no slide format"


def tiff_head(file: BufferedReader, size: int) -> TiffHead | None:
    """What the first directory of a TIFF of `size` bytes says; None where it is no TIFF or makes no sense."""
    file.seek(0)
    magic = file.read(4)
    order = {b"II": "<", b"MM": ">"}.get(magic[:2])
    if order is None or magic[2:] not in (b"*\0", b"\0*", b"+\0", b"\0+"):
        return None
    big = b"+" in magic
    try:
        return _first_directory(file, order, big=big, size=size)
    except struct.error:  # the file ends inside the directory
        return TiffHead(directory_at=size, size=size)


def head_of(path: Path) -> TiffHead | None:
    """The same of a file."""
    with path.open("rb") as file:
        return tiff_head(file, path.stat().st_size)


def _first_directory(file: BufferedReader, order: str, *, big: bool, size: int) -> TiffHead | None:
    file.seek(8 if big else 4)
    (at,) = _unpack(file, order + ("Q" if big else "I"))
    if at >= size:
        return TiffHead(directory_at=at, size=size)
    file.seek(at)
    (count,) = _unpack(file, order + ("Q" if big else "H"))
    if count > _MAX_TAGS:
        return None
    entry = order + ("HHQ8s" if big else "HHI4s")
    entries = [_unpack(file, entry) for _ in range(count)]
    numbers, description = {}, ""
    for tag, type_, length, value in entries:
        if tag in _NUMBERS and type_ in (_SHORT, _LONG):
            (numbers[_NUMBERS[tag]],) = struct.unpack_from(order + ("H" if type_ == _SHORT else "I"), value)
        elif tag == _TAG_DESCRIPTION:
            description = _text(file, value, order + ("Q" if big else "I"), length=length, size=size)
    tags = frozenset(tag for tag, *_ in entries)
    return TiffHead(directory_at=at, size=size, description=description, tags=tags, **numbers)


def _text(file: BufferedReader, value: bytes, offset_format: str, *, length: int, size: int) -> str:
    if length > len(value):
        (at,) = struct.unpack(offset_format, value)
        file.seek(min(at, size))
        value = file.read(min(length, _MAX_TAG_BYTES))
    return value[:length].rstrip(b"\0").decode("utf-8", errors="replace")


def _unpack(file: BufferedReader, form: str) -> tuple[Any, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))
