"""The picture: where the slide lies on it, the planted square in its place, and the words around it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import numpy as np
import pytest
import shapely
from PIL import Image

from wsi_mil.errors import StageError
from wsi_mil.heatmaps import Heatmap, heatmap_to_geojson, overlay
from wsi_mil.heatmaps.picture import FRAME_KEY, HEADER, _fitted, _font, _round_length

SQUARE = (6000.0, 4000.0, 11_000.0, 9000.0)
"""Left, top, right and bottom of the planted lesion, level-0 pixels."""


def overview(heatmap: Heatmap, longer_px: int = 1000) -> tuple[np.ndarray, tuple[float, float]]:
    """A white overview of a slide and its downsample, as `Slide.overview` rounds them."""
    width, height = heatmap.slide.size_l0
    shrink = max(width, height) / longer_px
    out = round(width / shrink), round(height / shrink)
    return np.full((out[1], out[0], 3), 255, np.uint8), (width / out[0], height / out[1])


def opened(png: bytes) -> tuple[np.ndarray, dict[str, float | list[float]]]:
    """The pixels of the slide on the picture, and where it lies."""
    image = Image.open(io.BytesIO(png))
    frame = json.loads(image.text[FRAME_KEY])  # type: ignore[attr-defined]
    page = np.asarray(image.convert("RGB")).astype(int)
    left, top = frame["left"], frame["top"]
    return page[top : top + frame["height"], left : left + frame["width"]], frame


def planted(make: Callable[..., Heatmap], overlap_px: int) -> Heatmap:
    """High scores for the tiles whose middle lies in the square."""
    heatmap = make(overlap_px=overlap_px)
    middle = heatmap.grid.coords_l0 + np.array(heatmap.grid.extent_l0) / 2
    inside = (middle > SQUARE[:2]).all(axis=1) & (middle < SQUARE[2:]).all(axis=1)
    return make(inside[:, None].astype(np.float32), overlap_px=overlap_px)


@pytest.mark.parametrize("overlap_px", [0, 100])
@pytest.mark.parametrize("longer_px", [60, 1000])
def test_a_planted_square_lies_alike_in_picture_and_geojson(
    make: Callable[..., Heatmap], overlap_px: int, longer_px: int
) -> None:
    heatmap = planted(make, overlap_px)
    rgb, downsample = overview(heatmap, longer_px)
    pixels, frame = opened(overlay(rgb, downsample, heatmap, "attention", scale="range", alpha=1.0))
    # viridis: high is yellow, where red far exceeds blue.
    high = (pixels[..., 0] - pixels[..., 2]) > 60
    rows, columns = np.flatnonzero(high.any(axis=1)), np.flatnonzero(high.any(axis=0))
    per_px = np.array(frame["downsample"])
    in_picture = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) * np.tile(per_px, 2)

    collection = json.loads(heatmap_to_geojson(heatmap))["features"]
    tiles = [
        shapely.geometry.shape(feature["geometry"])
        for feature in collection
        if feature["properties"]["measurements"]["attention"] > 0.5
    ]
    in_geojson = np.array(shapely.union_all(tiles).bounds)
    # To within a pixel of the picture; where tiles overlap, the outermost share of high tiles is a mean with low ones.
    reach = np.array(heatmap.grid.extent_l0) - heatmap.grid.step_l0
    np.testing.assert_array_less(np.abs(in_picture - in_geojson), np.tile(1.01 * per_px + reach, 2))
    # And both are the square, to within half a tile.
    np.testing.assert_array_less(np.abs(in_geojson - SQUARE), np.tile(heatmap.grid.extent_l0, 2))


def test_each_single_tile_is_where_its_coordinates_say(make: Callable[..., Heatmap]) -> None:
    """The middle of every seventh tile, with its own colour: none is off by one column at the far end."""
    heatmap = make()
    rgb, downsample = overview(heatmap, 1600)
    pixels, frame = opened(overlay(rgb, downsample, heatmap, "attention", scale="rank", alpha=1.0))
    from wsi_mil.heatmaps import score_colours

    colours = score_colours(heatmap.column("attention"))
    middle = heatmap.grid.coords_l0 + np.array(heatmap.grid.extent_l0) / 2
    for tile in range(0, len(heatmap.grid), 7):
        x, y = (middle[tile] / frame["downsample"]).astype(int)
        if y < pixels.shape[0] and x < pixels.shape[1]:
            assert np.abs(pixels[y, x] - colours[tile, :3]).max() <= 2, tile


def test_the_contour_lies_where_it_was_drawn(make: Callable[..., Heatmap]) -> None:
    heatmap = make(np.full((len(make().grid), 1), np.nan, np.float32))
    rgb, downsample = overview(heatmap)
    ring = shapely.box(*SQUARE).difference(shapely.box(7500, 5500, 9500, 7500))
    outline = shapely.MultiPolygon([ring])
    pixels, frame = opened(overlay(rgb, downsample, heatmap, "attention", outline=outline))
    dark = pixels.max(axis=2) < 100
    rows, columns = np.flatnonzero(dark.any(axis=1)), np.flatnonzero(dark.any(axis=0))
    found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) * np.tile(frame["downsample"], 2)
    np.testing.assert_allclose(found, SQUARE, atol=2 * max(downsample))
    x, y = (np.array([8500, 5500]) / frame["downsample"]).astype(int)
    assert dark[y - 1 : y + 2, x].any(), "holes have a contour too"


def test_the_scale_bar_is_as_long_as_it_says(make: Callable[..., Heatmap]) -> None:
    heatmap = make()
    rgb, downsample = overview(heatmap)
    png = overlay(rgb, downsample, heatmap, "attention")
    page = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    _, frame = opened(png)
    below = page[HEADER + int(frame["height"]) + 42, : page.shape[1] // 2]  # type: ignore[call-overload]
    length_px = int((below < 60).sum())
    assert length_px * downsample[0] * heatmap.slide.mpp[0] == pytest.approx(2000, rel=0.01), "2 mm of the slide's 10"


def test_round_lengths() -> None:
    assert [_round_length(value) for value in (2197.0, 999.0, 1000.0, 60.0, 4.9, 0.3)] == pytest.approx(
        [2000, 500, 1000, 50, 2, 0.2]
    )


def test_small_and_narrow_slides_leave_room_for_the_words(make: Callable[..., Heatmap]) -> None:
    heatmap = make()
    png = overlay(np.full((9, 3, 3), 200, np.uint8), (20_011 / 3, 15_003 / 9), heatmap, "attention", title="x" * 300)
    image = Image.open(io.BytesIO(png))
    _, frame = opened(png)
    assert image.width >= 760
    assert int(frame["height"]) >= 640  # type: ignore[arg-type]


def test_words_are_cut_to_their_room() -> None:
    text = _fitted("word " * 100, 15, "", 200)
    assert text.endswith("…")
    assert _font(15).getlength(text) <= 200
    assert _fitted("short", 15, "", 200) == "short"


@pytest.mark.parametrize("scale", ["rank", "range", "percentile", "signed"])
def test_the_same_heatmap_makes_the_same_picture(make: Callable[..., Heatmap], scale: str) -> None:
    heatmap = make()
    rgb, downsample = overview(heatmap, 200)
    pictures = [overlay(rgb, downsample, heatmap, "contribution_tumour", scale=scale) for _ in range(2)]
    assert pictures[0] == pictures[1]


def test_nothing_to_show_is_still_a_picture(make: Callable[..., Heatmap]) -> None:
    heatmap = make(np.full((len(make().grid), 1), np.nan, np.float32))
    rgb, downsample = overview(heatmap, 200)
    pixels, _ = opened(overlay(rgb, downsample, heatmap, "attention"))
    assert (pixels == 255).all()


def test_an_unknown_channel_is_refused(make: Callable[..., Heatmap]) -> None:
    heatmap = make()
    rgb, downsample = overview(heatmap, 200)
    with pytest.raises(StageError, match="unknown channel 'logit'"):
        overlay(rgb, downsample, heatmap, "logit")
