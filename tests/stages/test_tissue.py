"""The tissue stage by each method, and tiles limited to regions: what a person gives, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import torch
from PIL import Image
from safetensors.torch import save_file
from shapely.geometry import box, mapping
from studies import open_work, run_stage

from wsi_mil.bags import read_grid
from wsi_mil.errors import StageError
from wsi_mil.stages import Outcome, Work
from wsi_mil.tissue import outline_from_geojson
from wsi_mil.tissue.network import UNet

SLIDES = [f"S{number:02d}" for number in range(1, 13)]


def draw(path: Path, *boxes: tuple[float, float, float, float]) -> None:
    features = [{"type": "Feature", "geometry": mapping(box(*one)), "properties": {}} for one in boxes]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def outcomes(work: Work, name: str, **options: Any) -> dict[str, Outcome]:
    return {one.item: one for one in run_stage(work, name, **options)}


def outline(work: Work, slide: str) -> Any:
    path = work.root / "tissue" / f"{slide}.geojson"
    return outline_from_geojson(path.read_text(), where=path.name)


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """A box for each slide but the last; that of S02 reaches over the slide's edge, that of S03 lies beside it."""
    for slide in SLIDES[:-1]:
        draw(tmp_path / "drawn" / f"{slide}.geojson", (100, 200, 500, 600))
    draw(tmp_path / "drawn" / "S02.geojson", (-500, -500, 300, 300), (400, 400, 500, 500))
    draw(tmp_path / "drawn" / "S03.geojson", (50_000, 0, 60_000, 100))
    return tmp_path / "drawn"


def test_outlines_of_yours_are_taken_and_cut_to_the_slide(cohort: Path, drawn: Path, tmp_path: Path) -> None:
    work = open_work(cohort, tmp_path / "work", "tissue.method=geojson", f"tissue.outlines={drawn}")
    told = outcomes(work, "tissue")
    assert told["S01"].kind == "made"
    assert outline(work, "S01").equals(box(100, 200, 500, 600))
    assert outline(work, "S02").area == pytest.approx(300 * 300 + 100 * 100)
    assert told["S01"].facts["steps"] == "geojson"
    assert told["S03"].kind == "failed"
    assert "lies outside the" in told["S03"].why
    assert "level-0 pixels" in told["S03"].why
    assert told["S12"].kind == "failed"
    assert "nothing for slide 'S12'" in told["S12"].why
    assert "S12.geojson" in told["S12"].why
    draw(drawn / "S01.geojson", (100, 200, 400, 600))
    again = outcomes(work, "tissue")
    assert (again["S01"].kind, again["S04"].kind) == ("made", "found")
    assert outline(work, "S01").bounds == (100, 200, 400, 600)


def test_a_path_with_the_slides_name_in_it_and_one_file_for_many(cohort: Path, drawn: Path, tmp_path: Path) -> None:
    where = str(drawn / "{slide}.geojson")
    work = open_work(cohort, tmp_path / "one", "tissue.method=geojson", f"tissue.outlines='{where}'")
    assert outcomes(work, "tissue")["S05"].kind == "made"
    work = open_work(cohort, tmp_path / "two", "tissue.method=geojson", f"tissue.outlines={drawn / 'S01.geojson'}")
    told = outcomes(work, "tissue")
    assert {one.kind for one in told.values()} == {"failed"}
    assert "one file, S01.geojson, for 12 slides" in told["S01"].why


def test_a_method_without_its_file_is_refused_before_any_work(cohort: Path, tmp_path: Path) -> None:
    for method, field in (("geojson", "outlines"), ("model", "weights")):
        work = open_work(cohort, tmp_path / method, f"tissue.method={method}")
        with pytest.raises(StageError, match=rf"say in tissue\.{field}"):
            run_stage(work, "tissue")


