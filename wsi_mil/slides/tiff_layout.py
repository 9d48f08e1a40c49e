"""How a TIFF lays out its pyramid: which pages are levels, how tiles are stored, what is said of the scale."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Int64

from wsi_mil.errors import SlideError
from wsi_mil.geometry import Level
from wsi_mil.slides.tile_codecs import (
    JPEG,
    JPEG_2000,
    JPEG_2000_YCBCR,
    MIN_IS_BLACK,
    MIN_IS_WHITE,
    PICTURE,
    RAW,
    RGB,
    YCBCR,
    TileForm,
)

if TYPE_CHECKING:
    import tifffile

SCREEN_DPI = (72.0, 96.0, 300.0)
"""Resolutions that programs write into a TIFF when they know none: 353, 265 and 85 um/px are no slide's scale."""

MAX_TILE_BYTES = 1 << 27
"""Most bytes of one decoded tile or strip: a picture stored in one piece cannot be read in parts."""

MAX_PAGES = 512
"""Most directories of a file that are looked at; slides have a dozen."""

SAME_SHAPE = 0.02
"""Relative difference of height to width up to which a page is a smaller picture of the first one, and two pixels."""

_UNITS_UM = {2: 25_400.0, 3: 10_000.0}  # TIFF ResolutionUnit: inch, centimetre


@dataclass(frozen=True)
class Plane:
    """One level as it is stored: a table of tiles."""

    width: int
    height: int
    columns: int
    rows: int
    offsets: Int64[np.ndarray, "tile"]
    """Where each tile lies in the file, row by row; of separate colour planes one table after the other."""
    counts: Int64[np.ndarray, "tile"]
    """Bytes of each tile; 0 where none is stored."""
    form: TileForm
    separate: bool = False
    """Whether each colour has tiles of its own."""
    origin: tuple[int, int] = (0, 0)
    """Where the stored picture lies in its level, in level pixels; around it the level is white."""
    missing: Literal["white", "finer"] = "white"
    """What stands where no tile is stored: nothing was scanned there, or it was lost and a finer level has it."""
    strips: bool = False
    """Whether it is stored in strips, the last of which ends with the picture; tiles are whole also beyond its edge."""


@dataclass(frozen=True)
class Layout:
    """All that a TIFF says of a slide."""

    vendor: str
    planes: tuple[Plane, ...]
    levels: tuple[Level, ...]
    mpp: tuple[float, float] | None
    properties: Mapping[str, str] = field(default_factory=dict)
    associated: tuple[str, ...] = ()


