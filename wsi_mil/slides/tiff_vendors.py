"""The TIFF dialects of scanners: which page is what, where the picture lies, and how the scale is written."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wsi_mil.errors import SlideError
from wsi_mil.geometry import Level
from wsi_mil.slides.tiff_layout import (
    Layout,
    believable,
    generic,
    levels_of,
    pages_of,
    plane_of,
    planes_of,
    resolution_mpp,
    smaller_pictures,
)

if TYPE_CHECKING:
    import tifffile

NDPI_TAG, NDPI_LENS, NDPI_FOCUS = 65420, 65421, 65424
"""Hamamatsu's private tags: file format flag, magnification (-1 macro, -2 map), focus offset in nanometres."""

_UM = {"m": 1e6, "cm": 1e4, "mm": 1e3, "um": 1.0, "nm": 1e-3, "pm": 1e-6, "in": 25_400.0}
_UM |= {"\u00b5m": 1.0, "\u03bcm": 1.0, "\u00c5": 1e-4}  # micro sign, Greek mu, angstrom


def read_layout(tiff: tifffile.TiffFile) -> Layout:
    """The pyramid of a TIFF by the dialect that it is written in. Raises SlideError with the reason for a refusal."""
    pages = pages_of(tiff)
    if not pages:
        raise SlideError("it has no directory that can be read")
    first = pages[0]
    description = str(first.description or "")
    if NDPI_TAG in first.tags:
        return ndpi(pages)
    if str(first.software or "").startswith("Philips"):
        return philips(pages)
    if "leica-microsystems.com/scn" in description[:4096]:
        return scn(pages)
    if any(b"<iScan" in _xmp(page) for page in pages[:3]):
        return bif(pages)
    if description.startswith("Aperio"):
        return aperio(pages)
    if "<OME" in description[:4096] or description.rstrip().endswith("</OME>"):
        return ome(tiff, description)
    return generic(pages)


def aperio(pages: list[tifffile.TiffPage]) -> Layout:
    """Aperio SVS: tiled pages are levels, stripped ones the thumbnail, label and macro."""
    planes = smaller_pictures(plane_of(pages[0]), planes_of(page for page in pages[1:] if page.is_tiled))
    planes = (planes[0], *(replace(plane, missing="finer") for plane in planes[1:]))
    said = dict(re.findall(r"\|\s*([^=|]+?)\s*=\s*([^|]*)", str(pages[0].description)))
    mpp = _number(said.get("MPP"))
    beside = [page for page in pages[1:] if not page.is_tiled]
    names = {"label", "macro"} & {word for page in beside for word in re.findall(r"\n(\w+)", str(page.description))}
    return Layout(
        "aperio",
        planes,
        levels_of(planes),
        believable((mpp, mpp)) if mpp else None,
        _power(said.get("AppMag")),
        tuple(sorted(names | ({"thumbnail"} if len(pages) > 1 and not pages[1].is_tiled else set()))),
    )


def philips(pages: list[tifffile.TiffPage]) -> Layout:
    """Philips TIFF: levels are padded to whole tiles; pixel spacings in the XML say how large they really are."""
    spacings = [
        (float(x), float(y))
        for y, x in re.findall(
            r'DICOM_PIXEL_SPACING"[^>]*>\s*(?:&quot;|")([\d.eE+-]+)(?:&quot;|")\s+(?:&quot;|")([\d.eE+-]+)(?:&quot;|")',
            str(pages[0].description),
        )
    ]
    tiled = [page for page in pages if page.is_tiled]
    if not tiled:
        raise SlideError("it is a Philips TIFF without tiles")
    planes = planes_of(tiled)
    if not planes:
        plane_of(tiled[0])  # raises the reason
    # The first spacing is the scan's, the others are one a level.
    scan, *each = spacings or [(0.0, 0.0)]
    width, height = planes[0].width, planes[0].height
    kept, levels = [planes[0]], [Level(width, height, (1.0, 1.0))]
    for number, plane in enumerate(planes[1:], start=1):
        factor = 2.0 ** round(math.log2(width / plane.width))
        if number < len(each) and each[0][0] > 0:
            factor = float(round(each[number][0] / each[0][0]))
        size = math.ceil(width / factor), math.ceil(height / factor)
        if size[0] > plane.width or size[1] > plane.height:
            raise SlideError(f"its level {number} is smaller than its pixel spacing says")
        kept.append(replace(plane, width=size[0], height=size[1]))
        levels.append(Level(*size, (width / size[0], height / size[1])))
    mpp = (scan[0] * 1000, scan[1] * 1000)
    names = {page.description.lower() for page in pages if not page.is_tiled and page.description}
    associated = tuple(name for name in ("label", "macro") if any(text.startswith(name) for text in names))
    return Layout("philips", tuple(kept), tuple(levels), believable(mpp), {}, associated)


