"""The cohort table: every fault at once, with row numbers, before any slide is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsi_mil.cohort import read_cohort, read_table
from wsi_mil.errors import CohortError


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    folder = tmp_path / "slides"
    folder.mkdir()
    for name in ("A1.svs", "A2.svs", "B1.ome.tif", "notes.txt", ".hidden.svs"):
        (folder / name).write_bytes(b"x")
    return folder


def _table(tmp_path: Path, text: str, *, encoding: str = "utf-8") -> Path:
    path = tmp_path / "cohort.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_rows_find_their_files(tmp_path: Path, slides: Path) -> None:
    table = _table(tmp_path, "slide,patient,label,site,mpp\nA1,p1,0,x,0.25\nA2,p1,1,,\nB1,p2,1,y,\n")
    cohort = read_cohort(table, slides=str(slides), labels=["label"])
    assert cohort.slides == ["A1", "A2", "B1"]
    assert [Path(path).name for path in cohort.frame["path"]] == ["A1.svs", "A2.svs", "B1.ome.tif"]
    assert cohort.frame["mpp"].tolist()[0] == 0.25
    assert cohort.frame["mpp"].isna().tolist() == [False, True, True]


def test_a_folder_alone_is_a_cohort(slides: Path) -> None:
    cohort = read_cohort(None, slides=str(slides))
    assert cohort.slides == ["A1", "A2", "B1"]
    assert cohort.frame["patient"].tolist() == cohort.slides


@pytest.mark.parametrize("pattern", ["*.svs", "A?.svs"])
def test_a_pattern_is_a_cohort(slides: Path, pattern: str) -> None:
    assert read_cohort(None, slides=str(slides / pattern)).slides == ["A1", "A2"]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("\ufeffslide,label\r\n 001 ,1\r\n", "utf-8"),
        ("slide;label\n001;1\n", "utf-8"),
        ("slide\tlabel\tort\n001\t1\tK\u00f6ln\n", "latin-1"),
    ],
)
def test_tables_as_spreadsheets_save_them(tmp_path: Path, text: str, encoding: str) -> None:
    frame = read_table(_table(tmp_path, text, encoding=encoding))
    assert frame["slide"].tolist() == ["001"]  # a number with zeros in front stays text
    assert frame["label"].tolist() == ["1"]


def test_every_fault_at_once_with_its_row(tmp_path: Path, slides: Path) -> None:
    (slides / "A1.tif").write_bytes(b"x")
    rows = [
        "slide,patient,label,mpp",
        "A1,p1,0,",  # row 2: A1.svs or A1.tif
        "A2,p1,9,",  # row 3: unknown label
        "A2,p1,1,",  # row 4: twice
        "a2,p1,1,",  # row 5: twice on Windows
        "C1,p2,1,",  # row 6: no file
        "../x,p2,1,",  # row 7: unsafe
        "B1,,1,-3",  # row 8: no patient, no scale
        "D1,p3,,",  # row 9: no label
    ]
    with pytest.raises(CohortError) as caught:
        read_cohort(_table(tmp_path, "\n".join(rows)), slides=str(slides), labels=["label"], classes=["0", "1"])
    told = str(caught.value)
    for words in (
        "row 2: slide 'A1' could be any of",
        "row 3: unknown label '9'",
        "rows 3, 4, 5: slide 'A2' and 'a2'",
        "row 6: no file found for slide 'C1'",
        "row 7: slide '../x'",
        "row 8: no patient",
        "row 8: mpp '-3'",
        "rows 9: no label",
    ):
        assert words in told, told


def test_missing_columns_are_named_with_the_nearest(tmp_path: Path, slides: Path) -> None:
    with pytest.raises(CohortError, match=r"no column 'slide': did you mean 'slides'\?"):
        read_cohort(_table(tmp_path, "slides,label\nA1,0\n"), slides=str(slides))
    with pytest.raises(CohortError, match=r"no label column 'lable': did you mean 'label'\?"):
        read_cohort(_table(tmp_path, "slide,label\nA1,0\n"), slides=str(slides), labels=["lable"])
    with pytest.raises(CohortError, match=r"no column 'case' for patients"):
        read_cohort(_table(tmp_path, "slide,label\nA1,0\n"), slides=str(slides), patient="case")


def test_conflicting_labels_of_a_patient_are_a_fault_only_where_labels_are_of_patients(
    tmp_path: Path, slides: Path
) -> None:
    table = _table(tmp_path, "slide,patient,label\nA1,p1,0\nA2,p1,1\n")
    assert len(read_cohort(table, slides=str(slides), labels=["label"])) == 2
    with pytest.raises(CohortError, match="rows 2, 3: patient 'p1' has the labels '0' and '1'"):
        read_cohort(table, slides=str(slides), labels=["label"], label_of="patient")


def test_slides_without_a_label_may_be_there_to_predict(tmp_path: Path, slides: Path) -> None:
    table = _table(tmp_path, "slide,label\nA1,0\nA2,\n")
    assert len(read_cohort(table, slides=str(slides), labels=["label"], missing_labels="predict")) == 2


def test_paths_of_the_table_start_at_the_table(tmp_path: Path, slides: Path) -> None:
    table = _table(tmp_path, "slide,path\nx,slides/A1.svs\ny,slides/none.svs\n")
    with pytest.raises(CohortError, match="row 3: the file '.*none.svs' of slide 'y' does not exist"):
        read_cohort(table, slides="")
    table = _table(tmp_path, "slide,path\nx,slides/A1.svs\n")
    assert read_cohort(table, slides="").frame["path"].tolist() == [str(slides / "A1.svs")]


@pytest.mark.parametrize(("text", "words"), [("", "is empty"), ("slide,label\n", "no rows"), ("slide\n'a\n", None)])
def test_tables_without_content(tmp_path: Path, slides: Path, text: str, words: str | None) -> None:
    with pytest.raises(CohortError, match=words):
        read_cohort(_table(tmp_path, text), slides=str(slides))


def test_a_missing_table_and_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="cannot read the table"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(CohortError, match="no slides found"):
        read_cohort(None, slides=str(tmp_path))


def test_a_study_of_bags_alone_needs_no_slides(tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_text("slide,label\nA1,x\nB2,y\n")
    cohort = read_cohort(tmp_path / "cohort.csv", slides="none", labels=["label"])
    assert list(cohort.frame["path"]) == ["", ""]
    with pytest.raises(CohortError, match="no slides found in 'none'"):
        read_cohort(None, slides="none")
