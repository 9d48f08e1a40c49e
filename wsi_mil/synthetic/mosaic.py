"""A slide of any size from the stored tiles of a real one: its bytes repeated, for measuring readers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path


def write_mosaic(path: Path, source: Path, *, side_px: int, mpp: float = 0.25, levels: int = 1) -> None:
    """Write a square slide of about `side_px` from the whole JPEG tiles of level 0 of `source`, undecoded.

    Written as an Aperio slide of `mpp` micrometres per pixel. The side is rounded up to whole tiles. Each of several
    levels has a quarter of the side of the one before, and is a mosaic of the same tiles, not the same picture smaller:
    for measuring what it costs to read, which does not depend on what is seen.
    """
    import tifffile

    with tifffile.TiffFile(source) as tiff:
        page = tiff.pages.first
        across, down = page.imagewidth // page.tilewidth, page.imagelength // page.tilelength
        columns = -(-page.imagewidth // page.tilewidth)
        whole = [row * columns + column for row in range(down) for column in range(across)]
        tiles = []
        for number in whole:
            tiff.filehandle.seek(page.dataoffsets[number])
            tiles.append(tiff.filehandle.read(page.databytecounts[number]))
        tables, tile = page.jpegtables, (page.tilelength, page.tilewidth)
        is_rgb = page.photometric == tifffile.PHOTOMETRIC.RGB
        subsampling = None if is_rgb else page.subsampling
    whole_side = -(-side_px // tile[1]) * tile[1], -(-side_px // tile[0]) * tile[0]

    def stream(columns: int, rows: int) -> Iterator[bytes]:
        # A row starts elsewhere in the source than the row above it, so that no two neighbours are the same.
        for row in range(rows):
            yield from islice(cycle(tiles), row * 7 % len(tiles), row * 7 % len(tiles) + columns)

    with tifffile.TiffWriter(path, bigtiff=True) as out:
        for level in range(levels):
            width, height = whole_side[0] >> 2 * level, whole_side[1] >> 2 * level
            name = f"Aperio Image Library v11.2.1 mosaic\n{width}x{height} ({tile[1]}x{tile[0]}) JPEG|MPP = {mpp}"
            out.write(
                stream(-(-width // tile[1]), -(-height // tile[0])),
                shape=(height, width, 3),
                dtype="uint8",
                tile=tile,
                compression="jpeg",
                photometric="rgb" if is_rgb else "ycbcr",
                compressionargs={"outcolorspace": "rgb"} if is_rgb else None,
                subsampling=subsampling,
                description=name,
                subfiletype=int(level > 0),
                metadata=None,
                extratags=[(347, 7, len(tables), tables, True)] if tables else [],
            )
