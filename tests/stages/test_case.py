"""A case report says what was predicted of one slide, how far it moves, and where it comes from."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bagged import bag_study, through
from typer.testing import CliRunner

from wsi_mil.cli import app
from wsi_mil.errors import StageError
from wsi_mil.stages import Work, find_browser, open_work, report_cases
from wsi_mil.stages.calibrate import read_predicted
from wsi_mil.stages.case import told_case
from wsi_mil.stages.case_pages import BANNER, page_of
from wsi_mil.stages.casebook import print_pdf

SETTINGS = (
    "cohort.clinical={age: number, scanner: category}",
    "model.fusion=gated",
    "train.seeds=[0, 1]",
    "calibrate.coverage=0.6",
)


@pytest.fixture(scope="module")
def clinical(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A calibrated study of bags whose models read age and scanner too; not to be changed."""
    work = bag_study(tmp_path_factory.mktemp("clinical"), *SETTINGS, slides=30)
    through(work, "split", "train", "predict", "calibrate")
    return open_work(work.root)


def test_a_work_folder_opens_as_the_study_it_was(clinical: Work, finished: Work) -> None:
    assert clinical.study.model.fusion == "gated"
    assert clinical.study.calibrate.coverage == 0.6
    again = open_work(finished.root)
    assert again.study.tile == finished.study.tile
    assert again.stage("heatmap").folder(again) == finished.stage("heatmap").folder(finished)


def test_what_is_no_study_is_refused(tmp_path: Path, clinical: Work) -> None:
    with pytest.raises(StageError, match="holds no cohort"):
        open_work(tmp_path)
    with pytest.raises(StageError, match=r"did you mean.*abmil"):
        open_work(clinical.root, model="abmill")
    root = tmp_path / "two"
    shutil.copytree(clinical.root, root)
    shutil.copytree(root / "predict" / "abmil", root / "predict" / "other")
    with pytest.raises(StageError, match="--model"):
        open_work(root)


def test_numbers_are_those_of_the_table(clinical: Work) -> None:
    table = read_predicted(clinical.root / "calibrate" / "abmil" / "slides.csv").set_index("slide")
    told = told_case("S003", clinical)
    assert told.calibrated is not None
    assert told.calibrated[1] == pytest.approx(table.loc["S003", "calibrated_tumour"])
    models, halves = told.moved
    assert "2 models" in models.what
    assert models.low[1] <= told.calibrated[1] <= models.high[1]
    assert "random halves" in halves.what
    assert (halves.low < halves.high).all()
    assert ((halves.low >= 0) & (halves.high <= 1)).all()


def test_factors_that_are_not_known_change_nothing_and_known_ones_do(clinical: Work, tmp_path: Path) -> None:
    told = told_case("S003", clinical)
    assert {one.name for one in told.factors} == {"age", "scanner"}
    changes = [float(np.abs(one.change).max()) for one in told.factors]
    assert changes == sorted(changes, reverse=True)
    assert changes[0] > 1e-4
    root = tmp_path / "work"
    shutil.copytree(clinical.root, root)
    table = pd.read_csv(root / "cohort.csv", dtype=str, keep_default_na=False)
    table.loc[table["slide"] == "S003", "age"] = ""
    table.to_csv(root / "cohort.csv", index=False)
    unknown = {one.name: one for one in told_case("S003", open_work(root)).factors}
    assert not unknown["age"].known
    assert not unknown["age"].change.any()


def test_the_page_tells_no_more_of_the_patient_than_the_ids(clinical: Work) -> None:
    table = clinical.cohort.frame.set_index("slide")
    html = page_of(told_case("S003", clinical), clinical)
    body = html.partition("</style>")[2]
    for words in (
        BANNER,
        "S003",
        str(table.loc["S003", "patient"]),
        "Clinical factors",
        "random halves",
        "no interval",
    ):
        assert words in body, words
    assert f">{table.loc['S003', 'age']}<" not in body
    assert str(clinical.root) not in body
    assert "There is no heatmap" in body


def test_an_empty_set_and_a_rejected_slide_are_unknown(clinical: Work, tmp_path: Path) -> None:
    root = tmp_path / "work"
    shutil.copytree(clinical.root, root)
    path = root / "calibrate" / "abmil" / "slides.csv"
    table = read_predicted(path)
    table.loc[table["slide"] == "S003", "set"] = "none"
    table.loc[table["slide"] == "S004", "set"] = "normal|tumour"
    table["rejected"] = table["slide"] == "S005"
    table.to_csv(path, index=False)
    work = open_work(root)
    for slide, words in (("S003", "unknown"), ("S004", "normal or tumour"), ("S005", "unknown")):
        html = page_of(told_case(slide, work), work)
        assert f'<div class="value">{words}</div><div class="name">conformal set' in html, slide


def test_a_case_of_real_pixels_shows_map_tiles_and_quality(finished: Work, tmp_path: Path) -> None:
    (told,) = report_cases(open_work(finished.root), ["S02"], tmp_path)
    assert told.html is not None
    html = told.html.read_text()
    assert html.count("data:image/jpeg") == 3  # map, tiles, thumbnail
    assert "A tile is 64 um wide; the bar is 20 um." in html
    for words in ("slide fingerprint", "weights of seed-0/fold-", "tissue in mm²", "Research use only"):
        assert words in html, words
    assert '<p class="banner">Research use only. Not a medical device, and not for diagnosis.</p>' in html
    assert "Clinical factors" not in html


def test_numbers_have_a_page_too(tmp_path: Path) -> None:
    work = bag_study(tmp_path / "s", "task={kind: regression, label: age}", slides=24)
    through(work, "split", "train", "predict")
    (told,) = report_cases(open_work(work.root), ["S003"])
    assert told.html is not None
    assert "conformal set" not in told.html.read_text()


def test_the_command_writes_pages_and_says_what_it_could_not(clinical: Work, tmp_path: Path) -> None:
    runner = CliRunner()
    ended = runner.invoke(app, ["case", str(clinical.root), "S000", "S001", "-o", str(tmp_path), "--no-pdf"])
    assert ended.exit_code == 0, ended.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["S000.html", "S001.html"]
    ended = runner.invoke(app, ["case", str(clinical.root), "S0", "S001", "-o", str(tmp_path), "--no-pdf"])
    assert ended.exit_code == 1
    assert "did you mean" in ended.output
    assert runner.invoke(app, ["case", str(clinical.root)]).exit_code != 0


def test_a_page_is_printed_where_there_is_a_chromium(clinical: Work, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<p>a page</p>")
    assert "did not print" in print_pdf(page, tmp_path / "page.pdf", browser=str(tmp_path / "none"))
    assert not (tmp_path / "page.pdf").exists()
    browser = find_browser()
    if browser is None:
        pytest.skip("there is no Chromium on this machine")
    assert print_pdf(page, tmp_path / "page.pdf", browser=browser) == ""
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF-")
