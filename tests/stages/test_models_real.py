"""Every aggregator on real tissue with tile-level truth: trained, predicted, and exported alike in every format."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from exported import EXPORTS, SHOWN, exported_alike, pictured_alike
from studies import run_stage

from wsi_mil.heatmaps import heatmap_from_hdf5
from wsi_mil.models import MODELS
from wsi_mil.stages import Work, load_study
from wsi_mil.stages.evaluate import evaluate
from wsi_mil.stages.truth import Truth

STUDY = """\
cohort: {{table: cohort.csv, slides: {slides}, label_of: slide}}
task: {{label: label, classes: ["0", "1"]}}
tissue: {{method: none, thumbnail_px: 200}}
tile: {{table: tiles.csv, size_px: 50, mpp: [{mpp}]}}
split: {{folds: 2, select: 0.25, where: {{kind: part}}}}
train: {{epochs: 1}}
heatmap: {{channel: alone, of: "1", scale: rank, alpha: 1, picture_px: 300, contours: [{shown}], export: [{exports}]}}
runtime: {{threads: 1, readers: 1}}
"""

PATIENTS = ["8956", "9075", "8974", "9382", "9126"]
"""Those with the most tiles; each has one slide with carcinoma and one without, 45 to 55 scattered tiles a slide."""

WHOLE, SQUARE_PX = "whole_8863", 500
"""A whole slide, where tiles have neighbours; a square round its middle is read. Models of both folds speak of it."""

Opened = Callable[[str], Work]


@pytest.fixture(scope="module")
def studied(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """A function that opens the study for a model, with bags and folds made; LCA-DB's have two scales."""
    idc, folder = test_data / "idc", tmp_path_factory.mktemp("idc")
    cohort = pd.read_csv(idc / "cohort.csv", dtype=str)
    cohort = cohort[cohort["patient"].isin(PATIENTS) | (cohort["slide"] == WHOLE)]
    cohort.to_csv(folder / "cohort.csv", index=False)
    tiles = pd.read_csv(idc / "tiles.csv")
    middle = tiles[tiles["slide"] == WHOLE][["x", "y"]].median()
    near = ((tiles[["x", "y"]] - middle).abs() < SQUARE_PX / 2).all(axis=1)
    tiles[tiles["slide"].isin(cohort["slide"]) & ((tiles["slide"] != WHOLE) | near)].to_csv(
        folder / "tiles.csv", index=False
    )
    ready: set[str] = set()

    def opened(name: str) -> Work:
        mpp = "4.0, 16.0" if name == "lca_db" else "4.0"
        study = folder / f"{mpp}.yaml"
        study.write_text(STUDY.format(slides=idc / "slides", mpp=mpp, shown=SHOWN, exports=EXPORTS))
        work = Work(folder / f"work {mpp}", load_study(study, [f"model={{name: {name}}}"]))
        work.check_cohort()
        for stage in () if mpp in ready else ("tissue", "tile", "extract", "split"):
            outcomes = run_stage(work, stage)
            assert {one.kind for one in outcomes} == {"made"}, [one.why for one in outcomes]
        ready.add(mpp)
        return work

    return opened


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_model_on_real_tissue_is_exported_alike(name: str, studied: Opened) -> None:
    work = studied(name)
    for stage in ("train", "predict"):
        outcomes = run_stage(work, stage)
        assert {one.kind for one in outcomes} == {"made"}, [one.why for one in outcomes]
    models = pd.read_csv(work.root / "predict" / name / "slides.csv").set_index("slide")["models"]
    assert len(models) == 2 * len(PATIENTS) + 1
    assert models[WHOLE] == 2
    items = [item.name for item in work.stage("heatmap").items(work)]
    part = next(item for item in items if item != WHOLE)
    for slide in (part, WHOLE):
        outcomes = run_stage(work, "heatmap", shard=(items.index(slide), len(items)))
        assert [(one.item, one.kind) for one in outcomes] == [(slide, "made")], [one.why for one in outcomes]
        folder = work.root / "heatmap" / name / slide
        heatmap = heatmap_from_hdf5((folder / f"{slide}.h5").read_bytes())
        assert np.isfinite(heatmap.scores).all()
        assert math.isclose(sum(heatmap.prediction.values()), 1, abs_tol=1e-6)
        exported_alike(folder, heatmap, shown="alone_1", scale="rank")
        if slide == part:
            pictured_alike(heatmap, set(heatmap.channels) - {"alone_1"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "judged"), [("gtp", ["attention_logit_class 1"]), ("cral", ["contribution_1", "attention_logit_class 1"])]
)
def test_maps_are_judged_by_those_of_the_last_class(name: str, judged: list[str], studied: Opened) -> None:
    """The truth is where the carcinoma is: what speaks for the other class would be judged upside down."""
    work = studied(name)
    for stage in ("train", "predict"):
        run_stage(work, stage)
    items = [item.name for item in work.stage("heatmap").items(work)]
    run_stage(work, "heatmap", shard=(items.index(WHOLE), len(items)))
    told = evaluate(work, draws=20, truth=Truth(work.root.parent / "tiles.csv"))
    assert told is not None
    for local in told.localisation.values():
        assert [channel for channel in local if "_" in channel] == judged
