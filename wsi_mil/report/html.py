"""The page: parts made of tables, figures and pictures, in one HTML file that opens from disk and prints well."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources

from jinja2 import Environment, StrictUndefined, select_autoescape
from markupsafe import Markup, escape


@dataclass(frozen=True)
class Headline:
    """One of the few numbers on top."""

    value: str
    name: str
    note: str = ""


@dataclass(frozen=True)
class Link:
    """A word in a table that leads elsewhere: to a part of the page (#...) or to a file beside it."""

    text: str
    href: str


Cell = str | Link


@dataclass(frozen=True)
class TableView:
    """A table; cells that are numbers are set to the right. Long ones scroll on screen and print whole.

    Without a word in its headers it is a list of names and what belongs to them.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""

    @property
    def pairs(self) -> bool:
        """Whether it is a list of names and values."""
        return not any(self.headers)

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers only."""
        if self.pairs:
            return [False] * len(self.headers)
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
    href: str = ""
    """File that a click on the picture opens, relative to the page."""
    anchor: str = ""
    """Name by which tables link to it."""

    @property
    def source(self) -> str:
        """The picture as a data URL."""
        kinds = {b"\x89PNG": "png", b"RIFF": "webp"}
        kind = kinds.get(self.data[:4], "jpeg")
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
    small: bool = False
    """Whether they are shown small, as a contact sheet."""
    chapter: str = ""
    """Heading of the contents list that it stands under; empty: that of the part before it."""

    @property
    def anchor(self) -> str:
        """Id of the section in the page."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.title.lower())


@dataclass(frozen=True)
class _Chapter:
    name: str
    parts: list[Part] = field(default_factory=list)


def page(
    *,
    title: str,
    subtitle: str,
    headlines: Sequence[Headline],
    parts: Sequence[Part],
    banner: str = "",
) -> str:
    """The whole page as HTML; text is escaped, nothing is loaded from elsewhere.

    `banner` is a line in plain sight under the title, on screen and on paper.
    """
    environment = Environment(autoescape=select_autoescape(default=True), undefined=StrictUndefined, trim_blocks=True)
    environment.filters["commands"] = _with_commands
    template = environment.from_string(_resource("page.html"))
    style = _resource("page.css") + _resource("print.css")
    return template.render(
        title=title, subtitle=subtitle, headlines=headlines, chapters=_chapters(parts), banner=banner, style=style
    )


def _with_commands(text: str) -> Markup:
    """The text with what stands between backticks set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _resource(name: str) -> str:
    return resources.files("wsi_mil.report").joinpath(name).read_text(encoding="utf-8")


def _chapters(parts: Sequence[Part]) -> list[_Chapter]:
    """Parts under their headings, in the order of the parts."""
    found: list[_Chapter] = []
    for part in parts:
        if not found or (part.chapter and part.chapter != found[-1].name):
            found.append(_Chapter(part.chapter))
        found[-1].parts.append(part)
    return found


def interval_text(value: float, low: float, high: float) -> str:
    """0.912 (0.843 to 0.961); without bounds where there are none, – where there is no number."""
    if math.isnan(value):
        return "–"
    return f"{value:.3f}" if math.isnan(low) else f"{value:.3f} ({low:.3f} to {high:.3f})"


def _is_number(cell: Cell) -> bool:
    if isinstance(cell, Link):
        return False
    if cell in ("", "–"):
        return True
    try:
        float(cell.split(" ")[0].strip("%").replace(",", ""))
    except ValueError:
        return False
    return True
