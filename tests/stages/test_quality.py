"""Quality of tiles through the stages: measured always, judged by thresholds, left out only when asked, always told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from shapely.geometry import MultiPolygon, shape
from studies import open_work, run_stage

from wsi_mil.bags import read_bag, read_quality
from wsi_mil.grid import TileStatus
from wsi_mil.stages import Work
from wsi_mil.stages.baselines import numbers_of
from wsi_mil.stages.features import usable
from wsi_mil.stages.quality import Quality, counts, judge, left_out
from wsi_mil.tissue import MEASURES, tissue_share


def measures(tiles: int = 6) -> dict[str, np.ndarray]:
    """Good tiles of a slide."""
    good = {"focus": 0.3, "density": 0.2, "fold": 0.3, "pen": 0.0, "edge": 0.0, "blood": 0.0, "white": 0.1}
    return {name: np.full(tiles, value, np.float32) for name, value in good.items()}


@pytest.mark.parametrize(
    ("fault", "measure", "value"),
    [
        ("blur", "focus", 0.05),
        ("pen", "pen", 0.2),
        ("fold", "fold", 0.5),
        ("edge", "edge", 0.4),
        ("blood", "blood", 0.6),
        ("white", "white", 0.95),
    ],
)
def test_each_fault_is_read_from_its_measure(fault: str, measure: str, value: float) -> None:
    told, status = measures(), np.zeros(6, np.uint8)
    told[measure][2] = told[measure][4] = value
    status[4] = TileStatus.UNREADABLE
    faults = judge(Quality(), told, status)
    assert counts(faults) == {name: int(name == fault) for name in faults}
    assert np.flatnonzero(faults[fault]).tolist() == [2]  # type: ignore[index]
    assert not left_out(Quality(), faults).any(), "by default nothing is left out"
    assert np.flatnonzero(left_out(Quality(exclude=(fault,)), faults)).tolist() == [2]  # type: ignore[arg-type]


def test_ink_is_no_fold() -> None:
    told = measures()
    told["pen"][2], told["fold"][2] = 0.5, 2.0
    faults = judge(Quality(), told, np.zeros(6, np.uint8))
    assert (int(faults["pen"].sum()), int(faults["fold"].sum())) == (1, 0)


def test_white_tiles_are_not_blurred_and_do_not_say_how_dense_the_tissue_is() -> None:
    told, status = measures(), np.zeros(6, np.uint8)
    told["white"][:4], told["focus"][:4], told["density"][:4] = 0.8, 0.0, 0.01
    assert not any(tiles.any() for tiles in judge(Quality(), told, status).values())
    told["white"][:] = 0.8
    assert not any(tiles.any() for tiles in judge(Quality(), told, status).values())


def test_every_bag_holds_every_measure_and_its_faults_are_counted(finished: Work) -> None:
    for path in sorted((finished.root / "extract" / "offline").glob("*.h5")):
        bag = read_bag(path)
        assert set(bag.quality) == set(MEASURES)
        record = json.loads((path.parent / ".made" / f"{path.stem}.json").read_text())
        assert record["facts"]["faults"] == counts(judge(Quality(), bag.quality, bag.status))
        assert record["facts"]["left_out"] == 0
        assert bag.usable.all()


def _pen_share(cohort: Path, slide: str, work: Work) -> np.ndarray:
    """Share of each tile of a slide's bag that is truly pen."""
    told = json.loads((cohort / "cohort" / "truth" / f"{slide}.geojson").read_text())["features"]
    pens = [shape(one["geometry"]) for one in told if one["properties"]["classification"]["name"] == "Pen"]
    grid, _, _ = read_quality(work.root / "extract" / "offline" / f"{slide}.h5")
    return tissue_share(MultiPolygon(shapely.get_parts(pens).tolist()), grid.coords_l0, grid.extent_l0)


def test_tiles_of_ink_are_left_out_when_asked(cohort: Path, tmp_path: Path) -> None:
    settings = ["tissue.method=none", "tile.min_tissue=0", "extract.quality={exclude: [pen, white], max_white: 0.99}"]
    work = open_work(cohort, tmp_path / "work", *settings)
    for name in ("tissue", "tile", "extract"):
        outcomes = {one.item: one for one in run_stage(work, name, shard=(0, 4))}
        assert {one.kind for one in outcomes.values()} == {"made"}
    inked = 0
    for slide, outcome in outcomes.items():
        bag = read_bag(work.root / "extract" / "offline" / f"{slide}.h5")
        pen = _pen_share(cohort, slide, work)
        red = bag.quality["blood"] > 0.2
        out = bag.status == TileStatus.EXCLUDED
        assert out[(pen > 0.5) & ~red].all(), slide
        assert not out[(pen == 0) & (bag.quality["white"] < 0.9)].any(), slide
        assert outcome.facts["left_out"] == out.sum() > 0
        assert np.abs(bag.features[out]).sum() > 0, "features are kept"
        features, _ = usable(bag)
        assert len(features) == (~out).sum()
        inked += int(((pen > 0.5) & ~red).sum())
    assert inked > 10


def test_baselines_of_a_bag_without_colours_are_those_that_need_none(finished: Work) -> None:
    bag = read_bag(finished.root / "extract" / "offline" / "S02.h5")
    whole, bare = numbers_of(bag), numbers_of(replace(bag, quality={}))
    assert set(whole.by_baseline) - set(bare.by_baseline) == {"mean colour", "colour mean and spread"}
    for name, values in bare.by_baseline.items():
        np.testing.assert_array_equal(values, whole.by_baseline[name])
    assert bare.tile_rgb.shape == (len(bag), 0)


def test_a_slide_with_no_tile_left_is_empty_and_says_why(cohort: Path, tmp_path: Path) -> None:
    work = open_work(
        cohort, tmp_path / "work", "extract.quality={exclude: [blur, white], min_focus: 1000, max_white: 0}"
    )
    for name in ("tissue", "tile", "extract"):
        outcomes = run_stage(work, name, shard=(0, 6))
    assert {one.kind for one in outcomes} <= {"empty", "made"}
    empty = [one for one in outcomes if one.kind == "empty"]
    assert empty
    assert "tiles are left out for their quality (blur" in empty[0].why
    assert "extract.quality" in empty[0].why


def test_the_report_tells_faults_and_shows_the_worst_tiles(finished: Work, copy_of: Callable[..., Work]) -> None:
    page = (finished.root / "report" / "index.html").read_text()
    assert "Quality of the tiles" in page
    assert "Left out of training" in page
    work = copy_of("tissue", "tile", "extract")
    from wsi_mil.stages.faults import faults

    part = faults(work, 4)
    assert part.tables[0].rows[0][0] == "all slides"
    assert len(part.tables[0].rows) == 13
    flagged = [
        name
        for name, cell in zip(part.tables[0].headers[2:-1], part.tables[0].rows[0][2:-1], strict=True)
        if cell != "0"
    ]
    assert [picture.caption.split(":")[0] for picture in part.pictures] == flagged
    assert flagged, "the cohort has ink and folds"
    assert not faults(work, 0).pictures
