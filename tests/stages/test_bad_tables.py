"""Everything that is wrong with a cohort table stands in one report, with rows, before any slide is read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from bagged import bag_study, with_settings
from spoiled import SURVIVAL, Bad, cells, copied, survival
from studies import open_work

from wsi_mil.errors import CohortError
from wsi_mil.stages import Work, load_study


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A study whose table is right; copied, never changed."""
    return bag_study(tmp_path_factory.mktemp("clean"), slides=16)


TABLES: dict[str, tuple[Bad, tuple[str, ...], str]] = {
    "slide twice": (
        lambda frame: pd.concat([frame, frame.iloc[:1]]),
        (),
        "rows 2, 18: slide 'S000' stands there 2 times: keep one row",
    ),
    "slide twice with another label": (
        lambda frame: pd.concat([frame, frame.iloc[:1].assign(label="tumour")]),
        (),
        "rows 2, 18: slide 'S000' stands there 2 times",
    ),
    "no label": (cells("label", {2: "", 4: " "}), (), "rows 4, 6: no label in 'label': fill them in"),
    "unknown class": (
        cells("label", {3: "tumor"}),
        ("task.classes=[normal,tumour]",),
        "row 5: unknown label 'tumor' in 'label': did you mean 'tumour'",
    ),
    "header case": (lambda frame: frame.rename(columns={"label": "Label"}), (), "no label column 'label'"),
    "no patient": (cells("patient", {0: ""}), (), "row 2: no patient for slide 'S000'"),
    "two labels of a patient": (
        cells("patient", {1: "P000"}),
        ("cohort.label_of=patient",),
        "rows 2, 3: patient 'P000' has the labels 'normal' and 'tumour'",
    ),
    "a name that is no file name": (cells("slide", {0: "../S000"}), (), "row 2: slide '../S000'"),
    "one class": (lambda frame: frame.assign(label="normal"), (), "the label 'label' has one value only ('normal')"),
    "a class of one patient": (
        cells("label", {row: "tumour" if row == 3 else "normal" for row in range(16)}),
        (),
        "rows 5: the class 'tumour' in 'label' has 1 patient(s), 2 are needed",
    ),
    "more folds than patients of a class": (
        lambda frame: frame,
        ("split.folds=9",),
        "the class 'normal' in 'label' has 8 patient(s), 9 are needed",
    ),
    "a class without cases": (
        lambda frame: frame,
        ("task.classes=[normal,tumour,benign]",),
        "no row has the class 'benign' in 'label': add cases, or leave it out of task.classes",
    ),
    "a class outside of what takes part": (
        lambda frame: frame.assign(part=["a" if label == "normal" else "b" for label in frame["label"]]),
        ("split.where={part: a}",),
        "the label 'label' has one value only ('normal')",
    ),
    "a label that is a date": (
        cells("label", {3: "4-Mar"}),
        (),
        "row 5: the label '4-Mar' in 'label' looks like a date",
    ),
    "all censored": (survival(["0"] * 16), SURVIVAL, "all are censored"),
    "events that are words": (survival(["dead"] * 16), SURVIVAL, "row 2: 'event' is 'dead', no finite number"),
    "a number that is a date": (
        cells("age", {5: "2021-03-01"}),
        ("task.kind=regression", "task.label=age"),
        "row 7: 'age' is '2021-03-01', no finite number",
    ),  # fmt: skip
    "a number that never varies": (
        lambda frame: frame.assign(age="7"),
        ("task.kind=regression", "task.label=age"),
        "'age' is 7 for every slide",
    ),  # fmt: skip
}


@pytest.mark.parametrize("name", list(TABLES))
def test_a_table_is_refused_with_its_rows_before_any_slide_is_read(clean: Work, tmp_path: Path, name: str) -> None:
    bad, settings, words = TABLES[name]
    work = copied(clean, tmp_path)
    frame = pd.read_csv(work.root.parent / "cohort.csv", dtype=str, keep_default_na=False)
    bad(frame).to_csv(work.root.parent / "cohort.csv", index=False)
    with pytest.raises(CohortError) as caught:
        with_settings(work, *settings)
    assert words in str(caught.value)


def test_one_file_under_two_patients_is_found_before_any_slide_is_read(cohort: Path, tmp_path: Path) -> None:
    """A copy under another name, beside another fault; two names of one patient are no leak."""
    slides = tmp_path / "slides"
    shutil.copytree(cohort / "cohort" / "slides", slides)
    frame = pd.read_csv(cohort / "cohort" / "cohort.csv", dtype=str, keep_default_na=False)
    one, other = frame.index[frame["patient"] != frame["patient"][0]][:1].tolist()[0], 0
    names = [frame["slide"][row] for row in (other, one)]
    shutil.copy(slides / f"{names[0]}.tiff", slides / f"{names[1]}.tiff")
    frame.loc[11, "label"] = ""
    frame.to_csv(tmp_path / "cohort.csv", index=False)
    settings = (f"cohort.table={tmp_path / 'cohort.csv'}", f"cohort.slides={slides}", "cohort.label_of=slide")
    with pytest.raises(CohortError) as caught:
        open_work(cohort, tmp_path / "work", *settings)
    told = str(caught.value)
    assert f"rows 2, {one + 2}: slides {names[0]!r} and {names[1]!r} of 2 patients are the same file" in told
    assert f"{names[1]}.tiff" in told
    assert "row 13: no label" in told or "rows 13: no label" in told
    frame.loc[11, "label"] = "lesion"
    frame["patient"] = frame["patient"].where(~frame.index.isin([0, one]), frame["patient"][0])
    frame.to_csv(tmp_path / "cohort.csv", index=False)
    open_work(cohort, tmp_path / "work", *settings)


