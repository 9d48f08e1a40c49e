"""What the report says of the cohort's flow, the folds, other models, errors, pace and how to repeat it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from bagged import bag_study, through, with_settings
from studies import open_work, run_stage

from wsi_mil import files
from wsi_mil.layout import record
from wsi_mil.stages import Work, load_study, report_cases
from wsi_mil.stages.contact import quality
from wsi_mil.stages.flow import dealt, steps_of
from wsi_mil.stages.galleries import mistakes
from wsi_mil.stages.making import pace
from wsi_mil.stages.rivals import rivals
from wsi_mil.stages.thumbnails import jpeg, legend


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A study that makes mistakes, of bags alone, with two models; not to be changed."""
    work = bag_study(tmp_path_factory.mktemp("noisy"), slides=30, signal=0.4)
    through(work, "split", "train", "predict", "calibrate")
    other = with_settings(work, "model.name=mean", "model.options={}")
    through(other, "train", "predict")
    return work


def test_each_step_of_the_flow_counts_what_it_lost(copy_of: Callable[..., Work]) -> None:
    work = copy_of("tissue", "tile", "extract", "split", "train", "predict")
    steps = steps_of(work)
    assert [step.slides for step in steps] == [12] * 8
    assert steps[-1].patients == work.cohort.frame["patient"].nunique()
    kinds = {"S01": ("tissue", "failed", "cannot open 'S01'"), "S02": ("tissue", "empty", "no tissue")}
    kinds["S03"] = ("tile", "empty", "no tile with a share of tissue")
    for slide, (name, outcome, why) in kinds.items():
        path = record(work.stage(name).folder(work), slide)
        files.write_json(path, {**files.read_json(path), "outcome": outcome, "why": why})
    (work.root / "extract" / "offline" / "S04.h5").unlink()
    table = pd.read_csv(work.root / "predict" / "abmil" / "slides.csv", dtype=str, keep_default_na=False)
    table.loc[table["slide"] == "S05", ["status", "note"]] = ["failed", "its bag is broken"]
    table.to_csv(work.root / "predict" / "abmil" / "slides.csv", index=False)
    told = {step.name: step for step in steps_of(work)}
    assert told["opened"].lost == ((1, "cannot open it"),)
    assert told["with tissue"].lost == ((1, "no tissue"),)
    assert told["with tiles"].slides == 9
    assert told["with a bag"].slides == 8
    assert told["tested, unseen"].lost == ((1, "failed its bag is broken"),)
    assert told["tested, unseen"].slides == 7


def test_slides_without_label_or_fold_are_told(noisy: Work, tmp_path: Path) -> None:
    root = tmp_path / "study"
    shutil.copytree(noisy.root.parent, root)
    table = pd.read_csv(root / "cohort.csv", dtype=str, keep_default_na=False)
    table.loc[:2, "label"] = ""
    table.to_csv(root / "cohort.csv", index=False)
    settings = ("cohort.missing_labels=predict", "split.where={scanner: u}")
    work = Work(root / "work", load_study(root / "study.yaml", list(settings)))
    work.check_cohort()
    through_again = ("split", "train", "predict")
    for name in through_again:
        run_stage(work, name, redo=True)
    told = {step.name: step for step in steps_of(work)}
    assert "opened" not in told  # there are no slides, only bags
    assert told["labelled"].lost == ((3, "without a label"),)
    assert told["in folds"].lost[0][1] == "not within split.where"
    assert told["in folds"].slides == pd.read_csv(work.root / "split" / "folds.csv")["slide"].nunique()


def test_the_tables_of_folds_add_up(noisy: Work) -> None:
    (part,) = dealt(noisy)
    assert "No patient stands on two sides" in part.text
    roles, classes, sites = part.tables
    assert list(roles.headers) == ["fold", "fit", "select", "test"]
    for table in (classes, sites):
        cells = [str(cell) for row in table.rows for cell in row[1:]]
        assert sum(int(cell.split(" ")[0]) for cell in cells if cell != "–") == 30


def test_models_of_one_folder_stand_side_by_side(noisy: Work) -> None:
    (part,) = rivals(noisy, draws=100)
    assert [row[0] for row in part.tables[0].rows] == ["abmil", "mean"]
    told = dict(zip(part.tables[0].headers, part.tables[0].rows[1], strict=True))
    assert re.match(r"-?\d\.\d+ \(", str(told["AUROC less abmil"]))
    assert re.match(r"-?\d\.\d+ \(", str(told["fold by fold"]))
    assert 0 < float(str(told["p"])) <= 1


