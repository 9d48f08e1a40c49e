"""The OME-Zarr reader: a folder of chunked arrays, versions 0.4 and 0.5, through zarr 3."""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import UInt8

from wsi_mil.errors import SlideError
from wsi_mil.geometry import Level
from wsi_mil.slides.slide import WHITE, MppSource, Slide, SlideInfo
from wsi_mil.slides.sniff import is_zarr
from wsi_mil.slides.tiff_layout import believable
from wsi_mil.slides.tile_cache import TileCache

UNITS_UM = {"micrometer": 1.0, "micrometre": 1.0, "nanometer": 1e-3, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6}
"""Micrometres per unit of a space axis, as the specification names them (UDUNITS-2)."""

MAX_CHUNK_BYTES = 1 << 28
"""Most bytes of one chunk: an image stored in one piece cannot be read in parts."""


@final
class OmeZarrReader(Slide):
    """An OME-NGFF image with axes y, x and three (or one) 8-bit channels in any order; t and z have to be 1."""

    def __init__(self, path: Path, *, id: str, mpp: tuple[float, float] | None, mpp_source: MppSource) -> None:
        """Open a folder; raises SlideError with the reason for a refusal."""
        if not is_zarr(path):
            raise SlideError("it is no folder of OME-Zarr")
        try:
            self._open(path)
            info = self._info()
        except SlideError:
            raise
        except Exception as error:  # damaged metadata breaks the library in any way it likes
            raise SlideError(f"its metadata cannot be read ({type(error).__name__}: {str(error)[:200]})") from None
        self._cache = TileCache()
        self._is_closed = False
        super().__init__(path, info, id=id, mpp=mpp, mpp_source=mpp_source)

    def _open(self, path: Path) -> None:
        import zarr

        group = zarr.open_group(str(path), mode="r")
        attributes = dict(group.attrs)
        said: Any = attributes.get("ome", attributes)
        scales = said.get("multiscales") if isinstance(said, dict) else None
        if not scales:
            raise SlideError("its metadata names no multiscales image")
        self._image: dict[str, Any] = scales[0]
        self._axes = "".join(
            axis if isinstance(axis, str) else axis["name"] for axis in self._image.get("axes", list("tczyx"))
        )
        self._arrays: list[Any] = [group[one["path"]] for one in self._image["datasets"]]

    def _info(self) -> SlideInfo:
        axes, first = self._axes, self._arrays[0]
        if "y" not in axes or "x" not in axes or len(axes) != first.ndim:
            raise SlideError(f"its axes are {axes!r} of {first.ndim} dimensions, without y and x")
        sizes = dict(zip(axes, first.shape, strict=True))
        odd = {axis: size for axis, size in sizes.items() if axis not in "cyx" and size != 1}
        if odd or sizes.get("c", 1) not in (1, 3, 4) or first.dtype != np.uint8:
            raise SlideError(f"it holds {first.dtype} of axes {sizes}; RGB or gray in 8 bits are read")
        if int(np.prod(first.chunks)) > MAX_CHUNK_BYTES:
            raise SlideError(f"its chunks of {first.chunks} are too large to read in parts")
        width, height = sizes["x"], sizes["y"]
        levels = []
        for array in self._arrays:
            size = array.shape[axes.index("x")], array.shape[axes.index("y")]
            levels.append(Level(size[0], size[1], (width / size[0], height / size[1])))
        return SlideInfo(tuple(levels), self._pixel_size(), "ome-zarr")

    def _pixel_size(self) -> tuple[float, float] | None:
        """Pixel size of the first dataset: its own scale times that of the whole image, in the units of the axes."""
        scale = np.ones(len(self._axes))
        own = self._image["datasets"][0].get("coordinateTransformations", [])
        for step in [*own, *self._image.get("coordinateTransformations", [])]:
            if step.get("type") == "scale":
                scale = scale * np.array(step["scale"], float)
        pair = []
        for name in "xy":
            axis = self._image["axes"][self._axes.index(name)]
            unit = UNITS_UM.get(axis.get("unit", "")) if isinstance(axis, dict) else None
            if unit is None:
                return None
            pair.append(float(scale[self._axes.index(name)]) * unit)
        return believable((pair[0], pair[1]))

    def tile_px(self, level: int) -> tuple[int, int] | None:
        """Width and height of the chunks of a level."""
        chunks = self._arrays[level].chunks
        return chunks[self._axes.index("x")], chunks[self._axes.index("y")]

    def _read(self, box: tuple[int, int, int, int], level: int) -> UInt8[np.ndarray, "h w 3"]:
        if self._is_closed:
            raise SlideError(f"slide {self.id!r} was closed: open it again to read")
        left, top, width, height = box
        chunk = self.tile_px(level)
        assert chunk is not None
        out = np.full((height, width, 3), WHITE, np.uint8)
        for row in range(top // chunk[1], -(-(top + height) // chunk[1])):
            for column in range(left // chunk[0], -(-(left + width) // chunk[0])):
                x, y = column * chunk[0], row * chunk[1]
                pixels = self._chunk(level, x, y, chunk)
                x_0, y_0 = max(left, x), max(top, y)
                x_1, y_1 = min(left + width, x + pixels.shape[1]), min(top + height, y + pixels.shape[0])
                out[y_0 - top : y_1 - top, x_0 - left : x_1 - left] = pixels[y_0 - y : y_1 - y, x_0 - x : x_1 - x]
        return out

    def _chunk(self, level: int, x: int, y: int, chunk: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
        def make() -> UInt8[np.ndarray, "h w 3"]:
            place: list[Any] = [0] * len(self._axes)
            place[self._axes.index("x")] = slice(x, x + chunk[0])
            place[self._axes.index("y")] = slice(y, y + chunk[1])
            if "c" in self._axes:
                place[self._axes.index("c")] = slice(None)
            try:
                pixels = np.asarray(self._arrays[level][tuple(place)])
            except Exception as error:  # each codec and store raises its own
                raise SlideError(
                    f"slide {self.id!r} is damaged at level {level}, x {x}, y {y}, {chunk[0]} x {chunk[1]} px: "
                    f"{type(error).__name__}: {str(error)[:200]}"
                ) from None
            left = [axis for axis in self._axes if axis in "cyx"]
            if "c" not in left:
                pixels, left = pixels[..., None], [*left, "c"]
            pixels = pixels.transpose(*(left.index(axis) for axis in "yxc"))
            gray = pixels.shape[2] == 1
            return np.repeat(pixels, 3, axis=2) if gray else np.ascontiguousarray(pixels[..., :3])

        return self._cache.get((level, x, y), make)

    def close(self) -> None:
        """Let go of the arrays. Reading afterwards raises SlideError."""
        self._is_closed = True
        self._cache.clear()
