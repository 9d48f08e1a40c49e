"""Real slides, odd slides and broken slides through the whole way, with a model trained on synthetic ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from studies import open_work, run_stage

from wsi_mil.stages import Outcome, Work, study_of_model

STAGES_OF_NEW_SLIDES = ("tissue", "tile", "extract", "predict", "heatmap")


def _predict(
    model: Path, slides: Path, root: Path, *settings: str, table: Path | None = None
) -> dict[str, dict[str, Outcome]]:
    """Outcomes by slide and stage."""
    work = Work(root, study_of_model(model, slides=str(slides), table=table, overrides=settings))
    work.check_cohort()
    found: dict[str, dict[str, Outcome]] = {}
    for name in STAGES_OF_NEW_SLIDES:
        for outcome in run_stage(work, name):
            found.setdefault(outcome.item, {})[name] = outcome
    return found


@pytest.fixture(scope="module")
def model(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model on 256 px tiles at 0.5 um per pixel, as the demo's."""
    root = tmp_path_factory.mktemp("model")
    work = open_work(cohort, root, "tile.mpp=0.5", "tile.size_px=256", "train.epochs=2")
    for name in ("tissue", "tile", "extract", "split", "train"):
        assert {one.kind for one in run_stage(work, name)} == {"made"}
    return root / "train" / "abmil"


@pytest.mark.slow
def test_real_and_odd_svs(model: Path, test_data: Path, tmp_path: Path) -> None:
    slides = tmp_path / "slides"
    slides.mkdir()
    for path in [*(test_data / "slides" / "good").glob("*"), *(test_data / "slides" / "odd").glob("*.svs")]:
        shutil.copy(path, slides)
    found = _predict(model, slides, tmp_path / "work")
    kinds = {slide: {stage: one.kind for stage, one in stages.items()} for slide, stages in found.items()}
    assert set(kinds["cmu-1-small-region"].values()) == {"made"}
    assert set(kinds["cmu-1-small-region"]) == {"tissue", "tile", "extract", "heatmap"}
    assert kinds["small"]["tile"] == "empty"
    assert kinds["😐"]["tile"] == "empty"
    no_scale = found["tcga-cr-7395-01a-01-ts1"]["tissue"]
    assert no_scale.kind == "failed"
    assert "mpp" in no_scale.why
    for name in ("OS-1-detail", "OS-2-ndpi", "OS-2-vsi"):
        assert set(kinds[name].values()) == {"made"}
        assert "heatmap" in kinds[name]
    dicom = next(one for name, one in found.items() if name.startswith("multi_frame_jpeg_"))
    assert dicom["tile"].kind == "failed"
    assert "finer" in dicom["tile"].why
    table = pd.read_csv(tmp_path / "work" / "predict" / "abmil" / "slides.csv").set_index("slide")
    assert table.loc["cmu-1-small-region", "status"] == "predicted"
    assert table.loc["tcga-cr-7395-01a-01-ts1", "status"] == "failed"
    assert "mpp" in table.loc["tcga-cr-7395-01a-01-ts1", "note"]


@pytest.mark.slow
def test_a_slide_without_scale_is_taken_when_the_table_gives_one(model: Path, test_data: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("slide,mpp\ntcga-cr-7395-01a-01-ts1,0.5\n")
    found = _predict(model, test_data / "slides" / "odd", tmp_path / "work", table=table)
    assert {one.kind for one in found["tcga-cr-7395-01a-01-ts1"].values() if one.item != "slides"} == {"made"}


@pytest.mark.slow
def test_dicom_at_its_own_scale(model: Path, test_data: Path, tmp_path: Path) -> None:
    settings = ["tile.mpp=28.97", "tile.size_px=64", "tissue.mpp=28.97", "tissue.min_area_um2=0"]
    slides = str(test_data / "slides" / "good" / "*.dcm")
    found = _predict(model, Path(slides), tmp_path / "one", *settings)
    for stages in (one for name, one in found.items() if name != "slides"):
        assert {stages[name].kind for name in ("tissue", "tile", "extract")} == {"made"}
    assert found["slides"]["predict"].kind == "failed"  # another scale than the model's
    assert "tile_mpp: 0.5 -> 28.97" in found["slides"]["predict"].why
    found = _predict(model, Path(slides), tmp_path / "two", *settings, "predict.any_scale=true")
    assert all(stages["heatmap"].kind == "made" for name, stages in found.items() if name != "slides")
    table = pd.read_csv(tmp_path / "two" / "predict" / "abmil" / "slides.csv")
    assert table["note"].str.contains("do not trust this prediction").all()


def test_broken_slides_fail_alone_each_with_its_reason(test_data: Path, model: Path, tmp_path: Path) -> None:
    slides = tmp_path / "slides"
    shutil.copytree(test_data / "slides" / "broken", slides)
    shutil.copy(test_data / "slides" / "good" / "cmu-1-small-region.svs", slides)
    found = _predict(model, slides, tmp_path / "work")
    assert found["cmu-1-small-region"]["heatmap"].kind == "made"
    broken = {path.stem for path in (test_data / "slides" / "broken").iterdir()}
    for name in broken:
        assert found[name]["heatmap"].kind in ("failed", "empty"), name
        first = next(one for one in found[name].values() if one.kind == "failed")
        assert len(first.why) > 20
    assert "empty" in found["zero_bytes"]["tissue"].why
