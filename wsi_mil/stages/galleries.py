"""The parts of the study page that show slides: heatmaps, tiles, cases, the cohort and its tissue."""

from __future__ import annotations

import io
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import pandas as pd

from wsi_mil.report import Part, Picture, TableView
from wsi_mil.stages import ledger
from wsi_mil.stages.evaluate import read_slides
from wsi_mil.stages.stage import Item
from wsi_mil.stages.strips import strip

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work


def heatmaps(work: Work, count: int) -> Part:
    """The most certain calls and the most certain errors."""
    slides, folder, pictures = _predictions(work), work.stage("heatmap").folder(work), []
    for row in _interesting(slides, count):
        path = folder / row["slide"] / f"{row['slide']}.png"
        if path.exists():
            label = f", labelled {row['label']}" if row["label"] else ""
            sure = f" ({row['certainty']:.2f})" if work.study.task.kind == "classification" else ""
            caption = f"{row['slide']}: predicted {row['predicted']}{sure}{label}"
            pictures.append(Picture(_jpeg(path.read_bytes(), 760), caption))
    text = f"The most certain predictions first, then errors. All maps lie in {folder.relative_to(work.root)}/."
    return Part("Heatmaps", text, pictures=pictures)


def tiles(work: Work, count: int) -> Part:
    """The tiles that speak most for and most against, of a few slides."""
    slides = _predictions(work)
    pictures = []
    for row in _interesting(slides, 6):
        picture = strip(row["slide"], work, count=count)
        if picture is not None:
            pictures.append(Picture(picture, f"{row['slide']}: upper row highest, lower row lowest scores"))
    return Part("Top and bottom tiles", "By the score that the heatmap shows.", pictures=pictures, wide=True)


def cases(work: Work) -> Part:
    """Every slide with its prediction and status."""
    slides = _predictions(work)
    answers = [name for name in slides.columns if name.startswith("p_")]
    rows = [
        [
            str(row["slide"]),
            str(row["patient"]),
            str(row["label"]),
            str(row["predicted"]),
            *["–" if math.isnan(row[name]) else f"{row[name]:.3f}" for name in answers],
            str(row["status"]),
            str(row["note"]),
        ]
        for _, row in slides.iterrows()
    ]
    headers = ["slide", "patient", "label", "predicted", *answers, "status", "note"]
    return Part("Every slide", tables=[TableView(headers, rows)], folded=len(rows) > 60)


def cohort(work: Work) -> Part:
    """Who takes part, and what was left out on the way, with reasons."""
    frame, flow = work.cohort.frame, []
    for name in ("tissue", "tile", "extract", "heatmap"):
        stage = work.stage(name)
        records = [ledger.read_record(stage, slide, work) for slide in frame["slide"]]
        kinds = Counter(record["outcome"] if record else "not run" for record in records)
        flow.append([name, *(str(kinds.get(kind, 0)) for kind in ("made", "empty", "failed", "not run"))])
    tables = [TableView(["stage", "made", "empty", "failed", "not run"], flow, caption="Slides through the stages")]
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
    return Part("Cohort", tables=tables)


def quality(work: Work, count: int) -> Part:
    """Scale, tissue and tiles of each slide, with thumbnails."""
    rows: list[list[str]] = []
    pictures: list[Picture] = []
    for slide in work.cohort.frame["slide"]:
        told = {name: ledger.read_record(work.stage(name), slide, work) for name in ("tissue", "tile", "extract")}
        facts = {name: dict(record["facts"]) if record else {} for name, record in told.items()}
        tissue, tile, bag = facts["tissue"], facts["tile"], facts["extract"]
        mpp = " x ".join(f"{value:.4g}" for value in tissue.get("mpp", []))
        size = " x ".join(f"{value:,}" for value in tissue.get("size_l0", []))
        rows.append(
            [slide, size, mpp, str(tissue.get("mpp_source", "")), str(tissue.get("tissue_mm2", "–"))]
            + [str(tile.get("tiles", "–")), str(bag.get("unreadable", "–")), str(bag.get("left_out", "–"))]
            + [str(bag.get("tiles_per_s", "–"))]
        )
        path = work.stage("tissue").output(Item(slide), work).with_suffix(".png")
        if len(pictures) < count and path.exists():
            pictures.append(Picture(_jpeg(path.read_bytes(), 360), f"{slide}, {tissue.get('tissue_mm2', '?')} mm²"))
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
    return Part("Slides and tissue", tables=[TableView(headers, rows)], pictures=pictures, folded=len(rows) > 60)


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
    return [
        {str(key): value for key, value in row.items()} for _, row in pd.concat([chosen, wrong]).head(count).iterrows()
    ]


def _lost(work: Work) -> list[list[str]]:
    rows = []
    for slide in work.cohort.frame["slide"]:
        for name in ("tissue", "tile", "extract", "heatmap"):
            record = ledger.read_record(work.stage(name), slide, work)
            if record and record["outcome"] in ("empty", "failed"):
                rows.append([slide, name, record["outcome"], record["why"]])
                break
    return rows


def _jpeg(data: bytes, width: int) -> bytes:
    """A picture scaled down to a width, as JPEG: a page of many must stay small enough to mail."""
    from PIL import Image

    picture = Image.open(io.BytesIO(data)).convert("RGB")
    if picture.width > width:
        picture = picture.resize(
            (width, max(1, round(picture.height * width / picture.width))), Image.Resampling.LANCZOS
        )
    out = io.BytesIO()
    picture.save(out, format="jpeg", quality=82, optimize=True)
    return out.getvalue()
