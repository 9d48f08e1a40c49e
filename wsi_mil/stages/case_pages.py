"""The page of one slide: prediction, heatmap, tiles, quality, clinical record, and where all of it comes from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from wsi_mil.report import Cell, Figure, Headline, Part, Picture, TableView, answer_figure, page
from wsi_mil.stages import galleries, ledger
from wsi_mil.stages.case import CaseTold
from wsi_mil.stages.stage import Item
from wsi_mil.stages.strips import strip
from wsi_mil.stages.thumbnails import jpeg

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work

BANNER = "Research use only. Not a medical device, and not for diagnosis."

MAP_PX, THUMB_PX, TILES = 1200, 420, 6
"""Width of the heatmap and of the thumbnail on the page, and tiles in a row."""

INTERVAL = (
    "The spread says how much the prediction hangs on which tiles are read and on which model reads them. It is no "
    "interval of confidence in the diagnosis: errors that all models and all tiles share do not show in it."
)

CALIBRATED_ON = {
    "cross-fitted": "Calibrated on the tested patients of the other folds, whose models may have learnt from this one.",
    "the calibrate role": "Calibrated on patients that neither trained the model nor are tested by it.",
}

SAID_OF_PATIENT = "Of the patient the page holds the slide's id and the table's patient id, and nothing else."


def page_of(told: CaseTold, work: Work) -> str:
    """The whole page as HTML."""
    parts = [prediction(told, work), heatmap(told, work), tiles(told, work), *_record(told), quality(told, work)]
    parts.append(provenance(told, work))
    subtitle = f"Patient {told.patient}. {SAID_OF_PATIENT}"
    return page(
        title=f"Case report: {told.slide}",
        subtitle=subtitle,
        headlines=_headlines(told, work),
        parts=parts,
        banner=BANNER,
    )


def prediction(told: CaseTold, work: Work) -> Part:
    """Each answer with its spread, and what was decided."""
    shown = _shown(told)
    rows: list[list[Cell]] = []
    for number, name in enumerate(told.answers):
        row: list[Cell] = [name, f"{told.values[number]:.3f}"]
        if told.calibrated is not None:
            row.append(f"{told.calibrated[number]:.3f}")
        rows.append(row + [f"{one.low[number]:.3f} to {one.high[number]:.3f}" for one in told.moved])
    said = ["as predicted", *(["calibrated"] if told.calibrated is not None else [])]
    headers = ["answer", *said, *(one.what for one in told.moved)]
    spreads = {one.what: (float(one.low[shown]), float(one.high[shown])) for one in told.moved}
    probability = work.study.task.kind in ("classification", "multilabel")
    drawn = answer_figure(
        _value(told),
        spreads,
        title=f"{'Probability of ' if probability else ''}{told.answers[shown]!r}",
        limits=(0.0, 1.0) if probability else None,
        threshold=_threshold(told) if len(told.answers) == 2 else None,
    )
    table = TableView(headers, rows)
    return Part("Prediction", " ".join(_words(told)), figures=[Figure(drawn)], tables=[table])


def heatmap(told: CaseTold, work: Work) -> Part:
    """The slide's map with its legend and scale bar, and its tissue."""
    path = work.stage("heatmap").folder(work) / told.slide / f"{told.slide}.png"
    if not path.exists():
        record = ledger.read_record(work.stage("heatmap"), told.slide, work)
        why = record["why"] if record and record["why"] else "run `wsi-mil heatmap`"
        return Part("Heatmap", f"There is no heatmap: {why}.")
    text = (
        "What each tile adds to the answer named in the legend, as the model reads it; attention, where that is what "
        "the legend names, says where the model looked and is no explanation. A map is no outline of a lesion."
    )
    picture = Picture(jpeg(path.read_bytes(), MAP_PX), f"Heatmap of {told.slide}", width_px=900)
    return Part("Heatmap", text, pictures=[picture])


def tiles(told: CaseTold, work: Work) -> Part:
    """The tiles that speak most for and most against."""
    picture = strip(told.slide, work, count=TILES)
    if picture is None:
        return Part("Top and bottom tiles", "There is no heatmap, or the slide cannot be read.")
    text = f"Upper row: the highest scores of the heatmap; lower row: the lowest. {galleries.tile_scale(work)}"
    return Part("Top and bottom tiles", text, pictures=[Picture(picture, "Highest and lowest tiles", width_px=900)])


def quality(told: CaseTold, work: Work) -> Part:
    """Scale, tissue, tiles and their faults."""
    facts = {}
    for name in ("tissue", "tile", "extract"):
        record = ledger.read_record(work.stage(name), told.slide, work)
        facts[name] = dict(record["facts"]) if record and record["facts"] else {}
    tissue, bag = facts["tissue"], facts["extract"]
    rows: list[list[Cell]] = [
        ["size in pixels", " x ".join(f"{value:,}" for value in tissue.get("size_l0", [])) or "–"],
        ["um per pixel", " x ".join(f"{value:.4g}" for value in tissue.get("mpp", [])) or "–"],
        ["tissue in mm²", str(tissue.get("tissue_mm2", "–"))],
        ["tiles", str(facts["tile"].get("tiles", bag.get("tiles", "–")))],
        ["tiles that could not be read", str(bag.get("unreadable", "–"))],
        ["tiles left out for a fault", str(bag.get("left_out", "–"))],
    ]
    count = max(int(bag.get("tiles", 0) or 0), 1)
    rows += [
        [f"tiles with {name}", f"{number} ({number / count:.0%})"] for name, number in bag.get("faults", {}).items()
    ]
    path = work.stage("tissue").output(Item(told.slide), work).with_suffix(".png")
    pictures = []
    if path.exists():
        pictures.append(Picture(jpeg(path.read_bytes(), THUMB_PX), "Slide with the outline of its tissue"))
    marks = f" Note of the prediction: {told.row['note']}." if told.row.get("note") else ""
    text = f"Faults are by the thresholds of the study; a tile may have several.{marks}"
    return Part("Quality", text, tables=[TableView(["", ""], rows)], pictures=pictures)