def test_all_faults_stand_in_one_report(clean: Work, tmp_path: Path) -> None:
    work = copied(clean, tmp_path)
    frame = pd.read_csv(work.root.parent / "cohort.csv", dtype=str, keep_default_na=False)
    for bad in ("slide twice", "no label", "no patient", "unknown class", "two labels of a patient"):
        frame = TABLES[bad][0](frame).reset_index(drop=True)
    frame.to_csv(work.root.parent / "cohort.csv", index=False)
    with pytest.raises(CohortError) as caught:
        with_settings(work, "task.classes=[normal,tumour]", "cohort.label_of=patient")
    told = str(caught.value)
    for words in (
        "rows 2, 18: slide",
        "rows 4, 6: no label",
        "row 2: no patient",
        "row 5: unknown label",
        "has the labels",
    ):
        assert words in told
    assert "no slide was read" in told


@pytest.mark.parametrize(
    ("text", "encoding"),
    [("slide;label\r\n001 ;a\r\n002;b \r\n", "utf-8-sig"), ("slide,label\n001,a\n002,b\n", "latin-1")],
)
def test_what_spreadsheets_do_to_a_table_is_no_fault(tmp_path: Path, text: str, encoding: str) -> None:
    from wsi_mil.cohort import read_cohort

    (tmp_path / "cohort.csv").write_bytes(text.encode(encoding))
    frame = read_cohort(tmp_path / "cohort.csv", slides="none", labels=["label"]).frame
    assert list(frame["slide"]) == ["001", "002"]
    assert list(frame["label"]) == ["a", "b"]


MESSY = """Nummer;slide ;patient;label ;Ort
1; 001 ;p1;a ;K\u00f6ln
2;001;p1;b;K\u00f6ln
3;002;;a;N\u00fcrnberg
4;003;p3;;K\u00f6ln
5;4;p4;b;K\u00f6ln
6;005;p5;4-Mar;K\u00f6ln
7;1.2E+12;p6;b;K\u00f6ln
8;absent;p7;c;K\u00f6ln
9;006;p8;a;K\u00f6ln
"""


@pytest.mark.parametrize(("encoding", "ends"), [("latin-1", "\r\n"), ("utf-8-sig", "\r\n"), ("utf-8", "\n")])
def test_a_spreadsheet_with_every_fault_is_one_report(tmp_path: Path, encoding: str, ends: str) -> None:
    """Separator, encoding, line ends and blanks are no fault; all that is one is told, each with its rows."""
    for name in ("001", "002", "003", "004", "005", "006"):
        (tmp_path / f"{name}.tiff").touch()
    (tmp_path / "table.csv").write_bytes(MESSY.replace("\n", ends).encode(encoding))
    (tmp_path / "study.yaml").write_text(f"cohort: {{table: table.csv, slides: {tmp_path}}}\ntask: {{label: label}}\n")
    with pytest.raises(CohortError) as caught:
        Work(tmp_path / "work", load_study(tmp_path / "study.yaml", ["split.folds=3"])).check_cohort()
    told = str(caught.value)
    for words in (
        "rows 2, 3: slide '001' stands there 2 times: keep one row",
        "row 4: no patient for slide '002'",
        "rows 5: no label in 'label'",
        "row 6: no file found for slide '4': a spreadsheet has cut the zeros off '004'; save the column as text",
        "row 7: the label '4-Mar' in 'label' looks like a date",
        "row 8: no file found for slide '1.2E+12': a spreadsheet has made a date or a number of its name",
        "row 9: no file found for slide 'absent': add it, or a column `path`",
        "rows 9: the class 'c' in 'label' has 1 patient(s), 3 are needed",
        "rows 2, 4, 10: the class 'a' in 'label' has",
        "no slide was read",
    ):
        assert words in told, told
    assert not (tmp_path / "work" / "cohort.csv").exists()


def test_a_few_labelled_slides_may_be_looked_at(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Tissue, tiles and features ask nothing of the labels; the folds do, and say so beforehand."""
    (tmp_path / "table.csv").write_text("slide,label\nA,a\nB,b\n")
    (tmp_path / "study.yaml").write_text("cohort: {table: table.csv, slides: none}\ntask: {label: label}\n")
    work = Work(tmp_path / "work", load_study(tmp_path / "study.yaml", []))
    with caplog.at_level("WARNING", logger="wsi_mil"):
        assert work.check_cohort(folds=False).slides == ["A", "B"]
    assert "the class 'a' in 'label' has 1 patient(s), 5 are needed" in caplog.text
    with pytest.raises(CohortError, match="the class 'b'"):
        work.check_cohort()


def test_headers_in_another_case_are_named_together(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("Slide,Label\n1,a\n")
    (tmp_path / "study.yaml").write_text("cohort: {table: table.csv, slides: none}\ntask: {label: label}\n")
    with pytest.raises(CohortError, match="no column 'slide': did you mean 'Slide'.; no column 'label': did you mean"):
        Work(tmp_path / "work", load_study(tmp_path / "study.yaml", [])).check_cohort()
