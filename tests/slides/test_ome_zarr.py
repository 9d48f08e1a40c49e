"""The OME-Zarr reader: versions 0.4 and 0.5, axes in any order, scale, damage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from contracts.slide import Pixels, SlideContract, shrunk, textured

from wsi_mil.errors import SlideError
from wsi_mil.slides import Slide, open_slide

RGB = textured(900, 700)


def write_zarr(
    folder: Path,
    *,
    version: str = "0.5",
    axes: str = "cyx",
    rgb: Pixels = RGB,
    mpp: float = 0.5,
    unit: str | None = "micrometer",
    downsamples: tuple[int, ...] = (1, 4),
) -> Path:
    """An OME-Zarr image from its specification."""
    group = zarr.open_group(str(folder), mode="w", zarr_format=2 if version == "0.4" else 3)
    datasets = []
    for number, factor in enumerate(downsamples):
        plane = shrunk(rgb, rgb.shape[1] // factor, rgb.shape[0] // factor)
        data = plane.transpose(*("yxc".index(axis) for axis in axes if axis in "yxc"))
        data = data.reshape([data.shape[[a for a in axes if a in "cyx"].index(b)] if b in "cyx" else 1 for b in axes])
        chunks = tuple({"c": 3, "y": 128, "x": 128}.get(axis, 1) for axis in axes)
        array = group.create_array(str(number), shape=data.shape, dtype="uint8", chunks=chunks)
        array[...] = data
        scale = [mpp * factor if axis in "yx" else 1.0 for axis in axes]
        datasets.append({"path": str(number), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    named: list[dict[str, Any]] = []
    for axis in axes:
        kind = {"c": "channel", "t": "time"}.get(axis, "space")
        named.append({"name": axis, "type": kind} | ({"unit": unit} if unit and axis in "yx" else {}))
    image = {"axes": named, "datasets": datasets, "version": version}
    group.attrs.update(
        {"multiscales": [image]} if version == "0.4" else {"ome": {"version": version, "multiscales": [image]}}
    )
    return folder


class TestOmeZarrReader(SlideContract):
    @pytest.fixture
    def slide(self, tmp_path: Path) -> Iterator[Slide]:
        with open_slide(write_zarr(tmp_path / "slide.zarr")) as slide:
            yield slide


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["cyx", "yxc", "tczyx"])
def test_the_pixels_are_those_that_were_written(tmp_path: Path, version: str, axes: str) -> None:
    with open_slide(write_zarr(tmp_path / "a.zarr", version=version, axes=axes, mpp=0.25)) as slide:
        assert slide.vendor == "ome-zarr"
        assert slide.mpp == (0.25, 0.25)
        assert slide.mpp_source == "metadata"
        assert [(one.width, one.height) for one in slide.levels] == [(900, 700), (225, 175)]
        np.testing.assert_array_equal(slide.read_level((0, 0, 900, 700), level=0), RGB)
        np.testing.assert_array_equal(slide.read_level((100, 120, 300, 310), level=0), RGB[120:430, 100:400])
        np.testing.assert_array_equal(slide.read_level((0, 0, 225, 175), level=1), shrunk(RGB, 225, 175))


@pytest.mark.parametrize(("unit", "mpp"), [("nanometer", 500.0), ("millimeter", 0.0005), ("micrometer", 0.5)])
def test_the_scale_is_in_the_units_of_the_axes(tmp_path: Path, unit: str, mpp: float) -> None:
    with open_slide(write_zarr(tmp_path / "a.zarr", unit=unit, mpp=mpp)) as slide:
        assert slide.mpp == pytest.approx((0.5, 0.5))


def test_an_axis_without_a_unit_is_no_scale(tmp_path: Path) -> None:
    with open_slide(write_zarr(tmp_path / "a.zarr", unit=None)) as slide:
        assert slide.mpp_source == "missing"


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    with pytest.raises(SlideError, match="names no multiscales"):
        open_slide(tmp_path / "a.zarr")
    group.create_array("0", shape=(5, 64, 64), dtype="uint16", chunks=(1, 64, 64))
    axes = [{"name": axis} for axis in "cyx"]
    group.attrs.update({"ome": {"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}})
    with pytest.raises(SlideError, match="uint16"):
        open_slide(tmp_path / "a.zarr")


def test_a_damaged_chunk_is_said_to_be_where_it_is(tmp_path: Path) -> None:
    folder = write_zarr(tmp_path / "a.zarr", downsamples=(1,))
    chunk = folder / "0" / "c" / "0" / "1" / "2"
    assert chunk.is_file()
    chunk.write_bytes(b"nonsense")
    with open_slide(folder) as slide:
        slide.read_level((0, 0, 100, 100), level=0)
        with pytest.raises(SlideError, match="damaged at level 0, x 256, y 128"):
            slide.read_level((200, 100, 100, 100), level=0)