def provenance(told: CaseTold, work: Work) -> Part:
    """Slide, encoder, models and versions."""
    rows: list[list[Cell]] = []
    if told.bag is not None:
        slide, encoder = told.bag.slide, told.bag.encoder
        rows += [
            ["slide fingerprint", slide.fingerprint],
            ["scale from", slide.mpp_source],
            ["encoder", f"{encoder.name}, revision {encoder.revision}"],
            ["encoder weights", encoder.weights_digest or "–"],
            ["tiles", f"{encoder.tile_px} px at {encoder.tile_mpp:g} um per pixel"],
        ]
    rows.append(["aggregator", f"{work.study.model.name}, {len(told.models)} model(s): {', '.join(told.models[:12])}"])
    rows += [[f"weights of {name}", digest] for name, digest in list(told.hashes.items())[:12]]
    if told.source:
        rows.append(["calibrated on", told.source])
    rows += [[name, number] for name, number in ledger.versions().items()]
    text = " ".join(f"{note[:1].upper()}{note[1:]}." for note in told.notes)
    return Part("Provenance", text, tables=[TableView(["", ""], rows)])


def _record(told: CaseTold) -> list[Part]:
    """What the clinical record did; nothing for a model that reads none."""
    if not told.factors:
        return []
    shown, rows = _shown(told), []
    for one in told.factors:
        change = f"{one.change[shown]:+.3f}" if one.known else "–"
        rows.append([one.name, "known" if one.known else "not known", change])
    text = (
        f"How the answer {told.answers[shown]!r} differs from what the model says when the factor alone is taken as "
        "missing; the largest first. Factors that stand for each other may each change little. Values are not shown."
    )
    return [Part("Clinical factors", text, tables=[TableView(["factor", "in the table", "change by it"], rows)])]


def _headlines(told: CaseTold, work: Work) -> list[Headline]:
    shown = _shown(told)
    found = [Headline(str(told.row["predicted"]), "prediction", _decision(told))]
    name = f"{'calibrated ' if told.calibrated is not None else ''}{told.answers[shown]}"
    note = (
        f"{told.moved[0].low[shown]:.3f} to {told.moved[0].high[shown]:.3f}: {told.moved[0].what}" if told.moved else ""
    )
    found.append(Headline(f"{_value(told):.3f}", name, note))
    if work.study.task.kind == "classification":
        found.append(Headline(_set(told), "conformal set", _set_note(told, work)))
    return found


def _decision(told: CaseTold) -> str:
    called, threshold = str(told.row.get("decision") or ""), _threshold(told)
    if not called:
        return "the most probable answer"
    return f"called {called}" + (f" at the threshold {threshold:.2f}" if threshold is not None else "")


def _set(told: CaseTold) -> str:
    """The conformal set in words; a rejected case is unknown, whatever the set says."""
    held = str(told.row.get("set") or "")
    if _rejected(told):
        return "unknown"
    return {"": "none fitted", "none": "unknown"}.get(held, held.replace("|", " or "))


def _rejected(told: CaseTold) -> bool:
    return str(told.row.get("rejected", "")).lower() in ("true", "1", "1.0", "yes")


def _set_note(told: CaseTold, work: Work) -> str:
    held = str(told.row.get("set") or "")
    if _rejected(told):
        return "rejected: unlike the slides that the models know"
    if held == "none":
        return "no class fits what the calibration patients were like"
    if held:
        return f"holds the class for {work.study.calibrate.coverage:.0%} of patients like those of the calibration"
    return "see below" if told.refused else "run `wsi-mil calibrate`"


def _words(told: CaseTold) -> list[str]:
    said = [INTERVAL] if told.moved else []
    if told.calibrated is not None:
        said.insert(0, CALIBRATED_ON.get(told.source, f"Calibrated on {told.source}."))
    if told.refused and not told.row.get("set"):
        said.append(f"No conformal set: {told.refused}.")
    disagreement = told.row.get("disagreement")
    if isinstance(disagreement, float) and not math.isnan(disagreement) and len(told.models) > 1:
        said.append(f"Standard deviation over the {len(told.models)} models: {disagreement:.3f}.")
    return said


def _threshold(told: CaseTold) -> float | None:
    value = told.row.get("threshold")
    return value if isinstance(value, float) and not math.isnan(value) else None


def _shown(told: CaseTold) -> int:
    """The answer that is drawn: the last of two, of more the predicted one, else the first."""
    if len(told.answers) == 2:
        return 1
    predicted = str(told.row["predicted"])
    return told.answers.index(predicted) if predicted in told.answers else 0


def _value(told: CaseTold) -> float:
    return float((told.values if told.calibrated is None else told.calibrated)[_shown(told)])
