"""Each kind of question from the table to the page on a tiny cohort: folds, models, predictions, maps and numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bagged import bag_study, through, with_settings
from studies import open_work, run_stage

from wsi_mil.errors import CohortError, ConfigError
from wsi_mil.heatmaps import heatmap_from_hdf5
from wsi_mil.stages import Work, study_of_model

PLAIN = ("task.label=''", "task.classes=[]")
QUESTIONS = {
    "multilabel": (*PLAIN, "task.kind=multilabel", "task.labels=[lesion, dense]"),
    "regression": ("task.classes=[]", "task.kind=regression", "task.label=lesion_percent", "task.objective=huber"),
    "ordinal": ("task.classes=[]", "task.kind=ordinal", "task.label=grade"),
    "survival": (*PLAIN, "task.kind=survival", "task.time=months", "task.event=died", "task.horizons=[12, 36]"),
    "joint": (
        *PLAIN, "task.kind=joint", "task.parts={found: {label: label, weight: 0.5}, "
        "much: {kind: regression, label: lesion_percent}, dense: {kind: multilabel, labels: [dense]}, "
        "fate: {kind: survival, time: months, event: died, objective: discrete, bins: 2}}",
    ),
}  # fmt: skip
COLUMNS = {
    "multilabel": ["lesion", "dense"],
    "regression": ["lesion_percent"],
    "ordinal": ["0", "1", "2", "3", "expected"],
    "survival": ["survival_12", "survival_36", "risk"],
    "joint": ["found_benign", "found_lesion", "much_lesion_percent", "dense_dense", "fate_risk"],
}
SHOWN = {"regression": "lesion_percent", "ordinal": "expected", "survival": "risk"}
LEADING = {
    "multilabel": "mean_auroc",
    "regression": "r2",
    "ordinal": "quadratic_kappa",
    "survival": "c_index",
}
SMALL = ("heatmap.picture_px=128", "heatmap.export=[]", "report.heatmaps=2", "report.tiles=0", "report.faults=0")


def _through(root: Path, cohort: Path, *settings: str) -> Work:
    work = open_work(cohort, root, *settings, *SMALL, "report.thumbnails=0")
    for name in ("split", "train", "predict", "heatmap", "report"):
        outcomes = run_stage(work, name)
        assert {one.kind for one in outcomes} == {"made"}, (name, outcomes[0].why)
    return work


@pytest.mark.parametrize("kind", list(QUESTIONS))
def test_a_question_goes_the_whole_way(kind: str, cohort: Path, copy_of: Callable[..., Work]) -> None:
    root = copy_of("tissue", "tile", "extract").root
    work = _through(root, cohort, *QUESTIONS[kind])
    slides = pd.read_csv(root / "predict/abmil/slides.csv", dtype={"slide": str, "label": str, "predicted": str})
    columns = [f"p_{name}" for name in COLUMNS[kind]]
    assert [name for name in slides.columns if name.startswith("p_")] == columns
    assert np.isfinite(slides[columns].to_numpy()).all()
    assert slides["predicted"].str.len().min() > 0
    assert slides["label"].str.len().min() > 0
    for name in columns:
        if name.startswith("p_survival"):
            assert slides[name].between(0, 1).all()
    patients = pd.read_csv(root / "predict/abmil/patients.csv", dtype={"patient": str})
    means = slides.groupby("patient")[columns].mean().loc[patients["patient"]]
    np.testing.assert_allclose(patients[columns], means)
    heatmap = heatmap_from_hdf5((root / "heatmap/abmil/S03/S03.h5").read_bytes())
    assert {f"contribution_{name}" for name in COLUMNS[kind]} <= set(heatmap.channels)
    record = json.loads((root / "heatmap/abmil/.made/S03.json").read_text())
    if kind in SHOWN:
        assert record["facts"]["channel"] == f"contribution_{SHOWN[kind]}"
    figures = json.loads((root / "report/figures.json").read_text())
    asked = figures["questions"]
    assert list(asked) == (["found", "much", "dense", "fate"] if kind == "joint" else [work.study.task.kind])
    if kind != "joint":
        (only,) = asked.values()
        assert only["leading"] == LEADING[kind]
        assert only["measures"][LEADING[kind]]["value"] is not None
        assert set(only["baselines"]) >= {"mean colour", "layout of the tiles", "bag statistics"}
        assert set(only["patients"]) == set(only["measures"])
        assert set(only["fold_means"]) == set(only["measures"])
    page = (root / "report/index.html").read_text()
    words = "Performance: much" if kind == "joint" else "Performance"
    assert f"<h2>{words}</h2>" in page
    assert "What the heatmaps find" in page


def test_a_patients_slides_as_one_bag(cohort: Path, copy_of: Callable[..., Work]) -> None:
    root = copy_of("tissue", "tile", "extract").root
    _through(root, cohort, "model.bag_of=patient", *QUESTIONS["regression"])
    slides = pd.read_csv(root / "predict/abmil/slides.csv", dtype={"slide": str})
    assert (slides.groupby("patient")["p_lesion_percent"].nunique() == 1).all()
    one, other = (heatmap_from_hdf5((root / f"heatmap/abmil/{name}/{name}.h5").read_bytes()) for name in ("S01", "S02"))
    attention = [one.scores[:, one.channels.index("attention")], other.scores[:, other.channels.index("attention")]]
    assert sum(part.sum() for part in attention) == pytest.approx(1, abs=1e-4)
    assert all(0 < part.sum() < 1 for part in attention)
    figures = json.loads((root / "report/figures.json").read_text())["questions"]["regression"]
    assert figures["of"] == "patients"
    assert figures["cases"] == slides["patient"].nunique()
    assert figures["patients"] == {}
    with pytest.raises(ConfigError, match="needs cohort.label_of: patient"):
        open_work(cohort, root, "model.bag_of=patient", "cohort.label_of=slide")


def test_classes_of_patients_as_one_bag(cohort: Path, copy_of: Callable[..., Work]) -> None:
    root = copy_of("tissue", "tile", "extract").root
    _through(root, cohort, "model.bag_of=patient")
    figures = json.loads((root / "report/figures.json").read_text())
    assert figures["slides"] == figures["patients"]


def test_test_labels_of_survival_never_reach_training(cohort: Path, copy_of: Callable[..., Work]) -> None:
    root = copy_of("tissue", "tile", "extract").root
    work = open_work(cohort, root, *QUESTIONS["survival"])
    run_stage(work, "split")
    assert {one.kind for one in run_stage(work, "train")} == {"made"}
    folder = root / "train/abmil/seed-0/fold-0"
    before = [(folder / name).read_bytes() for name in ("model.safetensors", "model.json")]
    folds = pd.read_csv(root / "split" / "folds.csv", dtype=str)
    tested = set(folds["slide"][(folds["fold"] == "0") & (folds["role"] == "test")])
    frame = pd.read_csv(root / "cohort.csv", dtype=str, keep_default_na=False)
    rows = frame["slide"].isin(tested)
    frame.loc[rows, "months"], frame.loc[rows, "died"] = "999", "0"
    frame.to_csv(root / "cohort.csv", index=False)
    again = Work(root, work.study)
    assert run_stage(again, "train")[0].kind == "found"
    (folder / "model.safetensors").unlink()
    assert run_stage(again, "train", redo=True)[0].kind == "made"
    assert [(folder / name).read_bytes() for name in ("model.safetensors", "model.json")] == before


def test_new_slides_are_told_their_number_without_any_label(cohort: Path, copy_of: Callable[..., Work]) -> None:
    root = copy_of("tissue", "tile", "extract").root
    work = open_work(cohort, root, *QUESTIONS["joint"])
    for name in ("split", "train"):
        run_stage(work, name)
    study = study_of_model(root / "train/abmil", slides=str(cohort / "cohort/slides/S03.tiff"))
    new = Work(root.parent / "new", study)
    new.check_cohort()
    for name in ("tissue", "tile", "extract", "predict"):
        assert run_stage(new, name)[0].kind == "made", name
    slides = pd.read_csv(new.root / "predict/abmil/slides.csv", keep_default_na=False)
    assert list(slides["label"]) == [""]
    assert slides["predicted"][0].count(";") == 3
    assert slides["models"][0] == 2


BAGS_ASKED = {
    "multilabel": (*PLAIN, "task.kind=multilabel", "task.labels=[top, odd]"),
    "regression": ("task.kind=regression", "task.label=much"),
    "ordinal": ("task.kind=ordinal", "task.label=grade"),
    "survival": (*PLAIN, "task.kind=survival", "task.time=much", "task.event=odd", "train.batch_bags=8"),
}


@pytest.fixture(scope="module")
def sited(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A study of bags whose site C alone has the largest numbers, the highest grade, and `top` without `odd`."""
    work = bag_study(tmp_path_factory.mktemp("sited"), "train.epochs=1")
    path = work.root.parent / "cohort.csv"
    table = pd.read_csv(path)
    last = table["site"] == "C"
    table["much"] = np.arange(len(table)) + 100 * last
    table["grade"] = np.where(last, 2, np.arange(len(table)) % 2)
    table["odd"] = np.arange(len(table)) // 6 % 2
    table["top"] = (last | ((table["site"] == "B") & (table["odd"] == 1))).astype(int)
    table.to_csv(path, index=False)
    return work


