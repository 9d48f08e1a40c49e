"""Every aggregator goes the whole way: trained, predicted, drawn, and refused where its map would not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from exported import EXPORTS, SHOWN, exported_alike
from studies import open_work, run_stage

from wsi_mil.heatmaps import heatmap_from_hdf5
from wsi_mil.models import MODELS
from wsi_mil.stages import Work

SHOW = (f"heatmap.export=[{EXPORTS}]", "heatmap.channel=alone", "heatmap.of=lesion", "heatmap.scale=rank")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(MODELS) - {"lca_db"}))  # two scales: see test_models_real.py
def test_a_model_goes_the_whole_way(name: str, cohort: Path, copy_of: Callable[..., Work]) -> None:
    work = copy_of("tissue", "tile", "extract", "split")
    work = open_work(cohort, work.root, f"model={{name: {name}}}", "train.epochs=1")
    for stage in ("train", "predict", "heatmap"):
        outcomes = run_stage(work, stage)
        assert {one.kind for one in outcomes} == {"made"}, [one.why for one in outcomes]
    folder = work.root / "heatmap" / name / "S02"
    heatmap = heatmap_from_hdf5((folder / "S02.h5").read_bytes())
    assert np.isfinite(heatmap.scores).all()
    assert set(heatmap.prediction) == {"benign", "lesion"}
    drawn = (*SHOW, "heatmap.alpha=1", f"heatmap.contours=[{SHOWN}]")
    work = open_work(cohort, work.root, f"model={{name: {name}}}", "train.epochs=1", *drawn)
    assert [one.kind for one in run_stage(work, "heatmap", redo=True, shard=(1, 12))] == ["made"]
    exported_alike(folder, heatmap, shown="alone_lesion", scale="rank")
