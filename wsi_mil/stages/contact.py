"""The part of the study page with scale and tissue of each slide, and a contact sheet with the faulty ones in front."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wsi_mil.report import Cell, Part, Picture, TableView
from wsi_mil.stages import ledger
from wsi_mil.stages.galleries import MOST_ROWS
from wsi_mil.stages.stage import Item
from wsi_mil.stages.thumbnails import jpeg

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work

FAULTY_SHARE = 0.1
"""Share of a slide's tiles with one fault from which it is marked."""

SHEET_PX = 200
"""Width of a thumbnail."""


def quality(work: Work, count: int) -> Part:
    """Scale, tissue and tiles of each slide, and a contact sheet on which slides with faults come first."""
    rows: list[list[Cell]] = []
    sheet: list[tuple[float, str, str]] = []
    for slide in work.cohort.frame["slide"]:
        told = {name: ledger.read_record(work.stage(name), slide, work) for name in ("tissue", "tile", "extract")}
        facts = {name: dict(record["facts"]) if record and record["facts"] else {} for name, record in told.items()}
        tissue, tile, bag = facts["tissue"], facts["tile"], facts["extract"]
        if not any(told.values()):
            continue  # there is a bag alone
        mpp = " x ".join(f"{value:.4g}" for value in tissue.get("mpp", []))
        size = " x ".join(f"{value:,}" for value in tissue.get("size_l0", []))
        rows.append(
            [slide, size, mpp, str(tissue.get("mpp_source", "")), str(tissue.get("tissue_mm2", "–"))]
            + [str(tile.get("tiles", "–")), str(bag.get("unreadable", "–")), str(bag.get("left_out", "–"))]
            + [str(bag.get("tiles_per_s", "–"))]
        )
        sheet.append((*_marks(told), slide))
    if not rows:
        return Part("Slides and tissue", "No slide was read: there are only bags.")
    headers = [
        "slide",
        "pixels",
        "um per pixel",
        "scale from",
        "tissue mm²",
        "tiles",
        "unreadable",
        "left out",
        "tiles/s",
    ]
    pictures = _sheet(sorted(sheet, key=lambda one: (-one[0], one[2])), work, count)
    more = f" {len(pictures)} of {len(sheet)} slides are shown." if len(pictures) < len(sheet) else ""
    text = f"Outlines are what was taken for tissue. Slides with faults come first, marked by a sign (!).{more}"
    return Part(
        "Slides and tissue",
        text if pictures else "",
        tables=[TableView(headers, rows[:MOST_ROWS])],
        pictures=pictures,
        folded=len(rows) > 60 and not pictures,
        small=True,
    )


def _marks(told: dict[str, dict[str, Any] | None]) -> tuple[float, str]:
    """How faulty a slide is, and in words: stages that failed, faults of more than a tenth of its tiles."""
    said, worst = [], 0.0
    for name, record in told.items():
        if record and record["outcome"] in ("failed", "empty"):
            said.append(f"{name} {record['outcome']}")
            worst = 2.0
    bag = told["extract"]
    facts = dict(bag["facts"]) if bag and bag["facts"] else {}
    for fault, tiles in facts.get("faults", {}).items():
        share = tiles / max(int(facts.get("tiles", 0)), 1)
        if share > FAULTY_SHARE:
            said.append(f"{fault} {share:.0%}")
            worst = max(worst, share)
    return worst, ", ".join(said)


def _sheet(slides: list[tuple[float, str, str]], work: Work, count: int) -> list[Picture]:
    pictures: list[Picture] = []
    for _, marks, slide in slides:
        path = work.stage("tissue").output(Item(slide), work).with_suffix(".png")
        if len(pictures) >= count:
            break
        if path.exists():
            pictures.append(Picture(jpeg(path.read_bytes(), SHEET_PX), f"{slide} ! {marks}" if marks else slide))
    return pictures
