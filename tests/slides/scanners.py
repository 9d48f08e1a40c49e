"""Slides in the dialects of scanners, written from their documented layouts; no real file of them is at hand."""

from __future__ import annotations

import struct
from pathlib import Path

from contracts.slide import Pixels, shrunk
from slides.raw_tiff import ASCII, BYTE, FLOAT, LONG, RATIONAL, SHORT, SIGNED, Page, jpeg, tiled_page, write_raw


def write_ndpi(path: Path, rgb: Pixels, *, mpp: float = 0.5) -> Path:
    """Hamamatsu NDPI: each level one JPEG with restart markers, whose places a private tag lists; and a macro."""
    pages = []
    for factor, lens in ((1, 20.0), (4, 5.0)):
        picture = shrunk(rgb, rgb.shape[1] // factor, rgb.shape[0] // factor)
        pages.append(_ndpi_page(picture, lens=lens, mpp=mpp * factor))
    pages.append(_ndpi_page(shrunk(rgb, 64, 32), lens=-1.0, mpp=50.0))
    return write_raw(path, pages, ndpi=True)


def _ndpi_page(rgb: Pixels, *, lens: float, mpp: float) -> Page:
    height, width, _ = rgb.shape
    data = jpeg(rgb, restart_blocks=width // 16 if width % 16 == 0 else 0)
    scan = data.index(b"\xff\xda")
    first = scan + 2 + struct.unpack(">H", data[scan + 2 : scan + 4])[0]
    starts = [first]
    at = first
    while (at := data.find(b"\xff", at)) >= 0 and at < len(data) - 1:
        if 0xD0 <= data[at + 1] <= 0xD7:
            starts.append(at + 2)
        at += 2
    tags = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [8, 8, 8]),
        259: (SHORT, [7]),
        262: (SHORT, [6]),
        271: (ASCII, "Hamamatsu"),
        277: (SHORT, [3]),
        278: (LONG, [height]),
        282: (RATIONAL, [10_000 / mpp]),
        283: (RATIONAL, [10_000 / mpp]),
        284: (SHORT, [1]),
        296: (SHORT, [3]),
        530: (SHORT, [1, 1]),
        65420: (LONG, [1]),
        65421: (FLOAT, [lens]),
        65422: (SIGNED, [0]),
        65423: (SIGNED, [0]),
        65424: (SIGNED, [0]),
    }
    if len(starts) > 1:
        tags[65426] = LONG, starts
    return Page(tags, [data], tiled=False)


