"""Measures of tiles: what each one sees, and what it does not."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from wsi_mil.grid import lay_grid
from wsi_mil.slides import open_slide
from wsi_mil.tissue import MEASURES, measure_tiles

GLASS, PINK, PURPLE = (244, 244, 244), (215, 140, 185), (120, 80, 150)
GREEN, BLUE, BLACK = (28, 120, 92), (58, 115, 203), (36, 34, 40)
RED_CELLS, LYMPHOID = (200, 70, 75), (52, 25, 84)


def tile(colour: tuple[int, int, int], *, part: tuple[int, int, int] | None = None, share: float = 0.5) -> np.ndarray:
    """A tile of tissue, `share` of it (from the left) of another colour."""
    picture = Image.new("RGB", (256, 256), colour)
    if part is not None:
        ImageDraw.Draw(picture).rectangle((0, 0, round(256 * share) - 1, 255), fill=part)
    noise = np.random.default_rng(0).normal(0, 3, (256, 256, 3))
    return np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)


def measured(*tiles: np.ndarray) -> dict[str, np.ndarray]:
    return measure_tiles(np.stack(tiles))


def blurred(tiles: np.ndarray, sigma: float) -> np.ndarray:
    """Out of focus, then stored as JPEG, as a slide is."""
    out = []
    for one in tiles:
        data = io.BytesIO()
        Image.fromarray(one).filter(ImageFilter.GaussianBlur(sigma)).save(data, format="jpeg", quality=85)
        out.append(np.asarray(Image.open(data)))
    return np.stack(out)


def test_every_measure_for_every_tile_and_no_tile() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    found = measure_tiles(pixels)
    assert tuple(found) == MEASURES
    for values in found.values():
        assert values.shape == (5,)
        assert values.dtype == np.float32
    assert all(len(values) == 0 for values in measure_tiles(pixels[:0]).values())


def test_a_tile_has_the_same_measures_in_any_company() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    whole, alone = measure_tiles(pixels), measure_tiles(pixels[3:4])
    for name, values in whole.items():
        np.testing.assert_allclose(values[3], alone[name][0], rtol=1e-6)


def test_colours_are_means_and_deviations() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)
    found = measure_tiles(pixels)
    for channel, name in enumerate(("red", "green", "blue")):
        np.testing.assert_allclose(found[f"{name}_mean"], pixels[..., channel].mean(axis=(1, 2)) / 255, rtol=1e-6)
        np.testing.assert_allclose(found[f"{name}_sd"], pixels[..., channel].std(axis=(1, 2)) / 255, rtol=1e-5)


@pytest.mark.parametrize("ink", [GREEN, BLUE, BLACK])
@pytest.mark.parametrize("under", [GLASS, PINK])
def test_pen_is_the_share_of_ink(ink: tuple[int, int, int], under: tuple[int, int, int]) -> None:
    assert measured(tile(under, part=ink, share=0.25))["pen"][0] == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("colour", [GLASS, PINK, PURPLE, LYMPHOID, RED_CELLS, (170, 120, 80), (190, 198, 216)])
def test_stains_and_glass_are_no_pen(colour: tuple[int, int, int]) -> None:
    assert measured(tile(colour))["pen"][0] == 0


def test_blood_white_and_grey_edges_are_shares() -> None:
    found = measured(
        tile(PINK, part=RED_CELLS, share=0.5), tile(PINK, part=GLASS, share=0.75), tile(PINK, part=(120, 122, 121))
    )
    np.testing.assert_allclose(found["blood"], [0.5, 0, 0], atol=0.03)
    np.testing.assert_allclose(found["white"], [0, 0.75, 0], atol=0.03)
    np.testing.assert_allclose(found["edge"], [0, 0, 0.5], atol=0.03)


def test_density_is_that_of_what_is_not_glass() -> None:
    found = measured(tile(PINK), tile(PINK, part=(224, 224, 224), share=0.5))
    want = -np.log10(np.array(PINK) / 244).mean()
    np.testing.assert_allclose(found["density"], want, rtol=0.05)


def test_a_fold_across_a_tile_doubles_its_measure() -> None:
    double = tuple(round(244 * (value / 244) ** 2) for value in PINK)
    plain, folded = measured(tile(PINK), tile(PINK, part=double, share=0.2))["fold"]
    assert folded / plain == pytest.approx(2, rel=0.05)
    assert measured(tile(PINK, part=double, share=0.05))["fold"][0] == pytest.approx(plain, rel=0.05)


def test_nothing_to_see_has_no_focus() -> None:
    flat = np.full((1, 64, 64, 3), 244, np.uint8)
    ramp = np.broadcast_to(np.linspace(120, 180, 64).astype(np.uint8)[:, None], (64, 64, 3))[None]
    assert measure_tiles(flat)["focus"][0] == 0
    assert measure_tiles(np.ascontiguousarray(ramp))["focus"][0] < 0.06


@pytest.mark.parametrize(
    ("name", "mpp"), [("good/cmu-1-small-region.svs", None), ("odd/tcga-cr-7395-01a-01-ts1.svs", 0.5)]
)
def test_focus_parts_sharp_real_tiles_from_blurred_ones(test_data: Path, name: str, mpp: float | None) -> None:
    with open_slide(test_data / "slides" / name, mpp=mpp) as slide:
        coords, _, _ = lay_grid(slide.ref(), size_px=256, mpp=0.5)
        pixels = np.stack([slide.read(x, y, size_px=256, mpp=0.5) for x, y in coords[::3].tolist()])
    found = measure_tiles(pixels)
    pixels = pixels[found["white"] < 0.5]
    sharp = measure_tiles(pixels)["focus"]
    assert sharp.min() > 0.15
    assert np.median(measure_tiles(blurred(pixels, 1.0))["focus"]) < 0.6 * np.median(sharp)
    assert measure_tiles(blurred(pixels, 2.0))["focus"].max() < 0.11
    assert measured(*pixels)["pen"].max() < 0.05


def test_pale_tissue_is_as_sharp_as_dark() -> None:
    random = np.random.default_rng(0)
    texture = Image.fromarray(random.integers(0, 256, (256, 256), dtype=np.uint8)).filter(ImageFilter.GaussianBlur(0.7))
    wave = (np.asarray(texture).astype(float) - 127)[..., None]
    pale, dark = (np.clip(level + gain * wave, 0, 255).astype(np.uint8) for level, gain in ((225, 0.3), (140, 1.5)))
    one, other = measured(*(np.repeat(picture, 3, axis=2) for picture in (pale, dark)))["focus"]
    assert one == pytest.approx(other, rel=0.15)
    assert one > 0.2
