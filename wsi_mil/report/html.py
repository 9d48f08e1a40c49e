"""The page: parts made of tables, figures and pictures, in one HTML file that opens from disk and prints well."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, StrictUndefined, select_autoescape


@dataclass(frozen=True)
class Headline:
    """One of the few numbers on top."""

    value: str
    name: str
    note: str = ""


@dataclass(frozen=True)
class TableView:
    """A table; cells that are numbers are set to the right. Long ones scroll on screen and print whole."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers only."""
        columns = [[row[column] for row in self.rows] for column in range(len(self.headers))]
        return [any(cells) and all(_is_number(cell) for cell in cells) for cells in columns]


@dataclass(frozen=True)
class Figure:
    """An SVG drawing."""

    svg: str
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """A PNG or JPEG, embedded."""

    data: bytes
    caption: str
    width_px: int = 0
    """Width on the page; 0 leaves it to the gallery."""

    @property
    def source(self) -> str:
        """The picture as a data URL."""
        kind = "png" if self.data.startswith(b"\x89PNG") else "jpeg"
        return f"data:image/{kind};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True)
class Part:
    """A section of the page."""

    title: str
    text: str = ""
    figures: Sequence[Figure] = ()
    tables: Sequence[TableView] = ()
    pictures: Sequence[Picture] = ()
    code: str = ""
    folded: bool = False
    """Shown as a title to click on."""
    wide: bool = False
    """Whether its pictures are shown large, two a row."""

    @property
    def anchor(self) -> str:
        """Id of the section in the page."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.title.lower())


def page(*, title: str, subtitle: str, headlines: Sequence[Headline], parts: Sequence[Part]) -> str:
    """The whole page as HTML; text is escaped, nothing is loaded from elsewhere."""
    files = resources.files("wsi_mil.report")
    environment = Environment(autoescape=select_autoescape(default=True), undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string(files.joinpath("page.html").read_text(encoding="utf-8"))
    style = files.joinpath("page.css").read_text(encoding="utf-8")
    return template.render(title=title, subtitle=subtitle, headlines=headlines, parts=parts, style=style)


def interval_text(value: float, low: float, high: float) -> str:
    """0.912 (0.843 to 0.961); without bounds where there are none, – where there is no number."""
    if math.isnan(value):
        return "–"
    return f"{value:.3f}" if math.isnan(low) else f"{value:.3f} ({low:.3f} to {high:.3f})"


def _is_number(cell: str) -> bool:
    if cell in ("", "–"):
        return True
    try:
        float(cell.split(" ")[0].strip("%").replace(",", ""))
    except ValueError:
        return False
    return True
