"""Outline to grid: which squares of the slide are looked at, at a physical scale."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from wsi_mil import files
from wsi_mil.bags import grid_to_hdf5, times_coarser
from wsi_mil.cohort import read_table
from wsi_mil.config import StudyPath
from wsi_mil.errors import BagError, CohortError, EmptyItem, ScaleError, StageError
from wsi_mil.geometry import FINER_LIMIT, extent_l0, too_fine
from wsi_mil.grid import SlideRef, TileGrid, lay_grid
from wsi_mil.stages import ledger
from wsi_mil.stages.regions import read_regions, region_file
from wsi_mil.stages.stage import Item, Stage, Tick
from wsi_mil.stages.work import Work, open_item
from wsi_mil.tissue import outline_from_geojson, overlap, tissue_share


class Tile(Stage):
    """Lay a grid of tiles over the tissue of each slide."""

    name: ClassVar[str] = "tile"

    mpp: float = Field(default=0.5, gt=0)
    """Scale of the tiles in micrometres per pixel; 0.5 is what most encoders were trained on. A list, as in [0.5, 2.0],
    is that scale and the coarser ones."""
    coarser: tuple[float, ...] = ()
    """Coarser scales, each 2, 3, 4 ... times as coarse: every place is seen there as well, from further away."""
    size_px: int = Field(default=256, ge=16, le=8192)
    """Side of a tile in pixels at that scale."""
    overlap_px: int = Field(default=0, ge=0)
    """How far neighbours reach into each other."""
    min_tissue: float = Field(default=0.25, ge=0, le=1)
    """Least share of a tile that must be tissue; does not apply to tiles from a table."""
    within: StudyPath | None = None
    """Regions that tiles are limited to: a folder with SLIDE.geojson, or a path with {slide} in it; level-0 pixels."""
    table: StudyPath | None = None
    """Bring your own tiles: CSV with slide, x, y (level-0 pixels of the top left). No other column is read."""

    @model_validator(mode="before")
    @classmethod
    def _several_scales(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("mpp"), (list, tuple)) and values["mpp"]:
            finest, *coarser = sorted(values["mpp"])
            return {**values, "mpp": finest, "coarser": tuple(coarser)}
        return values

    @model_validator(mode="after")
    def _scales_fit(self) -> Tile:
        for mpp in self.coarser:
            try:
                times_coarser(self.mpp, mpp)
            except BagError as error:
                raise ValueError(str(error)) from error
        if self.coarser and self.overlap_px:
            raise ValueError("several scales need tiles without overlap: set tile.overlap_px to 0")
        return self

    @property
    def after(self) -> tuple[str, ...]:
        """The tissue stage."""
        return ("tissue",)

    def folder(self, work: Work) -> Path:
        """tile/."""
        return work.root / self.name

    def items(self, work: Work) -> list[Item]:
        """The slides."""
        if self.overlap_px >= self.size_px:
            raise StageError(f"tile.overlap_px is {self.overlap_px}: it must be less than tile.size_px, {self.size_px}")
        if self.within is not None and self.table is not None:
            raise StageError("tile.within and tile.table are both given: a table says itself which tiles to take")
        return work.slide_items()

    def output(self, item: Item, work: Work) -> Path:
        """The grid."""
        return self.folder(work) / f"{item.name}.h5"

    def inputs(self, item: Item, work: Work) -> Sequence[str]:
        """The outline as it is now, edited or not, and the slide's rows of the table."""
        outline = ledger.require("tissue", item.name, work)
        rows = [] if self.table is None else [_rows_of(self.table).get(item.name, np.empty((0, 2), np.int64)).tobytes()]
        regions = [] if self.within is None else [files.digest_file(self._region_file(item, work))]
        return [files.digest_file(outline), repr(item.mpp), *(files.digest(row) for row in rows), *regions]

    def make(self, item: Item, work: Work, draft: Path, tick: Tick) -> dict[str, Any]:
        """Lay the grid, or take it from the table, and measure the share of tissue of each tile."""
        path = ledger.require("tissue", item.name, work)
        outline = outline_from_geojson(path.read_text(encoding="utf-8"), where=str(path.relative_to(work.root)))
        with open_item(item) as slide:
            ref = slide.ref()
        if self.within is not None:
            outline = overlap(outline, read_regions(self._region_file(item, work), ref))
        if too_fine(ref.mpp, self.mpp):
            raise ScaleError(
                f"tile.mpp {self.mpp:g} is more than {FINER_LIMIT}x finer than the slide's own {max(ref.mpp):g} um per "
                f"pixel: ask for {max(ref.mpp) / FINER_LIMIT:.3g} or coarser"
            )
        if self.table is None:
            coords, extent, step = lay_grid(ref, size_px=self.size_px, mpp=self.mpp, overlap_px=self.overlap_px)
        else:
            coords = self._from_table(item, ref)
            extent = extent_l0(self.size_px, self.mpp, ref.mpp)
            step = extent_l0(self.size_px - self.overlap_px, self.mpp, ref.mpp)
        share = tissue_share(outline, coords, extent)
        grid = TileGrid(
            slide=ref,
            coords_l0=coords,
            tissue=share,
            size_px=self.size_px,
            mpp=self.mpp,
            extent_l0=extent,
            step_l0=step,
        )
        kept = grid if self.table is not None else grid.take(share >= max(self.min_tissue, 1e-6))
        if not len(kept):
            raise EmptyItem(
                f"no tile of {self.size_px} px at {self.mpp:g} um per pixel holds {self.min_tissue:.0%} of tissue"
                + (" within the regions of tile.within" if self.within is not None else "")
            )
        draft.write_bytes(grid_to_hdf5(kept))
        return {"tiles": len(kept), "of": len(grid)}

    def _region_file(self, item: Item, work: Work) -> Path:
        assert self.within is not None
        return region_file(self.within, item.name, work, key="tile.within")

    def _from_table(self, item: Item, ref: SlideRef) -> np.ndarray:
        assert self.table is not None
        coords = _rows_of(self.table).get(item.name)
        if coords is None:
            raise EmptyItem(f"no row for this slide in {self.table.name}")
        outside = (coords < 0).any(axis=1) | (coords >= np.array(ref.size_l0)).any(axis=1)
        if outside.any():
            x, y = coords[outside][0]
            raise CohortError(
                f"{self.table.name}: {int(outside.sum())} tile(s) of slide {item.name!r} lie outside its "
                f"{ref.size_l0[0]} x {ref.size_l0[1]} pixels, first ({x}, {y}): x and y are level-0 pixels"
            )
        return coords


