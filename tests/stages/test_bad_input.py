"""Bad input of every kind ends in one clear sentence that says what, where and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from bagged import bag_study, through, with_settings
from studies import run_stage

from wsi_mil.errors import CohortError, WsiMilError
from wsi_mil.stages import Work, load_study

Bad = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A study that runs; copied, never changed."""
    work = bag_study(tmp_path_factory.mktemp("clean"), "train.epochs=1", slides=16)
    through(work, "split", "train")
    return work


def _copy(clean: Work, folder: Path) -> Work:
    shutil.copytree(clean.root.parent, folder / "copy")
    return Work(folder / "copy" / "work", clean.study)


def _cells(column: str, values: dict[int, str]) -> Bad:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.copy()
        for row, value in values.items():
            frame.loc[row, column] = value
        return frame

    return change


def _survival(events: list[str]) -> Bad:
    return lambda frame: frame.assign(time=[str(5 + row) for row in range(len(frame))], event=events)


SURVIVAL = ("task.kind=survival", "task.label=''", "task.time=time", "task.event=event", "model.name=mean")

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
    "no label": (_cells("label", {2: "", 4: " "}), (), "rows 4, 6: no label in 'label': fill them in"),
    "unknown class": (
        _cells("label", {3: "tumor"}),
        ("task.classes=[normal,tumour]",),
        "row 5: unknown label 'tumor' in 'label': did you mean 'tumour'",
    ),
    "header case": (lambda frame: frame.rename(columns={"label": "Label"}), (), "no label column 'label'"),
    "no patient": (_cells("patient", {0: ""}), (), "row 2: no patient for slide 'S000'"),
    "two labels of a patient": (
        _cells("patient", {1: "P000"}),
        ("cohort.label_of=patient",),
        "rows 2, 3: patient 'P000' has the labels 'normal' and 'tumour'",
    ),
    "a name that is no file name": (_cells("slide", {0: "../S000"}), (), "row 2: slide '../S000'"),
    "one class": (lambda frame: frame.assign(label="normal"), (), "the label 'label' has one value only ('normal')"),
    "a class of one patient": (
        _cells("label", {row: "tumour" if row == 3 else "normal" for row in range(16)}),
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
        _cells("label", {3: "4-Mar"}),
        (),
        "row 5: the label '4-Mar' in 'label' looks like a date",
    ),
    "all censored": (_survival(["0"] * 16), SURVIVAL, "all are censored"),
    "events that are words": (_survival(["dead"] * 16), SURVIVAL, "row 2: 'event' is 'dead', no finite number"),
    "a number that is a date": (
        _cells("age", {5: "2021-03-01"}),
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
    work = _copy(clean, tmp_path)
    frame = pd.read_csv(work.root.parent / "cohort.csv", dtype=str, keep_default_na=False)
    bad(frame).to_csv(work.root.parent / "cohort.csv", index=False)
    with pytest.raises(CohortError) as caught:
        with_settings(work, *settings)
    assert words in str(caught.value)


def test_all_faults_stand_in_one_report(clean: Work, tmp_path: Path) -> None:
    work = _copy(clean, tmp_path)
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


def test_headers_in_another_case_are_named_together(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("Slide,Label\n1,a\n")
    (tmp_path / "study.yaml").write_text("cohort: {table: table.csv, slides: none}\ntask: {label: label}\n")
    with pytest.raises(CohortError, match="no column 'slide': did you mean 'Slide'.; no column 'label': did you mean"):
        Work(tmp_path / "work", load_study(tmp_path / "study.yaml", [])).check_cohort()


FOLDS: dict[str, tuple[Bad, tuple[str, ...], str]] = {
    "a fold without events": (
        _survival(["1", *["0"] * 15]),
        (*SURVIVAL, "split.folds=2"),
        "has no event of 'event' in the role",
    ),
}


@pytest.mark.parametrize("name", list(FOLDS))
def test_folds_that_cannot_be_dealt_are_refused(clean: Work, tmp_path: Path, name: str) -> None:
    bad, settings, words = FOLDS[name]
    work = _copy(clean, tmp_path)
    shutil.rmtree(work.root / "split")
    shutil.rmtree(work.root / "train")
    frame = pd.read_csv(work.root.parent / "cohort.csv", dtype=str, keep_default_na=False)
    bad(frame).to_csv(work.root.parent / "cohort.csv", index=False)
    ended = run_stage(with_settings(work, *settings), "split")[0]
    assert ended.kind == "failed"
    assert words in ended.why


def _patient_on_two_sides(work: Work) -> str:
    path = work.root / "split" / "folds.csv"
    frame = pd.read_csv(path, dtype=str)
    one = frame[(frame["fold"] == "0") & (frame["role"] == "test")].iloc[0]
    other = frame.index[(frame["fold"] == "0") & (frame["role"] == "fit")][0]
    table = pd.read_csv(work.root / "cohort.csv", dtype=str, keep_default_na=False)
    table.loc[table["slide"] == frame.loc[other, "slide"], "patient"] = one["patient"]
    table.to_csv(work.root / "cohort.csv", index=False)
    shutil.rmtree(work.root / "train")
    return "train"


def _same_content_under_two_names(work: Work) -> str:
    frame = pd.read_csv(work.root / "split" / "folds.csv", dtype=str)
    here = frame[frame["fold"] == "0"]
    tested, learnt = (here["slide"][here["role"] == role].iloc[0] for role in ("test", "fit"))
    folder = work.root / "extract" / "phikon"
    with h5py.File(folder / f"{tested}.h5") as source, h5py.File(folder / f"{learnt}.h5") as target:
        assert source["features"].shape[1] == target["features"].shape[1]
    shutil.copy(folder / f"{tested}.h5", folder / f"{learnt}.h5")
    shutil.rmtree(work.root / "train")
    return "train"


def _nan_features(work: Work) -> str:
    for path in (work.root / "extract" / "phikon").glob("*.h5"):
        with h5py.File(path, "r+") as file:
            values = file["features"][:]
            values[3, 1] = np.nan
            file["features"][:] = values
            if "numbers" in file.attrs:
                del file.attrs["numbers"]
    shutil.rmtree(work.root / "train")
    return "train"


def _edited_checkpoint(change: Callable[[dict], None]) -> Callable[[Work], str]:  # type: ignore[type-arg]
    def bad(work: Work) -> str:
        path = work.root / "train" / "abmil" / "seed-0" / "fold-0" / "model.json"
        record = json.loads(path.read_text(encoding="utf-8"))
        change(record)
        path.write_text(json.dumps(record), encoding="utf-8")
        return "predict"

    return bad


LATER: dict[str, tuple[Callable[[Work], str], str]] = {
    "a patient on two sides": (_patient_on_two_sides, "leakage, "),
    "one file under two names": (_same_content_under_two_names, "are the same file, one to learn from and one to be"),
    "features that are not finite": (_nan_features, "feature 1 of tile 3 is nan; extract the slide again"),
    "a checkpoint of another encoder": (
        _edited_checkpoint(lambda told: told["encoder"].update(name="uni")),
        "its features are not what the model was trained on (name:",
    ),
    "a checkpoint of another version": (
        _edited_checkpoint(lambda told: told.update(format=7)),
        "has format 7 and wsi_mil",
    ),
    "a checkpoint of another task": (
        _edited_checkpoint(lambda told: told["task"].update(classes=["a", "b"])),
        "seed-0/fold-0 is classification of a, b, and seed-0/fold-1 is classification of normal, tumour",
    ),
}


@pytest.mark.parametrize("name", list(LATER))
def test_what_is_found_later_is_said_in_one_sentence(clean: Work, tmp_path: Path, name: str) -> None:
    bad, words = LATER[name]
    work = _copy(clean, tmp_path)
    stage = bad(work)
    try:
        ended = run_stage(Work(work.root, work.study), stage)[0]
        kind, why = ended.kind, ended.why
        if kind == "made" and (work.root / "predict").exists():
            table = pd.read_csv(work.root / "predict" / "abmil" / "slides.csv", dtype=str, keep_default_na=False)
            kind, why = "failed", " ".join(table["note"])
    except WsiMilError as error:
        kind, why = "failed", str(error)
    assert kind == "failed"
    assert words in why
