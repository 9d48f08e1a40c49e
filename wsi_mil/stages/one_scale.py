"""Pictures of several slides on one scale, drawn from the maps that are there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wsi_mil import files
from wsi_mil.errors import StageError
from wsi_mil.heatmaps import Heatmap, Shared, heatmap_from_hdf5, smoothed
from wsi_mil.stages import ledger
from wsi_mil.stages.exports import Wanted

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work


def draw_on_one_scale(work: Work, over: str) -> list[Path]:
    """SLIDE.`over`.png (patient or cohort) beside each map: ranks, percentiles or the range over all their tiles.

    The legend says over how many slides, and how many models read them: what different models say is on one scale by
    name only, and their attention not even by name. A map that is made anew loses its picture. Raises StageError where
    there is no map.
    """
    stage = work.study.heatmap
    patients = dict(zip(work.cohort.frame["slide"], work.cohort.frame["patient"], strict=True))
    maps: dict[str, tuple[Heatmap, str]] = {}
    for item in stage.items(work):
        path = stage.output(item, work) / f"{item.name}.h5"
        record = ledger.read_record(stage, item.name, work)
        if path.exists() and record is not None:
            maps[item.name] = heatmap_from_hdf5(path.read_bytes()), record["facts"]["channel"]
    if not maps:
        raise StageError(f"{stage.folder(work)} holds no map: run `wsi-mil heatmap` first")
    groups: dict[tuple[str, str], list[str]] = {}
    for slide, (_, channel) in maps.items():
        groups.setdefault((channel, patients[slide] if over == "patient" else ""), []).append(slide)
    items, drawn = {item.name: item for item in stage.items(work)}, []
    for (channel, patient), slides in groups.items():
        values = np.concatenate([maps[slide][0].column(channel) for slide in slides])
        readers = len({maps[slide][0].model for slide in slides})
        whose = f"patient {patient}" if patient else "the cohort"
        shared = Shared(values, _words(slides, whose, readers))
        for slide in slides:
            heatmap = maps[slide][0]
            wanted = Wanted(
                channel=channel,
                scale=stage.scale_of(heatmap, channel),
                limits=shared,
                drawn=smoothed(heatmap, channel, tiles=stage.smooth),
                px_per_tile=stage.px_per_tile,
                top_shares=stage.contours,
                picture=bytes,
            )
            path = stage.output(items[slide], work) / f"{slide}.{over}.png"
            files.write_bytes(path, stage.picture(items[slide], work, wanted))
            drawn.append(path)
    return drawn


def _words(slides: list[str], whose: str, readers: int) -> str:
    count = f"{len(slides)} slides" if len(slides) > 1 else "1 slide"
    return f"{count} of {whose}" + (f", {readers} models" if readers > 1 else "")
