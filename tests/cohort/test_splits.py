"""Folds that cannot leak."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_mil.cohort import check_folds, make_folds
from wsi_mil.errors import CohortError


def _frame(patients: int, slides_each: int, seed: int, *, per_slide: bool = False) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    rows = []
    for patient in range(patients):
        for slide in range(1 + int(random.integers(slides_each))):
            label = slide % 2 if per_slide else patient % 2
            rows.append((f"p{patient}-s{slide}", f"p{patient}", str(label)))
    return pd.DataFrame(rows, columns=["slide", "patient", "label"])


@settings(deadline=None, max_examples=30)
@given(st.integers(12, 40), st.integers(1, 4), st.integers(0, 99), st.integers(2, 5), st.sampled_from([0.0, 0.2, 0.33]))
def test_no_patient_in_two_roles_and_every_slide_tested_once_a_repeat(
    patients: int, slides_each: int, seed: int, ways: int, select: float
) -> None:
    frame = _frame(patients, slides_each, seed)
    folds = make_folds(frame, label="label", folds=ways, repeats=2, select=select, seed=seed)
    roles = folds.groupby(["repeat", "fold", "patient"])["role"].nunique()
    assert (roles == 1).all()
    tested = folds[folds["role"] == "test"].groupby(["repeat", "slide"]).size()
    assert (tested == 1).all()
    assert len(tested) == 2 * len(frame)
    assert ("select" in set(folds["role"])) == (select > 0)


def test_the_same_seed_deals_the_same_and_another_seed_another() -> None:
    frame = _frame(30, 2, 0)
    first, again = (make_folds(frame, label="label", seed=3) for _ in range(2))
    assert first.equals(again)
    assert not first.equals(make_folds(frame, label="label", seed=4))


def test_classes_are_spread_evenly() -> None:
    folds = make_folds(_frame(60, 1, 0), label="label", folds=5)
    labels = _frame(60, 1, 0).set_index("slide")["label"]
    for _, part in folds[folds["role"] == "test"].groupby("fold"):
        assert 4 <= sum(labels[slide] == "1" for slide in part["slide"]) <= 8


def test_slide_labels_within_patients_still_keep_patients_whole() -> None:
    frame = _frame(30, 2, 1, per_slide=True)
    folds = make_folds(frame, label="label", folds=5)
    assert (folds.groupby(["fold", "patient"])["role"].nunique() == 1).all()


def test_calibrate_is_a_role_of_its_own() -> None:
    folds = make_folds(_frame(60, 1, 0), label="label", calibrate=0.2)
    assert set(folds["role"]) == {"fit", "select", "calibrate", "test"}


def test_too_few_patients_are_told_with_their_numbers() -> None:
    frame = _frame(30, 1, 0)
    frame["label"] = ["rare" if row < 3 else "common" for row in range(len(frame))]
    with pytest.raises(CohortError, match="too few patients for 5 folds of 'label': 'rare' has 3"):
        make_folds(frame, label="label", folds=5)
    frame["label"] = "one"
    with pytest.raises(CohortError, match="one value only"):
        make_folds(frame, label="label")


def test_brought_folds_are_checked() -> None:
    good = pd.DataFrame(
        [(0, 0, "a", "p", "fit"), (0, 0, "b", "q", "test")], columns=["repeat", "fold", "slide", "patient", "role"]
    )
    assert len(check_folds(good, slides=["a", "b"], where="x")) == 2
    leak = pd.concat([good, pd.DataFrame([(0, 0, "c", "q", "fit")], columns=good.columns)])
    with pytest.raises(CohortError, match="patient 'q' is in 2 roles of repeat 0, fold 0"):
        check_folds(leak, slides=["a", "b", "c"], where="x")
    with pytest.raises(CohortError, match="unknown role 'tset': did you mean 'test'"):
        check_folds(good.replace("test", "tset"), slides=["a", "b"], where="x")
    with pytest.raises(CohortError, match="the cohort does not have, first 'b'"):
        check_folds(good, slides=["a"], where="x")
    with pytest.raises(CohortError, match=r"lacks the column\(s\) role"):
        check_folds(good.drop(columns="role"), slides=["a", "b"], where="x")


def test_every_fault_of_brought_folds_is_named() -> None:
    columns = ["repeat", "fold", "slide", "patient", "role"]
    rows = [(0, 0, f"s{number}", f"p{number // 2}", ("fit", "test")[number % 2]) for number in range(14)]
    with pytest.raises(CohortError, match=r"7 fault\(s\)") as told:
        check_folds(pd.DataFrame(rows, columns=columns), slides=[row[2] for row in rows], where="x")
    assert all(f"patient 'p{number}' is in 2 roles" in str(told.value) for number in range(7))
    with pytest.raises(CohortError, match="slide 's1' is of patient 'p0' in the cohort, not of 'x'"):
        check_folds(
            pd.DataFrame([(0, 0, "s0", "p0", "fit"), (0, 0, "s1", "x", "test")], columns=columns),
            slides=["s0", "s1"],
            where="x",
            patients={"s0": "p0", "s1": "p0"},
        )


def test_one_fold_is_one_test_set() -> None:
    folds = make_folds(_frame(60, 2, 0), label="label", folds=1, test=0.25, calibrate=0.2)
    assert set(folds["fold"]) == {0}
    share = folds["role"].value_counts(normalize=True)
    assert 0.18 < share["test"] < 0.32
    assert set(share.index) == {"fit", "select", "calibrate", "test"}


def _mixed(patients: int) -> pd.DataFrame:
    """Three classes of 1/2, 1/3 and 1/6 of the patients, with one to three slides each."""
    rows = []
    for patient in range(patients):
        label = "aaabbc"[patient % 6]
        rows += [(f"p{patient}-s{slide}", f"p{patient}", label) for slide in range(1 + patient % 7 % 3)]
    return pd.DataFrame(rows, columns=["slide", "patient", "label"])


def _patients(folds: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """One row a fold and patient, with role and label."""
    return folds.merge(frame[["slide", "label"]], on="slide").drop_duplicates(["repeat", "fold", "patient"])


@pytest.mark.parametrize("share", [0.45, 0.4, 0.35, 0.3, 0.27, 0.15, 0.08])
@pytest.mark.parametrize("patients", [60, 101])
def test_a_share_that_is_no_whole_part_is_met_in_all_and_in_each_class(share: float, patients: int) -> None:
    frame = _mixed(patients)
    for seed in range(3):
        folds = make_folds(frame, label="label", folds=1, test=share, select=share, calibrate=share, seed=seed)
        assert (folds.groupby("patient")["role"].nunique() == 1).all()
        roles = _patients(folds, frame)
        tested = roles["role"] == "test"
        assert abs(tested.sum() - share * patients) <= 1
        for label, group in roles.groupby("label"):
            assert abs((group["role"] == "test").sum() - share * len(group)) <= 2, label
        rest = roles[~tested]
        for role in ("select", "calibrate"):
            assert abs((rest["role"] == role).sum() - share * len(rest)) <= 1, role
            by_class = (rest["role"] == role).groupby(rest["label"]).agg(["sum", "size"])
            assert (abs(by_class["sum"] - share * by_class["size"]) <= 2.5).all(), by_class
        again = make_folds(frame, label="label", folds=1, test=share, select=share, calibrate=share, seed=seed)
        assert again.equals(folds)
    assert not make_folds(frame, label="label", folds=1, test=share, seed=9).equals(
        make_folds(frame, label="label", folds=1, test=share, seed=8)
    )


@pytest.mark.parametrize(("select", "calibrate"), [(0.2, 0.2), (0.25, 0.25), (0.2, 0.3), (0.0, 0.2), (0.5, 0.25)])
def test_calibrate_is_a_share_of_all_that_is_not_tested(select: float, calibrate: float) -> None:
    frame = _frame(80, 1, 0)
    for _, part in make_folds(frame, label="label", select=select, calibrate=calibrate).groupby("fold"):
        rest = part[part["role"] != "test"]
        assert (rest["role"] == "select").mean() == pytest.approx(select, abs=0.02)
        assert (rest["role"] == "calibrate").mean() == pytest.approx(calibrate, abs=0.02)


def test_a_whole_part_is_dealt_as_it_always_was() -> None:
    """Studies made before keep their folds: the first of as many stratified parts."""
    from sklearn.model_selection import StratifiedGroupKFold

    frame = _frame(60, 2, 0)
    folds = make_folds(frame, label="label", folds=1, test=0.25, select=0.0, seed=3)
    splitter = StratifiedGroupKFold(4, shuffle=True, random_state=3)
    _, test = next(splitter.split(frame, frame["label"], frame["patient"]))
    assert list(np.flatnonzero(folds["role"] == "test")) == list(test)


def test_shares_that_leave_nobody_to_learn_from() -> None:
    with pytest.raises(CohortError, match=r"calibrate is to have 0\.5 of 48 patients, and .* left 24: lower"):
        make_folds(_frame(60, 1, 0), label="label", select=0.5, calibrate=0.5)


def test_sites_of_groups_to_balance_by_may_each_lack_one() -> None:
    frame = _sited(4)
    frame["label"] = np.where(frame["site"] == "S3", "bin 3", "bin 0")
    made = make_folds(frame, label="label", by="leave_one_site_out", classes=False)
    assert made["fold"].nunique() == 4
    assert make_folds(frame, label="label", folds=2, by="sites", classes=False)["fold"].nunique() == 2


def _sited(sites: int, patients: int = 40) -> pd.DataFrame:
    frame = _frame(patients, 2, 0)
    number = frame["patient"].str[1:].astype(int)
    return frame.assign(site=("S" + (number // 2 % sites).astype(str)))


@pytest.mark.parametrize(("by", "folds"), [("sites", 3), ("leave_one_site_out", 7)])
def test_a_site_is_never_on_two_sides(by: str, folds: int) -> None:
    frame = _sited(7)
    made = make_folds(frame, label="label", folds=3, by=by)  # type: ignore[arg-type]
    assert made["fold"].nunique() == folds
    made["site"] = made["slide"].map(frame.set_index("slide")["site"])
    made["side"] = made["role"] == "test"
    assert (made.groupby(["fold", "site"])["side"].nunique() == 1).all()
    assert (made.groupby(["fold", "patient"])["role"].nunique() == 1).all()
    assert (made[made["side"]].groupby("slide").size() == 1).all()
    if by == "leave_one_site_out":
        assert (made[made["side"]].groupby("fold")["site"].nunique() == 1).all()


def test_sites_that_cannot_be_kept_whole() -> None:
    with pytest.raises(CohortError, match=r"2 site\(s\) \(S0, S1\) are too few for 5 folds"):
        make_folds(_sited(2), label="label", by="sites")
    frame = _sited(4)
    frame["label"] = np.where(frame["site"] == "S3", "1", "0")
    with pytest.raises(CohortError, match="without S3 no slide of '1' is left to learn from"):
        make_folds(frame, label="label", by="leave_one_site_out")
    frame.loc[3, "site"] = ""
    with pytest.raises(CohortError, match=r"1 have none \(first 'p"):
        make_folds(frame, label="label", by="sites")
    shared = _sited(3)
    shared.loc[shared["patient"] == "p0", "site"] = ["S0", "S1"][: (shared["patient"] == "p0").sum()]
    if (shared["patient"] == "p0").sum() > 1:  # a patient of two sites joins them
        assert make_folds(shared, label="label", by="leave_one_site_out")["fold"].nunique() == 2
