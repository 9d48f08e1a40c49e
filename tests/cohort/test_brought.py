"""Folds that a person brings: what CLAM and STAMP wrote, and columns of the cohort."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from wsi_mil.cohort import files_of, folds_by_column, read_brought
from wsi_mil.errors import CohortError

FRAME = pd.DataFrame(
    [(f"s{number}", f"p{number // 2}", str(number // 2 % 2)) for number in range(24)],
    columns=["slide", "patient", "label"],
)
SHARES = {"select": 0.25, "calibrate": 0.0}


def _read(path: Path, frame: pd.DataFrame = FRAME) -> pd.DataFrame:
    return read_brought(path, frame, label="label", shares=SHARES, seed=0)


def _clam(path: Path, train: list[str], val: list[str], test: list[str]) -> None:
    pd.DataFrame({name: pd.Series(ids, dtype=str) for name, ids in
                  (("train", train), ("val", val), ("test", test))}).to_csv(path)  # fmt: skip


def test_splits_of_clam_are_ragged_columns_of_slides(tmp_path: Path) -> None:
    slides = list(FRAME["slide"])
    _clam(tmp_path / "splits_0.csv", slides[:12], slides[12:16], [f"{one}.svs" for one in slides[16:]])
    _clam(tmp_path / "splits_10.csv", slides[12:], slides[8:12], slides[:8])
    _clam(tmp_path / "splits_2.csv", slides[8:20], slides[20:], slides[:8])
    (tmp_path / "splits_0_bool.csv").write_text("x")
    folds = _read(tmp_path)
    assert folds.groupby("fold").size().to_dict() == {0: 24, 1: 24, 2: 24}
    tested = folds[folds["role"] == "test"].groupby("fold")["slide"].agg(list)
    assert tested[0] == slides[16:]
    assert list(folds["role"][folds["fold"] == 2])[:12] == ["fit"] * 12  # splits_10 comes after splits_2
    assert set(_read(tmp_path / "splits_2.csv")["fold"]) == {0}
    assert len(files_of(tmp_path)) == 4


def test_splits_of_clam_that_cut_patients_are_refused_with_all_of_them(tmp_path: Path) -> None:
    slides = list(FRAME["slide"])
    _clam(tmp_path / "splits_0.csv", slides[0:20:2], [], slides[1:20:2])
    with pytest.raises(CohortError, match="10 fault") as told:
        _read(tmp_path / "splits_0.csv")
    assert "patient 'p9' is in 2 roles" in str(told.value)


def test_splits_of_stamp_are_lists_of_patients(tmp_path: Path) -> None:
    patients = sorted(set(FRAME["patient"]))
    path = tmp_path / "splits.json"
    path.write_text(
        json.dumps(
            {
                "splits": [
                    {"train_patients": patients[3:], "test_patients": patients[:3]},
                    {"train_patients": patients[:9], "test_patients": patients[9:]},
                ]
            }
        )  # fmt: skip
    )
    folds = _read(path)
    assert set(folds["patient"][(folds["fold"] == 1) & (folds["role"] == "test")]) == set(patients[9:])
    assert (folds.groupby(["fold", "patient"])["role"].nunique() == 1).all()
    assert (folds[folds["role"] == "select"].groupby("fold").size() > 0).all()
    path.write_text(json.dumps({"splits": [{"train_patients": patients[:4], "test_patients": [*patients[3:], "who"]}]}))
    with pytest.raises(CohortError, match=r"2 fault\(s\): patient 'p11' is in train and test of fold 0; 1 patient"):
        _read(path)
    path.write_text("{}")
    with pytest.raises(CohortError, match="cannot be read as STAMP's splits.json"):
        _read(path)


def test_our_own_table_must_agree_with_the_cohort(tmp_path: Path) -> None:
    table = FRAME[["slide", "patient"]].assign(repeat=0, fold=0, role=["fit", "fit", "test", "test"] * 6)
    table.to_csv(tmp_path / "folds.csv", index=False)
    assert len(_read(tmp_path / "folds.csv")) == 24
    table.assign(patient=table["slide"], role=["fit", "test"] * 12).to_csv(tmp_path / "folds.csv", index=False)
    with pytest.raises(CohortError, match="is of patient 'p0' in the cohort, not of 's0', rows 2;"):
        _read(tmp_path / "folds.csv")
    table.assign(fold="one").to_csv(tmp_path / "folds.csv", index=False)
    with pytest.raises(CohortError, match="fold 'one' is not a number"):
        _read(tmp_path / "folds.csv")
    with pytest.raises(CohortError, match="is a folder without splits_0.csv"):
        _read(tmp_path)


def test_a_patient_on_two_sides_is_named_with_the_rows(tmp_path: Path) -> None:
    """p0 has the slides s0 and s1, p1 the next two: rows 2 and 3 of our table, and of CLAM's."""
    roles = ["fit", "test", "fit", "fit", *["fit", "fit", "test", "test"] * 5]
    table = FRAME[["slide", "patient"]].assign(repeat=0, fold=0, role=roles)
    table = pd.concat([table, table.iloc[[4]]])
    table.to_csv(tmp_path / "folds.csv", index=False)
    with pytest.raises(CohortError) as caught:
        _read(tmp_path / "folds.csv")
    assert "patient 'p0' is in 2 roles of repeat 0, fold 0 (fit and test), rows 2, 3" in str(caught.value)
    assert "slide 's4' stands twice in repeat 0, fold 0, rows 6, 26" in str(caught.value)
    clam = tmp_path / "splits_0.csv"
    clam.write_text(",train,val,test\n0,s0,s4,s1\n1,s2,,s3\n")
    with pytest.raises(CohortError) as caught:
        _read(clam)
    assert "fold 0 (fit and test), rows 2 of splits_0.csv, 2 of splits_0.csv" in str(caught.value)
    assert "patient 'p1' is in 2 roles" in str(caught.value)
    assert ", rows 3 of splits_0.csv, 3 of splits_0.csv" in str(caught.value)
    rows = {slide: 100 + row for row, slide in enumerate(FRAME["slide"])}
    with pytest.raises(CohortError, match=r"patient 'p0' is in 2 roles .*, rows 100, 101"):
        folds_by_column(FRAME.assign(part=roles), "part", label="label", shares={}, seed=0, row_of=rows)
    with pytest.raises(CohortError, match="row 101: slide 's1' has no value"):
        folds_by_column(
            FRAME.assign(part=["fit", "", *roles[2:]]), "part", label="label", shares={}, seed=0, row_of=rows
        )


def test_a_column_of_roles_is_one_fold_and_any_other_a_fold_a_value() -> None:
    roles = FRAME.assign(part=["Train"] * 16 + ["test"] * 8)
    folds = folds_by_column(roles, "part", label="label", shares=SHARES, seed=0)
    assert set(folds["fold"]) == {0}
    assert set(folds["slide"][folds["role"] == "test"]) == set(FRAME["slide"][16:])
    assert "select" in set(folds["role"])
    centres = FRAME.assign(centre=[str(number // 8) for number in range(24)])
    folds = folds_by_column(centres, "centre", label="label", shares=SHARES, seed=0)
    assert folds["fold"].nunique() == 3
    assert (folds[folds["role"] == "test"].groupby("slide").size() == 1).all()


def test_faults_of_a_column() -> None:
    mixed = FRAME.assign(part=["train", "", "tset", "test"] * 6)
    with pytest.raises(CohortError, match=r"7 fault\(s\): slide 's1' has no value.*'tset' is no role"):
        folds_by_column(mixed, "part", label="label", shares=SHARES, seed=0)
    with pytest.raises(CohortError, match="it has 1 different values"):
        folds_by_column(FRAME.assign(part="a"), "part", label="label", shares=SHARES, seed=0)