def _rows_of(table: Path) -> dict[str, np.ndarray]:
    return _read_tiles(table, table.stat().st_mtime_ns) if table.exists() else _missing(table)


def _missing(table: Path) -> dict[str, np.ndarray]:
    raise CohortError(f"tile.table {str(table)!r} does not exist")


@lru_cache(maxsize=2)
def _read_tiles(table: Path, changed_ns: int) -> dict[str, np.ndarray]:
    """Level-0 top lefts by slide, sorted and each once; read once a process, since every slide asks."""
    frame = read_table(table)
    lacking = [name for name in ("slide", "x", "y") if name not in frame.columns]
    if lacking:
        raise CohortError(f"{table}: no column {', '.join(lacking)}: a table of tiles has slide, x and y")
    try:
        places = frame[["x", "y"]].astype(float)
    except ValueError as error:
        raise CohortError(f"{table}: x and y must be numbers of level-0 pixels ({error})") from error
    broken = ~np.isfinite(places.to_numpy()).all(axis=1)
    if broken.any():
        raise CohortError(f"{table}: row {int(np.flatnonzero(broken)[0]) + 2} has no number for x or y")
    frame = frame.assign(x=places["x"].round().astype(np.int64), y=places["y"].round().astype(np.int64))
    return {
        str(slide): np.unique(group[["y", "x"]].to_numpy(np.int64), axis=0)[:, ::-1].copy()
        for slide, group in frame.groupby("slide", sort=False)
    }
