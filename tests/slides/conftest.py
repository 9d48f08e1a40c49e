"""Small slides, written for one test at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from contracts.slide import Pixels, shrunk, textured

Write = Callable[..., Path]


@pytest.fixture
def write_slide(tmp_path: Path) -> Write:
    """A function that writes a tiled TIFF pyramid and returns its path."""

    def write(
        name: str = "slide.tiff",
        *,
        rgb: Pixels | None = None,
        mpp: float | None = 0.5,
        downsamples: tuple[float, ...] = (1, 4),
        compression: str | None = "jpeg",
        dpi: float | None = None,
        **options: Any,
    ) -> Path:
        picture = textured(900, 700) if rgb is None else rgb
        per_cm = 10_000 / mpp if mpp else (dpi / 2.54 if dpi else None)
        with tifffile.TiffWriter(tmp_path / name) as tiff:
            for level, downsample in enumerate(downsamples):
                size = round(picture.shape[1] / downsample), round(picture.shape[0] / downsample)
                tiff.write(
                    shrunk(picture, *size),
                    tile=(128, 128),
                    photometric="rgb",
                    compression=compression,
                    # Colour at full resolution, so that a level differs from its pyramid's base by little.
                    compressionargs={"level": 95} if compression == "jpeg" else None,
                    subsampling=(1, 1) if compression == "jpeg" else None,
                    subfiletype=1 if level else 0,
                    resolution=(per_cm, per_cm) if per_cm else None,
                    resolutionunit="CENTIMETER" if per_cm else None,
                    metadata=None,
                    **options,
                )
        return tmp_path / name

    return write


@pytest.fixture
def break_tile() -> Callable[[Path, int], None]:
    """A function that overwrites one stored tile of level 0 with zeros."""

    def destroy(path: Path, tile: int) -> None:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            offset, count = page.dataoffsets[tile], page.databytecounts[tile]
        data = np.memmap(path, np.uint8, "r+")
        data[offset : offset + count] = 0
        data.flush()

    return destroy