def ndpi(pages: list[tifffile.TiffPage]) -> Layout:
    """Hamamatsu NDPI: one JPEG a level, cut at its restart markers; only the plane in focus (offset 0) is read."""
    kept = [
        page
        for page in pages
        if float(page.tags.valueof(NDPI_LENS) or 0) > 0 and not int(page.tags.valueof(NDPI_FOCUS) or 0)
    ]
    if not kept:
        raise SlideError("it is an NDPI without a level in focus")
    planes = smaller_pictures(plane_of(kept[0]), planes_of(kept[1:]))
    associated = ("macro",) if any(float(page.tags.valueof(NDPI_LENS) or 0) == -1 for page in pages) else ()
    power = f"{float(kept[0].tags.valueof(NDPI_LENS)):g}"
    return Layout(
        "hamamatsu", planes, levels_of(planes), resolution_mpp(kept[0]), {"objective-power": power}, associated
    )


def scn(pages: list[tifffile.TiffPage]) -> Layout:
    """Leica SCN with one scanned area: levels lie within the whole glass slide; the XML places them in nanometres."""
    root = _xml(str(pages[0].description), "Leica SCN")
    collection = root.find("{*}collection")
    if collection is None:
        raise SlideError("its Leica description has no collection")
    glass = _sizes(collection)
    areas = []
    for image in collection.iterfind("{*}image"):
        view, pixels = image.find("{*}view"), image.find("{*}pixels")
        if view is None or pixels is None:
            raise SlideError("its Leica description has an image without a view")
        is_macro = (_whole(view, "offsetX"), _whole(view, "offsetY"), *_sizes(view)) == (0, 0, *glass)
        if not is_macro:
            areas.append((image, view, pixels))
    if len(areas) != 1:
        raise SlideError(f"it is a Leica SCN of {len(areas)} scanned areas; only one is read here")
    image, view, pixels = areas[0]
    wanted = [one for one in pixels.iterfind("{*}dimension") if one.get("c", "0") == "0" and one.get("z", "0") == "0"]
    wanted.sort(key=lambda one: -_whole(one, "sizeX"))
    planes, levels = [], []
    nm = tuple(size / _whole(wanted[0], name) for size, name in zip(_sizes(view), ("sizeX", "sizeY"), strict=True))
    base = tuple(round(size / unit) for size, unit in zip(glass, nm, strict=True))
    for one in wanted:
        plane = plane_of(pages[_whole(one, "ifd")])
        factor = [_whole(wanted[0], name) / _whole(one, name) for name in ("sizeX", "sizeY")]
        size = [max(1, round(whole / by)) for whole, by in zip(base, factor, strict=True)]
        origin = [
            int(_whole(view, name) / unit / by)
            for name, unit, by in zip(("offsetX", "offsetY"), nm, factor, strict=True)
        ]
        planes.append(replace(plane, origin=(origin[0], origin[1])))
        levels.append(Level(size[0], size[1], (base[0] / size[0], base[1] / size[1])))
    power = image.findtext(".//{*}objective")
    return Layout("leica", tuple(planes), tuple(levels), believable((nm[0] / 1e3, nm[1] / 1e3)), _power(power))


