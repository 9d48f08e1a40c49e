"""Tables as spreadsheets save them."""

from __future__ import annotations

import pytest

from wsi_mil.cohort.spreadsheet import rewritten


@pytest.mark.parametrize("cell", ["4-Mar", "01-Mar", "Mar-19", "Mar 2019", "1.23E+12", "1,2E+05", "4.Mar"])
def test_names_that_became_dates_or_numbers(cell: str) -> None:
    assert rewritten(cell)


@pytest.mark.parametrize(
    "cell", ["", "3-4", "MAR2019", "2019-03-04", "A-1", "1.5", "Mar", "tumour", "TCGA-AB-1234", "E+12"]
)
def test_names_that_stayed(cell: str) -> None:
    assert not rewritten(cell)
