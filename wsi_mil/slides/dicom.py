"""The DICOM reader: whole-slide instances, also concatenated or as a folder, through wsidicom."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from jaxtyping import UInt8

from wsi_mil.errors import SlideError
from wsi_mil.geometry import Level
from wsi_mil.slides.slide import MppSource, Slide, SlideInfo
from wsi_mil.slides.sniff import has_dicom, kind
from wsi_mil.slides.tiff_layout import believable

if TYPE_CHECKING:
    from wsidicom import WsiDicom


@final
class DicomReader(Slide):
    """A slide of DICOM instances: one file (its siblings of the same series are found), or a folder of them."""

    def __init__(self, path: Path, *, id: str, mpp: tuple[float, float] | None, mpp_source: MppSource) -> None:
        """Open a file or folder; raises SlideError with the reason for a refusal."""
        _check_kind(path)
        self._handle = _Handle(path)
        try:
            info, self._numbers = _metadata(self._handle.get())
        except BaseException:
            self._handle.close()
            raise
        super().__init__(path, info, id=id, mpp=mpp, mpp_source=mpp_source)

    def _read(self, box: tuple[int, int, int, int], level: int) -> UInt8[np.ndarray, "h w 3"]:
        handle = self._handle.get()
        try:
            pixels = handle.read_region((box[0], box[1]), self._numbers[level], (box[2], box[3]), as_array=True)
        except Exception as error:  # the library lets errors of its decoders through
            raise SlideError(
                f"slide {self.id!r} is damaged at level {level}, x {box[0]}, y {box[1]}, {box[2]} x {box[3]} px: "
                f"{type(error).__name__}: {str(error)[:200]}"
            ) from None
        rgb = np.asarray(pixels)
        return np.repeat(rgb[..., None], 3, axis=2) if rgb.ndim == 2 else np.ascontiguousarray(rgb[..., :3])

    def close(self) -> None:
        """Let go of the files. Reading afterwards raises SlideError."""
        self._handle.close()


@final
class _Handle:
    """The library's handle, opened where it is needed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._open: WsiDicom | None = None
        self._is_closed = False

    def get(self) -> WsiDicom:
        with self._lock:
            if self._is_closed:
                raise SlideError(f"slide {self._path} was closed: open it again to read")
            if self._open is None:
                self._open = _open(self._path)
            return self._open

    def close(self) -> None:
        with self._lock:
            if self._open is not None:
                self._open.close()
            self._open, self._is_closed = None, True

    def __reduce__(self) -> tuple[Any, ...]:
        return _Handle, (self._path,)


def _check_kind(path: Path) -> None:
    if not (has_dicom(path) if path.is_dir() else kind(path) == "DICOM"):
        raise SlideError("it is no DICOM file, and no folder of them")


def _open(path: Path) -> WsiDicom:
    try:
        from wsidicom import WsiDicom
    except ImportError:
        raise SlideError("it needs the package wsidicom: pip install 'wsi_mil[dicom]'") from None
    try:
        return WsiDicom.open(path)
    except Exception as error:  # the library raises its own kinds, and those of the DICOM parser
        said = f"{type(error).__name__}: {str(error)[:200]}".strip(": ")
        raise SlideError(f"wsidicom says {said!r}") from None


def _metadata(handle: WsiDicom) -> tuple[SlideInfo, tuple[int, ...]]:
    """What the instances say, and the library's own numbers of the levels, which may have gaps."""
    found = sorted(handle.pyramids[0], key=lambda level: -level.size.width)
    width, height = found[0].size.width, found[0].size.height
    levels = tuple(
        Level(one.size.width, one.size.height, (width / one.size.width, height / one.size.height)) for one in found
    )
    spacing = found[0].mpp
    mpp = believable((float(spacing.width), float(spacing.height))) if spacing else None
    return SlideInfo(levels, mpp, "dicom"), tuple(one.level for one in found)