def bif(pages: list[tifffile.TiffPage]) -> Layout:
    """Ventana BIF whose tiles do not overlap; the others have to be stitched, which is left to OpenSlide."""
    xmp = next(_xmp(page) for page in pages if b"<iScan" in _xmp(page))
    said = dict(re.findall(r'(\w+)="([^"]*)"', xmp.decode("utf-8", "replace").split("<iScan", 1)[1].split(">", 1)[0]))
    joints = b"".join(_xmp(page) for page in pages)
    overlaps = {int(value) for value in re.findall(rb'Overlap[XY]="(-?\d+)"', joints)}
    if overlaps - {0}:
        raise SlideError("it is a Ventana BIF whose tiles overlap, which is not read here")
    numbered = []
    for page in pages:
        match = re.match(r"level=(\d+)", str(page.description or ""))
        if match and page.is_tiled:
            numbered.append((int(match[1]), page))
    if not numbered:
        raise SlideError("it is a Ventana BIF without levels")
    numbered.sort(key=lambda pair: pair[0])
    planes = smaller_pictures(plane_of(numbered[0][1]), planes_of(page for _, page in numbered[1:]))
    mpp = _number(said.get("ScanRes"))
    return Layout(
        "ventana",
        planes,
        levels_of(planes),
        believable((mpp, mpp)) if mpp else None,
        _power(said.get("Magnification")),
    )


def ome(tiff: tifffile.TiffFile, description: str) -> Layout:
    """OME-TIFF: the largest image that is one RGB or gray plane, with its sub-resolutions; the XML has the scale."""
    usable: list[tuple[int, int, Any]] = []
    for number, series in enumerate(tiff.series):
        page = series.pages[0].aspage() if len(series.pages) == 1 and series.pages[0] else None
        if page is not None and series.axes in ("YXS", "YX", "SYX", "CYX"):
            usable.append((page.imagewidth * page.imagelength, -number, series))
    if not usable:
        shapes = ", ".join(f"{series.axes} {series.shape}" for series in list(tiff.series)[:4])
        raise SlideError(f"it is an OME-TIFF without a plane of RGB or gray pixels ({shapes})")
    _, number, series = max(usable)
    first = plane_of(series.pages[0].aspage())
    rest = planes_of(level.pages[0].aspage() for level in series.levels[1:] if len(level.pages) == 1)
    planes = smaller_pictures(first, rest)
    mpp = _ome_mpp(description, -number) or resolution_mpp(series.pages[0].aspage())
    return Layout("ome-tiff", planes, levels_of(planes), mpp)


def _ome_mpp(description: str, number: int) -> tuple[float, float] | None:
    images = list(_xml(description, "OME").iterfind("{*}Image"))
    pixels = images[number].find("{*}Pixels") if number < len(images) else None
    if pixels is None:
        return None
    values = []
    for axis in "XY":
        size = _number(pixels.get(f"PhysicalSize{axis}"))
        unit = _UM.get(pixels.get(f"PhysicalSize{axis}Unit", "um"))
        if not size or unit is None:
            return None
        values.append(size * unit)
    return believable((values[0], values[1]))


def _xml(text: str, what: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(text.strip("\0 \n"))
    except (ElementTree.ParseError, ValueError) as error:
        raise SlideError(f"its {what} description is no XML: {error}") from None


def _xmp(page: tifffile.TiffPage) -> bytes:
    value = page.tags.valueof(700)
    return value if isinstance(value, bytes) else value.encode() if isinstance(value, str) else b""


def _sizes(element: ElementTree.Element) -> tuple[int, int]:
    return _whole(element, "sizeX"), _whole(element, "sizeY")


def _whole(element: ElementTree.Element, name: str) -> int:
    try:
        return int(element.get(name, ""))
    except ValueError:
        raise SlideError(f"its description gives no whole number for {name}") from None


def _number(text: str | None) -> float | None:
    """A number as scanners write it, with a comma in some countries."""
    try:
        value = float((text or "").strip().replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _power(text: str | None) -> dict[str, str]:
    value = _number(text)
    return {"objective-power": f"{value:g}"} if value else {}
