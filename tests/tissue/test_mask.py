"""Where the tissue is: pale kept, pen and dust dropped, at any scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from wsi_mil.errors import SlideError
from wsi_mil.slides import open_slide
from wsi_mil.tissue import find_tissue

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

PINK, PALE, PURPLE, DAB = (215, 140, 185), (238, 222, 233), (120, 80, 150), (170, 120, 80)
COUNTERSTAIN = (190, 198, 216)
GREEN, BLUE, RED, BLACK = (28, 120, 92), (58, 115, 203), (205, 25, 35), (36, 34, 40)
BLACK_ON_TISSUE = (78, 42, 64)
CRIMSON, PALE_CRIMSON = (223, 86, 118), (231, 144, 168)
"""As on a real slide, where the marker is full and where it is thin."""
LYMPHOID = (52, 25, 84)
"""Crowded nuclei at low power, as on a real lymph node: as dark as ink, and purple."""
MPP = (8.0, 8.0)


def glass(width: int = 300, height: int = 240, *, colour: tuple[int, int, int] = (243, 243, 243)) -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def noisy(picture: Image.Image, *, sd: float = 2.0) -> Pixels:
    noise = np.random.default_rng(0).normal(0, sd, (picture.height, picture.width, 3))
    return np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)


def tissue_on(rgb: Pixels, **options: Any) -> np.ndarray:
    return find_tissue(rgb, **options).mask


def iou(mask: np.ndarray, want: np.ndarray) -> float:
    return float((mask & want).sum() / (mask | want).sum())


def disc(picture: Image.Image, box: tuple[int, int, int, int], colour: tuple[int, int, int]) -> np.ndarray:
    """Draw an ellipse and return where it is."""
    where = Image.new("L", picture.size)
    ImageDraw.Draw(where).ellipse(box, fill=1)
    ImageDraw.Draw(picture).ellipse(box, fill=colour)
    return np.asarray(where) > 0


@pytest.mark.parametrize("colour", [(255, 255, 255), (243, 243, 243), (229, 233, 232), (245, 240, 236)])
def test_an_empty_slide_has_no_tissue(colour: tuple[int, int, int]) -> None:
    assert not tissue_on(noisy(glass(colour=colour)), mpp=MPP).any()


def test_a_slide_of_one_value_has_no_tissue() -> None:
    assert not tissue_on(np.full((50, 60, 3), 255, np.uint8), mpp=MPP).any()


@pytest.mark.parametrize("colour", [PINK, PALE, PURPLE, DAB, COUNTERSTAIN])
def test_each_stain_is_found(colour: tuple[int, int, int]) -> None:
    picture = glass()
    want = disc(picture, (60, 50, 220, 190), colour)
    assert iou(tissue_on(noisy(picture), mpp=MPP), want) > 0.95


def test_pale_tissue_is_found_beside_dark() -> None:
    picture = glass()
    dark = disc(picture, (20, 20, 130, 220), PURPLE)
    pale = disc(picture, (160, 20, 280, 220), PALE)
    assert iou(tissue_on(noisy(picture), mpp=MPP), dark | pale) > 0.95


def test_a_picture_full_of_tissue_is_all_tissue() -> None:
    assert tissue_on(noisy(glass(colour=PINK), sd=10), mpp=MPP).all()


@pytest.mark.parametrize("ink", [GREEN, BLUE, RED, CRIMSON, PALE_CRIMSON, BLACK, BLACK_ON_TISSUE])
def test_pen_is_dropped_and_the_tissue_beside_it_kept(ink: tuple[int, int, int]) -> None:
    picture = glass()
    tissue = disc(picture, (30, 30, 200, 210), PINK)
    ImageDraw.Draw(picture).line([(218, 20), (233, 120), (218, 225)], fill=ink, width=26, joint="curve")
    mask = tissue_on(noisy(picture), mpp=MPP)
    pen = (np.asarray(picture) == ink).all(axis=2)
    assert not mask[pen].any()
    assert mask[tissue & ~pen].mean() > 0.95


@pytest.mark.parametrize("ink", [GREEN, BLUE, RED, CRIMSON, PALE_CRIMSON, BLACK])
def test_a_slide_with_nothing_but_pen_is_empty(ink: tuple[int, int, int]) -> None:
    picture = glass()
    ImageDraw.Draw(picture).ellipse((40, 40, 240, 200), outline=ink, width=26)
    assert not tissue_on(noisy(picture), mpp=MPP).any()


def test_the_edge_of_a_cover_slip_shadow_and_dust_are_no_tissue() -> None:
    picture = glass()
    draw = ImageDraw.Draw(picture)
    draw.line([(12, 0), (12, 239)], fill=(120, 124, 123), width=5)
    draw.line([(0, 8), (299, 10)], fill=(60, 60, 62), width=3)
    draw.rectangle((0, 225, 299, 239), fill=(185, 183, 180))
    for x in range(40, 280, 30):
        draw.ellipse((x, 100, x + 8, 108), fill=(110, 108, 106))
    draw.ellipse((150, 50, 154, 54), fill=PURPLE)
    assert not tissue_on(noisy(picture), mpp=MPP).any()


def test_the_yellowish_edge_of_a_slide_is_no_tissue() -> None:
    """As on a real slide: a tint that passes for stain where only its saturation is asked."""
    picture = glass(colour=(255, 255, 255))
    ImageDraw.Draw(picture).rectangle((0, 215, 299, 239), fill=(219, 217, 212))
    assert not tissue_on(noisy(picture), mpp=MPP).any()


def test_crowded_nuclei_are_no_ink() -> None:
    picture = glass()
    want = disc(picture, (30, 30, 200, 210), PURPLE)
    disc(picture, (80, 80, 150, 150), LYMPHOID)
    assert iou(tissue_on(noisy(picture), mpp=MPP), want) > 0.95


def test_patches_of_the_colour_of_crimson_ink_stay_where_they_are_small() -> None:
    """Eosin has pixels of that colour on real slides, in patches below 100 um."""
    picture = glass()
    want = disc(picture, (30, 30, 200, 210), PINK)
    patches = [disc(picture, (x, 100, x + 10, 110), CRIMSON) for x in range(60, 180, 20)]
    mask = tissue_on(noisy(picture), mpp=MPP)
    assert iou(mask, want) > 0.95
    assert all(mask[patch].all() for patch in patches)


@pytest.mark.parametrize("colour", [PINK, PALE, PURPLE, DAB, LYMPHOID])
def test_the_edge_lies_where_it_is_for_whatever_tissue(colour: tuple[int, int, int]) -> None:
    """Dark or pale, the blurred edge is neither inside nor outside of the true one by more than a third of a pixel."""
    picture = glass(1200, 900)
    want = disc(picture, (150, 100, 1050, 800), colour)
    small = picture.resize((300, 225), Image.Resampling.BOX)
    found = tissue_on(noisy(small), mpp=MPP)
    perimeter_px = np.pi * (450 + 350) / 4
    assert abs(found.sum() - want.sum() / 16) < perimeter_px / 3


def test_it_says_which_step_took_what() -> None:
    picture = glass()
    disc(picture, (30, 30, 200, 210), PINK)
    disc(picture, (250, 40, 256, 46), PINK)
    ImageDraw.Draw(picture).line([(240, 120), (280, 220)], fill=GREEN, width=20)
    found = find_tissue(noisy(picture), mpp=MPP)
    names = [name for name, _ in found.steps]
    assert names == ["stained", "pen", "threads and gaps", "pieces under 10,000 um2", "holes"]
    assert found.steps[-1][1] == found.mask.sum() * 64
    assert found.steps[1][1] < found.steps[0][1]
    assert "pen took" in found.explain()
    assert "pieces under 10,000 um2 took" in found.explain()
    assert "holes" not in found.explain()


def test_holes_and_pieces_are_measured_in_micrometres() -> None:
    picture = glass()
    disc(picture, (30, 30, 200, 210), PINK)
    hole = disc(picture, (100, 100, 119, 119), (243, 243, 243))
    piece = disc(picture, (240, 40, 259, 59), PINK)
    rgb = noisy(picture)
    area_um2 = float(hole.sum() * 64)
    kept = tissue_on(rgb, mpp=MPP, min_area_um2=0.5 * area_um2, hole_um2=0.5 * area_um2)
    assert not kept[110, 110]
    assert kept[50, 250]
    cleaned = tissue_on(rgb, mpp=MPP, min_area_um2=2 * area_um2, hole_um2=2 * area_um2)
    assert cleaned[110, 110]
    assert not cleaned[50, 250]
    assert piece[50, 250]


def test_gaps_are_closed_and_threads_dropped() -> None:
    picture = glass()
    disc(picture, (30, 30, 200, 210), PINK)
    draw = ImageDraw.Draw(picture)
    draw.line([(115, 20), (115, 220)], fill=(243, 243, 243), width=3)
    draw.line([(200, 120), (299, 120)], fill=PINK, width=3)
    mask = tissue_on(noisy(picture), mpp=MPP, close_um=60, open_um=60)
    assert mask[120, 115]
    assert not mask[120, 250]
    mask = tissue_on(noisy(picture), mpp=MPP, close_um=0, open_um=0, min_area_um2=0, hole_um2=0)
    assert not mask[120, 115]
    assert mask[120, 250]


@pytest.mark.parametrize("mpp", [(4.0, 4.0), (16.0, 16.0), (8.0, 16.0)])
def test_the_same_glass_at_another_scale_gives_the_same_tissue(mpp: tuple[float, float]) -> None:
    picture = glass(600, 480)
    disc(picture, (100, 80, 420, 400), PINK)
    disc(picture, (480, 200, 540, 260), PALE)
    size = round(600 * 4 / mpp[0]), round(480 * 4 / mpp[1])
    reference = tissue_on(noisy(picture), mpp=(4.0, 4.0))
    got = tissue_on(noisy(picture.resize(size, Image.Resampling.BICUBIC)), mpp=mpp)
    assert got.mean() == pytest.approx(reference.mean(), rel=0.05)


def test_tissue_cut_by_the_edge_is_not_eaten_from_there() -> None:
    picture = glass()
    disc(picture, (-100, -100, 150, 150), PINK)
    mask = tissue_on(noisy(picture), mpp=MPP)
    assert mask[:100, 0].all()
    assert mask[0, :100].all()


def test_an_unknown_method_gets_a_hint() -> None:
    with pytest.raises(SlideError, match="did you mean 'otsu'"):
        tissue_on(np.zeros((9, 9, 3), np.uint8), mpp=MPP, method="otso")


def test_a_dot_of_pen_is_not_filled_as_a_hole() -> None:
    picture = glass()
    disc(picture, (30, 30, 200, 210), PINK)
    dot = disc(picture, (100, 100, 108, 108), GREEN)
    mask = tissue_on(noisy(picture), mpp=MPP, hole_um2=1e6)
    assert not mask[dot].any()
    assert mask[60, 100]


def test_a_speck_on_a_picture_smaller_than_a_hole_is_no_tissue() -> None:
    rgb = np.full((40, 40, 3), 243, np.uint8)
    rgb[10:30, 10:30] = PURPLE
    assert tissue_on(rgb, mpp=(2.0, 2.0), min_area_um2=0).any()
    assert not tissue_on(rgb, mpp=(2.0, 2.0)).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (16, 16)])
def test_tiny_pictures_are_no_trouble(size: tuple[int, int]) -> None:
    assert tissue_on(np.full((*size, 3), 200, np.uint8), mpp=(0.5, 0.5)).shape == size


@pytest.mark.parametrize(
    ("name", "mpp", "pen", "tissue"),
    [
        ("tcga-green-pen.png", 2.0, (250, 200, 60, 150), (560, 330, 150, 200)),
        ("tcga-red-pen.png", 4.0, (60, 160, 60, 150), (220, 250, 150, 150)),
        ("wsi-blue-pen.png", 60.0, (146, 66, 25, 5), (98, 22, 12, 20)),
        ("diagnostic-slide-thumb-rgb.png", 40.0, (90, 490, 90, 6), (365, 230, 40, 30)),
    ],
)
def test_real_pen_is_dropped_and_real_tissue_kept(
    test_data: Path, name: str, mpp: float, pen: tuple[int, int, int, int], tissue: tuple[int, int, int, int]
) -> None:
    rgb = np.asarray(Image.open(test_data / "slides/thumbnails" / name).convert("RGB"))
    mask = tissue_on(rgb, mpp=(mpp, mpp))
    x, y, width, height = pen
    assert mask[y : y + height, x : x + width].mean() < 0.1
    x, y, width, height = tissue
    assert mask[y : y + height, x : x + width].mean() > 0.9


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("good/cmu-1-small-region.svs", 0.3, 0.5),
        ("odd/tcga-cr-7395-01a-01-ts1.svs", 0.55, 0.7),
        ("good/multi_frame_jpeg_camelyon_challenge_image.dcm", 0.15, 0.35),
        ("good/multi_frame_jpeg2000_camelyon_challenge_image.dcm", 0.2, 0.4),
        ("odd/small.svs", 0.0, 0.0),
    ],
)
def test_real_slides_have_about_the_tissue_that_one_sees(test_data: Path, name: str, least: float, most: float) -> None:
    with open_slide(test_data / "slides" / name, mpp=0.5 if "tcga" in name else None) as slide:
        longer_um = max(side * mpp for side, mpp in zip(slide.size_l0, slide.mpp, strict=True))
        rgb, downsample = slide.overview(max_px=max(64, round(longer_um / 8)))
        mask = tissue_on(rgb, mpp=(slide.mpp[0] * downsample[0], slide.mpp[1] * downsample[1]))
    assert least <= mask.mean() <= most
