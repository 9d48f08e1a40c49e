"""The bytes of one stored tile to its pixels: JPEG, JPEG 2000, LZW, deflate and their kin."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import UInt8

from wsi_mil.errors import SlideError

JPEG = 7
JPEG_2000_YCBCR, JPEG_2000 = (33003,), (33004, 33005, 34712, 34714)
"""TIFF compression numbers; 33003 and 33005 are Aperio's, with and without separate colour differences."""

RAW = {1: "none", 5: "lzw", 8: "zlib", 32946: "zlib", 32773: "packbits", 50000: "zstd"}
"""Compressions that give back the bytes of the samples, and the decoder of each."""

PICTURE = {34927: "webp", 50001: "webp", 34934: "jpegxl", 50002: "jpegxl"}
"""Compressions that give back a picture by themselves."""

MIN_IS_WHITE, MIN_IS_BLACK, RGB, YCBCR = 0, 1, 2, 6
"""TIFF photometric interpretations that a tile may have."""

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_MARKER, _SCAN, _COMMENT, _APP = 0xFF, 0xDA, 0xFE, 0xE0
_COLOURS_ONLY = (0xE0, 0xEE)  # JFIF and Adobe
_BENIGN = "extraneous bytes"  # a warning that whole, correct tiles of some scanners cause


@dataclass(frozen=True)
class TileForm:
    """How every tile of one level is stored."""

    width: int
    height: int
    compression: int
    photometric: int
    samples: int
    predictor: int = 1
    alpha: int = 0
    """0: a fourth sample is ignored; 1: colours are multiplied by it; 2: they are not (TIFF tag ExtraSamples)."""
    tables: bytes = b""
    """JPEG tables that the tiles lack (TIFF tag JPEGTables), with their own start and end markers."""
    header: bytes = b""
    """A whole JPEG header for tiles that are only scan data (NDPI), up to and with the start of scan."""
    shrink: int = 1
    """JPEG tiles are decoded at 1/2, 1/4 or 1/8 of their size."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a decoded tile."""
        return self.width // self.shrink, self.height // self.shrink

    def decode(self, data: bytes, out: UInt8[np.ndarray, "h w 3"]) -> None:
        """The pixels of one stored tile into `out`, of the tile's size. Raises SlideError where it is damaged."""
        try:
            if self.compression == JPEG:
                self._decode_jpeg(data, out)
            else:
                out[...] = self._decode_other(data, len(out))
        except SlideError:
            raise
        except Exception as error:  # each codec raises its own kinds on damaged data
            raise SlideError(f"{type(error).__name__}: {str(error)[:200]}") from None

    def _decode_jpeg(self, data: bytes, out: UInt8[np.ndarray, "h w 3"]) -> None:
        import simplejpeg

        stream = self._whole_jpeg(data)
        factor = self.shrink
        options: dict[str, Any] = {}
        if factor > 1:
            options = {"min_factor": factor, "min_height": out.shape[0], "min_width": out.shape[1]}
        target = out if out.flags.c_contiguous else np.empty(out.shape, np.uint8)
        try:
            pixels = simplejpeg.decode_jpeg(stream, "RGB", buffer=target, **options)
        except ValueError as error:
            if _BENIGN not in str(error):
                raise
            pixels = simplejpeg.decode_jpeg(stream, "RGB", buffer=target, strict=False, **options)
        if pixels.shape != out.shape:
            raise SlideError(
                f"the tile holds {pixels.shape[1]} x {pixels.shape[0]} px, not {out.shape[1]} x {out.shape[0]}"
            )
        if target is not out:
            out[...] = target

    def as_jpeg(self, data: bytes) -> bytes | None:
        """A stored JPEG tile as a file; None where that holds comments or metadata, which may name a patient."""
        try:
            stream = self._whole_jpeg(data)
        except SlideError:
            return None
        at = 2
        while at + 4 <= len(stream) and stream[at] == _MARKER:
            kind, length = stream[at + 1], int.from_bytes(stream[at + 2 : at + 4], "big")
            if kind == _SCAN:
                return stream
            if kind == _COMMENT or (kind & 0xF0 == _APP and kind not in _COLOURS_ONLY):
                return None
            at += 2 + length
        return None

    def _whole_jpeg(self, data: bytes) -> bytes:
        """The tile as a JPEG file that says its own colours."""
        if self.header:
            # One stretch between two restart markers; the marker at its end gives way to that of the picture's end.
            return self.header + (data[:-2] if data[-2:-1] == b"\xff" else data) + _EOI
        if data[:2] != _SOI:
            raise SlideError("the tile is no JPEG: it does not start with the marker of one")
        # Streams that say their colours themselves are believed; of the others the TIFF says it.
        prefix = self._jpeg_prefix if data[2:4] not in (b"\xff\xe0", b"\xff\xee") else self._jpeg_tables
        return prefix + data[2:] if len(prefix) > len(_SOI) else data

    @cached_property
    def _jpeg_tables(self) -> bytes:
        return _SOI + (self.tables[2:-2] if self.tables else b"")

    @cached_property
    def _jpeg_prefix(self) -> bytes:
        """Start marker, the colour transform in an Adobe marker, and the tables."""
        transform = {RGB: 0, YCBCR: 1}.get(self.photometric)
        if transform is None or self.samples != 3:
            return self._jpeg_tables
        adobe = b"\xff\xee\x00\x0eAdobe" + struct.pack(">HHHB", 100, 0, 0, transform)
        return _SOI + adobe + self._jpeg_tables[2:]

    def _decode_other(self, data: bytes, height: int) -> UInt8[np.ndarray, "h w 3"]:
        import imagecodecs

        width = self.width
        if self.compression in JPEG_2000_YCBCR + JPEG_2000:
            _check_jpeg_2000(data, width, height)
            pixels = imagecodecs.jpeg2k_decode(data)
            apart = self.compression in JPEG_2000_YCBCR or self.photometric == YCBCR
            if apart and pixels.ndim == 3:
                return _from_ycbcr(pixels)
        elif self.compression in PICTURE:
            pixels = getattr(imagecodecs, f"{PICTURE[self.compression]}_decode")(data)
        else:
            pixels = self._samples_of(data, height)
        if pixels.dtype != np.uint8 or pixels.shape[:2] != (height, width):
            raise SlideError(f"the tile holds {pixels.shape} {pixels.dtype}, not {width} x {height} bytes")
        return self._as_rgb(pixels.reshape(height, width, -1))

    def _samples_of(self, data: bytes, height: int) -> UInt8[np.ndarray, "h w s"]:
        import imagecodecs

        shape = height, self.width, self.samples
        count = height * self.width * self.samples
        codec = RAW[self.compression]
        # Told how much to expect, the decoders cannot be made to fill the memory.
        raw = data if codec == "none" else getattr(imagecodecs, f"{codec}_decode")(data, out=count)
        flat = np.frombuffer(raw, np.uint8)
        if flat.size < count:
            raise SlideError(f"the tile holds {flat.size} of its {count} bytes")
        pixels = flat[:count].reshape(shape)
        return np.cumsum(pixels, axis=1, dtype=np.uint8) if self.predictor == 2 else pixels

    def _as_rgb(self, pixels: UInt8[np.ndarray, "h w s"]) -> UInt8[np.ndarray, "h w 3"]:
        if pixels.shape[2] < 3:
            gray = pixels[..., :1]
            return np.broadcast_to(255 - gray if self.photometric == MIN_IS_WHITE else gray, (*gray.shape[:2], 3))
        if pixels.shape[2] == 3 or not self.alpha:
            return pixels[..., :3]
        return over_white(pixels, multiplied=self.alpha == 1)


