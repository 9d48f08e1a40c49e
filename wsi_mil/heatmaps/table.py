"""A heatmap as a table, one row a tile: CSV, Parquet and AnnData."""

from __future__ import annotations

import io
import json

import h5py
import numpy as np
import pandas as pd

from wsi_mil.errors import MissingExtra, StageError
from wsi_mil.heatmaps.heatmap import Heatmap

PLACE = ("slide", "x_l0", "y_l0", "width_l0", "height_l0", "tissue")
"""Columns before the channels."""


def heatmap_to_table(heatmap: Heatmap) -> pd.DataFrame:
    """One row a tile: slide, place and extent in level-0 pixels, share of tissue, and one column a channel.

    The extent is that of a whole tile, also where the slide ends before it. Raises StageError where a channel has the
    name of another column.
    """
    taken = sorted(set(PLACE) & set(heatmap.channels))
    if taken:
        raise StageError(f"heatmap of slide {heatmap.slide.id!r}: no channel of a table may be named {taken[0]!r}")
    grid = heatmap.grid
    places = {
        "slide": heatmap.slide.id,
        "x_l0": grid.coords_l0[:, 0],
        "y_l0": grid.coords_l0[:, 1],
        "width_l0": np.float64(grid.extent_l0[0]),
        "height_l0": np.float64(grid.extent_l0[1]),
        "tissue": grid.tissue,
    }
    scores = {name: heatmap.scores[:, number] for number, name in enumerate(heatmap.channels)}
    return pd.DataFrame(places | scores, index=range(len(grid)))


def heatmap_to_csv(heatmap: Heatmap) -> bytes:
    """The table as CSV, empty where there is no score; float32 scores come back as they were."""
    return heatmap_to_table(heatmap).to_csv(index=False, lineterminator="\n").encode()


def heatmap_to_parquet(heatmap: Heatmap) -> bytes:
    """The table as Parquet; what slide, model and prediction it is of stands as JSON under the key `wsi_mil`."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pandas(heatmap_to_table(heatmap), preserve_index=False)
    about = {b"wsi_mil": json.dumps(heatmap.provenance()).encode()}
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), **about}), buffer)
    return buffer.getvalue()


def heatmap_to_h5ad(heatmap: Heatmap) -> bytes:
    """An AnnData file of tiles by channels, as scanpy and squidpy read it.

    `obs` has the table's other columns, `var` the kind of each channel, and `obsm["spatial"]` the middle of each tile
    in level-0 pixels, as squidpy places spots. `uns["wsi_mil"]` is the provenance as JSON. Raises MissingExtra without
    the library.
    """
    try:
        import anndata
    except ImportError as error:
        raise MissingExtra("anndata", extra="anndata", purpose="an export to .h5ad") from error
    grid = heatmap.grid
    rows = heatmap_to_table(heatmap)[list(PLACE)]
    rows.index = pd.Index([f"{x}_{y}" for x, y in grid.coords_l0.tolist()], dtype=str)
    kinds = pd.DataFrame({"kind": [heatmap.kinds.get(name, "") for name in heatmap.channels]}, index=heatmap.channels)
    data = anndata.AnnData(
        heatmap.scores,
        obs=rows,
        var=kinds,
        obsm={"spatial": grid.coords_l0 + np.asarray(grid.extent_l0) / 2},
        uns={"wsi_mil": json.dumps(heatmap.provenance())},
    )
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        anndata.io.write_elem(file, "/", data)
    return buffer.getvalue()
