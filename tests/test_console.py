"""Tables of numbers are whole in a file and in a terminal of any width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from wsi_mil.console import show_table

HEADERS = ["map", *(f"measure number {place}" for place in range(6))]
ROWS = [[f"attention_of_query_{row}", *(f"0.{row}{place}0 (0.100 to 0.900)" for place in range(6))] for row in range(3)]
CELLS = [cell for row in ROWS for cell in row]


def shown(rows: list[list[str]], headers: list[str], *, width: int, terminal: bool) -> list[str]:
    file = io.StringIO()
    show_table(rows, headers, Console(file=file, width=width, force_terminal=terminal, no_color=True), title="Numbers")
    return file.getvalue().replace("\x1b[0m", "").replace("\x1b[1m", "").replace("\x1b[3m", "").splitlines()


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("width", [60, 80, 150, 300])
def test_no_number_is_broken(width: int, *, terminal: bool) -> None:
    lines = shown(ROWS, HEADERS, width=width, terminal=terminal)
    assert all(any(cell in line for line in lines) for cell in CELLS)
    assert not terminal or max(map(len, lines)) <= width
    assert any("┏" in line for line in lines) == (width == 300 or not terminal)


def test_words_are_folded_and_what_nobody_has_is_left_out_of_a_list() -> None:
    prose = [["abmil", "when a few or many tiles show it and nothing else is known of the question"]]
    assert max(map(len, shown(prose, ["model", "use"], width=40, terminal=False))) <= 40
    rows = [["first", "–", *"12345"], ["second", "0.5", *"12345"]]
    lines = shown(rows, HEADERS, width=30, terminal=True)
    assert sum("measure number 0" in line for line in lines) == 1
    assert shown([], ["slide", "why"], width=30, terminal=True)
