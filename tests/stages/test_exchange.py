"""Folders of other programs' features into a study, trained on without a single slide; and back."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from studies import run_stage

from wsi_mil.bags import read_bag, read_header
from wsi_mil.errors import BagError, CohortError
from wsi_mil.stages import Help, Work, export_bags, import_bags, load_study, verify_bags

SLIDES = 12
DIM = 8


def _trident(folder: Path, *, names: list[str] | None = None, places: bool = True, seed: int = 0) -> Path:
    """Features of twelve slides as TRIDENT writes them; a label can be told from them."""
    random = np.random.default_rng(seed)
    told = {"patch_size": 256, "patch_size_level0": 512, "target_magnification": 20, "level0_magnification": 40}
    told |= {"level0_width": 20_000, "level0_height": 10_000, "overlap": 0}
    folder = folder / "20x_256px_0px_overlap" / "features_phikon"
    folder.mkdir(parents=True)
    for number in range(SLIDES):
        name = names[number] if names else f"S{number:02}"
        tiles = 20 + number
        features = random.normal(size=(tiles, DIM)).astype(np.float32) + 2 * (number % 2)
        columns = np.stack([np.arange(tiles) % 6, np.arange(tiles) // 6], axis=1) * 512
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file.create_dataset("features", data=features, chunks=(1, DIM)).attrs["encoder"] = "phikon"
            if places:
                file.create_dataset("coords", data=columns).attrs.update(told)
    return folder


def _study(folder: Path, names: list[str] | None = None, *settings: str) -> Work:
    """A study that has a table and bags, and no slides."""
    rows = [f"{names[n] if names else f'S{n:02}'},P{n:02},{'tumour' if n % 2 else 'normal'}" for n in range(SLIDES)]
    (folder / "cohort.csv").write_text("\n".join(["slide,patient,label", *rows]))
    (folder / "study.yaml").write_text(
        "cohort: {table: cohort.csv, slides: none}\ntask: {label: label}\nextract: {encoder: phikon}\n"
        "split: {folds: 2, select: 0.25}\ntrain: {epochs: 3, lr: 0.01}\nmodel: {options: {hidden: 16, attention: 8}}\n"
        "report: {draws: 100}\nruntime: {threads: 1}\n"
    )
    work = Work(folder / "work", load_study(folder / "study.yaml", list(settings)))
    work.check_cohort()
    return work


def _imported(source: Path, work: Work, **known: Any) -> list[Any]:
    return list(import_bags([source], work.root / "extract" / "phikon", Help(**known)))


def _through(work: Work, *stages: str) -> dict[str, list[Any]]:
    return {name: run_stage(work, name) for name in stages}


def test_imported_bags_train_predict_and_report_without_slides(tmp_path: Path) -> None:
    work = _study(tmp_path)
    rows = _imported(_trident(tmp_path / "out"), work)
    assert [(one.kind, one.dim, one.what) for one in rows] == [("made", DIM, "trident, phikon")] * SLIDES
    told = _through(work, "split", "train", "predict", "heatmap", "report")
    for name in ("split", "train", "predict", "report"):
        assert {one.kind for one in told[name]} == {"made"}, told[name]
    assert {one.kind for one in told["heatmap"]} == {"empty"}
    assert "without a scale" in told["heatmap"][0].why
    table = pd.read_csv(work.root / "predict" / "abmil" / "slides.csv")
    assert (table["status"] == "predicted").all()
    assert (table["predicted"] == table["label"]).mean() > 0.9, "the planted shift is learnt"
    figures = json.loads((work.root / "report" / "figures.json").read_text())
    kinds = {"layout of the tiles", "mean of features", "maximum of features", "bag statistics"}
    assert set(figures["baselines_auroc"]) == kinds
    assert {one.kind for one in _imported(tmp_path / "out", work)} == {"found"}, "what is there is kept"


def test_bags_without_places_train_but_not_a_model_that_reads_them(tmp_path: Path) -> None:
    work = _study(tmp_path)
    rows = _imported(_trident(tmp_path / "out", places=False), work, encoder="phikon")
    assert all("no coordinates" in one.note for one in rows)
    told = _through(work, "split", "train", "predict", "heatmap", "report")
    assert {one.kind for one in [*told["train"], *told["predict"], *told["report"]]} == {"made"}
    assert "without coordinates" in told["heatmap"][0].why
    spatial = Work(work.root, load_study(tmp_path / "study.yaml", ["model.name=patch_gcn", "model.options={}"]))
    outcomes = run_stage(spatial, "train")
    assert {one.kind for one in outcomes} == {"failed"}
    assert "'patch_gcn' reads the places of tiles, but" in outcomes[0].why


def test_the_scale_comes_from_a_table_or_a_flag(tmp_path: Path) -> None:
    source = _trident(tmp_path / "out")
    (tmp_path / "mpp.csv").write_text("slide,mpp,width,height\nS00,0.25,20000,10000\nS01,0.2,,\n")
    rows = {one.slide: one for one in import_bags([source], tmp_path / "in", Help(table=tmp_path / "mpp.csv"))}
    assert rows["S00"].note == ""
    assert "its tiles are at 0.4 um per pixel, though it says 0.5" in rows["S01"].note
    assert "unverified" in rows["S02"].note
    slide = read_header(tmp_path / "in" / "S00.h5").slide
    assert (slide.mpp, slide.mpp_source, slide.size_l0) == ((0.25, 0.25), "cohort", (20_000, 10_000))
    rows = {one.slide: one for one in import_bags([source], tmp_path / "flag", Help(mpp=0.25))}
    assert {one.note for one in rows.values()} == {""}
    assert read_header(tmp_path / "flag" / "S05.h5").slide.mpp_source == "flag"


@pytest.mark.parametrize("text", ["slide\nS00\n", "slide,mpp\nS00,wide\n", "slide,mpp\nS00,-1\n"])
def test_a_table_with_faults_is_told(tmp_path: Path, text: str) -> None:
    source = _trident(tmp_path / "out")
    (tmp_path / "mpp.csv").write_text(text)
    with pytest.raises(CohortError, match=r"mpp\.csv"):
        list(import_bags([source], tmp_path / "in", Help(table=tmp_path / "mpp.csv")))


def test_the_slide_itself_gives_scale_and_identity(cohort: Path, copy_of: Any, tmp_path: Path) -> None:
    """A bag of ours as TRIDENT's file and back, beside its slide: the same place on the same slide."""
    work = copy_of("extract")
    source = work.root / "extract" / "offline"
    assert {one.kind for one in export_bags([source], tmp_path / "out", "trident")} == {"made"}
    folder = str(cohort / "cohort" / "slides")
    rows = list(import_bags([tmp_path / "out"], tmp_path / "in", Help(slides=folder)))
    assert {one.kind for one in rows} == {"made"}, rows
    for one in rows:
        bag, back = read_bag(source / f"{one.slide}.h5"), read_bag(tmp_path / "in" / f"{one.slide}.h5")
        assert back.slide == bag.slide
        np.testing.assert_array_equal(back.grid.coords_l0, bag.grid.coords_l0)
        assert back.grid.extent_l0 == pytest.approx(bag.grid.extent_l0, abs=0.5)


