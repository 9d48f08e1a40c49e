"""The part of the report that sets all models of a work folder side by side, on the same cases."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from wsi_mil.errors import StageError, WsiMilError
from wsi_mil.evaluation import Interval, Statistic, bootstrap_statistic
from wsi_mil.report import Figure, Part, TableView, interval_figure, interval_text
from wsi_mil.stages.answers import ANSWERS
from wsi_mil.stages.cases import cases_of, names_of
from wsi_mil.stages.comparing import Comparison, compare_studies
from wsi_mil.stages.evaluate import read_predicted
from wsi_mil.stages.judge import less
from wsi_mil.stages.pages import METRIC_NAMES

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work


def rivals(work: Work, *, draws: int) -> list[Part]:
    """The models under predict/, paired; nothing where there is one only, or they cannot be compared."""
    folders = sorted(path.parent.name for path in (work.root / "predict").glob("*/slides.csv"))
    if len(folders) < 2 or work.study.predict.models is not None:
        return []
    if work.study.task.kind != "classification":
        return _measured(work, folders, draws=draws)
    try:
        told = compare_studies([work.root], draws=draws)
    except StageError as error:
        return [Part("Models side by side", f"The models of this folder are not compared: {error}.")]
    return [_compared(told, work)]


def _compared(told: Comparison, work: Work) -> Part:
    metric = METRIC_NAMES.get(told.metric, told.metric)
    names = [one.name.removeprefix(f"{work.root.name}/") for one in told.studies]
    shown = list(told.studies[0].metrics)
    bars = {name: _bar(one.metrics[told.metric]) for name, one in zip(names, told.studies, strict=True)}
    rows = []
    for name, one in zip(names, told.studies, strict=True):
        p = "–" if one.p is None else f"{one.p:.3f}"
        less = "–" if one.difference is None else _text(one.difference)
        rows.append([name, *(_text(one.metrics[key]) for key in shown), less, p])
    headers = ["model", *(METRIC_NAMES.get(key, key) for key in shown), f"{metric} less {names[0]}", "p"]
    text = (
        f"All models of this work folder on the {told.cases} {told.level}s of {told.patients} patients that each has "
        f"predicted. Differences are paired: the same resamples of the patients for both; p is of a paired "
        f"permutation, adjusted for the number of models (Holm). {' '.join(f'{note}.' for note in told.notes)}"
    )
    figure = interval_figure(bars, title=f"{metric} with 95 % intervals")
    return Part("Models side by side", text.strip(), figures=[Figure(figure)], tables=[TableView(headers, rows)])


def _measured(work: Work, folders: list[str], *, draws: int) -> list[Part]:
    """Numbers, grades and survival: every model in the measure of the question, the differences paired."""
    parts = []
    try:
        told = paired(work, {name: work.root / "predict" / name / "slides.csv" for name in folders}, draws=draws)
    except (WsiMilError, KeyError) as error:
        return [Part("Models side by side", f"The models of this folder are not compared: {error}.")]
    for question, (leading, found) in told.items():
        measure = METRIC_NAMES.get(leading, leading)
        own: Mapping[str, tuple[Interval, Interval | None]] = found
        first = next(iter(own))
        rows = [[name, _text(one), "–" if less is None else _text(less)] for name, (one, less) in own.items()]
        bars = {name: _bar(one) for name, (one, _) in own.items()}
        figure = interval_figure(bars, title=f"{measure} with 95 % intervals", chance=None)
        title = f"Models side by side{f': {question}' if question else ''}"
        text = "All models of this work folder on the same cases; differences are of the same resamples of patients."
        headers = ["model", measure, f"{measure} less {first}, paired"]
        parts.append(Part(title, text, figures=[Figure(figure)], tables=[TableView(headers, rows)]))
    return parts


def paired(
    work: Work, tables: Mapping[str, Path], *, draws: int
) -> dict[str, tuple[str, dict[str, tuple[Interval, Interval | None]]]]:
    """By question its leading measure, and of each model's slides.csv that measure and what it differs from the first.

    Only cases that every model has predicted are judged; the resamples of the patients are the same for all.
    """
    read = {name: read_predicted(path) for name, path in tables.items()}
    own = {
        name: one[(one["status"] == "predicted") & (one["part"] == "cross-validation")] for name, one in read.items()
    }
    common = set.intersection(*(set(one["slide"]) for one in own.values()))
    found: dict[str, tuple[str, dict[str, tuple[Interval, Interval | None]]]] = {}
    for name, asked in work.study.task.questions.items():
        answers = ANSWERS[asked.kind](asked, names_of(name, work))
        told: dict[str, tuple[Interval, Interval | None]] = {}
        first: Statistic | None = None
        for model, one in own.items():
            cases = cases_of(name, answers, one[one["slide"].isin(common)], work)
            if cases is None:
                continue
            leading = answers.measures(answers.truth(cases.cells), cases.answers)[answers.leading]
            beyond = first and bootstrap_statistic(partial(less, leading, first), cases.patients, draws=draws)
            told[model] = bootstrap_statistic(leading, cases.patients, draws=draws), beyond
            first = first or leading
        if told:
            found[name] = answers.leading, told
    return found


def _bar(one: Interval) -> tuple[float, float, float]:
    return one.value, one.low, one.high


def _text(interval: Interval) -> str:
    return interval_text(interval.value, interval.low, interval.high)