@pytest.mark.parametrize(
    ("kind", "by"), [("regression", "sites"), *((kind, "leave_one_site_out") for kind in BAGS_ASKED)]
)
def test_sites_are_kept_whole_for_any_question(sited: Work, kind: str, by: str) -> None:
    work = with_settings(sited, *BAGS_ASKED[kind], f"split.by={by}", "train.epochs=1", f"model.label={kind}-{by}")
    (dealt,) = run_stage(work, "split", redo=True)
    assert dealt.kind == "made", dealt.why
    through(work, "train")
    folds = pd.read_csv(work.root / "split" / "folds.csv", dtype=str)
    folds["site"] = folds["slide"].map(work.cohort.column("site"))
    tested = folds[folds["role"] == "test"]
    assert tested["fold"].nunique() == (2 if by == "sites" else 3)
    assert (tested.groupby("site")["fold"].nunique() == 1).all()


def test_a_cox_step_of_one_bag_is_refused(cohort: Path, copy_of: Callable[..., Work]) -> None:
    root = copy_of("tissue", "tile", "extract").root
    work = open_work(cohort, root, *QUESTIONS["survival"], "train.batch_bags=1")
    run_stage(work, "split")
    outcome = run_stage(work, "train")[0]
    assert outcome.kind == "failed"
    assert "compares bags and needs 2 or more: set train.batch_bags to 16, or leave it empty" in outcome.why


