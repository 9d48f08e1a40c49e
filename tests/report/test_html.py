"""The page: one file, escaped, nothing loaded from elsewhere."""

from __future__ import annotations

import math

from wsi_mil.report import Figure, Headline, Part, Picture, TableView, interval_text, page


def _page() -> str:
    return page(
        title="A <study>",
        subtitle="2 slides",
        headlines=[Headline("0.9", "AUROC")],
        parts=[
            Part("One & two", tables=[TableView(["slide", "p"], [["<b>", "0.5"]])], figures=[Figure("<svg></svg>")]),
            Part("Pictures", pictures=[Picture(b"\x89PNG..", "a picture")], folded=True, code="x: 1"),
        ],
    )


def test_what_people_write_is_escaped() -> None:
    html = _page()
    assert "A &lt;study&gt;" in html
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    assert "<svg></svg>" in html


def test_nothing_is_loaded_from_elsewhere() -> None:
    html = _page()
    assert "data:image/png;base64," in html
    assert "http" not in html


def test_parts_can_be_reached() -> None:
    html = _page()
    assert 'href="#one---two"' in html
    assert 'id="one---two"' in html


def test_columns_of_numbers_are_known() -> None:
    rows = [["x", "0.5 (0.4 to 0.6)", ""], ["y", "–", ""]]
    assert TableView(["a", "b", "note"], rows).numeric == [False, True, False]


def test_intervals_in_words() -> None:
    assert interval_text(0.5, 0.25, 0.75) == "0.500 (0.250 to 0.750)"
    assert interval_text(0.5, math.nan, math.nan) == "0.500"
    assert interval_text(math.nan, 0, 1) == "–"
