"""The files that a heatmap is handed out in, by the names under which a study asks for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from wsi_mil.heatmaps import (
    Heatmap,
    Limits,
    heatmap_to_contours,
    heatmap_to_csv,
    heatmap_to_deepzoom,
    heatmap_to_geojson,
    heatmap_to_h5ad,
    heatmap_to_ome_tiff,
    heatmap_to_parquet,
    heatmap_to_tiff,
    top_thresholds,
)

Export = Literal[
    "png",
    "geojson",
    "contours",
    "tiff",
    "ome_tiff",
    "deepzoom",
    "deepzoom_jpeg",
    "csv",
    "parquet",
    "h5ad",
]
"""Everything that `heatmap.export` may name."""


@dataclass(frozen=True)
class Wanted:
    """What is exported of a heatmap, and how it looks."""

    channel: str
    """Of the picture, the contours, and the pyramids in colours; all other files have every channel."""
    scale: str
    limits: Limits
    """What several slides share of the scale; None where each slide has its own."""
    drawn: Heatmap
    """The heatmap as it is drawn, smoothed or not; numbers are those of the heatmap itself."""
    px_per_tile: int
    top_shares: tuple[float, ...]
    picture: Callable[[], bytes]
    """Makes the PNG, for which the slide must be read."""


def export_files(heatmap: Heatmap, names: tuple[Export, ...], wanted: Wanted) -> dict[PurePosixPath, bytes]:
    """The bytes of every file that was asked for, by its place in the slide's folder."""
    stem, files = heatmap.slide.id, {}
    channel, scale, px = wanted.channel, wanted.scale, wanted.px_per_tile
    drawn, limits = wanted.drawn, wanted.limits
    single: dict[str, tuple[str, Callable[[], bytes]]] = {
        "png": (".png", wanted.picture),
        "geojson": (".geojson", lambda: heatmap_to_geojson(heatmap).encode()),
        "contours": (".contours.geojson", lambda: _contours(wanted)),
        "tiff": (".tiff", lambda: heatmap_to_tiff(drawn, channel, scale=scale, limits=limits, px_per_tile=px)),
        "ome_tiff": (".ome.tiff", lambda: heatmap_to_ome_tiff(heatmap, px_per_tile=px)),
        "csv": (".csv", lambda: heatmap_to_csv(heatmap)),
        "parquet": (".parquet", lambda: heatmap_to_parquet(heatmap)),
        "h5ad": (".h5ad", lambda: heatmap_to_h5ad(heatmap)),
    }
    pyramids: dict[str, tuple[str, Literal["png", "jpeg"]]] = {
        "deepzoom": (stem, "png"),
        "deepzoom_jpeg": (f"{stem}.jpeg", "jpeg"),
    }
    for name in dict.fromkeys(names):
        if name in single:
            suffix, make = single[name]
            files[PurePosixPath(stem + suffix)] = make()
        else:
            name_of_files, kind = pyramids[name]
            files |= heatmap_to_deepzoom(
                drawn, channel, name=name_of_files, kind=kind, scale=scale, limits=limits, px_per_tile=px
            )
    return files


def write_exports(files: dict[PurePosixPath, bytes], folder: Path) -> None:
    """Write the files below the draft of the slide's folder."""
    for place, data in files.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _contours(wanted: Wanted) -> bytes:
    thresholds = top_thresholds(wanted.drawn, wanted.channel, wanted.top_shares)
    return heatmap_to_contours(wanted.drawn, wanted.channel, thresholds).encode()
