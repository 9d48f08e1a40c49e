"""Label columns of every kind: all faults with their rows, and groups that folds can be balanced by."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from wsi_mil.cohort import (
    class_faults,
    flag_faults,
    flag_strata,
    grade_faults,
    joined_strata,
    make_folds,
    number_faults,
    number_strata,
    survival_faults,
    survival_strata,
)
from wsi_mil.errors import CohortError


def _frame(**columns: list[str]) -> pd.DataFrame:
    count = len(next(iter(columns.values())))
    return pd.DataFrame({"slide": [f"S{row}" for row in range(count)], "patient": [f"P{row}" for row in range(count)]}
                        | columns)  # fmt: skip


def test_numbers() -> None:
    assert number_faults(_frame(x=["1", "2.5", "", "-3e1"]), "x") == []
    told = number_faults(_frame(x=["1", "2,5", "inf", "nan"]), "x")
    assert [fault.split(":")[0] for fault in told] == ["row 3", "row 4", "row 5"]
    assert "'x' is 2 for every slide" in number_faults(_frame(x=["2", "2.0", ""]), "x")[0]


def test_flags() -> None:
    assert flag_faults(_frame(x=["1", "0", "1.0", "0", ""]), ["x"]) == []
    assert "row 3: 'x' is 'no'" in flag_faults(_frame(x=["1", "no", "0", "1", "0"]), ["x"])[0]
    assert "row 2: 'x' is '2'" in flag_faults(_frame(x=["2", "0", "0", "1", "1"]), ["x"])[0]
    assert "'x' has 1 patient(s) with 0" in flag_faults(_frame(x=["1", "0", "1", "1"]), ["x"])[0]


def test_grades_and_classes() -> None:
    assert grade_faults(_frame(g=["1", "2", "3", ""]), "g", ()) == []
    assert "list them in task.classes" in grade_faults(_frame(g=["low", "mid", "high"]), "g", ())[0]
    assert grade_faults(_frame(g=["low", "mid", "high"]), "g", ("low", "mid", "high")) == []
    assert "three or more" in grade_faults(_frame(g=["1", "2"]), "g", ())[0]
    assert "row 3: 'g' is 'c', none of a, b" in class_faults(_frame(g=["a", "c", ""]), "g", ("a", "b"))[0]


@pytest.mark.parametrize(
    ("times", "events", "words"),
    [
        (["1", "2"], ["1", "0"], None),
        (["1", "-2"], ["1", "0"], "row 3: 't' is '-2', negative"),
        (["1", "x"], ["1", "0"], "row 3: 't' is 'x', no finite number"),
        (["1", "2"], ["1", "dead"], "row 3: 'e' is 'dead', no finite number"),
        (["1", "2"], ["1", "3"], "row 3: 'e' is '3', neither 1"),
        (["1", ""], ["1", "0"], "rows 3: only one of"),
        (["1", "2"], ["0", "0"], "all are censored"),
        (["2", "2"], ["1", "0"], "'t' is 2 for every slide"),
    ],
)
def test_survival(times: list[str], events: list[str], words: str | None) -> None:
    told = survival_faults(_frame(t=times, e=events), "t", "e")
    assert told == [] if words is None else any(words in fault for fault in told)


def test_a_number_is_binned_as_finely_as_the_patients_allow() -> None:
    frame = _frame(x=[str(value) for value in range(20)])
    assert number_strata(frame, "x", least=5).value_counts().tolist() == [5, 5, 5, 5]
    assert number_strata(frame, "x", least=10).nunique() == 2
    assert number_strata(frame, "x", least=11).nunique() == 1
    skewed = _frame(x=["0"] * 12 + [str(value) for value in range(1, 9)])
    assert number_strata(skewed, "x", least=4).value_counts().min() >= 4


def test_events_and_censored_are_halved_by_time_where_there_are_enough() -> None:
    times = [str(value) for value in range(16)]
    frame = _frame(t=times, e=["1", "0"] * 8)
    assert survival_strata(frame, "t", "e", least=4).value_counts().to_dict() == {
        "censored, early": 4, "censored, late": 4, "event, early": 4, "event, late": 4,
    }  # fmt: skip
    assert set(survival_strata(frame, "t", "e", least=5)) == {"event", "censored"}
    rare = _frame(t=times, e=["1"] + ["0"] * 15)
    assert survival_strata(rare, "t", "e", least=5).value_counts().min() >= 5


def test_labels_part_a_group_only_where_each_part_is_large_enough() -> None:
    frame = _frame(a=["1"] * 6 + ["0"] * 6, b=["1", "0"] * 3 + ["1"] * 5 + [""])
    assert flag_strata(frame, ["a", "b"], least=3).value_counts().to_dict() == {"a 0": 6, "a 1 b 0": 3, "a 1 b 1": 3}
    assert set(flag_strata(frame, ["b"], least=13)) == {"all"}


def test_rare_groups_are_joined() -> None:
    frame = _frame(g=["a"] * 5 + ["b"] * 4 + ["c"] * 2 + ["d"])
    assert joined_strata(frame, frame["g"], least=3).value_counts().to_dict() == {"a": 5, "b": 4, "c or d": 3}
    assert joined_strata(frame, frame["g"], least=4).value_counts().to_dict() == {"b or c or d": 7, "a": 5}


def test_folds_of_a_number_have_alike_means() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=60)
    frame = _frame(x=[f"{value}" for value in values])
    frame["label"] = number_strata(frame, "x", least=5)
    folds = make_folds(frame, label="label", folds=5, classes=False)
    tested = (
        folds[folds["role"] == "test"]
        .groupby("fold")["slide"]
        .agg(lambda own: values[[int(s[1:]) for s in own]].mean())
    )
    free = [values[random.permutation(60)[:12]].mean() for _ in range(200)]
    assert tested.std() < np.std(free)
    with pytest.raises(CohortError, match="too few patients for 5 folds: 4"):
        make_folds(frame.head(4), label="label", folds=5, classes=False)
