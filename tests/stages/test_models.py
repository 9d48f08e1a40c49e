"""Every aggregator goes the whole way: trained, predicted, drawn, and refused where its map would not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import tifffile
from studies import open_work, run_stage

from wsi_mil.heatmaps import Heatmap, heatmap_from_hdf5
from wsi_mil.models import MODELS
from wsi_mil.stages import Work

EXPORTS = "png, geojson, contours, tiff, ome_tiff, deepzoom, csv, parquet"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(MODELS) - {"lca_db"}))  # reads two scales: see test_beside.py
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
    work = open_work(cohort, work.root, f"model={{name: {name}}}", "train.epochs=1", f"heatmap.export=[{EXPORTS}]")
    assert [one.kind for one in run_stage(work, "heatmap", redo=True, shard=(1, 12))] == ["made"]
    exported_alike(folder, heatmap)


def exported_alike(folder: Path, heatmap: Heatmap) -> None:
    """Every export is there, has every channel, and its highest tile where the raw scores have it."""
    best = heatmap.scores.argmax(axis=0)
    table = pd.read_csv(folder / "S02.csv")
    pd.testing.assert_frame_equal(table, pd.read_parquet(folder / "S02.parquet"), check_dtype=False)
    tiles = json.loads((folder / "S02.geojson").read_text())["features"]
    with tifffile.TiffFile(folder / "S02.ome.tiff") as tiff:
        planes = tiff.series[0].levels[0].asarray()
        pixels = next(one for one in ElementTree.fromstring(tiff.ome_metadata).iter() if one.tag.endswith("}Pixels"))
        per_px = float(pixels.attrib["PhysicalSizeX"]) / heatmap.slide.mpp[0]
    assert len(planes) >= len(heatmap.channels)
    for number, channel in enumerate(heatmap.channels):
        row = best[number]
        place, score = heatmap.grid.coords_l0[row], heatmap.scores[row, number]
        assert table.loc[row, ["x_l0", "y_l0"]].tolist() == place.tolist()
        assert table.loc[row, channel] == pytest.approx(score, rel=1e-5)
        x, y = (place + np.array(heatmap.grid.extent_l0) / 2) / per_px
        assert planes[number][int(y), int(x)] == pytest.approx(score, rel=1e-5)
        highest = max(tile["properties"]["measurements"][channel] for tile in tiles)
        there = [tile for tile in tiles if np.abs(np.min(tile["geometry"]["coordinates"][0], axis=0) - place).max() < 1]
        assert [tile["properties"]["measurements"][channel] for tile in there] == [highest]
    for path in ("S02.png", "S02.tiff", "S02.dzi", "S02.contours.geojson"):
        assert (folder / path).stat().st_size > 100
