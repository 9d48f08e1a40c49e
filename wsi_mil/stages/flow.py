"""The parts of the report about who takes part: the cohort's flow with reasons, and how the folds were dealt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from wsi_mil.report import Figure, Part, Step, TableView, flow_figure
from wsi_mil.stages import ledger, question
from wsi_mil.stages.evaluate import read_slides
from wsi_mil.stages.train import read_folds

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work

ROLES = ("fit", "select", "calibrate", "test")

MOST_FOLDS = 30
"""Folds shown one a row; of more (repeats, each site left out) the first ones."""


def flow(work: Work) -> Part:
    """From the table to the predictions: how many are left at each step, and why the others are not."""
    steps = steps_of(work)
    rows = [
        [step.name, str(step.slides), str(step.patients), "; ".join(f"{count}: {why}" for count, why in step.lost)]
        for step in steps
        if step.lost
    ]
    text = (
        "Each box counts the slides that are left, with their patients; beside it, how many a step left out, and why. "
        "Slides without a label, or outside of the folds, may still be predicted, as new ones."
    )
    table = TableView(
        ["step", "slides", "patients", "left out here"], rows, caption="Left after each step that lost slides"
    )
    figures = [Figure(flow_figure(steps, title="Cohort flow"))]
    return Part(
        "Cohort flow", text if rows else f"{text} None was left out.", figures=figures, tables=[table][: len(rows)]
    )


def steps_of(work: Work) -> list[Step]:
    """The steps of the flow; those of pixels are missing where there are only bags."""
    frame = work.cohort.frame
    patients = dict(zip(frame["slide"], frame["patient"], strict=True))
    left = list(frame["slide"])
    found = [_step("in the table", left, patients, {})]

    def take(name: str, lost: Mapping[str, str]) -> None:
        nonlocal left
        here = {slide: why for slide, why in lost.items() if slide in set(left)}
        left = [slide for slide in left if slide not in here]
        found.append(_step(name, left, patients, here))

    records = {name: _records(name, work) for name in ("tissue", "tile", "extract")}
    if any(records["tissue"].values()):
        take("opened", _ended("failed", records["tissue"]))
        take("with tissue", _ended("empty", records["tissue"]) | _never(records["tissue"]))
    if any(records["tile"].values()):
        take("with tiles", _ended("failed", records["tile"]) | _ended("empty", records["tile"]))
    take("with a bag", _without_bag(left, records["extract"], work))
    task = work.study.task
    slides = read_slides(work).set_index("slide")
    if task.columns and work.study.predict.models is None:
        known = set(frame["slide"][question.known(task, frame).to_numpy()])
        take("labelled", dict.fromkeys((one for one in left if one not in known), "without a label"))
        dealt = set(read_folds(work)["slide"])
        why = "not within split.where" if work.study.split.where else "in no fold"
        take("in folds", dict.fromkeys((one for one in left if one not in dealt), why))
        unseen = "predicted by models that never saw it"
    else:
        unseen = "predicted"
    status = slides["status"].to_dict()
    notes = slides["note"].to_dict() if "note" in slides else {}
    reasons = {"untested": "in no test fold: it only trains"}
    lacking = {
        one: reasons.get(str(status.get(one)), f"{status.get(one, 'not run')} {notes.get(one, '')}".strip())
        for one in left
        if status.get(one) != "predicted"
    }
    take("predicted" if unseen == "predicted" else "tested, unseen", lacking)
    return found


def dealt(work: Work) -> list[Part]:
    """How the folds were dealt, by role, patient, site and class; nothing where none were."""
    if work.study.predict.models is not None or not (work.stage("split").folder(work) / "folds.csv").exists():
        return []
    folds, split = read_folds(work), work.study.split
    told = work.labelled().set_index("slide")["label"].to_dict()
    site = dict(zip(work.cohort.frame["slide"], work.cohort.frame["site"], strict=True))
    folds = folds.assign(
        label=[told.get(one, "") or "–" for one in folds["slide"]],
        site=[site.get(one) or "unknown" for one in folds["slide"]],
    )
    by = "class" if work.study.task.kind == "classification" else "group that folds are balanced by"
    tables = [_roles(folds), _tested(folds, "label", f"Tested slides (patients) of each {by}")]
    if folds["site"].nunique() > 1:
        tables.append(_tested(folds, "site", "Tested slides (patients) of each site"))
    places = len(folds[["repeat", "fold"]].drop_duplicates())
    more = f" The first {MOST_FOLDS} of {places} folds are shown." if places > MOST_FOLDS else ""
    how = (
        "folds of a table that was brought"
        if split.table or split.column
        else f"dealt by {split.by}, seed {split.seed}"
    )
    text = (
        f"{places} folds, {how}. Models learn from fit, stop by select, are calibrated on calibrate, judged on test. "
        f"{_apart(folds)}{more}"
    )
    return [Part("Folds", text, tables=tables)]


def _roles(folds: pd.DataFrame) -> TableView:
    roles = [role for role in ROLES if (folds["role"] == role).any()]
    rows = []
    for (repeat, fold), part in list(folds.groupby(["repeat", "fold"], sort=True))[:MOST_FOLDS]:
        cells = [_count(part[part["role"] == role]) for role in roles]
        rows.append([_name(folds, repeat, fold), *cells])
    return TableView(["fold", *roles], rows, caption="Slides (patients) of each role")


def _tested(folds: pd.DataFrame, column: str, caption: str) -> TableView:
    tested = folds[folds["role"] == "test"]
    values = sorted(tested[column].unique())[:20]
    rows = []
    for (repeat, fold), part in list(tested.groupby(["repeat", "fold"], sort=True))[:MOST_FOLDS]:
        rows.append([_name(folds, repeat, fold), *[_count(part[part[column] == value]) for value in values]])
    return TableView(["fold", *values], rows, caption=caption)


def _apart(folds: pd.DataFrame) -> str:
    sides = folds.groupby(["repeat", "fold", "patient"])["role"].nunique()
    both = int((sides > 1).sum())
    return f"{both} patient(s) stand on two sides of a fold." if both else "No patient stands on two sides of a fold."


def _name(folds: pd.DataFrame, repeat: Any, fold: Any) -> str:
    return f"repeat {repeat}, fold {fold}" if folds["repeat"].nunique() > 1 else f"fold {fold}"


def _count(rows: pd.DataFrame) -> str:
    return f"{len(rows)} ({rows['patient'].nunique()})" if len(rows) else "–"


def _records(name: str, work: Work) -> dict[str, dict[str, Any] | None]:
    stage = work.stage(name)
    return {slide: ledger.read_record(stage, slide, work) for slide in work.cohort.slides}


def _ended(kind: str, records: Mapping[str, dict[str, Any] | None]) -> dict[str, str]:
    return {slide: one["why"] for slide, one in records.items() if one and one["outcome"] == kind}


def _never(records: Mapping[str, dict[str, Any] | None]) -> dict[str, str]:
    return {slide: "not run" for slide, one in records.items() if one is None}


def _without_bag(slides: Sequence[str], records: Mapping[str, dict[str, Any] | None], work: Work) -> dict[str, str]:
    from wsi_mil.stages.stage import Item

    stage, found = work.stage("extract"), {}
    for slide in slides:
        if not stage.output(Item(slide), work).exists():
            one = records.get(slide)
            found[slide] = one["why"] if one and one["why"] else "no bag"
    return found


def _step(name: str, left: Sequence[str], patients: Mapping[str, str], lost: Mapping[str, str]) -> Step:
    counts = Counter(_same(why, slide) for slide, why in lost.items())
    told = tuple((count, why) for why, count in counts.most_common())
    return Step(name, len(left), len({patients[slide] for slide in left}), told)


def _same(why: str, slide: str) -> str:
    """The reason without the slide's own name, so that slides that were lost alike are counted together."""
    return why.replace(repr(slide), "it").replace(slide, "it") or "no reason was kept"
