"""The direct TIFF reader: stored tiles straight to the JPEG decoder, several times as fast as a general library."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import UInt8

from wsi_mil.errors import SlideError
from wsi_mil.geometry import Level
from wsi_mil.slides.fingerprint import fingerprint_of
from wsi_mil.slides.orientation import AXES_SWAPPED, TURNS, UPRIGHT, stored_box, upright
from wsi_mil.slides.slide import WHITE, MppSource, Slide, SlideInfo
from wsi_mil.slides.sniff import tiff_head
from wsi_mil.slides.source import Source, as_file, is_url, source_of
from wsi_mil.slides.tiff_layout import Layout, Plane, shrunk
from wsi_mil.slides.tile_cache import TileCache
from wsi_mil.slides.tile_codecs import JPEG

_MOST_AHEAD = 1 << 26  # bytes: a row whose tiles lie further apart than this is not stored in order
_CACHED_TILES = 64  # a rectangle of more tiles than this is an overview: none of them is needed again soon

# A file that is damaged is our error to tell; the parser's own log would say it a second time.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


@final
class TiffReader(Slide):
    """A tiled TIFF: Aperio SVS, OME-TIFF, Philips, NDPI, SCN, plain BIF, and any other with 8-bit gray or RGB tiles.

    The same pixels as OpenSlide gives, to the bit for JPEG and JPEG 2000, but that an orientation tag is applied, and
    that a level is placed by whole pixels. `shrink` adds levels of 1/2, 1/4 and 1/8 of level 0 that the JPEG decoder
    makes: faster, and different from resampled pixels by a few grey levels (docs/slides.md). `memory_map` maps a local
    file instead of reading it by place.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        id: str,
        mpp: tuple[float, float] | None,
        mpp_source: MppSource,
        shrink: bool = False,
        memory_map: bool = False,
    ) -> None:
        """Open a file or a URL; raises SlideError with the reason for a refusal."""
        if not is_url(path) and Path(path).is_dir():
            raise SlideError("it is a folder")
        self._source = source_of(path, memory_map=memory_map)
        try:
            layout, orientation = _structure(self._source)
        except BaseException:
            self._source.close()
            raise
        if shrink:
            layout = shrunk(layout)
        self._orientation = orientation
        self._planes = layout.planes
        self._cache = TileCache()
        self._is_closed = False
        super().__init__(Path(path), _info(layout, orientation), id=id, mpp=mpp, mpp_source=mpp_source)

    def _fingerprint(self) -> str:
        return fingerprint_of(self._source.read, self._source.size)

    def _read(self, box: tuple[int, int, int, int], level: int) -> UInt8[np.ndarray, "h w 3"]:
        out = np.empty((box[3], box[2], 3), np.uint8)
        self._read_into(out, box, level)
        return out

    def _read_into(self, out: UInt8[np.ndarray, "h w 3"], box: tuple[int, int, int, int], level: int) -> None:
        if self._is_closed:
            raise SlideError(f"slide {self.id!r} was closed: open it again to read")
        if self._orientation == UPRIGHT:
            self._gather(out, box, level)
            return
        size = self.levels[level].width, self.levels[level].height
        left, top, width, height = stored = stored_box(box, size, self._orientation)
        pixels = np.empty((height, width, 3), np.uint8)
        self._gather(pixels, stored, level)
        out[...] = upright(pixels, self._orientation)

    def tile_px(self, level: int) -> tuple[int, int] | None:
        """Width and height of the tiles that a level is stored in."""
        size = self._planes[level].form.size
        return size if self._orientation < AXES_SWAPPED[0] else (size[1], size[0])

    def expect(self, box: tuple[int, int, int, int], level: int) -> None:
        """Have the tiles of a rectangle fetched from disk."""
        if self._orientation != UPRIGHT:
            return
        plane = self._planes[level]
        columns, rows = _tiles_of(plane, box)
        for row in rows if columns else ():
            first, last = row * plane.columns + columns[0], row * plane.columns + columns[-1]
            start, end = int(plane.offsets[first]), int(plane.offsets[last]) + int(plane.counts[last])
            if 0 < end - start <= _MOST_AHEAD:
                self._source.expect(start, end - start)

    def stored_jpeg(self, level: int, column: int, row: int) -> bytes | None:
        """The bytes of the file, without decoding them: some thirty times as fast as to decode and encode again."""
        plane = self._planes[level]
        (width, height), form = plane.form.size, plane.form
        whole = 0 <= column < plane.width // width and 0 <= row < plane.height // height
        plain = form.compression == JPEG and form.shrink == 1 and form.samples == 3 and not plane.separate
        if not (whole and plain) or self._orientation != UPRIGHT or plane.origin != (0, 0) or self._is_closed:
            return None
        number = row * plane.columns + column
        return form.as_jpeg(self._bytes(plane, number)) if plane.counts[number] else None

    def keep(self, budget_bytes: int) -> None:
        """Forgets what was kept so far."""
        self._cache = TileCache(budget_bytes)

    def close(self) -> None:
        """Let go of the file and of the tiles. Reading afterwards raises SlideError."""
        self._is_closed = True
        self._source.close()
        self._cache.clear()

    @property
    def decoded_tiles(self) -> int:
        """How many stored tiles were decoded for keeping since the slide was opened."""
        return self._cache.decoded

    def _gather(self, out: UInt8[np.ndarray, "h w 3"], box: tuple[int, int, int, int], level: int) -> None:
        """A rectangle, in the frame of the stored level, from the tiles that it touches."""
        plane = self._planes[level]
        left, top = box[0] - plane.origin[0], box[1] - plane.origin[1]
        right, bottom = left + box[2], top + box[3]
        if left < 0 or top < 0 or right > plane.width or bottom > plane.height:
            out[...] = WHITE
        width, height = plane.form.size
        columns, rows = _tiles_of(plane, box)
        is_whole = (left % width, top % height, box[2], box[3]) == (0, 0, width, height)
        if is_whole and len(columns) == len(rows) == 1 and right <= plane.width and bottom <= plane.height:
            number = rows[0] * plane.columns + columns[0]
            if not self._cache.has((level, number)):
                self._decode(out, level, number)
                return
        keep = len(columns) * len(rows) <= _CACHED_TILES
        for row in rows:
            y = row * height
            y_0, y_1 = max(top, y), min(bottom, y + height, plane.height)
            for column in columns:
                x = column * width
                x_0, x_1 = max(left, x), min(right, x + width, plane.width)
                if x_1 > x_0 and y_1 > y_0:
                    tile = self._tile(level, row * plane.columns + column, keep=keep)
                    out[y_0 - top : y_1 - top, x_0 - left : x_1 - left] = tile[y_0 - y : y_1 - y, x_0 - x : x_1 - x]

    def _tile(self, level: int, number: int, *, keep: bool) -> UInt8[np.ndarray, "h w 3"]:
        def make() -> UInt8[np.ndarray, "h w 3"]:
            width, height = self._planes[level].form.size
            pixels = np.empty((height, width, 3), np.uint8)
            self._decode(pixels, level, number)
            return pixels

        return self._cache.get((level, number), make) if keep else make()

    def _decode(self, out: UInt8[np.ndarray, "h w 3"], level: int, number: int) -> None:
        """One stored tile, of full size also at the edge of the level."""
        plane = self._planes[level]
        if not plane.counts[number]:
            self._fill_missing(out, level, number)
            return
        form = plane.form
        try:
            if not plane.separate:
                form.decode(self._bytes(plane, number), _stored_part(out, plane, number))
                return
            for channel in range(3):
                one = np.empty(out.shape, np.uint8)
                data = self._bytes(plane, number + channel * plane.columns * plane.rows)
                form.decode(data, _stored_part(one, plane, number))
                out[..., channel] = one[..., 0]
        except SlideError as error:
            column, row = number % plane.columns, number // plane.columns
            raise SlideError(
                f"slide {self.id!r} is damaged at level {level}, x {column * form.size[0]}, y {row * form.size[1]}, "
                f"{form.size[0]} x {form.size[1]} px: {error}"
            ) from None

    def _bytes(self, plane: Plane, number: int) -> bytes:
        offset, count = int(plane.offsets[number]), int(plane.counts[number])
        if offset < 0 or count < 0 or offset + count > self._source.size:
            raise SlideError(
                f"the tile lies at bytes {offset} to {offset + count} of a file of {self._source.size}: it is cut off"
            )
        start = time.perf_counter()
        data = self._source.read(offset, count)
        self.clock.add("fetch", time.perf_counter() - start)
        return data

    def _fill_missing(self, out: UInt8[np.ndarray, "h w 3"], level: int, number: int) -> None:
        """What stands for a tile that is not stored: white, or what the finer level has there."""
        plane = self._planes[level]
        if plane.missing == "white" or level == 0:
            out[...] = WHITE
            return
        from PIL import Image

        width, height = plane.form.size
        x, y = number % plane.columns * width, number // plane.columns * height
        finer = self._planes[level - 1]
        by = finer.width / plane.width, finer.height / plane.height
        box = (
            math.floor(x * by[0]),
            math.floor(y * by[1]),
            max(1, min(round(width * by[0]), finer.width - math.floor(x * by[0]))),
            max(1, min(round(height * by[1]), finer.height - math.floor(y * by[1]))),
        )
        pixels = np.empty((box[3], box[2], 3), np.uint8)
        self._gather(pixels, box, level - 1)
        size = max(1, round(box[2] / by[0])), max(1, round(box[3] / by[1]))
        out[...] = WHITE
        shrunken = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))[:height, :width]
        out[: shrunken.shape[0], : shrunken.shape[1]] = shrunken


