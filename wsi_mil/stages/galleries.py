"""The parts of the study page that show slides: heatmaps, tiles, cases, the cohort and its tissue."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pandas as pd

from wsi_mil.report import Cell, Link, Part, Picture, TableView
from wsi_mil.stages import ledger
from wsi_mil.stages.calibrate import read_predicted
from wsi_mil.stages.case import case_folder
from wsi_mil.stages.evaluate import read_slides
from wsi_mil.stages.stage import Item
from wsi_mil.stages.strips import bar_um, strip
from wsi_mil.stages.thumbnails import LEGEND_PX, jpeg, legend

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work


DECIDED = ("decision", "set", "rejected")
"""Columns of the calibrate stage that are words."""

MOST_ROWS = 1000
"""Rows of a table of slides; the rest is in the CSV."""

MAP_PX, THUMB_PX = 640, 360
"""Width of a heatmap, and of a thumbnail beside a table."""


def heatmaps(work: Work, count: int) -> Part:
    """The most certain calls of each class."""
    slides = _predictions(work)
    slides = slides[~slides["wrong"].astype(bool)]
    pictures = [one for one in (_map(row, work, MAP_PX) for row in _interesting(slides, count)) if one]
    folder = work.stage("heatmap").folder(work).relative_to(work.root)
    text = (
        "The most certain predictions of each class; errors have a part of their own. A click opens the map with its "
        f"own legend and scale bar; all lie in {folder}/. Colours are as in the legend, their range each slide's own."
    )
    legends = [_legend(one, work) for one in _interesting(slides, 1)] if pictures else []
    pictures = [*pictures, *(one for one in legends if one)]
    return Part("Heatmaps", text if pictures else "No heatmaps were drawn.", pictures=pictures)


def mistakes(work: Work, count: int) -> list[Part]:
    """The most confident errors, with their maps; for numbers the largest differences; else nothing."""
    slides = _predictions(work)
    known = slides[(slides["status"] == "predicted") & (slides["label"] != "")]
    kind, answers = work.study.task.kind, [name for name in slides.columns if name.startswith("p_")]
    if kind == "classification":
        title, wrong = "Most confident errors", known[known["wrong"].astype(bool)]
        order, said = wrong["certainty"], "probability of the call"
    elif kind == "regression":
        title, wrong = "Largest differences", known
        order, said = (known[answers[0]] - known["label"].astype(float)).abs(), "difference"
    else:
        return []
    shown = wrong.assign(size=order).sort_values("size", ascending=False).head(count)
    rows: list[list[Cell]] = [
        [_map_link(row, work), row["patient"], row["label"], row["predicted"], f"{row['size']:.3f}", row["note"]]
        for row in _rows(shown)
    ]
    if not rows:
        return [Part(title, f"None: all {len(known)} labelled slides were called right.")]
    pictures = [one for one in (_map(row, work, THUMB_PX) for row in _rows(shown)) if one]
    of = f"{len(wrong)} of {len(known)} labelled slides were called wrong. " if kind == "classification" else ""
    text = f"{of}Look at these first: wrong labels, artefacts and rare kinds of tissue show here."
    headers = ["slide", "patient", "label", "predicted", said, "note"]
    return [Part(title, text, tables=[TableView(headers, rows)], pictures=pictures)]


def _map(row: dict[str, Any], work: Work, width: int) -> Picture | None:
    path = _map_file(row["slide"], work)
    if not path.exists():
        return None
    label = f", labelled {row['label']}" if row["label"] else ""
    sure = f" ({row['certainty']:.2f})" if work.study.task.kind == "classification" else ""
    caption = f"{row['slide']}: predicted {row['predicted']}{sure}{label}"
    return Picture(jpeg(path.read_bytes(), width, framed=True), caption, href=_beside(path, work))


def _legend(row: dict[str, Any], work: Work) -> Picture | None:
    path = _map_file(row["slide"], work)
    found = legend(path.read_bytes()) if path.exists() else None
    return Picture(found, f"Legend of {row['slide']}", width_px=LEGEND_PX) if found else None


def _map_file(slide: str, work: Work) -> Path:
    return work.stage("heatmap").folder(work) / slide / f"{slide}.png"


def _map_link(row: dict[str, Any], work: Work) -> Cell:
    path = _map_file(row["slide"], work)
    return Link(row["slide"], _beside(path, work)) if path.exists() else str(row["slide"])


def _beside(path: Path, work: Work) -> str:
    """A file of the work folder as the page in report/ links to it."""
    return quote(f"../{path.relative_to(work.root).as_posix()}")


def tiles(work: Work, count: int) -> Part:
    """The tiles that speak most for and most against, of a few slides."""
    slides = _predictions(work)
    pictures = []
    for row in _interesting(slides, 6):
        picture = strip(row["slide"], work, count=count)
        if picture is not None:
            pictures.append(Picture(picture, f"{row['slide']}: upper row highest, lower row lowest scores"))
    text = (
        f"By the score that the heatmap shows. {tile_scale(work)}"
        if pictures
        else "There are no heatmaps, or the slides cannot be read."
    )
    return Part("Top and bottom tiles", text, pictures=pictures, wide=True)


def tile_scale(work: Work) -> str:
    """How large the tiles are, and how long the bar on them."""
    side_um = work.study.tile.size_px * work.study.tile.mpp
    return f"A tile is {side_um:g} um wide; the bar is {bar_um(side_um):g} um."


def cases(work: Work) -> Part:
    """Every slide with its prediction and status."""
    slides = _predictions(work)
    answers = [name for name in slides.columns if name.startswith("p_")]
    path = work.stage("calibrate").output(Item("slides"), work)
    if path.exists():
        more = read_predicted(path)
        names = [name for name in more.columns if name.startswith("calibrated_")][-1:]
        names += [name for name in DECIDED if name in more.columns]
        slides = slides.join(more.set_index("slide")[names], on="slide")
    decided = [name for name in slides.columns if name.startswith("calibrated_") or name in DECIDED]
    pages = written_cases(work)
    rows: list[list[Cell]] = [
        [
            _map_link(row, work),
            *([_page_link(str(row["slide"]), pages, work)] if pages else []),
            str(row["patient"]),
            str(row["label"]),
            str(row["predicted"]),
            *["–" if math.isnan(row[name]) else f"{row[name]:.3f}" for name in answers],
            *[_decided(row[name]) for name in decided],
            str(row["status"]),
            str(row["note"]),
        ]
        for row in _rows(slides.head(MOST_ROWS))
    ]
    words = [name.replace("calibrated_", "calibrated ") for name in decided]
    headers = ["slide", *(["case"] if pages else []), "patient", "label", "predicted", *answers, *words]
    headers += ["status", "note"]
    source = path if path.exists() else work.stage("predict").output(Item("slides"), work)
    place = source.relative_to(work.root)
    rest = f" The first {MOST_ROWS} of {len(slides):,} slides are shown." if len(slides) > MOST_ROWS else ""
    more_pages = ", “page” its case report" if pages else "; `wsi-mil case WORK --all` makes a page of each slide"
    text = f"A slide's name opens its heatmap, where there is one beside this page{more_pages}."
    text += f" The whole table: {place}.{rest}"
    return Part("Every slide", text, tables=[TableView(headers, rows)], folded=len(rows) > 60)


def written_cases(work: Work) -> dict[str, Path]:
    """The case reports that lie in the work folder, by slide."""
    return {path.stem: path for path in sorted(case_folder(work).glob("*.html"))}


def _page_link(slide: str, pages: Mapping[str, Path], work: Work) -> Cell:
    return Link("page", _beside(pages[slide], work)) if slide in pages else "–"


def _decided(cell: Any) -> str:
    """A cell of the calibrate stage; a set of several classes with "or" between them."""
    if isinstance(cell, float):
        return "–" if math.isnan(cell) else f"{cell:.3f}"
    return str(cell).replace("|", " or ") or "–"


def cohort(work: Work) -> Part:
    """Who takes part, and what was left out on the way, with reasons."""
    frame, flow = work.cohort.frame, []
    for name in ("tissue", "tile", "extract", "heatmap"):
        stage = work.stage(name)
        records = [ledger.read_record(stage, slide, work) for slide in frame["slide"]]
        kinds = Counter(record["outcome"] if record else "not run" for record in records)
        if set(kinds) == {"not run"}:
            continue
        flow.append([name, *(str(kinds.get(kind, 0)) for kind in ("made", "empty", "failed", "not run"))])
    headers = ["stage", "made", "empty", "failed", "not run"]
    tables = [TableView(headers, flow, caption="Slides through the stages")] if flow else []
    label = work.study.task.label
    if work.study.task.kind != "classification" and work.study.task.columns:
        # numbers and times have no counts of their own: what folds are balanced by is told in their place
        label = "balanced by"
        dealt = work.labelled()
        frame = frame.set_index("slide").loc[dealt["slide"]].reset_index().assign(**{label: dealt["label"].to_numpy()})
    if label:
        counts = frame.groupby([label, "site"]).agg(slides=("slide", "size"), patients=("patient", "nunique"))
        rows = [[str(cell) or "–" for cell in row] for row in counts.reset_index().itertuples(index=False)]
        tables.append(TableView([label, "site", "slides", "patients"], rows, caption="Labels and sites"))
    lost = _lost(work)
    if lost:
        tables.append(TableView(["slide", "stage", "outcome", "reason"], lost, caption="Left out"))
    return Part("Labels and sites", "What became of each slide, and who has which label.", tables=tables)


def _predictions(work: Work) -> pd.DataFrame:
    slides = read_slides(work)
    answers = [name for name in slides.columns if name.startswith("p_")]
    if work.study.task.kind == "classification":
        wrong = (slides["label"] != "") & (slides["label"] != slides["predicted"])
        return slides.assign(certainty=slides[answers].max(axis=1), wrong=wrong, group=slides["predicted"])
    # Of numbers and risks the farthest from the middle, on either side in turn; none is right or wrong.
    far = slides[answers[-1]] - slides[answers[-1]].median()
    return slides.assign(certainty=far.abs(), wrong=False, group=(far > 0).map({True: "high", False: "low"}))


def _interesting(slides: pd.DataFrame, count: int) -> list[dict[str, Any]]:
    """Certain and right of each class in turn, then the most certain errors (a quarter), then the rest."""
    known = slides[slides["status"] == "predicted"].sort_values("certainty", ascending=False)
    wrong = known[known["wrong"].astype(bool)].head(max(1, count // 4))
    right = known[~known["slide"].isin(wrong["slide"])]
    turn = right.groupby("group").cumcount()
    chosen = right.assign(turn=turn).sort_values(["turn", "group"], ascending=[True, False]).head(count - len(wrong))
    return _rows(pd.concat([chosen, wrong]).head(count))


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _lost(work: Work) -> list[list[str]]:
    rows = []
    for slide in work.cohort.frame["slide"]:
        for name in ("tissue", "tile", "extract", "heatmap"):
            record = ledger.read_record(work.stage(name), slide, work)
            if record and record["outcome"] in ("empty", "failed"):
                rows.append([slide, name, record["outcome"], record["why"]])
                break
    return rows