def write_scn(path: Path, rgb: Pixels, *, mpp: float = 0.5, at_um: tuple[int, int] = (2000, 3000)) -> Path:
    """Leica SCN: a BigTIFF of a macro of the whole glass and one scanned area with two levels."""
    height, width, _ = rgb.shape
    nm = round(mpp * 1000)
    glass = (at_um[0] * 2000 + width * nm, at_um[1] * 2000 + height * nm)
    x, y = at_um[0] * 1000, at_um[1] * 1000
    small = shrunk(rgb, width // 4, height // 4)
    macro = shrunk(rgb, 128, 256)
    xml = f"""<?xml version="1.0"?>
<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01" uuid="urn:uuid:0">
 <collection name="" uuid="urn:uuid:1" sizeX="{glass[0]}" sizeY="{glass[1]}" type="">
  <barcode></barcode>
  <image name="macro" uuid="urn:uuid:2">
   <creationDate>2020-01-01</creationDate><device model="M" version="1"/>
   <pixels sizeX="128" sizeY="256"><dimension sizeX="128" sizeY="256" r="0" ifd="0"/></pixels>
   <view sizeX="{glass[0]}" sizeY="{glass[1]}" offsetX="0" offsetY="0" spacingZ="0"/>
   <scanSettings><objectiveSettings><objective>0.6</objective></objectiveSettings>
    <illuminationSettings><numericalAperture>0.2</numericalAperture>
    <illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings>
  </image>
  <image name="area" uuid="urn:uuid:3">
   <creationDate>2020-01-01</creationDate><device model="M" version="1"/>
   <pixels sizeX="{width}" sizeY="{height}">
    <dimension sizeX="{width}" sizeY="{height}" r="0" ifd="1"/>
    <dimension sizeX="{width // 4}" sizeY="{height // 4}" r="1" ifd="2"/>
   </pixels>
   <view sizeX="{width * nm}" sizeY="{height * nm}" offsetX="{x}" offsetY="{y}" spacingZ="0"/>
   <scanSettings><objectiveSettings><objective>20</objective></objectiveSettings>
    <illuminationSettings><numericalAperture>0.4</numericalAperture>
    <illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings>
  </image>
 </collection>
</scn>"""
    pages = [tiled_page(macro, more={270: (ASCII, xml)}), tiled_page(rgb), tiled_page(small)]
    return write_raw(path, pages, big=True)


def write_philips(path: Path, rgb: Pixels, *, mpp: float = 0.5, empty_tiles: tuple[int, ...] = ()) -> Path:
    """Philips TIFF: levels padded to whole tiles, pixel spacings in the XML, empty tiles where nothing was scanned."""
    side = 128
    width, height = -(-rgb.shape[1] // side) * side, -(-rgb.shape[0] // side) * side
    base = shrunk(rgb, width, height)
    spacings = [mpp / 1000 * factor for factor in (1, 2, 4)]

    def spacing(value: float) -> str:
        return (
            '<Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" Element="0x0030" PMSVR="IDoubleArray">'
            f"&quot;{value:.9f}&quot; &quot;{value:.9f}&quot;</Attribute>"
        )

    levels = "".join(
        f'<DataObject ObjectType="PixelDataRepresentation">{spacing(value)}'
        f'<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_NUMBER" Group="0x1001" Element="0x8B01" PMSVR="IUInt16">'
        f"{number}</Attribute></DataObject>"
        for number, value in enumerate(spacings)
    )
    xml = (
        '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
        '<Attribute Name="DICOM_MANUFACTURER" Group="0x0008" Element="0x0070" PMSVR="IString">PHILIPS</Attribute>'
        '<Attribute Name="PIM_DP_SCANNED_IMAGES" Group="0x301D" Element="0x1003" PMSVR="IDataObjectArray"><Array>'
        '<DataObject ObjectType="DPScannedImage">'
        '<Attribute Name="PIM_DP_IMAGE_TYPE" Group="0x301D" Element="0x1004" PMSVR="IString">WSI</Attribute>'
        f"{spacing(spacings[0])}"
        '<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE" Group="0x1001" Element="0x8B02" '
        f'PMSVR="IDataObjectArray"><Array>{levels}</Array></Attribute>'
        "</DataObject></Array></Attribute></DataObject>"
    )
    pages = []
    for factor in (1, 2, 4):
        level = shrunk(base, width // factor, height // factor)
        page = tiled_page(level, side=side)
        # The directory gives the padded size.
        page.tags[256] = LONG, [-(-level.shape[1] // side) * side]
        page.tags[257] = LONG, [-(-level.shape[0] // side) * side]
        page.tags[305] = ASCII, "Philips DP v1.0"
        page.tags[254] = LONG, [0 if factor == 1 else 1]
        if factor == 1:
            page.tags[270] = ASCII, xml
            page.pieces = [b"" if number in empty_tiles else piece for number, piece in enumerate(page.pieces)]
        pages.append(page)
    return write_raw(path, pages)


def write_bif(path: Path, rgb: Pixels, *, mpp: float = 0.5, overlap: int = 0) -> Path:
    """Ventana BIF: a label page, then levels; the XMP of the first says the scale, that of a level how tiles join."""
    side = 128
    columns, rows = -(-rgb.shape[1] // side), -(-rgb.shape[0] // side)
    scan = f'<Metadata><iScan Magnification="20" ScanRes="{mpp}" UnitNumber="1"/></Metadata>'
    joints = "".join(
        f'<TileJointInfo FlagJoined="1" Confidence="99" Direction="RIGHT" Tile1="{n}" Tile2="{n + 1}" '
        f'OverlapX="{overlap}" OverlapY="0"/>'
        for n in range(1, columns)
    ) + "".join(
        f'<TileJointInfo FlagJoined="1" Confidence="99" Direction="UP" Tile1="{n * columns}" Tile2="{n * columns + 1}" '
        f'OverlapX="0" OverlapY="0"/>'
        for n in range(1, rows)
    )
    joined = (
        f'<EncodeInfo Ver="2"><SlideInfo><AoiInfo XIMAGESIZE="{side}" YIMAGESIZE="{side}" NumRows="{rows}" '
        f'NumCols="{columns}" Pos-X="0" Pos-Y="0"/></SlideInfo><SlideStitchInfo><ImageInfo AOIScanned="1" AOIIndex="0" '
        f'NumRows="{rows}" NumCols="{columns}" Width="{side}" Height="{side}" Pos-X="0" Pos-Y="0">{joints}'
        f'</ImageInfo></SlideStitchInfo><AoiOrigin><AOI0 OriginX="0" OriginY="0"/></AoiOrigin></EncodeInfo>'
    )
    label = tiled_page(shrunk(rgb, 128, 128), more={270: (ASCII, "Label Image"), 700: (BYTE, scan.encode())})
    pages = [label]
    for number, factor in enumerate((1, 2)):
        level = shrunk(rgb, rgb.shape[1] // factor, rgb.shape[0] // factor)
        more = {270: (ASCII, f"level={number} mag={20 // factor} quality=95")}
        if not number:
            more[700] = BYTE, joined.encode()
        pages.append(tiled_page(level, side=side, more=more))
    return write_raw(path, pages, big=True)
