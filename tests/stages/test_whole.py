"""The whole study on a tiny cohort: every output is there, says what it should, and fits the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import shapely
from studies import open_work, run_stage

from wsi_mil.bags import read_bag, verify_bag
from wsi_mil.heatmaps import heatmap_from_hdf5
from wsi_mil.stages import Work


def test_outlines_are_near_the_truth(finished: Work, cohort: Path) -> None:
    for slide in ("S02", "S04", "S06", "S08"):  # without pen, which hides what is under it
        found = shapely.from_geojson((finished.root / "tissue" / f"{slide}.geojson").read_text())
        told = json.loads((cohort / "cohort" / "truth" / f"{slide}.geojson").read_text())
        parts = {one["properties"]["classification"]["name"]: one["geometry"] for one in told["features"]}
        tissue = [parts["Tissue"]]
        truth = shapely.union_all([shapely.from_geojson(json.dumps(one)) for one in tissue])
        found = shapely.union_all(list(found.geoms))
        assert found.intersection(truth).area / found.union(truth).area > 0.9
        assert (finished.root / "tissue" / f"{slide}.png").read_bytes().startswith(b"\x89PNG")


def test_bags_say_where_they_come_from(finished: Work) -> None:
    path = finished.root / "extract" / "offline" / "S01.h5"
    verify_bag(path)
    bag = read_bag(path)
    assert bag.slide.mpp == (0.5, 0.5)
    assert bag.slide.mpp_source == "metadata"
    assert bag.grid.mpp == 1.0
    assert bag.grid.extent_l0 == (128.0, 128.0)
    assert bag.encoder.tile_px == 64
    with h5py.File(path) as file:
        assert file["features"].dtype == np.float16
        assert file["features"].chunks is None
        assert file["coords"].dtype == np.int64
        assert set(bag.quality) >= {"red_mean", "blue_sd"}


def test_no_patient_on_both_sides_of_a_fold(finished: Work) -> None:
    folds = pd.read_csv(finished.root / "split" / "folds.csv", dtype=str)
    assert (folds.groupby(["fold", "patient"])["role"].nunique() == 1).all()


def test_checkpoints_never_saw_the_slides_they_test(finished: Work) -> None:
    folds = pd.read_csv(finished.root / "split" / "folds.csv", dtype={"slide": str})
    for fold in (0, 1):
        told = json.loads((finished.root / "train/abmil/seed-0" / f"fold-{fold}" / "model.json").read_text())
        tested = set(folds["slide"][(folds["fold"] == fold) & (folds["role"] == "test")])
        assert not tested & set(told["training"]["slides"])
        assert len(pd.read_csv(finished.root / "train/abmil/seed-0" / f"fold-{fold}" / "history.csv")) == 3


def test_every_slide_is_predicted_once_and_patients_by_their_mean(finished: Work) -> None:
    slides = pd.read_csv(finished.root / "predict/abmil/slides.csv", dtype={"slide": str})
    assert list(slides["slide"]) == [f"S{number:02d}" for number in range(1, 13)]
    assert (slides["status"] == "predicted").all()
    assert (slides["models"] == 1).all()
    assert np.allclose(slides["p_benign"] + slides["p_lesion"], 1)
    patients = pd.read_csv(finished.root / "predict/abmil/patients.csv")
    means = slides.groupby("patient")["p_lesion"].mean()
    assert np.allclose(patients.set_index("patient")["p_lesion"], means[patients["patient"]])


def test_a_heatmap_is_that_of_the_prediction(finished: Work) -> None:
    slides = pd.read_csv(finished.root / "predict/abmil/slides.csv", dtype={"slide": str}).set_index("slide")
    folder = finished.root / "heatmap" / "abmil" / "S02"
    heatmap = heatmap_from_hdf5((folder / "S02.h5").read_bytes())
    assert heatmap.prediction["lesion"] == pytest.approx(slides.loc["S02", "p_lesion"], abs=1e-6)
    per_class = {f"{name}_{answer}" for name in ("contribution", "alone") for answer in ("benign", "lesion")}
    assert set(heatmap.channels) == {"attention_logit", "attention", "novelty", *per_class}
    bag = read_bag(finished.root / "extract" / "offline" / "S02.h5")
    assert np.array_equal(heatmap.grid.coords_l0, bag.grid.coords_l0)
    attention = heatmap.scores[:, heatmap.channels.index("attention")]
    assert attention.sum() == pytest.approx(1, abs=1e-4)
    told = json.loads((folder / "S02.geojson").read_text())
    assert len(told["features"]) == len(bag.grid)
    assert (folder / "S02.png").read_bytes().startswith(b"\x89PNG")


def test_a_heatmap_that_would_not_belong_to_its_prediction_is_refused(copy_of: Callable[..., Work]) -> None:
    work = copy_of("tissue", "tile", "extract", "split", "train", "predict")
    path = work.root / "predict" / "abmil" / "models.csv"
    table = pd.read_csv(path, dtype={"slide": str})
    table.loc[table["slide"] == "S02", "p_lesion"] += 1e-3
    table.to_csv(path, index=False)
    outcomes = {one.item: one for one in run_stage(work, "heatmap")}
    assert outcomes["S02"].kind == "failed"
    assert "would not belong to its prediction" in outcomes["S02"].why
    assert outcomes["S01"].kind == "made"


def test_the_report_is_one_page_with_everything(finished: Work) -> None:
    page = (finished.root / "report" / "index.html").read_text()
    titles = ("Performance", "Baselines", "What the heatmaps find", "Heatmaps", "Top and bottom tiles", "Every slide")
    for words in titles:
        assert f"<h2>{words}</h2>" in page, words
    assert 'src="http' not in page
    assert 'href="http' not in page
    assert str(finished.root) not in page
    figures = json.loads((finished.root / "report" / "figures.json").read_text())
    assert 0 <= figures["slides"]["auroc"]["value"] <= 1
    assert set(figures["baselines_auroc"]) >= {"mean colour", "layout of the tiles", "bag statistics"}
    assert figures["tile_auroc"]["cross-validation"]["contribution_lesion"]["slides"] > 0


def test_test_labels_never_reach_training(cohort: Path, copy_of: Callable[..., Work]) -> None:
    """Poison: with other labels on the test slides of fold 0, its model is the same to the last bit."""
    work = copy_of("tissue", "tile", "extract", "split", "train")
    path = work.root / "train/abmil/seed-0/fold-0/model.safetensors"
    before = path.read_bytes()
    folds = pd.read_csv(work.root / "split" / "folds.csv", dtype=str)
    tested = set(folds["slide"][(folds["fold"] == "0") & (folds["role"] == "test")])
    table = work.root / "cohort.csv"
    frame = pd.read_csv(table, dtype=str, keep_default_na=False)
    flip = {"benign": "lesion", "lesion": "benign"}
    pairs = zip(frame.slide, frame.label, strict=True)
    frame["label"] = [flip[label] if slide in tested else label for slide, label in pairs]
    frame.to_csv(table, index=False)
    outcome = run_stage(work, "train")[0]
    assert outcome.kind == "found"  # nothing that the fold learns from has changed
    path.unlink()
    assert run_stage(work, "train", redo=True)[0].kind == "made"
    assert path.read_bytes() == before


def test_a_slide_without_tiles_goes_all_the_way_as_empty(copy_of: Callable[..., Work]) -> None:
    work = copy_of("tissue", "tile", "extract", "split", "train", "predict", "heatmap", "report")
    far = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}
    path = work.root / "tissue" / "S02.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": far}]}))
    for name in ("tile", "extract", "train", "predict", "heatmap", "report"):
        outcomes = {one.item: one.kind for one in run_stage(work, name)}
        assert "failed" not in outcomes.values(), name
        if name in ("tile", "extract", "heatmap"):
            assert outcomes["S02"] == "empty"
    assert not (work.root / "heatmap" / "abmil" / "S02").exists()
    slides = pd.read_csv(work.root / "predict/abmil/slides.csv", dtype={"slide": str}).set_index("slide")
    assert slides.loc["S02", "status"] == "empty"
    assert slides["p_lesion"].isna().sum() == 1
    assert "no tile" in (work.root / "report" / "index.html").read_text()


def test_new_slides_are_predicted_by_all_folds(cohort: Path, copy_of: Callable[..., Work]) -> None:
    work = copy_of("tissue", "tile", "extract", "split", "train")
    site = sorted(set(work.cohort.frame["site"]))[0]
    other = open_work(cohort, work.root, f"split.where={{site: {site}}}", "split.select=0")
    assert run_stage(other, "split", redo=True)[0].kind == "made"
    assert {one.kind for one in run_stage(other, "train", redo=True)} == {"made"}
    assert run_stage(other, "predict")[0].kind == "made"
    slides = pd.read_csv(other.root / "predict/abmil/slides.csv", dtype={"slide": str})
    assert set(slides["models"][slides["site"] == site]) == {1}
    assert set(slides["models"][slides["site"] != site]) == {2}
    outcomes = {one.item: one for one in run_stage(other, "heatmap")}
    new = slides["slide"][slides["site"] != site].iloc[0]
    assert outcomes[new].facts["models"] == 2
    heatmap = heatmap_from_hdf5((other.root / "heatmap/abmil" / new / f"{new}.h5").read_bytes())
    assert set(heatmap.kinds.values()) == {"mean rank"}
    assert len(list((other.root / "heatmap/abmil" / new).glob("*.h5"))) == 3
