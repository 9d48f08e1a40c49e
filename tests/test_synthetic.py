"""The synthetic cohort: slides that open, ground truth that lies where it says, and no way round the texture."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from PIL import Image
from shapely.geometry import MultiPolygon, shape

from wsi_mil.errors import ConfigError
from wsi_mil.slides import Slide, open_slide
from wsi_mil.synthetic import LABELS, draw_cohort
from wsi_mil.synthetic.labels import OUTCOMES
from wsi_mil.tissue import find_tissue, mask_to_outline

SIDE_PX = (1100, 1400)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve slides: each pair of label and site with pen, with a fold and with neither."""
    return draw_cohort(tmp_path_factory.mktemp("cohort"), slides=12, seed=3, side_px=SIDE_PX).parent


def rows(cohort: Path) -> list[dict[str, str]]:
    with (cohort / "cohort.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def truth(cohort: Path, slide: str) -> dict[str, MultiPolygon]:
    areas: dict[str, list[Any]] = {}
    for feature in json.loads((cohort / "truth" / f"{slide}.geojson").read_text())["features"]:
        assert len(feature["properties"]["classification"]["color"]) == 3, "QuPath opens no class without a colour"
        areas.setdefault(feature["properties"]["classification"]["name"], []).append(shape(feature["geometry"]))
    return {name: shapely.union_all(parts) for name, parts in areas.items()}


def opened(cohort: Path, slide: str) -> Slide:
    return open_slide(cohort / "slides" / f"{slide}.tiff")


def whole(slide: Slide) -> np.ndarray:
    return slide.read_level((0, 0, *slide.size_l0), level=0)


def cover(area: Any, slide: Slide) -> np.ndarray:
    y, x = np.mgrid[: slide.size_l0[1], : slide.size_l0[0]]
    shapely.prepare(area)
    return np.asarray(shapely.contains_xy(area, x + 0.5, y + 0.5))


def test_the_table_is_balanced_and_patients_keep_one_label(cohort: Path) -> None:
    table = rows(cohort)
    assert list(table[0])[:4] == ["slide", "patient", "label", "site"]
    assert len({row["slide"] for row in table}) == 12
    assert Counter(row["label"] for row in table) == dict.fromkeys(LABELS, 6)
    of_patient: dict[str, set[tuple[str, str]]] = {}
    for row in table:
        of_patient.setdefault(row["patient"], set()).add((row["label"], row["site"]))
    assert all(len(kinds) == 1 for kinds in of_patient.values())
    assert max(Counter(row["patient"] for row in table).values()) == 2


def test_the_default_cohort_is_balanced_over_sites_too() -> None:
    from wsi_mil.synthetic.cohort import _rows

    cells = Counter((row["label"], row["site"]) for row in _rows(24))
    assert set(cells.values()) == {6}
    assert len(cells) == 4


def test_openslide_sees_a_pyramid_with_a_scale(cohort: Path) -> None:
    for row in rows(cohort):
        with opened(cohort, row["slide"]) as slide:
            assert slide.mpp == pytest.approx((0.5, 0.5))
            assert slide.mpp_source == "metadata"
            assert [round(level.downsample[0]) for level in slide.levels] == [1, 4, 16]
            assert SIDE_PX[0] <= min(slide.size_l0) <= max(slide.size_l0) <= SIDE_PX[1]


def test_levels_show_the_same_place(cohort: Path) -> None:
    with opened(cohort, "S01") as slide:
        for number, level in enumerate(slide.levels[1:], start=1):
            plane = slide.read_level((0, 0, level.width, level.height), level=number).astype(int)
            want = np.asarray(
                Image.fromarray(whole(slide)).resize((level.width, level.height), Image.Resampling.BICUBIC)
            )

            def off(dx: int, plane: np.ndarray = plane, want: np.ndarray = want) -> float:
                return float(np.abs(np.roll(plane, dx, axis=1)[:, 2:-2] - want[:, 2:-2]).mean())

            assert off(0) < 0.75 * min(off(1), off(-1))


def test_only_positive_slides_have_lesions_and_of_the_right_size(cohort: Path) -> None:
    for row in rows(cohort):
        areas = truth(cohort, row["slide"])
        assert ("Lesion" in areas) == (row["label"] == "lesion")
        if "Lesion" in areas:
            assert 0.02 <= areas["Lesion"].area / areas["Tissue"].area <= 0.15
            assert areas["Lesion"].difference(areas["Tissue"].buffer(0.1)).area < 1


def test_pen_and_fold_tell_neither_label_nor_site(cohort: Path) -> None:
    for name in ("Pen", "Fold"):
        with_it = Counter((row["label"], row["site"]) for row in rows(cohort) if name in truth(cohort, row["slide"]))
        assert len(with_it) == 4


def test_truth_lies_where_the_tissue_is(cohort: Path) -> None:
    for name in ("S01", "S05", "S12"):
        areas = truth(cohort, name)
        with opened(cohort, name) as slide:
            rgb = whole(slide)
            tissue = cover(areas["Tissue"].difference(areas.get("Pen", MultiPolygon()).buffer(5)), slide)
        grey = rgb.mean(axis=2)
        glass = ~tissue & ~cover(shapely.union_all(list(areas.values())).buffer(20), slide)
        assert np.median(grey[tissue]) < 200
        assert np.median(grey[glass]) > 235


def test_the_lesion_has_the_colour_of_its_surroundings_and_another_texture(cohort: Path) -> None:
    for row in rows(cohort):
        areas = truth(cohort, row["slide"])
        if "Lesion" not in areas:
            continue
        with opened(cohort, row["slide"]) as slide:
            rgb = whole(slide).astype(float)
            lesion = cover(areas["Lesion"].buffer(-6), slide)
            around = areas["Tissue"].difference(areas["Lesion"].buffer(6))
            for name in ("Pen", "Fold"):
                around = around.difference(areas.get(name, MultiPolygon()).buffer(8))
            rest = cover(around.buffer(-6), slide)
        difference = np.abs(rgb[lesion].mean(axis=0) - rgb[rest].mean(axis=0))
        assert difference.max() < 0.25 * rgb[rest].std(axis=0).max()
        # Nuclei of a lesion are wide and pale within: fewer pixels are dark, and more of the dark ones lie together.
        dark = rgb[..., 0] < np.quantile(rgb[rest][:, 0], 0.05)
        assert dark[lesion].mean() < 0.6 * dark[rest].mean()


def test_the_tissue_is_found_and_the_pen_is_not(tmp_path: Path) -> None:
    """With everything as it is by default, on slides of the demo's kind: at least .95 on each of them."""
    draw_cohort(tmp_path, slides=8, seed=0, side_px=(2600, 3200))
    scores, pens = [], 0
    for row in rows(tmp_path):
        areas = truth(tmp_path, row["slide"])
        with opened(tmp_path, row["slide"]) as slide:
            rgb, downsample = slide.overview(max_px=round(max(slide.size_l0) / 16))
            mpp = slide.mpp[0] * downsample[0], slide.mpp[1] * downsample[1]
        found = mask_to_outline(find_tissue(rgb, mpp=mpp).mask, downsample)
        pen = areas.get("Pen", MultiPolygon())
        want = areas["Tissue"].difference(pen)
        scores.append(found.intersection(want).area / found.union(want).area)
        pens += not pen.is_empty
        assert found.intersection(pen).area <= 0.005 * max(pen.area, 1)
    assert min(scores) >= 0.95
    assert np.mean(scores) >= 0.97
    assert pens >= 3


def test_the_same_seed_draws_the_same_cohort_and_another_does_not(tmp_path: Path) -> None:
    files = {}
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        draw_cohort(tmp_path / name, slides=2, seed=seed, side_px=(800, 820))
        files[name] = [path.read_bytes() for path in sorted((tmp_path / name).rglob("*")) if path.is_file()]
    assert files["a"] == files["b"]
    assert files["a"] != files["c"]


@pytest.mark.parametrize("side_px", [(100, 200), (2000, 1500)])
def test_sides_that_hold_no_slide_are_refused(tmp_path: Path, side_px: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="800 px"):
        draw_cohort(tmp_path, slides=1, side_px=side_px)
    assert not list(tmp_path.iterdir())


def test_every_question_has_its_labels(cohort: Path) -> None:
    table = rows(cohort)
    by_patient: dict[str, set[tuple[str, ...]]] = {}
    for row in table:
        by_patient.setdefault(row["patient"], set()).add(tuple(row[name] for name in OUTCOMES))
        assert (row["lesion"] == "1") == (row["label"] == LABELS[1])
        assert (row["grade"] == "0") == (row["lesion"] == "0")
        assert row["extensive"] in ("", str(int(float(row["lesion_percent"]) > 8)))
        assert row["dense"] in ("0", "1", "")
        assert float(row["months"]) > 0
    assert all(len(told) == 1 for told in by_patient.values())
    alone = [row for row in table if sum(other["patient"] == row["patient"] for other in table) == 1]
    for row in alone:
        areas = truth(cohort, row["slide"])
        share = areas["Lesion"].area / areas["Tissue"].area if "Lesion" in areas else 0.0
        assert float(row["lesion_percent"]) == pytest.approx(100 * share, abs=0.02)
    assert {row["died"] for row in table} == {"0", "1"}
    assert len({row["grade"] for row in table}) >= 3
