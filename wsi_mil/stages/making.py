"""The parts of the report that say how a study was made: its pace, configuration, versions, digests and command."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from wsi_mil import files
from wsi_mil.config import explain
from wsi_mil.layout import STAGE_JSON
from wsi_mil.report import Figure, Part, TableView, bar_figure
from wsi_mil.stages import ledger
from wsi_mil.stages.pace import told_pace
from wsi_mil.stages.stage import Item

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work

TIMED = ("tissue", "tile", "extract", "split", "train", "predict", "calibrate", "heatmap")

STUDY_YAML = "study.yaml"
"""The configuration beside the page, with which the command on it repeats the study."""


def pace(work: Work) -> list[Part]:
    """How long each stage took, and what holds extraction up; nothing where no stage kept a record."""
    seconds, counts = _seconds(work)
    if not seconds:
        return []
    rows = [[name, f"{counts[name]:,}", _time(value), f"{value / counts[name]:.2f}"] for name, value in seconds.items()]
    tables = [TableView(["stage", "items", "time, added up", "seconds an item"], rows)]
    bars = {name: value / 60 for name, value in seconds.items()}
    figures = [Figure(bar_figure(bars, title="Minutes of each stage, added up over items"))]
    steps, sentence = told_pace(_paces(work))
    text = "Times are of the items as they were last made; items that were made side by side are added up."
    if sentence:
        shown = [list(row) for row in steps]
        caption = "Steps of extraction: share of the time, and how many tiles a second the step alone would do"
        tables.append(TableView(["step", "share of the time", "tiles/s"], shown, caption=caption))
        text += f" Extraction: {sentence}."
    return [Part("Pace", text, figures=figures, tables=tables)]


def provenance(work: Work) -> Part:
    """The command that repeats the study, versions, digests, and the whole configuration."""
    text = (
        f"To repeat the study: wsi-mil run {STUDY_YAML} --work NEW_FOLDER. The file {STUDY_YAML} lies beside this page "
        "with every field explained; its values are printed below. The digests say whether another folder holds the "
        "same tables, bags and models."
    )
    tables = [_versions(work), _digests(work)]
    return Part("Configuration, versions and digests", text, tables=tables, code=_values(work))


def _values(work: Work) -> str:
    """The configuration without the comments of the file beside the page."""
    return "\n".join(line for line in explain(work.study).splitlines() if not line.lstrip().startswith("#"))


def _seconds(work: Work) -> tuple[dict[str, float], dict[str, int]]:
    seconds, counts = {}, {}
    for name in TIMED:
        stage = work.stage(name)
        try:
            items = stage.items(work)
        except (OSError, ValueError):
            continue
        records = [record for record in (ledger.read_record(stage, one.name, work) for one in items) if record]
        told = [float(record.get("seconds", 0)) for record in records]
        if sum(told) > 0:
            seconds[name], counts[name] = sum(told), len(told)
    return seconds, counts


def _paces(work: Work) -> list[tuple[int, Mapping[str, object]]]:
    found = []
    for slide in work.cohort.slides:
        record = ledger.read_record(work.stage("extract"), slide, work)
        facts = record["facts"] if record and record["facts"] else {}
        if "pace" in facts:
            found.append((int(facts["tiles"]), facts["pace"]))
    return found


def _versions(work: Work) -> TableView:
    now = ledger.versions()
    made = {}
    for name in ("extract", "train", "predict"):
        path = work.stage(name).folder(work) / STAGE_JSON
        if path.exists():
            made[name] = files.read_json(path).get("versions", {})
    rows = [[library, *(one.get(library, "–") for one in made.values()), number] for library, number in now.items()]
    return TableView(["", *(f"at {name}" for name in made), "at this report"], rows, caption="Versions")


def _digests(work: Work) -> TableView:
    rows = [["cohort.csv", _short(files.digest_file(work.root / "cohort.csv"))]]
    rows.append(["configuration", _short(files.digest_json(ledger.chain(work.stage("report"), work)))])
    for name, item, words in (
        ("split", "folds", "folds.csv"),
        ("predict", "slides", "predictions, slides.csv"),
        ("calibrate", "slides", "decisions, slides.csv"),
    ):
        path = work.stage(name).output(Item(item), work)
        if path.exists():
            rows.append([words, _short(files.digest_file(path))])
    rows += [[name, _short(digest)] for name, digest in _of_all(work).items()]
    return TableView(["what", "SHA-256, first 16 digits"], rows, caption="Digests")


def _of_all(work: Work) -> dict[str, str]:
    """Digests of all models' weights, and of all that the predictions were made from: bags, models, configuration."""
    from wsi_mil.errors import WsiMilError
    from wsi_mil.stages.trained import hashes, trained_models

    found = {}
    with suppress(WsiMilError):  # an ensemble has no models of its own, and given models may have been moved
        found["weights of the models"] = files.digest(*hashes(trained_models(work)))
    record = ledger.read_record(work.stage("predict"), "slides", work)
    if record and record["inputs"]:
        # Kept when it was predicted: reading every bag's digest again would take longer than the rest of the page.
        found["bags and models predicted with"] = record["inputs"]
    return found


def _short(digest: str) -> str:
    return digest[:16]


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
