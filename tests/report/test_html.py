"""The page: one file, escaped, nothing loaded from elsewhere."""

from __future__ import annotations

import math

from wsi_mil.report import Figure, Headline, Link, Part, Picture, TableView, interval_text, page


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


def test_commands_in_a_text_are_set_as_code_and_escaped() -> None:
    html = page(title="A", subtitle="", headlines=[], parts=[Part("One", "run `wsi-mil case <WORK>`, then <b>")])
    assert "run <code>wsi-mil case &lt;WORK&gt;</code>, then &lt;b&gt;" in html


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


def test_chapters_stand_in_the_contents_in_order() -> None:
    parts = [Part("Flow", chapter="Cohort"), Part("Folds"), Part("ROC", chapter="Results")]
    html = page(title="t", subtitle="s", headlines=[], parts=parts)
    contents = html[html.index("<nav") : html.index("</nav>")]
    assert contents.index("Cohort") < contents.index("Folds") < contents.index("Results") < contents.index("ROC")
    assert contents.count('class="chapter"') == 2
    assert html.count('class="first"') == 2  # each begins a page on paper


def test_links_and_names_in_tables_are_escaped() -> None:
    table = TableView(["slide", "p"], [[Link("<S1>", 'a"b.png'), "0.5"]])
    html = page(title="t", subtitle="s", headlines=[], parts=[Part("x", tables=[table])])
    assert '<a href="a&#34;b.png">&lt;S1&gt;</a>' in html
    assert table.numeric == [False, True]


def test_a_table_without_headers_is_a_list_of_names() -> None:
    html = page(title="t", subtitle="s", headlines=[], parts=[Part("x", tables=[TableView(["", ""], [["a", "1"]])])])
    assert 'class="pairs"' in html
    assert "<thead>" not in html


def test_the_banner_is_in_plain_sight() -> None:
    assert "banner" not in _page().partition("</style>")[2]
    html = page(title="t", subtitle="s", headlines=[], parts=[], banner="Research use only.")
    assert '<p class="banner">Research use only.</p>' in html
