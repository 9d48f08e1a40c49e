"""Exports asked for in a study: the files that were named, all of them, and no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from studies import open_work, run_stage

from wsi_mil.errors import ConfigError
from wsi_mil.stages import Work
from wsi_mil.stages.exports import Export

FILES = {
    "png": "S02.png",
    "geojson": "S02.geojson",
    "contours": "S02.contours.geojson",
    "tiff": "S02.tiff",
    "ome_tiff": "S02.ome.tiff",
    "deepzoom": "S02.dzi",
    "deepzoom_jpeg": "S02.jpeg.dzi",
    "csv": "S02.csv",
    "parquet": "S02.parquet",
    "h5ad": "S02.h5ad",
}


def exported(copy_of: Callable[..., Work], cohort: Path, names: str) -> set[str]:
    """Names in the folder of S02 after its heatmap was made."""
    root = copy_of("tissue", "tile", "extract", "split", "train", "predict").root
    work = open_work(cohort, root, f"heatmap.export=[{names}]", "heatmap.contours=[0.05, 0.2]")
    assert [one.kind for one in run_stage(work, "heatmap", shard=(1, 12))] == ["made"]
    return {path.name for path in (root / "heatmap" / "abmil" / "S02").iterdir()}


def test_every_export_is_known() -> None:
    assert set(FILES) == set(get_args(Export))


def test_every_export_is_written(copy_of: Callable[..., Work], cohort: Path) -> None:
    names = [name for name in FILES if name != "h5ad"]
    found = exported(copy_of, cohort, ", ".join(names))
    assert found == {FILES[name] for name in names} | {"S02.h5", "S02_files", "S02.jpeg_files"}


def test_anndata_is_written(copy_of: Callable[..., Work], cohort: Path) -> None:
    pytest.importorskip("anndata")
    assert exported(copy_of, cohort, "h5ad") == {"S02.h5", "S02.h5ad"}


def test_nothing_but_the_raw_scores_may_be_asked_for(copy_of: Callable[..., Work], cohort: Path) -> None:
    assert exported(copy_of, cohort, "") == {"S02.h5"}


def test_an_unknown_export_is_refused(cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="export"):
        open_work(cohort, tmp_path, "heatmap.export=[geojsn]")