def test_a_network_finds_what_it_finds_at_its_own_scale(cohort: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = UNet(classes=2, widths=(4, 8))
    # Biased so that everything is tissue: random weights give no certain answer.
    torch.nn.init.constant_(module.head.bias, 0)
    module.head.bias.data += torch.tensor([50.0, -50.0])
    header = {"architecture": "unet", "arguments": {"widths": [4, 8]}, "mpp": 10.0, "patch_px": 64}
    header |= {"classes": ["tissue", "background"], "tissue": ["tissue"]}
    path = tmp_path / "net.safetensors"
    save_file(module.state_dict(), path, metadata={"wsi_mil": json.dumps(header)})
    work = open_work(cohort, tmp_path / "work", "tissue.method=model", f"tissue.weights={path}")
    told = outcomes(work, "tissue")
    assert {one.kind for one in told.values()} == {"made"}, told
    assert told["S01"].facts["tissue_mm2"] == pytest.approx(told["S01"].facts["slide_mm2"], rel=0.01)
    assert "segmented" in told["S01"].facts["steps"]
    header["tissue"] = ["background"]
    save_file(module.state_dict(), path, metadata={"wsi_mil": json.dumps(header)})
    told = outcomes(work, "tissue")
    assert {one.kind for one in told.values()} == {"empty"}, "another network makes the outlines stale"
    assert "no tissue found (segmented 0 um2)" in told["S01"].why


@pytest.mark.parametrize("settings", [["tissue.method=hsv"], ["tissue.method=hsv", "tissue.saturation=0"]])
def test_clam_s_recipe_finds_about_the_same_tissue(
    cohort: Path, finished: Work, tmp_path: Path, settings: list[str]
) -> None:
    work = open_work(cohort, tmp_path / "work", *settings)
    assert {one.kind for one in outcomes(work, "tissue").values()} == {"made"}
    ours, theirs = outline(finished, "S02"), outline(work, "S02")
    assert ours.intersection(theirs).area / shapely.union(ours, theirs).area > 0.85


def test_when_everything_is_dropped_it_says_what_dropped_it(cohort: Path, tmp_path: Path) -> None:
    work = open_work(cohort, tmp_path / "work", "tissue.min_area_um2=1e9")
    told = outcomes(work, "tissue")["S02"]
    assert told.kind == "empty"
    assert "stained 0." in told.why
    assert "pieces under 1,000 mm2 took" in told.why
    assert "draw an outline" in told.why
    assert (work.root / "tissue" / "S02.png").exists()


def test_the_thumbnail_is_as_large_as_asked_for(cohort: Path, tmp_path: Path) -> None:
    for side in (80, 1000):
        work = open_work(cohort, tmp_path / str(side), f"tissue.thumbnail_px={side}")
        outcomes(work, "tissue", shard=(0, 12))
        picture = Image.open(work.root / "tissue" / "S01.png")
        assert max(picture.size) == side
        green = (np.asarray(picture.convert("RGB")) == (0, 160, 70)).all(axis=2)
        assert green.any()


def test_tiles_stay_within_the_regions(cohort: Path, finished: Work, drawn: Path, tmp_path: Path) -> None:
    draw(drawn / "S04.geojson", (0, 0, 5, 5))
    work = open_work(cohort, tmp_path / "work", f"tile.within={drawn}", "tile.min_tissue=0.5")
    outcomes(work, "tissue")
    told = outcomes(work, "tile")
    grid, whole = (read_grid(one.root / "tile" / "S01.h5") for one in (work, finished))
    region = outline(work, "S01").intersection(box(100, 200, 500, 600))
    kept = set(map(tuple, grid.coords_l0.tolist()))
    for (x, y), share in zip(whole.coords_l0.tolist(), whole.tissue.tolist(), strict=True):
        inside = region.intersection(box(x, y, x + whole.extent_l0[0], y + whole.extent_l0[1])).area
        assert ((x, y) in kept) == (min(inside / np.prod(whole.extent_l0), share) >= 0.5)
    assert 0 < len(kept) < len(whole)
    assert told["S04"].kind == "empty"
    assert "within the regions of tile.within" in told["S04"].why
    assert told["S12"].kind == "failed"
    assert "tile.within has nothing for slide 'S12'" in told["S12"].why


def test_regions_and_a_table_together_are_refused(cohort: Path, drawn: Path, tmp_path: Path) -> None:
    table = tmp_path / "tiles.csv"
    table.write_text("slide,x,y\nS01,0,0\n")
    work = open_work(cohort, tmp_path / "work", f"tile.within={drawn}", f"tile.table={table}")
    with pytest.raises(StageError, match=r"tile\.within and tile\.table are both given"):
        run_stage(work, "tile")
