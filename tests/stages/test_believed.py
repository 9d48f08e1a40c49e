"""Measuring heatmaps: every map and baseline, with and without a truth, in a table, two files and the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from studies import open_work, run_stage

from wsi_mil.errors import CohortError, StageError
from wsi_mil.heatmaps import heatmap_from_hdf5
from wsi_mil.stages import Work, believe
from wsi_mil.stages.faithful import channels_of, judge_maps
from wsi_mil.stages.truth import Truth

ALL = ("tissue", "tile", "extract", "split", "train", "predict", "calibrate", "heatmap")
BASELINES = {"distance from the tissue's centre", "darkness", "colour, logistic regression"}
MAPS = {"contribution_lesion", "alone_lesion", "attention", "attention_logit", "novelty"}


def test_everything_is_measured_and_told(copy_of: Callable[..., Work], cohort: Path) -> None:
    work = copy_of(*ALL)
    done: list[int] = []
    headers, rows, paths = believe(
        work,
        cohort / "cohort/truth",
        truth_of="Lesion",
        draws=100,
        command="THE COMMAND",
        tick=lambda number, total: done.append(number),
    )
    assert done == list(range(12))
    assert {row[0] for row in rows} == MAPS | BASELINES
    assert headers[-1] == "FROC score"
    told = {one["map"]: one for one in json.loads(paths[0].read_text())["maps"]}
    table = pd.read_csv(paths[1])
    assert len(table) == 12 * len(told)
    one = told["contribution_lesion"]
    assert one["slides"] == 12
    assert one["deletion"]["value"] == pytest.approx(table["deletion"][table["map"] == one["map"]].mean(), rel=1e-4)
    assert one["auroc"]["slides"] < 12  # slides without a lesion have no answer
    # what the model adds up orders its tiles better than what knows nothing of the model
    for other in BASELINES:
        assert one["deletion"]["value"] + one["insertion"]["value"] >= (
            told[other]["deletion"]["value"] + told[other]["insertion"]["value"] + 0.01
        )
    assert one["deletion"]["low"] > 0
    # what is relative to its slide is not pooled
    assert {name for name, one in told.items() if "froc" in one} == {
        "contribution_lesion",
        "alone_lesion",
        "attention_logit",
        "novelty",
        "darkness",
        "colour, logistic regression",
    }
    assert "random_weights" not in told["darkness"]
    assert 0 <= one["random_weights"]["value"] <= 1
    run_stage(work, "report")
    page = (work.root / "report/index.html").read_text()
    assert "Faithfulness of the heatmaps" in page
    assert "made by: THE COMMAND" in page
    assert "run it again" not in page
    # maps of another making: the table is not theirs
    record = work.root / "heatmap/abmil/.made/S02.json"
    changed = json.loads(record.read_text())
    record.write_text(json.dumps({**changed, "inputs": "other"}))
    run_stage(work, "report", redo=True)
    assert "run it again" in (work.root / "report/index.html").read_text()


def test_maps_are_held_against_the_model_without_a_truth(copy_of: Callable[..., Work]) -> None:
    work = copy_of(*ALL)
    for slide in [f"S{number:02}" for number in range(3, 13)]:
        (work.root / f"heatmap/abmil/{slide}/{slide}.h5").unlink()
    headers, rows, _ = believe(work, None, draws=100)
    assert headers == ["map", "deletion gain", "insertion gain", "rank correlation with random weights"]
    assert {row[0] for row in rows} == MAPS | BASELINES


def test_without_a_map_there_is_nothing_to_measure(copy_of: Callable[..., Work]) -> None:
    with pytest.raises(StageError, match="holds no map"):
        believe(copy_of(*ALL[:-1]), None)


def test_a_single_file_is_the_truth_of_its_slide(finished: Work, cohort: Path, tmp_path: Path) -> None:
    found = sorted((cohort / "cohort/truth").glob("*.geojson"))
    single = Truth(found[0])
    folder = Truth(cohort / "cohort/truth")
    slide = found[0].stem
    heatmaps = {
        name: heatmap_from_hdf5((finished.root / f"heatmap/abmil/{name}/{name}.h5").read_bytes())
        for name in (slide, "S12" if slide != "S12" else "S01")
    }
    own, other = (single.tiles(one.grid) for one in heatmaps.values())
    np.testing.assert_array_equal(own[0], folder.tiles(heatmaps[slide].grid)[0])  # type: ignore[index]
    assert other is None
    with pytest.raises(CohortError, match="is not there"):
        Truth(tmp_path / "nowhere")


def test_truth_is_read_in_every_form_that_qupath_writes(finished: Work, cohort: Path, tmp_path: Path) -> None:
    slide = "S02"
    grid = heatmap_from_hdf5((finished.root / f"heatmap/abmil/{slide}/{slide}.h5").read_bytes()).grid
    source = cohort / "cohort/truth" / f"{slide}.geojson"
    expected = Truth(source, of="Tissue").tiles(grid)
    features = json.loads(source.read_text())["features"]
    derived = json.loads(source.read_text().replace('"name": "Tissue"', '"names": ["Tissue", "Seen"]'))
    assert expected is not None
    assert expected[0].any()
    for told, name in ((features, "Tissue"), (derived, "Tissue: Seen"), (features[0], "Tissue")):
        (tmp_path / f"{slide}.geojson").write_text(json.dumps(told))
        found = Truth(tmp_path, of=name).tiles(grid)
        assert found is not None
        np.testing.assert_array_equal(found[0], expected[0])
    (tmp_path / f"{slide}.geojson").write_text("no JSON")
    with pytest.raises(CohortError, match="is no GeoJSON"):
        Truth(tmp_path, of="Tissue").tiles(grid)


def test_channels_of_one_answer(finished: Work) -> None:
    heatmap = heatmap_from_hdf5((finished.root / "heatmap/abmil/S02/S02.h5").read_bytes())
    assert set(channels_of(heatmap, "lesion")) == MAPS
    assert "contribution_lesion" not in channels_of(heatmap, "benign")


def test_a_patients_other_slides_stay_where_they_are(copy_of: Callable[..., Work], cohort: Path) -> None:
    root = copy_of("tissue", "tile", "extract", "split").root
    work = open_work(cohort, root, "model.bag_of=patient", "train.epochs=1", "heatmap.export=[]")
    for name in ("split", "train", "predict"):
        assert {one.kind for one in run_stage(work, name, redo=True)} == {"made"}
    run_stage(work, "heatmap", shard=(1, 12))
    judged = judge_maps(work, Truth(cohort / "cohort/truth"))
    assert set(judged.rows["slide"]) == {"S02"}
    assert np.isfinite(judged.rows["deletion"]).all()
