"""What was drawn in the browser is read back: tissue by the stage `tissue`, regions as the truth of maps."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely
from viewer.conftest import LESION, TISSUE, Planted, draw_map

from wsi_mil.compute import executor
from wsi_mil.errors import StageError
from wsi_mil.grid import SlideRef
from wsi_mil.slides import open_slide
from wsi_mil.stages import Work, load_study, run
from wsi_mil.stages.truth import Truth
from wsi_mil.tissue import outline_from_geojson
from wsi_mil.viewer.cases import key_of
from wsi_mil.viewer.drawn import edit_tissue, save_regions

L1 = key_of("L1")
CUT = 256, 256, 1024, 1280
"""Left part of the tissue, with the lesion."""


def corners(box: tuple[int, int, int, int]) -> list[list[list[float]]]:
    left, top, right, bottom = box
    return [[[left, top], [right, top], [right, bottom], [left, bottom]]]


def outline_of(planted: Planted) -> shapely.MultiPolygon:
    path = planted.work / "tissue" / "L1.geojson"
    return outline_from_geojson(path.read_text(), where=path.name)


def test_regions_are_the_truth_of_maps(planted: Planted) -> None:
    cohort = planted.cohort()
    case = cohort.cases[L1]
    with open_slide(case.path) as slide:
        told = [{"name": "Lesion", "rings": corners(LESION)}, {"name": "Other", "rings": corners((300, 300, 500, 500))}]
        assert save_regions(cohort, case, slide, told) == 2
        grid = draw_map(SlideRef("L1", "f" * 64, slide.size_l0, (0.5, 0.5), "metadata"), model="abmil", finds=True).grid
    known = Truth(planted.work / "annotations", of="Lesion").tiles(grid)
    assert known is not None
    assert set(map(tuple, grid.coords_l0[known[0]].tolist())) == {(x, y) for x in (768, 896) for y in (512, 640)}
    written = json.loads(cohort.regions_file(case).read_text())
    assert [one["properties"]["classification"]["name"] for one in written["features"]] == ["Lesion", "Other"]
    assert all(len(one["id"]) == 36 for one in written["features"]), "QuPath wants a UUID"


def test_a_stroke_that_crosses_itself_is_one_region(planted: Planted) -> None:
    cohort = planted.cohort()
    case = cohort.cases[L1]
    ring = [[300, 300], [900, 300], [900, 900], [290, 900], [290, 310], [310, 290]]
    with open_slide(case.path) as slide:
        assert save_regions(cohort, case, slide, [{"name": "x", "rings": [ring]}]) == 1


def test_saving_no_region_removes_the_file(planted: Planted) -> None:
    cohort = planted.cohort()
    case = cohort.cases[L1]
    with open_slide(case.path) as slide:
        save_regions(cohort, case, slide, [{"name": "x", "rings": corners(LESION)}])
        assert save_regions(cohort, case, slide, []) == 0
    assert not cohort.regions_file(case).exists()


def test_tissue_is_kept_and_left_out_in_order(planted: Planted) -> None:
    cohort = planted.cohort()
    case = cohort.cases[L1]
    before = outline_of(planted)
    with open_slide(case.path) as slide:
        edits = [
            {"keep": False, "rings": corners((1024, 0, 2000, 1500))},
            {"keep": True, "rings": corners((1500, 100, 9000, 200))},
        ]
        edit_tissue(cohort, case, slide, edits)
    expected = shapely.union(shapely.box(*CUT), shapely.box(1500, 100, 2000, 200))
    assert shapely.symmetric_difference(outline_of(planted), expected).area < 1
    kept = planted.work / "annotations" / "tissue-before" / "L1.geojson"
    assert shapely.equals(outline_from_geojson(kept.read_text(), where="kept"), before)


def test_a_slide_is_never_left_without_tissue(planted: Planted) -> None:
    cohort = planted.cohort()
    case = cohort.cases[L1]
    text = cohort.outline_file(case).read_text()
    with open_slide(case.path) as slide, pytest.raises(StageError, match="no tissue left"):
        edit_tissue(cohort, case, slide, [{"keep": False, "rings": corners((0, 0, 2000, 1500))}])
    assert cohort.outline_file(case).read_text() == text


STUDY = "cohort: {{table: cohort.csv, slides: {slides}}}\n"  # without labels, of which two slides have too few
STUDY += "tissue: {{mpp: 4.0, thumbnail_px: 200{more}}}\ntile: {{mpp: 1.0, size_px: 64}}\n"


def made(planted: Planted, work: Work, name: str) -> dict[str, str]:
    work.check_cohort()
    return {one.item: one.kind for one in run(work.stage(name), work, executor("here"))}


def study_of(planted: Planted, root: str, more: str = "") -> Work:
    (planted.root / "cohort.csv").write_text("slide,patient\nL1,P1\nB1,P2\n")
    path = planted.root / "study.yaml"
    path.write_text(STUDY.format(slides=planted.root / "slides", more=more))
    return Work(planted.root / root, load_study(path))


def tiles_right_of(planted: Planted, root: str, x: int) -> int:
    import h5py

    with h5py.File(planted.root / root / "tile" / "L1.h5") as file:
        return int((np.asarray(file["coords"])[:, 0] >= x).sum())


def test_an_edited_outline_is_kept_and_what_follows_is_made_anew(planted: Planted) -> None:
    work = study_of(planted, "new")
    (planted.root / "new").mkdir()
    assert set(made(planted, work, "tissue").values()) == {"made"}
    made(planted, work, "tile")
    assert tiles_right_of(planted, "new", 1152) > 0
    cohort = Planted(planted.root).cohort()
    case = cohort.cases[L1]
    from wsi_mil.viewer import read_cases

    cohort = read_cases(planted.root / "new")
    with open_slide(case.path) as slide:
        edit_tissue(cohort, cohort.cases[L1], slide, [{"keep": False, "rings": corners((1024, 0, 2000, 1500))}])
    assert made(planted, work, "tissue") == {"L1": "found", "B1": "found"}
    assert made(planted, work, "tile") == {"L1": "made", "B1": "found"}
    assert tiles_right_of(planted, "new", 1152) == 0


def test_edited_outlines_serve_another_study_as_its_own(planted: Planted) -> None:
    cohort = planted.cohort()
    case = cohort.cases[L1]
    with open_slide(case.path) as slide:
        edit_tissue(cohort, case, slide, [{"keep": False, "rings": corners((1024, 0, 2000, 1500))}])
    folder = planted.work / "tissue"
    work = study_of(planted, "other", more=f", method: geojson, outlines: {folder}")
    (planted.root / "other").mkdir()
    assert set(made(planted, work, "tissue").values()) == {"made"}
    path = planted.root / "other" / "tissue" / "L1.geojson"
    outline = outline_from_geojson(path.read_text(), where="other")
    assert outline.bounds == CUT
    assert TISSUE[2] > CUT[2]
