"""Clinical records: what the numbers are, that only training rows teach them, and what is missing."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from wsi_mil.cohort import ClinicalEncoder
from wsi_mil.errors import CohortError

FACTORS = {"age": "number", "sex": "category", "wait": ("biopsy", "surgery")}


def _table(**columns: list[str]) -> pd.DataFrame:
    whole = {
        "age": ["40", "60", "", "50"],
        "sex": ["f", "m", "m", "NA"],
        "biopsy": ["2020-01-01", "2020-01-01", "2020-02-28", ""],
        "surgery": ["2020-01-11", "2020-01-31", "2020-03-01", "2020-01-05"],
    }
    return pd.DataFrame(whole | columns)


def test_numbers_categories_and_days() -> None:
    encoder = ClinicalEncoder.of(FACTORS).fit(_table())
    assert encoder.sizes == (1, 2, 1)
    record = encoder.encode(_table())
    known = ~record.missing
    np.testing.assert_array_equal(known[:, 0], [True, True, False, True])
    np.testing.assert_allclose(record.values[known[:, 0], 0].mean(), 0, atol=1e-6)
    np.testing.assert_allclose(record.values[known[:, 0], 0].std(), 1, rtol=1e-6)
    np.testing.assert_array_equal(record.values[:, 1:3], [[1, 0], [0, 1], [0, 1], [0, 0]])
    np.testing.assert_array_equal(known[:, 1:3], [[True, True]] * 3 + [[False, False]])
    days = np.array([10.0, 30.0, 2.0])  # 2020 has a 29th of February
    np.testing.assert_allclose(record.values[:3, 3], (days - days.mean()) / days.std(), rtol=1e-5)
    assert not known[3, 3]
    assert not record.values[record.missing].any()


def test_other_slides_teach_nothing_and_are_read_with_the_numbers_of_training() -> None:
    encoder = ClinicalEncoder.of(FACTORS).fit(_table())
    new = _table(age=["1000", "50", "50", "50"], sex=["x", "f", "f", "f"])
    record = encoder.encode(new)
    assert record.values[0, 0] == 5.0, "cut at five spreads"
    assert record.values[1, 0] == pytest.approx(0)
    assert record.missing[0, 1:3].all(), "a category that training never saw is not known"
    assert encoder.unknown(new.iloc[:1]) == ["sex"]
    assert encoder.encode(new.drop(columns="age")).missing[:, 0].all()


def test_a_checkpoint_can_hold_it() -> None:
    encoder = ClinicalEncoder.of(FACTORS).fit(_table())
    assert ClinicalEncoder.from_json(json.loads(json.dumps(encoder.to_json()))) == encoder


def test_every_fault_is_told_at_once() -> None:
    table = _table(age=["40", "old", "", "inf"], surgery=["31.1.2020"] * 4).drop(columns="sex")
    faults = ClinicalEncoder.of(FACTORS).problems(table)
    assert len(faults) == 7
    assert faults[0] == "row 3: 'age' is 'old', not a number"
    assert "no column 'sex'" in faults[2]
    assert "'surgery' is '31.1.2020', not a date such as 2021-03-31" in faults[3]
    assert not ClinicalEncoder.of(FACTORS).problems(_table())


def test_a_factor_of_which_nothing_is_known_is_refused() -> None:
    with pytest.raises(CohortError, match="'age' is missing for every training slide"):
        ClinicalEncoder.of(FACTORS).fit(_table(age=["", "NA", "?", "unknown"]))


def test_a_number_that_never_varies_is_zero() -> None:
    encoder = ClinicalEncoder.of({"age": "number"}).fit(_table(age=["7"] * 4))
    assert not encoder.encode(_table(age=["7"] * 4)).values.any()