def _structure(source: Source) -> tuple[Layout, int]:
    """The pyramid that a file describes, and how it is turned."""
    import tifffile

    from wsi_mil.slides.tiff_vendors import NDPI_TAG, read_layout

    head = tiff_head(as_file(source), source.size)
    if head is None:
        raise SlideError("it is no TIFF")
    if head.is_cut_off:
        raise SlideError(f"its directory lies at byte {head.directory_at} of a file of {source.size}: it is cut off")
    try:
        with (
            as_file(source) as file,
            tifffile.TiffFile(file, is_ndpi=NDPI_TAG in head.tags) as tiff,
        ):
            layout = read_layout(tiff)
            orientation = int(tiff.pages.first.tags.valueof(274) or UPRIGHT)
    except SlideError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # a damaged directory breaks the parser in any way it likes
        raise SlideError(f"its directory cannot be read ({type(error).__name__}: {str(error)[:200]})") from None
    return layout, orientation if orientation in TURNS else UPRIGHT


def _info(layout: Layout, orientation: int) -> SlideInfo:
    levels, mpp = layout.levels, layout.mpp
    if orientation in AXES_SWAPPED:
        levels = tuple(Level(one.height, one.width, one.downsample[::-1]) for one in levels)
        mpp = mpp and (mpp[1], mpp[0])
    return SlideInfo(
        levels=levels,
        mpp=mpp,
        vendor=layout.vendor,
        properties=layout.properties,
        associated=layout.associated,
    )


def _tiles_of(plane: Plane, box: tuple[int, int, int, int]) -> tuple[range, range]:
    """Columns and rows of the stored tiles that a rectangle of the level touches."""
    left, top = box[0] - plane.origin[0], box[1] - plane.origin[1]
    width, height = plane.form.size
    columns = range(max(left, 0) // width, min(-(-(left + box[2]) // width), plane.columns))
    rows = range(max(top, 0) // height, min(-(-(top + box[3]) // height), plane.rows))
    return columns, rows


def _stored_part(out: UInt8[np.ndarray, "h w 3"], plane: Plane, number: int) -> UInt8[np.ndarray, "rows w 3"]:
    """Where the stored pixels of a tile go: all of it, but for the last strip of a level, which is shorter."""
    rows_left = plane.height - number // plane.columns * plane.form.size[1]
    return out[:rows_left] if plane.strips else out
