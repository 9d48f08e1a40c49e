"""Fine maps and maps on one scale: what overlaps is another bag, and what is shared is said."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from studies import run_stage

from wsi_mil.errors import StageError
from wsi_mil.heatmaps import Heatmap, Shared, colouring, heatmap_from_hdf5
from wsi_mil.stages import Work, draw_on_one_scale, study_of_model
from wsi_mil.stages.exports import Wanted
from wsi_mil.stages.heatmap import HeatmapStage


def test_slides_of_a_cohort_are_drawn_on_one_scale(
    copy_of: Callable[..., Work], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, seen = copy_of("tissue", "tile", "extract", "split", "train", "predict", "heatmap"), {}
    straight = HeatmapStage.picture

    def watched(self: HeatmapStage, item: object, work: Work, wanted: Wanted) -> bytes:
        seen[item.name] = wanted  # type: ignore[attr-defined]
        return straight(self, item, work, wanted)  # type: ignore[arg-type]

    monkeypatch.setattr(HeatmapStage, "picture", watched)
    drawn = draw_on_one_scale(work, "cohort")
    assert [path.name for path in drawn][:2] == ["S01.cohort.png", "S02.cohort.png"]
    assert Image.open(io.BytesIO(drawn[0].read_bytes())).format == "PNG"
    (limits,) = {id(one.limits) for one in seen.values()}
    shared = seen["S01"].limits
    assert isinstance(shared, Shared)
    assert id(shared) == limits
    assert len(shared.values) == sum(len(one.drawn.grid) for one in seen.values())
    assert shared.of == "12 slides of the cohort, 2 models"
    ticks = {colouring(one.drawn.column(one.channel), one.scale, limits=shared).ticks for one in seen.values()}
    assert len(ticks) == 1
    patients = work.cohort.frame.set_index("slide")["patient"]
    draw_on_one_scale(work, "patient")
    for slide, one in seen.items():
        count = int((patients == patients[slide]).sum())
        assert one.limits.of.startswith(f"{count} slide{'s' * (count > 1)} of patient {patients[slide]}")
    shutil.rmtree(work.root / "heatmap")
    with pytest.raises(StageError, match="holds no map"):
        draw_on_one_scale(work, "cohort")


def test_a_map_of_overlapping_tiles_is_another_bag(finished: Work, cohort: Path, tmp_path: Path) -> None:
    model = finished.root / "train/abmil/seed-0/fold-0"
    shown: dict[int, Heatmap] = {}
    for overlap in (0, 32):
        settings = [f"tile.overlap_px={overlap}", "heatmap.export=[png, contours]", "runtime.threads=1"]
        study = study_of_model(model, slides=str(cohort / "cohort/slides/S02*"), overrides=settings)
        work = Work(tmp_path / str(overlap), study)
        work.root.mkdir()
        work.check_cohort()
        for name in ("tissue", "tile", "extract", "predict", "heatmap"):
            assert {one.kind for one in run_stage(work, name)} == {"made"}
        folder = work.study.heatmap.folder(work) / "S02"
        shown[overlap] = heatmap_from_hdf5((folder / "S02.h5").read_bytes())
    assert len(shown[32].grid) > 3 * len(shown[0].grid)
    assert [shown[overlap].overlapping for overlap in (0, 32)] == [False, True]
    assert shown[32].provenance()["overlapping"] is True
    assert shown[32].prediction != shown[0].prediction  # its own, beside it in the file
    assert np.isfinite(shown[32].scores).all()
