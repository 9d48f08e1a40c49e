"""Tables of the tiles: every number comes back, nothing is made up, and each file says what it is of."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest

from wsi_mil.errors import MissingExtra, StageError
from wsi_mil.heatmaps import Heatmap, heatmap_to_csv, heatmap_to_h5ad, heatmap_to_parquet

COLUMNS = ["slide", "x_l0", "y_l0", "width_l0", "height_l0", "tissue", "attention", "contribution_tumour"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_every_number_comes_back(make: Callable[..., Heatmap], kind: str) -> None:
    heatmap = make(tiles=300)
    heatmap.scores[2, 0] = np.nan
    heatmap.scores[3] = 1e-30, -3e30
    if kind == "csv":
        table = pd.read_csv(io.BytesIO(heatmap_to_csv(heatmap)))
    else:
        table = pd.read_parquet(io.BytesIO(heatmap_to_parquet(heatmap)))
    assert list(table.columns) == COLUMNS
    assert (table["slide"] == "A1").all()
    np.testing.assert_array_equal(table[["x_l0", "y_l0"]], heatmap.grid.coords_l0)
    np.testing.assert_array_equal(table[["width_l0", "height_l0"]], np.tile(heatmap.grid.extent_l0, (300, 1)))
    np.testing.assert_array_equal(table[list(heatmap.channels)].astype(np.float32), heatmap.scores)
    np.testing.assert_array_equal(table["tissue"], heatmap.grid.tissue)


def test_parquet_says_what_it_is_of(make: Callable[..., Heatmap]) -> None:
    schema = pyarrow.parquet.read_schema(io.BytesIO(heatmap_to_parquet(make(tiles=3))))
    told = json.loads(schema.metadata[b"wsi_mil"])
    assert (told["slide"], told["model"], told["prediction"]) == ("A1", "abmil", {"tumour": 0.83, "normal": 0.17})
    assert told["slide_mpp"] == [0.499, 0.4571]


def test_a_channel_named_like_a_column_is_refused(make: Callable[..., Heatmap]) -> None:
    heatmap = dataclasses.replace(make(tiles=3), channels=("tissue", "b"), kinds={})
    with pytest.raises(StageError, match="no channel of a table may be named 'tissue'"):
        heatmap_to_csv(heatmap)


def test_no_tiles_make_a_table_of_columns(make: Callable[..., Heatmap]) -> None:
    heatmap = make(tiles=3)
    none = dataclasses.replace(heatmap, grid=heatmap.grid.take(np.arange(0)), scores=heatmap.scores[:0])
    assert list(pd.read_csv(io.BytesIO(heatmap_to_csv(none))).columns) == COLUMNS
    assert len(pd.read_parquet(io.BytesIO(heatmap_to_parquet(none)))) == 0


def test_anndata_reads_tiles_by_channels(make: Callable[..., Heatmap], tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    heatmap = make(tiles=30)
    path = tmp_path / "A1.h5ad"
    path.write_bytes(heatmap_to_h5ad(heatmap))
    data = anndata.read_h5ad(path)
    np.testing.assert_array_equal(data.X, heatmap.scores)
    assert list(data.var_names) == ["attention", "contribution_tumour"]
    assert list(data.var["kind"]) == ["attention", ""]
    assert list(data.obs.columns) == COLUMNS[:6]
    assert data.obs_names[1] == "257_0"
    np.testing.assert_allclose(data.obsm["spatial"][0], np.array(heatmap.grid.extent_l0) / 2)
    assert json.loads(data.uns["wsi_mil"])["slide_fingerprint"] == "f" * 64


def test_a_missing_library_names_its_extra(make: Callable[..., Heatmap], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anndata", None)
    with pytest.raises(MissingExtra, match=r"pip install 'wsi_mil\[anndata\]'"):
        heatmap_to_h5ad(make(tiles=3))
