"""A sweep: every combination, and the score of a choice that never looked at a test fold."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from bagged import bag_study, through
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from wsi_mil.cli import app
from wsi_mil.errors import ConfigError, StageError
from wsi_mil.stages import CHOSEN, Help, Work, import_bags, read_sweep, score_sweep
from wsi_mil.training import load_checkpoint

SWEEP = "study: study.yaml\nvary: {model.name: [mean, abmil], train.lr: [0.03, 1.0e-6]}\n"


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with study.yaml, sweep.yaml and a work folder in which the sweep is done."""
    folder = tmp_path_factory.mktemp("sweep")
    bag_study(folder, "model.options={}")
    text = (folder / "study.yaml").read_text().replace("model: {options: {hidden: 8, attention: 4}}\n", "")
    (folder / "study.yaml").write_text(text)
    (folder / "sweep.yaml").write_text(SWEEP)
    command = ["sweep", str(folder / "sweep.yaml"), "--work", str(folder / "work"), "--draws", "100"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert CHOSEN in done.output
    return folder


def test_every_combination_has_a_name_and_its_settings(swept: Path) -> None:
    tried = read_sweep(swept / "sweep.yaml")
    assert [one.label for one in tried] == ["mean_lr-0.03", "mean_lr-1e-06", "abmil_lr-0.03", "abmil_lr-1e-06"]
    assert (tried[3].study.model.name, tried[3].study.train.lr) == ("abmil", 1e-6)
    assert all(one.study.model.label == one.label for one in tried)
    for one in tried:
        assert (swept / "work" / "predict" / one.label / "slides.csv").exists()


def test_the_choice_is_the_lowest_loss_on_the_select_role_of_each_fold(swept: Path) -> None:
    folder = swept / "work" / "sweep" / "sweep"
    chosen = pd.read_csv(folder / "chosen.csv")
    labels = [one.label for one in read_sweep(swept / "sweep.yaml")]
    assert len(chosen) == 2
    assert list(chosen["chosen"]) == list(chosen[labels].idxmin(axis=1))
    assert not any("1e-06" in one for one in chosen["chosen"]), "what hardly learns is never chosen"
    slides = pd.read_csv(folder / "slides.csv").set_index("slide")
    folds = pd.read_csv(swept / "work" / "split" / "folds.csv")
    for fold, label in zip(chosen["fold"], chosen["chosen"], strict=True):
        own = folds["slide"][(folds["fold"] == fold) & (folds["role"] == "test")]
        want = pd.read_csv(swept / "work" / "predict" / label / "slides.csv").set_index("slide")
        pd.testing.assert_series_equal(slides.loc[own, "p_tumour"], want.loc[own, "p_tumour"])
    table = pd.read_csv(folder / "table.csv")
    assert set(table["model"]) == {CHOSEN, *labels}


def test_labels_of_the_test_folds_do_not_move_the_choice(swept: Path) -> None:
    """Poison: with the labels of all predictions turned round, the same models are chosen."""
    tried = {one.label: Work(swept / "work", one.study) for one in read_sweep(swept / "sweep.yaml")}
    before = pd.read_csv(swept / "work" / "sweep" / "sweep" / "chosen.csv")
    kept = {}
    for label in tried:
        path = swept / "work" / "predict" / label / "slides.csv"
        kept[path] = path.read_text()
        table = pd.read_csv(path)
        table["label"] = table["label"].map({"normal": "tumour", "tumour": "normal"})
        table.to_csv(path, index=False)
    try:
        score_sweep("poisoned", tried, draws=100)
    finally:
        for path, text in kept.items():
            path.write_text(text)
    pd.testing.assert_frame_equal(before, pd.read_csv(swept / "work" / "sweep" / "poisoned" / "chosen.csv"))


@pytest.fixture(scope="module")
def encoders_swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep over two encoders, both imported and one of noise, with two seeds."""
    folder = tmp_path_factory.mktemp("encoders")
    bag_study(folder)
    random = np.random.default_rng(1)
    (folder / "noise").mkdir()
    for path in sorted((folder / "features").glob("*.h5")):
        with h5py.File(path) as file, h5py.File(folder / "noise" / path.name, "w") as other:
            noise = random.normal(size=(len(file["features"]), 6)).astype(np.float32)
            other.create_dataset("features", data=noise, chunks=(1, 6)).attrs["encoder"] = "uni"
    told = list(import_bags([folder / "noise"], folder / "work" / "extract" / "uni", Help()))
    assert {one.kind for one in told} == {"made"}, told
    text = (folder / "study.yaml").read_text().replace("train: {epochs: 4,", "train: {seeds: [0, 1], epochs: 8,")
    (folder / "study.yaml").write_text(text)
    (folder / "both.yaml").write_text("study: study.yaml\nvary: {extract.encoder: [uni, phikon]}\n")
    command = ["sweep", str(folder / "both.yaml"), "--work", str(folder / "work"), "--draws", "100"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    return folder / "work"


def test_encoders_vary_and_the_one_that_tells_is_chosen(encoders_swept: Path) -> None:
    for label, dim in (("uni", 6), ("phikon", 8)):
        for seed in (0, 1):
            model = load_checkpoint(encoders_swept / "train" / label / f"seed-{seed}" / "fold-1")
            assert (model.contract.name, model.model.spec.dim, model.training.seed) == (label, dim, seed)
    chosen = pd.read_csv(encoders_swept / "sweep" / "both" / "chosen.csv")
    assert list(chosen["chosen"]) == ["phikon", "phikon"]
    table = pd.read_csv(encoders_swept / "sweep" / "both" / "table.csv")
    auroc = table[table["measure"] == "auroc"].set_index("model")["value"]
    assert auroc["phikon"] > auroc["uni"]
    assert auroc[CHOSEN] == auroc["phikon"]


def test_the_spread_of_seeds_stands_in_the_table(encoders_swept: Path) -> None:
    table = pd.read_csv(encoders_swept / "sweep" / "both" / "table.csv")
    assert (table["seeds"] == 2).all()
    assert (table["seed_spread"] >= 0).all()
    for label in ("uni", "phikon"):
        folder = encoders_swept / "predict" / label
        rows, slides = pd.read_csv(folder / "models.csv"), pd.read_csv(folder / "slides.csv").set_index("slide")
        seed = rows["model"].str.split("/").str[0]
        alone = [
            roc_auc_score(slides["label"][part["slide"]] == "tumour", part["p_tumour"])
            for _, part in rows.groupby(seed)
        ]
        told = table[(table["model"] == label) & (table["measure"] == "auroc")]
        assert told["seed_spread"].iloc[0] == pytest.approx(np.std(alone, ddof=1))


@pytest.mark.parametrize(
    ("vary", "words"),
    [
        ("{tile.mpp: [0.5, 1.0]}", "tile.mpp cannot vary"),
        ("{model.label: [a, b], train.seeds: [[0], [1]]}", "model.label cannot vary.*train.seeds cannot vary"),
        ("{train.lr: [0.1, 0.1]}", "train.lr needs values, each once"),
        ("{train.lrr: [0.1]}", "train.lrr: unknown key: did you mean 'lr'"),
    ],
)
def test_what_cannot_vary_is_refused(swept: Path, tmp_path: Path, vary: str, words: str) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(f"study: {swept / 'study.yaml'}\nvary: {vary}\n")
    with pytest.raises(ConfigError, match=f"(?s){words}"):
        read_sweep(path)


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "configs" / "sweeps").glob("*.yaml")))
def test_the_sweeps_that_are_shown_can_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSI_MIL_TEST_DATA", "/data")
    assert len(read_sweep(path)) >= 2


def test_one_combination_or_no_select_role_is_refused(swept: Path, tmp_path: Path) -> None:
    tried = {one.label: Work(swept / "work", one.study) for one in read_sweep(swept / "sweep.yaml")}
    with pytest.raises(StageError, match="two combinations or more, and 1"):
        score_sweep("one", dict(list(tried.items())[:1]))
    work = bag_study(tmp_path, "split.select=0", "train.epochs=1")
    through(work, "split", "train", "predict")
    with pytest.raises(StageError, match=r"needs split\.select above 0"):
        score_sweep("none", {"a": work, "b": work})


def test_a_select_role_that_cannot_judge_is_said_to_be_one(swept: Path, tmp_path: Path) -> None:
    """As training leaves it where no pair of the role can be compared: slides in the role, and no loss on them."""
    root = tmp_path / "work"
    shutil.copytree(swept / "work", root)
    tried = {one.label: Work(root, one.study) for one in read_sweep(swept / "sweep.yaml")}
    path = root / "train" / "abmil_lr-0.03" / "seed-0" / "fold-1" / "history.csv"
    pd.read_csv(path).drop(columns="select_loss").to_csv(path, index=False)
    with pytest.raises(StageError, match=r"seed-0/fold-1 .* labels of its \d slide\(s\) there cannot tell a better"):
        score_sweep("none", tried)
