"""TIFF pyramids: levels, marks, scale and words as other readers see them."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from wsi_mil.errors import StageError
from wsi_mil.grid import SlideRef
from wsi_mil.heatmaps import Heatmap, colouring, heatmap_to_ome_tiff, heatmap_to_tiff


def test_every_level_is_an_ordinary_directory_half_the_one_before(make: Callable[..., Heatmap]) -> None:
    with tifffile.TiffFile(io.BytesIO(heatmap_to_tiff(make(), "attention"))) as tiff:
        pages = list(tiff.pages)
    assert [page.shape for page in pages] == [(216, 314, 3), (108, 157, 3)]
    assert [int(page.subfiletype) for page in pages] == [0, 1]
    assert all(page.is_tiled and page.subifds is None for page in pages)
    scales = [page.tags["XResolution"].value for page in pages]
    assert scales[0][0] / scales[0][1] == pytest.approx(2 * scales[1][0] / scales[1][1])


def test_openslide_sees_all_levels_and_square_micrometres(make: Callable[..., Heatmap], tmp_path: Path) -> None:
    path = tmp_path / "map.tiff"
    path.write_bytes(heatmap_to_tiff(make(), "attention", px_per_tile=16))
    with openslide.OpenSlide(path) as slide:
        assert slide.level_count == 4
        assert slide.level_downsamples == (1, 2, 4, 8)
        for axis in "xy":
            assert float(slide.properties[f"openslide.mpp-{axis}"]) == pytest.approx(0.5 * 256 / 16, rel=1e-4)
        told = json.loads(slide.properties["tiff.ImageDescription"])
    assert told["slide"] == "A1"
    assert told["downsample"] == pytest.approx([256.513 / 16, 280.026 / 16], rel=1e-4)
    assert (told["channel"], told["prediction"]) == ("attention", {"tumour": 0.83, "normal": 0.17})


def test_each_axis_has_its_own_scale(make: Callable[..., Heatmap]) -> None:
    """Bags of other programs have tiles that are square in level-0 pixels, and so not in micrometres."""
    heatmap = make(tiles=40)
    grid = dataclasses.replace(heatmap.grid, extent_l0=(256.0, 256.0), step_l0=(256.0, 256.0))
    with tifffile.TiffFile(io.BytesIO(heatmap_to_tiff(dataclasses.replace(heatmap, grid=grid), "attention"))) as tiff:
        for name, mpp in (("XResolution", 0.499), ("YResolution", 0.4571)):
            over, under = tiff.pages[0].tags[name].value
            assert 1e4 * under / over == pytest.approx(64 * mpp)


def test_colours_are_those_of_the_picture_and_glass_is_grey(make: Callable[..., Heatmap]) -> None:
    heatmap = make()
    scores = heatmap.column("contribution_tumour")
    scores[1] = np.nan
    with tifffile.TiffFile(io.BytesIO(heatmap_to_tiff(heatmap, "contribution_tumour", scale="signed"))) as tiff:
        rgb = tiff.pages[0].asarray()
    spread = colouring(scores, "signed")
    wanted = spread.table()[np.rint(spread.positions[[0, 2]] * 255).astype(int)]
    assert (rgb[:4, :4] == wanted[0]).all()
    assert (rgb[:4, 8:12] == wanted[1]).all()
    assert (rgb[:4, 4:8] == 208).all()


def test_ome_tiff_has_the_numbers_themselves_by_name(make: Callable[..., Heatmap]) -> None:
    heatmap = make()
    heatmap.scores[1] = np.nan
    with tifffile.TiffFile(io.BytesIO(heatmap_to_ome_tiff(heatmap))) as tiff:
        series = tiff.series[0]
        assert (series.kind, series.axes, series.dtype) == ("ome", "CYX", np.float32)
        assert [level.shape for level in series.levels] == [(2, 216, 314), (2, 108, 157)]
        assert all(page.subifds and len(page.subifds) == 1 for page in tiff.pages)
        numbers, words = series.asarray(), tiff.ome_metadata
    assert words is not None
    assert [name in words for name in ("attention", "contribution_tumour", 'PhysicalSizeXUnit="µm"')] == [True] * 3
    np.testing.assert_array_equal(numbers[:, 0, [0, 8]], heatmap.scores[[0, 2]].T)
    assert np.isnan(numbers[:, :4, 4:8]).all()
    assert np.isnan(numbers).any(axis=0).sum() == 16 + 216 * 314 - 215 * 313, "and outside the slide"


def test_the_same_heatmap_makes_the_same_bytes(make: Callable[..., Heatmap]) -> None:
    heatmap = make(tiles=40)
    assert heatmap_to_tiff(heatmap, "attention") == heatmap_to_tiff(heatmap, "attention")
    assert heatmap_to_ome_tiff(heatmap) == heatmap_to_ome_tiff(heatmap)


def test_without_a_scale_none_is_made_up(make: Callable[..., Heatmap]) -> None:
    heatmap = make(tiles=40)
    slide = SlideRef("A1", "f" * 64, heatmap.slide.size_l0, (0.0, 0.0), "imported, unverified")
    unknown = dataclasses.replace(heatmap, slide=slide, grid=dataclasses.replace(heatmap.grid, slide=slide))
    with tifffile.TiffFile(io.BytesIO(heatmap_to_tiff(unknown, "attention"))) as tiff:
        assert int(tiff.pages[0].tags["ResolutionUnit"].value) == 1
    with tifffile.TiffFile(io.BytesIO(heatmap_to_ome_tiff(unknown))) as tiff:
        assert "PhysicalSize" not in (tiff.ome_metadata or "")


def test_an_unknown_channel_is_refused(make: Callable[..., Heatmap]) -> None:
    with pytest.raises(StageError, match="did you mean 'attention'"):
        heatmap_to_tiff(make(tiles=4), "atention")