def test_numbers_are_compared_too(tmp_path: Path) -> None:
    work = bag_study(tmp_path, "task={kind: regression, label: age}", slides=24)
    through(work, "split", "train", "predict")
    assert rivals(work, draws=100) == []
    other = with_settings(work, "task={kind: regression, label: age}", "model.name=mean", "model.options={}")
    through(other, "train", "predict")
    (part,) = rivals(work, draws=100)
    assert [row[0] for row in part.tables[0].rows] == ["abmil", "mean"]
    (errors,) = mistakes(work, 5)
    sizes = [float(str(row[4])) for row in errors.tables[0].rows]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == 5


def test_the_most_confident_errors_come_first(noisy: Work) -> None:
    (part,) = mistakes(noisy, 4)
    rows = part.tables[0].rows
    assert 1 <= len(rows) <= 4
    assert all(row[2] != row[3] for row in rows)
    sure = [float(str(row[4])) for row in rows]
    assert sure == sorted(sure, reverse=True)
    assert sure[0] > 0.5


def test_the_page_without_slides_and_maps_is_whole(noisy: Work, tmp_path: Path) -> None:
    root = tmp_path / "work"
    shutil.copytree(noisy.root, root)
    work = Work(root, noisy.study)
    through(work, "report")
    html = (root / "report" / "index.html").read_text()
    for words in ("Cohort flow", "Folds", "Models side by side", "Most confident errors", "Heatmaps", "Pace"):
        assert f"<h2>{words}</h2>" in html, words
    for words in ("No heatmaps were drawn.", "No slide was read", "No tile was judged"):
        assert words in html, words


def test_the_page_links_to_maps_and_repeats_itself(finished: Work) -> None:
    folder = finished.root / "report"
    html = (folder / "index.html").read_text()
    links = set(re.findall(r'href="(\.\./[^"]+)"', html))
    assert links
    assert all((folder / link).exists() for link in links)
    again = load_study(folder / "study.yaml")
    assert again.train == finished.study.train
    assert again.cohort.table == finished.study.cohort.table
    assert "wsi-mil run study.yaml" in html
    assert files.digest_file(finished.root / "cohort.csv")[:16] in html
    steps = pace(finished)[0].tables[1]
    assert "encode" in [row[0] for row in steps.rows]
    assert json.loads((folder / "figures.json").read_text())["headlines"]


def test_every_slide_links_to_its_case_report(finished: Work, cohort: Path, tmp_path: Path) -> None:
    root = tmp_path / "work"
    shutil.copytree(finished.root, root)
    work = open_work(cohort, root)
    assert [one.kind for one in run_stage(work, "report")] == ["found"]
    assert "a page of each slide" in (root / "report" / "index.html").read_text()
    assert all(one.html for one in report_cases(work, ["S02", "S05"]))
    assert [one.kind for one in run_stage(work, "report")] == ["made"], "the page knows of the case reports"
    html = (root / "report" / "index.html").read_text()
    links = set(re.findall(r'href="(\.\./case/[^"]+)">page<', html))
    assert links == {"../case/abmil/S02.html", "../case/abmil/S05.html"}
    assert all("Research use only" in (root / "report" / link).read_text() for link in links)


def test_a_map_is_shown_without_the_words_around_it(finished: Work) -> None:
    import io

    from PIL import Image

    data = (finished.root / "heatmap" / "abmil" / "S01" / "S01.png").read_bytes()
    whole, inner = (Image.open(io.BytesIO(jpeg(data, 4000, framed=framed))) for framed in (False, True))
    assert inner.height < whole.height
    assert legend(data) is not None
    assert Image.open(io.BytesIO(jpeg(data, 100))).width == 100


def test_slides_with_faults_come_first_on_the_contact_sheet(copy_of: Callable[..., Work]) -> None:
    work = copy_of("tissue", "tile", "extract")
    path = record(work.stage("extract").folder(work), "S07")
    told = files.read_json(path)
    told["facts"]["faults"] = {"pen": told["facts"]["tiles"], "blur": 0}
    files.write_json(path, told)
    part = quality(work, 3)
    assert part.pictures[0].caption == "S07 ! pen 100%"
    assert len(part.pictures) == 3
    assert len(part.tables[0].rows) == 12
