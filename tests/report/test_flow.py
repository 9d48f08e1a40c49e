"""The figure of the cohort's flow says how many are left, how many were lost, and why."""

from __future__ import annotations

from wsi_mil.report import Step, flow_figure


def test_counts_and_reasons_are_text() -> None:
    lost = [(3, "no tissue"), (2, "not opened"), (1, "a"), (1, "b"), (4, "c")]
    drawn = flow_figure([Step("in the table", 1234, 800), Step("with tissue", 1223, 795, lost)], title="Flow")
    for words in ("1,234", "800 patients", "with tissue", "3 left out: no tissue", "4 left out for other reasons"):
        assert words in drawn, words
    assert drawn.startswith("<svg")


def test_long_reasons_are_cut() -> None:
    drawn = flow_figure([Step("a", 2, 2), Step("b", 1, 1, [(1, "word " * 100)])], title="Flow")
    assert drawn.count("word") < 40