def over_white(rgba: UInt8[np.ndarray, "h w 4"], *, multiplied: bool) -> UInt8[np.ndarray, "h w 3"]:
    """RGBA as RGB over white; `multiplied` where the colours were multiplied by alpha when they were stored."""
    colours, alpha = rgba[..., :3].astype(np.uint16), rgba[..., 3:4].astype(np.uint16)
    if multiplied:
        return np.minimum(colours + (255 - alpha), 255).astype(np.uint8)
    return ((colours * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _check_jpeg_2000(data: bytes, width: int, height: int) -> None:
    """Refuse a codestream of another size before any memory is taken for it (ISO 15444-1, marker SIZ)."""
    at = data.find(b"\xff\x4f\xff\x51")
    if at < 0 or len(data) < at + 24:
        raise SlideError("the tile is no JPEG 2000: it has no codestream")
    right, bottom, left, top = struct.unpack_from(">4I", data, at + 8)
    if (right - left, bottom - top) != (width, height):
        raise SlideError(f"the tile holds {right - left} x {bottom - top} px, not {width} x {height}")


def _from_ycbcr(pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Full-range BT.601 to RGB, each colour rounded once: 1.402, .34414, .71414 and 1.772 in whole numbers."""
    luma = pixels[..., 0].astype(np.int32)
    blue, red = pixels[..., 1].astype(np.int32) - 128, pixels[..., 2].astype(np.int32) - 128
    out = np.empty(pixels.shape, np.int32)
    out[..., 0] = luma + ((91_881 * red + (1 << 15)) >> 16)
    out[..., 1] = luma + (50_000 - 34_414 * blue - 71_414 * red) // 100_000
    out[..., 2] = luma + ((116_130 * blue + (1 << 15)) >> 16)
    return np.clip(out, 0, 255).astype(np.uint8)
