"""open_slide: the one door to every format; readers are tried in order, and a refusal says why."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Protocol

from wsi_mil.errors import ScaleError, SlideError, unknown
from wsi_mil.layout import slide_id
from wsi_mil.slides.openslide import OpenSlideReader
from wsi_mil.slides.slide import MppSource, Slide
from wsi_mil.slides.sniff import check_file, finding
from wsi_mil.slides.source import is_url
from wsi_mil.slides.tiff import TiffReader

_log = logging.getLogger("wsi_mil")

CONTRADICTION = 0.05
"""Relative difference between a given scale and the file's own that is worth a warning; scanners round to about 1 %."""


class Reader(Protocol):
    """How a row of READERS is called: it gives an open slide or raises SlideError with a reason."""

    def __call__(self, path: Path, *, id: str, mpp: tuple[float, float] | None, mpp_source: MppSource) -> Slide: ...


READERS: dict[str, Reader] = {"tiff": TiffReader, "openslide": OpenSlideReader}
"""Tried in this order; the first that opens a file reads it."""


def open_slide(
    path: str | Path,
    *,
    mpp: float | tuple[float, float] | None = None,
    mpp_source: MppSource = "flag",
    id: str | None = None,
    reader: str | None = None,
) -> Slide:
    """Open a slide with the first reader that can.

    `mpp` (micrometres per level-0 pixel, one number or x and y) wins over what the file says, and `mpp_source` tells
    who said so. `id` defaults to the file's name without its suffix; `reader` forces a row of READERS.
    Raises SlideError with one sentence on what the file is and why each reader refused.
    """
    if is_url(path):
        return _open_remote(str(path), mpp=mpp, mpp_source=mpp_source, id=id)
    path = Path(path)
    if reader is not None and reader not in READERS:
        raise SlideError(unknown("slide reader", reader, READERS))
    check_file(path)
    name = slide_id(path) if id is None else id
    given = _pair(mpp, name)
    reasons = []
    for key in READERS if reader is None else (reader,):
        try:
            slide = READERS[key](path, id=name, mpp=given, mpp_source=mpp_source)
        except SlideError as error:
            reasons.append(f"{key}: {error}")
        else:
            _warn_of_contradiction(slide)
            return slide
    said = "; ".join(reasons)
    why = finding(path)
    raise SlideError(f"slide file {path} cannot be opened: {f'{why} ({said})' if why else said}")


def _open_remote(url: str, *, mpp: float | tuple[float, float] | None, mpp_source: MppSource, id: str | None) -> Slide:
    """A slide behind a URL: TIFF alone can be read by ranges."""
    name = slide_id(Path(url.rsplit("/", 1)[-1])) if id is None else id
    try:
        slide = TiffReader(url, id=name, mpp=_pair(mpp, name), mpp_source=mpp_source)
    except SlideError as error:
        raise SlideError(f"slide {url} cannot be opened: {error}; other formats than TIFF have to be copied") from None
    _warn_of_contradiction(slide)
    return slide


def _pair(mpp: float | tuple[float, float] | None, name: str) -> tuple[float, float] | None:
    if mpp is None:
        return None
    pair = mpp if isinstance(mpp, tuple) else (mpp, mpp)
    if not all(math.isfinite(value) and value > 0 for value in pair):
        raise ScaleError(f"slide {name!r} was given {mpp} um/px: give a finite number above 0")
    return float(pair[0]), float(pair[1])


def _warn_of_contradiction(slide: Slide) -> None:
    said = slide.metadata_mpp
    if said is None or slide.mpp_source == "metadata":
        return
    if any(abs(given / own - 1) > CONTRADICTION for given, own in zip(slide.mpp, said, strict=True)):
        _log.warning(
            "slide %r is read at %g x %g um/px as the %s says; its file says %g x %g",
            slide.id,
            *slide.mpp,
            slide.mpp_source,
            *said,
        )
