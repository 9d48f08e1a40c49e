"""What was measured of the heatmaps, told: a table, two files beside the maps, and a part of the study's page."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsi_mil import files
from wsi_mil.evaluation import bootstrap_mean
from wsi_mil.report import Part, TableView
from wsi_mil.stages import ledger
from wsi_mil.stages.faithful import AREA, Judged, judge_maps
from wsi_mil.stages.truth import Truth

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work

FILE = "faithfulness"
"""Name of the files in heatmap/<model>/, .json and .csv."""

MEASURES = {
    "deletion": "deletion gain",
    "insertion": "insertion gain",
    "random_weights": "rank correlation with random weights",
    "auroc": "tile AUROC",
    "average_precision": "average precision",
    "prevalence": "prevalence",
    "dice": f"Dice of the highest {AREA:.0%}",
    "pointing": "pointing game",
}
"""Columns of the table, each a mean over slides with an interval over patients."""

WITH_INTERVAL = ("deletion", "insertion", "auroc")
"""Those whose interval is shown; the file has all."""

TEXT = (
    "Deletion and insertion gain: the area between the curve of a map's order and that of random orders, as tiles are "
    "taken away or put back; above 0 the map knows what the model uses. The correlation with the map of a model with "
    "random weights is near 0 where a map tells of what was learnt. Against the truth, each slide is scored alone; "
    "prevalence is the average precision of a random score. FROC (CAMELYON16) pools the slides of one model, for maps "
    "on one scale only."
)


def believe(
    work: Work,
    truth: Path | None,
    *,
    truth_of: str = "",
    draws: int = 1000,
    command: str = "",
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[str], list[list[str]], tuple[Path, Path]]:
    """Measure every map of the study and write the two files: headers and rows of the table, and where the files are.

    Without `truth` the maps are held against the models alone. `truth_of` keeps polygons of one classification. Raises
    StageError where there is no map, CohortError where the truth cannot be read.
    """
    judged = judge_maps(work, None if truth is None else Truth(truth, of=truth_of), tick=tick)
    told = summary(judged, work, draws=draws, command=command)
    paths = write(told, judged, work)
    return *table(told), paths


def summary(judged: Judged, work: Work, *, draws: int, command: str) -> dict[str, Any]:
    """Means over slides with intervals over patients, by map."""
    told = []
    for name, rows in judged.rows.groupby("map", sort=False):
        one: dict[str, Any] = {"map": name, "kind": rows["kind"].iloc[0], "slides": len(rows)}
        for measure in MEASURES:
            values = rows[measure].to_numpy(np.float64) if measure in rows else np.zeros(0)
            known = np.isfinite(values)
            if not known.any():
                continue
            interval = bootstrap_mean(values[known], list(rows["patient"][known]), draws=draws)
            one[measure] = {
                "value": interval.value,
                "low": _number(interval.low),
                "high": _number(interval.high),
                "slides": int(known.sum()),
            }
        told.append(one | ({"froc": judged.froc[str(name)]} if name in judged.froc else {}))
    return {"answer": judged.answer, "area": AREA, "command": command, "of": _maps(work), "maps": told}


def write(told: dict[str, Any], judged: Judged, work: Work) -> tuple[Path, Path]:
    """The summary as JSON and the rows as CSV, beside the maps."""
    paths = _place(work), _place(work).with_suffix(".csv")
    files.write_json(paths[0], told)
    files.write_text(paths[1], judged.rows.to_csv(index=False, float_format="%.6g"))
    return paths


def table(told: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headers and rows; measures that nobody has are left out."""
    shown = [name for name in MEASURES if any(name in one for one in told["maps"])]
    froc = any("froc" in one for one in told["maps"])
    headers = ["map", *(MEASURES[name] for name in shown), *["FROC score"] * froc]
    rows = []
    for one in told["maps"]:
        row = [one["map"], *(_text(one.get(name), interval_shown=name in WITH_INTERVAL) for name in shown)]
        rows.append(row + [f"{one['froc']:.3f}" if "froc" in one else "–"] * froc)
    return headers, rows


def parts(work: Work) -> list[Part]:
    """The part of the page, where `wsi-mil heatmap --evaluate` has been run."""
    path = _place(work)
    if not path.exists():
        return []
    told = json.loads(path.read_text(encoding="utf-8"))
    headers, rows = table(told)
    caption = f"Maps of “{told['answer']}”, made by: {told['command']}"
    if told["of"] != _maps(work):
        caption += ". The maps have been made anew since: run it again"
    return [Part("Faithfulness of the heatmaps", TEXT, tables=[TableView(headers, rows, caption=caption)])]


def digest(work: Work) -> str:
    """Changes with what was measured; empty where nothing was."""
    path = _place(work)
    return files.digest_file(path) if path.exists() else ""


def _place(work: Work) -> Path:
    return work.stage("heatmap").folder(work) / f"{FILE}.json"


def _maps(work: Work) -> str:
    """Names the maps that are there: changes when one is made anew from something else."""
    stage = work.stage("heatmap")
    records = [ledger.read_record(stage, slide.name, work) for slide in work.slide_items()]
    return files.digest(*(str(record and record["inputs"]) for record in records))


def _text(interval: dict[str, Any] | None, *, interval_shown: bool) -> str:
    if interval is None:
        return "–"
    value = f"{interval['value']:.3f}"
    if not interval_shown or interval["low"] is None:
        return value
    return f"{value} ({interval['low']:.3f} to {interval['high']:.3f})"


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