def test_an_ensemble_of_other_questions_is_refused(cohort: Path, copy_of: Callable[..., Work]) -> None:
    root = copy_of("tissue", "tile", "extract").root
    work = open_work(cohort, root, *QUESTIONS["regression"], "predict.members=[abmil]", "model.label=joint")
    run_stage(work, "split")
    outcome = run_stage(work, "predict")[0]
    assert outcome.kind == "failed"
    assert "the task is regression: leave it empty" in outcome.why


def test_every_fault_of_the_labels_at_once(cohort: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(cohort / "cohort/cohort.csv", dtype=str, keep_default_na=False)
    frame.loc[0, "months"], frame.loc[2, "months"] = "-3", "soon"
    frame.loc[4, "died"], frame.loc[6, "died"] = "2", ""
    frame.loc[8, "lesion"] = "yes"
    frame["dense"] = "1"
    frame.to_csv(tmp_path / "table.csv", index=False)
    settings = (*QUESTIONS["joint"], f"cohort.table={tmp_path / 'table.csv'}", "cohort.label_of=slide")
    with pytest.raises(CohortError) as caught:
        open_work(cohort, tmp_path, *settings)
    told = str(caught.value)
    for words in (
        "row 2: 'months' is '-3', negative",
        "row 4: 'months' is 'soon', no finite number",
        "row 6: 'died' is '2', neither 1",
        "rows 8: only one of 'months' and 'died' is filled",
        "'dense' has 0 patient(s) with 0",
    ):
        assert words in told


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("task.kind=regression", "task.time=months"), "time is for kind survival"),
        (("task.kind=survival", *PLAIN, "task.time=months"), "time and event go together"),
        (("task.kind=ordinal", "task.objective=cox"), "objective is one of cumulative, corn"),
        (("task.kind=joint", *PLAIN), "give both or neither"),
        (("task.kind=joint", *PLAIN, "task.parts={a: {kind: joint}}"), "a part is one question"),
        (("task.kind=joint", *PLAIN, "task.parts={a: {lable: grade}}"), "did you mean 'label'"),
        ((*QUESTIONS["survival"], "task.horizons=[36, 12]"), "rising order"),
    ],
)
def test_a_question_that_does_not_fit_its_kind_is_refused(
    settings: tuple[str, ...], message: str, cohort: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        open_work(cohort, tmp_path, "task.classes=[]", *settings)
