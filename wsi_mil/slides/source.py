"""Where the bytes of a slide lie: a local file read by place or mapped, or a remote object read by ranges."""

from __future__ import annotations

import io
import mmap
import os
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from pathlib import Path
from typing import Any, final

from wsi_mil.errors import SlideError

BLOCK_BYTES = 1 << 20
"""Remote objects are fetched in blocks of this size: a request costs as much as a megabyte does."""

BLOCKS_KEPT = 64


class Source(ABC):
    """Bytes by place; may be read by several threads at once, and opens again where it is unpickled."""

    size: int

    @abstractmethod
    def read(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset`; fewer at the end of the file. Raises SlideError."""

    @abstractmethod
    def expect(self, offset: int, count: int) -> None:
        """These bytes will be read soon."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file. Reading afterwards raises SlideError."""


@final
class LocalSource(Source):
    """A file on this machine, read with one call a range and without a shared position."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self.size = os.fstat(self._descriptor).st_size

    def read(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset`; fewer at the end of the file."""
        if self._descriptor < 0:
            raise SlideError(f"slide file {self._path} was closed: open it again to read")
        try:
            return os.pread(self._descriptor, count, offset)
        except OSError as error:
            raise SlideError(f"slide file {self._path} cannot be read at byte {offset}: {error.strerror}") from None

    def expect(self, offset: int, count: int) -> None:
        """Ask the system to fetch these bytes: slow and remote disks then work while tiles are decoded."""
        if self._descriptor >= 0 and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._descriptor, offset, count, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Let go of the file."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalSource, (self._path,)


@final
class MappedSource(Source):
    """A local file mapped into memory: what other processes or an earlier run have read is shared, without a call.

    For files on a disk of this machine. A map whose file is cut short, or whose disk fails, kills the process, where
    LocalSource raises; cutting is looked for before each read, a failing disk cannot be.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            self.size = os.fstat(file.fileno()).st_size
            self._descriptor = os.dup(file.fileno())
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if self.size else None

    def read(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset`; fewer at the end of the file."""
        if self._descriptor < 0:
            raise SlideError(f"slide file {self._path} was closed: open it again to read")
        if os.fstat(self._descriptor).st_size < self.size:
            raise SlideError(f"slide file {self._path} was cut short while it was open: copy it again")
        return self._map[offset : offset + count] if self._map is not None and offset >= 0 else b""

    def expect(self, offset: int, count: int) -> None:
        """Ask the system to bring these pages in."""
        start = max(0, offset - offset % mmap.PAGESIZE)
        if self._map is not None and hasattr(self._map, "madvise") and start < min(offset + count, self.size):
            self._map.madvise(mmap.MADV_WILLNEED, start, min(offset + count, self.size) - start)

    def close(self) -> None:
        """Let go of the map and the file."""
        descriptor, self._descriptor = self._descriptor, -1
        mapped, self._map = self._map, None
        if mapped is not None:
            mapped.close()
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return MappedSource, (self._path,)


@final
class RemoteSource(Source):
    """An object behind a URL (https://, s3:// ...), fetched in blocks of a megabyte that are kept for a while."""

    def __init__(self, url: str) -> None:
        import fsspec

        self._url = url
        self._lock = threading.Lock()
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._is_closed = False
        try:
            self._system, self._path = fsspec.core.url_to_fs(url)
            self.size = int(self._system.size(self._path))
        except (ImportError, ValueError) as error:  # a protocol without its package, or none at all
            remedy = "the extra `remote` brings s3 and https"
            raise SlideError(f"slide {url} cannot be reached: {error} ({remedy})") from None
        except Exception as error:  # each file system raises its own
            raise SlideError(f"slide {url} cannot be reached: {error}") from None

    def read(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset`; fewer at the end of the object."""
        end = min(offset + count, self.size)
        first, last = offset // BLOCK_BYTES, max(offset, end - 1) // BLOCK_BYTES
        joined = b"".join(self._block(number) for number in range(first, last + 1))
        start = offset - first * BLOCK_BYTES
        return joined[start : start + max(0, end - offset)]

    def expect(self, offset: int, count: int) -> None:
        """Nothing: blocks are large enough that neighbours come along."""

    def close(self) -> None:
        """Let go of the blocks."""
        self._is_closed = True
        self._blocks.clear()

    def _block(self, number: int) -> bytes:
        if self._is_closed:
            raise SlideError(f"slide {self._url} was closed: open it again to read")
        with self._lock:
            if number in self._blocks:
                self._blocks.move_to_end(number)
                return self._blocks[number]
        start = number * BLOCK_BYTES
        try:
            data = bytes(self._system.cat_file(self._path, start=start, end=min(start + BLOCK_BYTES, self.size)))
        except Exception as error:  # each file system raises its own
            raise SlideError(f"slide {self._url} cannot be read at byte {start}: {error}") from None
        with self._lock:
            self._blocks[number] = data
            if len(self._blocks) > BLOCKS_KEPT:
                self._blocks.popitem(last=False)
        return data

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteSource, (self._url,)


def source_of(path: Path | str, *, memory_map: bool = False) -> Source:
    """The bytes of a file or of what lies behind a URL; a URL is never mapped."""
    if is_url(path):
        return RemoteSource(str(path))
    return MappedSource(Path(path)) if memory_map else LocalSource(Path(path))


def is_url(path: str | Path) -> bool:
    """Whether a slide lies behind a URL rather than in a file."""
    return "://" in str(path)


@final
class _SourceFile(io.RawIOBase):
    """A source with a position."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._at = 0

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self._source.read(self._at, len(view))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._at = offset + (0, self._at, self._source.size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """Let go of the source, which stays open: parsers keep their files in circles that live on for long."""
        super().close()
        self.__dict__.pop("_source", None)


def as_file(source: Source) -> io.BufferedReader:
    """A source as the file object that a TIFF parser reads."""
    return io.BufferedReader(_SourceFile(source), 1 << 16)