def test_one_bad_file_never_stops_the_others(tmp_path: Path) -> None:
    source = _trident(tmp_path / "out")
    (source / "S03.h5").write_bytes(b"cut")
    (source / "-x.h5").write_bytes((source / "S01.h5").read_bytes())
    rows = {one.slide: one for one in import_bags([source], tmp_path / "in", Help())}
    assert [name for name, one in rows.items() if one.kind == "failed"] == ["-x", "S03"]
    assert "cannot be a slide id" in rows["-x"].note
    assert sum(one.kind == "made" for one in rows.values()) == SLIDES - 1


def test_one_folder_of_features_at_a_time(tmp_path: Path) -> None:
    _trident(tmp_path / "one")
    _trident(tmp_path / "two")
    with pytest.raises(BagError, match="of one slide"):
        list(import_bags([tmp_path], tmp_path / "in", Help()))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BagError, match="no files of features"):
        list(import_bags([tmp_path / "empty"], tmp_path / "in", Help()))
    with pytest.raises(BagError, match="no such file or folder"):
        list(import_bags([tmp_path / "none"], tmp_path / "in", Help()))


def test_verify_finds_what_a_disk_has_changed(tmp_path: Path) -> None:
    list(import_bags([_trident(tmp_path / "out")], tmp_path / "in", Help()))
    path = tmp_path / "in" / "S04.h5"
    with h5py.File(path) as file:
        offset = file["features"].id.get_offset()
    data = bytearray(path.read_bytes())
    data[offset + 5] ^= 1
    path.write_bytes(data)
    rows = {one.slide: one for one in verify_bags([tmp_path / "in"])}
    assert [name for name, one in rows.items() if one.kind == "failed"] == ["S04"]
    assert "have changed" in rows["S04"].note


def test_slides_an_encoder_may_have_seen_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [f"TCGA-AA-{1000 + number}-01Z" if number < 8 else f"OWN{number}" for number in range(SLIDES)]
    work = _study(tmp_path, names)
    _imported(_trident(tmp_path / "out", names=names), work)
    assert read_header(work.root / "extract" / "phikon" / f"{names[0]}.h5").encoder.saw_tcga == "yes"
    with caplog.at_level(logging.WARNING, logger="wsi_mil"):
        told = _through(work, "split", "train", "predict", "report")
    warning = told["predict"][0].facts["warning"]
    assert warning in caplog.text
    assert "8 of 12 slides are of TCGA (first 'TCGA-AA-1000-01Z'), and encoder 'phikon' was pretrained on" in warning
    assert "pretrained on TCGA" in (work.root / "report" / "index.html").read_text()


def test_other_slides_are_not_warned_of(tmp_path: Path) -> None:
    work = _study(tmp_path)
    _imported(_trident(tmp_path / "out"), work)
    assert "warning" not in _through(work, "split", "train", "predict")["predict"][0].facts


def test_with_the_slides_at_hand_there_are_maps(cohort: Path, copy_of: Any, tmp_path: Path) -> None:
    """As docs/encoders.md says it: import with the slides, tissue, and the maps follow."""
    work = copy_of("tissue", "extract", "split")
    list(export_bags([work.root / "extract" / "offline"], tmp_path / "out", "clam"))
    known = Help(slides=str(cohort / "cohort" / "slides"), encoder="mine", tile_px=64)
    rows = list(import_bags([tmp_path / "out"], work.root / "extract" / "mine", known))
    assert {(one.kind, one.note) for one in rows} == {("made", "")}
    own = Work(work.root, load_study(cohort / "study.yaml", ["extract.encoder=mine", "train.epochs=1"]))
    told = _through(own, "train", "predict", "heatmap")
    assert {one.kind for stage in told.values() for one in stage} == {"made"}, told


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _trident(tmp_path / "out")

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wsi_mil.files.write_bytes", full)
    rows = list(import_bags([source], tmp_path / "in", Help()))
    assert {one.kind for one in rows} == {"failed"}
    assert "No space left on device" in rows[0].note
    assert not list(tmp_path.glob("in/*.h5"))