def plane_of(page: tifffile.TiffPage, *, photometric: int | None = None) -> Plane:
    """A page as a table of tiles. Raises SlideError where its pixels are of a kind that is not read here."""
    width, height = int(page.imagewidth), int(page.imagelength)
    said: Any = page.bitspersample
    bits = said if isinstance(said, tuple) else (said,)
    if any(value != 8 for value in bits) or page.sampleformat not in (1, None):
        raise SlideError(f"its pixels have {bits[0]} bits a colour; only 8 are read")
    if page.imagedepth != 1 or page.samplesperpixel not in (1, 2, 3, 4):
        raise SlideError(
            f"its pixels have {page.samplesperpixel} values in {page.imagedepth} layers, not 1 to 4 in one"
        )
    if 322 in page.tags and not page.is_tiled:
        raise SlideError(f"its tiles have no pixels ({page.tilewidth} x {page.tilelength})")
    tile_width, tile_height = (page.tilewidth, page.tilelength) if page.is_tiled or page.jpegheader else (0, 0)
    strips = not tile_width
    if strips:
        tile_width, tile_height = width, min(int(page.rowsperstrip or height), height)
    separate = page.planarconfig == 2 and page.samplesperpixel > 1
    form = TileForm(
        width=int(tile_width),
        height=int(tile_height),
        compression=int(page.compression),
        photometric=int(page.photometric) if photometric is None else photometric,
        samples=1 if separate else int(page.samplesperpixel),
        predictor=int(page.predictor),
        alpha=_alpha(page),
        tables=bytes(page.jpegtables or b""),
        header=bytes(page.jpegheader or b""),
    )
    _check_form(form, width, height, separate=separate)
    columns, rows = -(-width // form.width), -(-height // form.height)
    wanted = columns * rows * (int(page.samplesperpixel) if separate else 1)
    offsets, counts = np.array(page.dataoffsets, np.int64), np.array(page.databytecounts, np.int64)
    if len(offsets) < wanted or len(counts) < wanted:
        raise SlideError(f"its directory names {len(offsets)} tiles where {wanted} are needed")
    offsets, counts = offsets[:wanted], counts[:wanted]
    return Plane(width, height, columns, rows, offsets, counts, form, separate=separate, strips=strips)


def _alpha(page: tifffile.TiffPage) -> int:
    extra = page.extrasamples
    return int(extra[0]) if extra and page.samplesperpixel in (2, 4) else 0


def _check_form(form: TileForm, width: int, height: int, *, separate: bool) -> None:
    if min(width, height, form.width, form.height) < 1:
        raise SlideError(
            f"its picture has no pixels ({width} x {height})"
            if min(width, height) < 1
            else f"its tiles have no pixels ({form.width} x {form.height})"
        )
    if form.width * form.height * max(3, form.samples) > MAX_TILE_BYTES:
        raise SlideError(
            f"it is stored in pieces of {form.width} x {form.height} px, too large to read in parts: "
            f"write it with tiles"
        )
    known = {JPEG, *JPEG_2000, *JPEG_2000_YCBCR, *RAW, *PICTURE}
    if form.compression not in known:
        raise SlideError(f"its tiles are compressed by scheme {form.compression}, which is not read here")
    plain = (RGB,) if form.samples >= 3 or separate else (MIN_IS_BLACK, MIN_IS_WHITE)
    coded = form.compression == JPEG or form.compression in JPEG_2000 + JPEG_2000_YCBCR
    if form.photometric not in plain and not (coded and form.photometric == YCBCR and not separate):
        raise SlideError(f"its colours are of photometric kind {form.photometric}, not gray, RGB or YCbCr")
    if form.predictor not in (1, 2):
        raise SlideError(f"its tiles use predictor {form.predictor}, which is not read here")


def pages_of(tiff: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """The directories of a file, each once, up to the most that is looked at."""
    pages: list[Any] = []
    seen: set[int] = set()
    for page in tiff.pages:
        if page.offset in seen or len(pages) >= MAX_PAGES:
            break
        seen.add(page.offset)
        pages.append(page)
    return pages


def levels_of(planes: Iterable[Plane]) -> tuple[Level, ...]:
    """Sizes and downsamples, measured from the sizes of the planes."""
    sizes = [(plane.width, plane.height) for plane in planes]
    width, height = sizes[0]
    return tuple(Level(w, h, (width / w, height / h)) for w, h in sizes)


def smaller_pictures(first: Plane, others: Iterable[Plane]) -> tuple[Plane, ...]:
    """The first plane and those that show the same at a smaller size, from large to small, one of each size."""
    kept = {(first.width, first.height): first}
    for plane in others:
        size = plane.width, plane.height
        expected = first.height * plane.width / first.width
        slack = max(2.0, SAME_SHAPE * expected)
        if plane.width < first.width and abs(plane.height - expected) <= slack and size not in kept:
            kept[size] = plane
    return tuple(sorted(kept.values(), key=lambda plane: -plane.width))


def reduced_pages(pages: list[tifffile.TiffPage]) -> list[tifffile.TiffPage]:
    """Tiled pages after the first that call themselves a smaller version, and the first page's sub-directories."""
    found = [page for page in pages[1:] if page.is_tiled and int(page.subfiletype) & 1]
    return found + [page.aspage() for page in pages[0].pages or () if page.aspage().is_tiled]


def planes_of(pages: Iterable[tifffile.TiffPage]) -> list[Plane]:
    """Planes of the pages that can be read; a level that cannot be is left out, for another serves in its place."""
    planes = []
    for page in pages:
        try:
            planes.append(plane_of(page))
        except SlideError:
            continue
    return planes


def generic(pages: list[tifffile.TiffPage]) -> Layout:
    """Any tiled TIFF: the first page and the smaller versions of it; the resolution tags are its scale."""
    first = plane_of(pages[0])
    planes = smaller_pictures(first, planes_of(reduced_pages(pages)))
    return Layout("generic-tiff", planes, levels_of(planes), resolution_mpp(pages[0]))


def resolution_mpp(page: tifffile.TiffPage) -> tuple[float, float] | None:
    """Micrometres per pixel from the resolution tags; None where they are missing, impossible, or a screen's."""
    unit = _UNITS_UM.get(int(page.tags.valueof(296) or 0))
    values = [_ratio(page.tags.valueof(code)) for code in (282, 283)]
    if unit is None or any(not value for value in values):
        return None
    return believable((unit / values[0], unit / values[1]))  # type: ignore[operator]


def _ratio(value: Any) -> float | None:
    try:
        top, bottom = value
        return float(top) / float(bottom)
    except (TypeError, ValueError, ZeroDivisionError):
        return None


def believable(pair: tuple[float, float] | None) -> tuple[float, float] | None:
    """A scale that a slide can have, or None."""
    if pair is None or not all(math.isfinite(value) and 1e-3 < value < 1e3 for value in pair):
        return None
    is_screen = any(math.isclose(25_400 / value, dpi, rel_tol=0.005) for value in pair for dpi in SCREEN_DPI)
    return None if is_screen else pair


def shrunk(layout: Layout, factors: tuple[int, ...] = (2, 4, 8)) -> Layout:
    """The layout with levels that the JPEG decoder itself makes of level 0, where no stored level has that size."""
    first, base = layout.planes[0], layout.levels[0]
    pairs = list(zip(layout.planes, layout.levels, strict=True))
    for factor in factors:
        whole = first.form.width % factor == 0 and first.form.height % factor == 0 and first.origin == (0, 0)
        stored = any(abs(level.downsample[0] / factor - 1) < 0.01 for level in layout.levels)
        if first.form.compression != JPEG or first.form.header or not whole or stored:
            continue
        form = replace(first.form, shrink=factor)
        plane = replace(first, width=first.width // factor, height=first.height // factor, form=form)
        # What the last row and column lack of a whole pixel is not worth a scale that is off.
        pairs.append((plane, Level(base.width // factor, base.height // factor, (float(factor), float(factor)))))
    pairs.sort(key=lambda pair: pair[1].downsample[0])
    return replace(layout, planes=tuple(p for p, _ in pairs), levels=tuple(level for _, level in pairs))
