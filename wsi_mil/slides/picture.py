"""The picture reader: one flat PNG, JPEG, BMP or TIFF, as a slide of one level."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import UInt8

from wsi_mil.errors import SlideError
from wsi_mil.geometry import Level
from wsi_mil.slides.slide import MppSource, Slide, SlideInfo
from wsi_mil.slides.sniff import kind
from wsi_mil.slides.tile_codecs import over_white

MAX_PX = 1 << 28
"""Most pixels of a flat picture (800 MB): it is decoded whole."""


@final
class PictureReader(Slide):
    """A flat picture, decoded whole when it is first read.

    What such a file says of its resolution is meant for screens and paper, so its scale has to be given. Alpha is laid
    over white, gray and palettes become RGB, and the orientation that a camera notes in a JPEG is applied.
    """

    def __init__(self, path: Path, *, id: str, mpp: tuple[float, float] | None, mpp_source: MppSource) -> None:
        """Open a file; raises SlideError with the reason for a refusal."""
        found = None if path.is_dir() else kind(path)
        if found not in ("PNG picture", "JPEG picture", "BMP picture", "TIFF", "BigTIFF"):
            raise SlideError("it is no PNG, JPEG, BMP or TIFF picture")
        self._pixels: UInt8[np.ndarray, "h w 3"] | None = None
        self._is_closed = False
        width, height = _size(path)
        super().__init__(
            path, SlideInfo((Level(width, height, (1.0, 1.0)),), None, "picture"), id=id, mpp=mpp, mpp_source=mpp_source
        )

    def _read(self, box: tuple[int, int, int, int], level: int) -> UInt8[np.ndarray, "h w 3"]:
        if self._is_closed:
            raise SlideError(f"slide {self.id!r} was closed: open it again to read")
        if self._pixels is None:
            self._pixels = _decode(self.path, self.id)
        left, top, width, height = box
        return self._pixels[top : top + height, left : left + width]

    def close(self) -> None:
        """Let go of the pixels. Reading afterwards raises SlideError."""
        self._pixels, self._is_closed = None, True

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_pixels": None}


def _size(path: Path) -> tuple[int, int]:
    from PIL import Image

    with warnings.catch_warnings():
        # Pillow warns of large pictures; the limit here is our own.
        warnings.simplefilter("ignore")
        try:
            with Image.open(path) as picture:
                width, height = picture.size
                turned = picture.format == "JPEG" and picture.getexif().get(274, 1) in range(5, 9)
                mode, pages = picture.mode, getattr(picture, "n_frames", 1)
        except Exception as error:  # each format of the library raises its own
            raise SlideError(f"it is a picture that cannot be opened ({type(error).__name__}: {error})") from None
    if pages > 1:
        raise SlideError(f"it is a TIFF of {pages} pages and no flat picture")
    if mode.startswith(("I", "F")):
        raise SlideError(f"its pixels are of mode {mode}; 8 bits a colour are read")
    if width * height > MAX_PX:
        raise SlideError(
            f"it is a flat picture of {width} x {height} px, too large to decode whole: write it as a tiled TIFF "
            f"(for example with `vips tiffsave --tile --pyramid`)"
        )
    return (height, width) if turned else (width, height)


def _decode(path: Path, id: str) -> UInt8[np.ndarray, "h w 3"]:
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path) as picture:
                upright = ImageOps.exif_transpose(picture) if picture.format == "JPEG" else picture
                if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
                    return over_white(np.asarray(upright.convert("RGBA")), multiplied=False)
                return np.asarray(upright.convert("RGB"))
        except Exception as error:  # each format of the library raises its own
            raise SlideError(f"slide {id!r} is damaged: {type(error).__name__}: {error}") from None
