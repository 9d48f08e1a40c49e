"""open_slide: the one door to every format; readers are tried in order, and a refusal says why."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

from wsi_mil.errors import ScaleError, SlideError, unknown
from wsi_mil.layout import slide_id
from wsi_mil.slides.dicom import DicomReader
from wsi_mil.slides.ome_zarr import OmeZarrReader
from wsi_mil.slides.openslide import OpenSlideReader
from wsi_mil.slides.picture import PictureReader
from wsi_mil.slides.slide import MppSource, Slide
from wsi_mil.slides.sniff import check_file, closed_format, finding
from wsi_mil.slides.source import is_url
from wsi_mil.slides.tiff import TiffReader

_log = logging.getLogger("wsi_mil")

CONTRADICTION = 0.05
"""Relative difference between a given scale and the file's own that is worth a warning; scanners round to about 1 %."""

MPP_TIMES_POWER, FAR_OFF = 10.0, 1.8
"""Scanners give about 0.5 um/px at 20x and 0.25 at 40x; cameras and relay lenses move that by less than this factor."""


class Reader(Protocol):
    """How a row of READERS is called: it gives an open slide or raises SlideError with a reason."""

    def __call__(self, path: Path, *, id: str, mpp: tuple[float, float] | None, mpp_source: MppSource) -> Slide: ...


READERS: dict[str, Reader] = {
    "tiff": TiffReader,
    "openslide": OpenSlideReader,
    "dicom": DicomReader,
    "ome-zarr": OmeZarrReader,
    "picture": PictureReader,
}
"""Tried in this order; the first that opens a file reads it."""


def open_slide(
    path: str | Path,
    *,
    mpp: float | tuple[float, float] | None = None,
    mpp_source: MppSource = "flag",
    id: str | None = None,
    reader: str | None = None,
    shrink: bool = False,
    memory_map: bool = False,
) -> Slide:
    """Open a slide with the first reader that can.

    `mpp` (micrometres per level-0 pixel, one number or x and y) wins over what the file says, and `mpp_source` tells
    who said so. `id` defaults to the file's name without its suffix; `reader` forces a row of READERS. `shrink` lets
    the JPEG decoder make coarser levels of a TIFF, and `memory_map` maps the file of a TIFF (see TiffReader); other
    readers take no notice.
    Raises SlideError with one sentence on what the file is and why each reader refused.
    """
    if is_url(path):
        return _open_remote(str(path), mpp=mpp, mpp_source=mpp_source, id=id, shrink=shrink)
    path = Path(path)
    if reader is not None and reader not in READERS:
        raise SlideError(unknown("slide reader", reader, READERS))
    name = slide_id(path) if id is None else id
    reasons = []
    keys = [reader] if reader else list(READERS)
    tiff = partial(TiffReader, shrink=shrink, memory_map=memory_map)
    for key, found in _attempts(path, name, _pair(mpp, name), mpp_source, keys, tiff=tiff):
        if isinstance(found, Slide):
            _warn_of_contradiction(found)
            return found
        reasons.append(f"{key}: {found}")
    said = "; ".join(reasons)
    why = finding(path)
    raise SlideError(f"slide file {path} cannot be opened: {f'{why} ({said})' if why else said}")


def survey(path: str | Path, *, mpp: float | tuple[float, float] | None = None) -> dict[str, Slide | str]:
    """What each reader makes of a file: an open slide, or the reason why it refuses. The first slide is the one that
    `open_slide` gives. Raises SlideError where it is no file of a slide at all."""
    path = Path(path)
    name = slide_id(path)
    return dict(_attempts(path, name, _pair(mpp, name), "flag", list(READERS)))


def _attempts(
    path: Path,
    name: str,
    mpp: tuple[float, float] | None,
    mpp_source: MppSource,
    readers: list[str],
    *,
    tiff: Callable[..., Slide] = TiffReader,
) -> Iterator[tuple[str, Slide | str]]:
    """Each reader's slide or refusal, one after the other."""
    check_file(path)
    if closed := closed_format(path):
        raise SlideError(f"slide file {path} cannot be opened: {closed}")
    for key in readers:
        try:
            reader = tiff if READERS[key] is TiffReader else READERS[key]
            yield key, reader(path, id=name, mpp=mpp, mpp_source=mpp_source)
        except SlideError as error:
            yield key, str(error)


def _open_remote(
    url: str, *, mpp: float | tuple[float, float] | None, mpp_source: MppSource, id: str | None, shrink: bool
) -> Slide:
    """A slide behind a URL: TIFF alone can be read by ranges."""
    name = slide_id(Path(url.rsplit("/", 1)[-1])) if id is None else id
    try:
        slide = TiffReader(url, id=name, mpp=_pair(mpp, name), mpp_source=mpp_source, shrink=shrink)
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
    _warn_of_power(slide)
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


def _warn_of_power(slide: Slide) -> None:
    """An objective's power is a name and no measure, so it is never a scale; but one far off asks for a look."""
    power = next((float(value) for key, value in slide.properties.items() if key.endswith("objective-power")), 0.0)
    if slide.mpp_source == "missing" or not power:
        return
    expected = MPP_TIMES_POWER / power
    if max(slide.mpp) / expected > FAR_OFF or expected / min(slide.mpp) > FAR_OFF:
        _log.warning(
            "slide %r has %g x %g um/px (%s), but its objective of %gx usually gives about %g: check the scale",
            slide.id,
            *slide.mpp,
            slide.mpp_source,
            power,
            expected,
        )
