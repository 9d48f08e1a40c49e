"""All numbers of a study that asks anything but one class a slide: each of its questions judged in its own measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_mil.bags import read_bag
from wsi_mil.errors import TaskError
from wsi_mil.evaluation import Interval, Localisation, Statistic, bootstrap_statistic
from wsi_mil.report import Figure, Headline, Part, TableView, interval_figure, interval_text
from wsi_mil.stages.answers import ANSWERS, Answers
from wsi_mil.stages.apart import Groups, by_group, by_seed
from wsi_mil.stages.baselines import BASELINES, SlideNumbers, case_numbers, fold_rows, numbers_of
from wsi_mil.stages.calibrate import read_predicted
from wsi_mil.stages.cases import Cases, cases_of, names_of
from wsi_mil.stages.evaluate import localise_maps, read_slides
from wsi_mil.stages.features import bags_of
from wsi_mil.stages.folded import HEADER, TOLD, Folded, fold_means
from wsi_mil.stages.pages import METRIC_NAMES, name_of
from wsi_mil.stages.record_baselines import record_answers
from wsi_mil.stages.truth import Truth

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work


@dataclass(frozen=True)
class Judged:
    """What a report tells of one question."""

    name: str
    """Of the part of a joint task, or empty."""
    answers: Answers
    cases: int
    of: str
    """What a case is: slides or patients."""
    measures: Mapping[str, Interval]
    by_patient: Mapping[str, Interval]
    """The same of the mean predictions of each patient; empty where the cases are patients, or have no patients."""
    baselines: Mapping[str, Interval]
    differences: Mapping[str, Interval]
    figures: Sequence[str]
    folds: Folded = field(default_factory=dict)
    """The measures as means over the folds."""
    patient_folds: Folded = field(default_factory=dict)
    """The same of patients, as in `by_patient`."""
    seeds: Mapping[str, float] = field(default_factory=dict)
    """The leading measure of each seed alone."""
    groups: Groups = field(default_factory=dict)
    """The measures of each site, and of each value of other columns."""


def judge(
    work: Work, *, draws: int, truth: Truth | None, columns: Sequence[str] = ()
) -> tuple[list[Judged], Mapping[str, Mapping[str, Localisation]]]:
    """Judge the cross-validated predictions of every question, and the maps; empty where nothing is labelled.

    `columns` of the cohort are judged apart, besides the site.
    """
    slides = read_slides(work)
    predicted = slides[slides["status"] == "predicted"]
    paths, _ = bags_of(work, predicted["slide"])
    numbers = {slide: numbers_of(read_bag(path)) for slide, path in paths.items()}
    found = {} if truth is None else localise_maps(work, slides, numbers, {}, truth)
    if work.study.predict.models is not None or not work.study.task.columns:
        return [], found
    own = predicted[predicted["part"] == "cross-validation"]
    judged = []
    for name, asked in work.study.task.questions.items():
        answers = ANSWERS[asked.kind](asked, names_of(name, work))
        cases = cases_of(name, answers, own, work)
        if cases is not None:
            told = _judge(name, answers, cases, numbers, work, draws=draws)
            folds = fold_means(name, answers, own, work, draws=draws)
            both = fold_means(name, answers, own, work, draws=draws, patients=True) if told.by_patient else {}
            groups = by_group(answers, cases, work, columns=columns, draws=draws)
            seeds = by_seed(name, answers, own, work)
            judged.append(replace(told, folds=folds, patient_folds=both, seeds=seeds, groups=groups))
    return judged, found


def measured(work: Work, slides: pd.DataFrame, *, draws: int) -> dict[str, tuple[str, Mapping[str, Interval]]]:
    """For each question, the name of its leading measure and all its measures of some predictions.

    `slides` is a table as the predict stage writes it.
    """
    own = slides[(slides["status"] == "predicted") & (slides["part"] == "cross-validation")]
    found: dict[str, tuple[str, Mapping[str, Interval]]] = {}
    for name, asked in work.study.task.questions.items():
        answers = ANSWERS[asked.kind](asked, names_of(name, work))
        cases = cases_of(name, answers, own, work)
        if cases is not None:
            statistics = answers.measures(answers.truth(cases.cells), cases.answers)
            told = {one: bootstrap_statistic(value, cases.patients, draws=draws) for one, value in statistics.items()}
            found[name] = answers.leading, told
    return found


def pages(judged: Sequence[Judged]) -> list[Part]:
    """Two parts of the page for each question: how well it is answered, and what answers it without a model."""
    parts = []
    for one in judged:
        title = f": {one.name}" if one.name else ""
        rows = [
            [
                name_of(name),
                _text(interval),
                *([_text(one.by_patient[name])] if one.by_patient else []),
                *([one.folds[name].text] if one.folds else []),
                *([one.patient_folds[name].text] if one.patient_folds else []),
            ]
            for name, interval in one.measures.items()
        ]
        headers = ["measure", f"{one.cases} {one.of}", *(["patients, mean of their slides"] if one.by_patient else [])]
        headers += ([HEADER] if one.folds else []) + ([f"patients, {HEADER}"] if one.patient_folds else [])
        text = (
            "Each case is predicted by models that saw neither it nor another slide of its patient. Intervals are 95 % "
            "percentile intervals over resampled patients; they are conditional on the trained models."
        ) + (f" {TOLD}" if one.folds else "")
        figures = [Figure(svg) for svg in one.figures]
        parts.append(Part(f"Performance{title}", text, figures=figures, tables=[TableView(headers, rows)]))
        if one.baselines:
            parts.append(_baselines(one, title))
    return parts


def headlines(judged: Sequence[Judged]) -> list[Headline]:
    """The leading number of each question, and what mean colour alone would give."""
    found = []
    for one in judged:
        prefix = f"{one.name}, " if one.name else ""
        leading = one.answers.leading
        told = {f"{prefix}{METRIC_NAMES[leading]}": (one.measures[leading], f"{one.cases} {one.of}")}
        if "mean colour" in one.baselines:
            told[f"{prefix}{METRIC_NAMES[leading]}, mean colour alone"] = one.baselines["mean colour"], "baseline"
        for name, (interval, note) in told.items():
            bounds = f"95 % {interval.low:.3f} to {interval.high:.3f}"
            found.append(Headline(f"{interval.value:.3f}", name, f"{bounds}, {note}"))
    return found


def figures(judged: Sequence[Judged]) -> dict[str, Any]:
    """The numbers for programs, by question."""
    return {
        one.name or one.answers.asked.kind: {
            "of": one.of,
            "cases": one.cases,
            "measures": {name: _plain(interval) for name, interval in one.measures.items()},
            "fold_means": {name: told.plain for name, told in one.folds.items()},
            "fold_means_patients": {name: told.plain for name, told in one.patient_folds.items()},
            "patients": {name: _plain(interval) for name, interval in one.by_patient.items()},
            "leading": one.answers.leading,
            "baselines": {name: _plain(interval) for name, interval in one.baselines.items()},
            "less_baseline": {name: _plain(interval) for name, interval in one.differences.items()},
            "seeds": dict(one.seeds),
            "groups": {
                column: {value: told.plain for value, told in own.items()} for column, own in one.groups.items()
            },
        }
        for one in judged
    }


def _judge(
    name: str,
    answers: Answers,
    cases: Cases,
    numbers: dict[str, SlideNumbers],
    work: Work,
    *,
    draws: int,
) -> Judged:
    truth = answers.truth(cases.cells)
    measures = answers.measures(truth, cases.answers)
    intervals = {one: bootstrap_statistic(value, cases.patients, draws=draws) for one, value in measures.items()}
    own, differences = {}, {}
    leading = measures[answers.leading]
    for baseline, told in _run_baselines(answers, truth, cases, numbers, work).items():
        other = answers.measures(truth, told)[answers.leading]
        own[baseline] = bootstrap_statistic(other, cases.patients, draws=draws)
        differences[baseline] = bootstrap_statistic(partial(less, leading, other), cases.patients, draws=draws)
    return Judged(
        name,
        answers,
        len(cases.patients),
        "patients" if work.study.model.bag_of == "patient" else "slides",
        intervals,
        _by_patient(name, answers, cases, work, draws=draws),
        own,
        differences,
        answers.figures(truth, cases.answers, cases.patients),
    )


def less(first: Statistic, second: Statistic, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """One statistic less another, on the same resamples."""
    return first(weights) - second(weights)


def _by_patient(name: str, answers: Answers, cases: Cases, work: Work, *, draws: int) -> dict[str, Interval]:
    path = work.stage("predict").folder(work) / "patients.csv"
    if not path.exists() or work.study.model.bag_of == "patient":
        return {}
    table = read_predicted(path).set_index("patient")
    columns = [f"p_{name}_{one}" if name else f"p_{one}" for one in answers.names]
    firsts = cases.cells.drop_duplicates("patient")
    patients = list(firsts["patient"])
    told = table.loc[patients, columns].to_numpy(np.float64)
    measures = answers.measures(answers.truth(firsts), told)
    return {one: bootstrap_statistic(value, patients, draws=draws) for one, value in measures.items()}


def _run_baselines(
    answers: Answers, truth: NDArray[np.float64], cases: Cases, numbers: dict[str, SlideNumbers], work: Work
) -> dict[str, NDArray[np.float64]]:
    """Out-of-fold answers of every baseline for the cases; one that the folds are too small for is left out."""
    folds, found = fold_rows(cases.slides, work), {}
    for name in BASELINES:
        features = case_numbers(name, cases.slides, numbers)
        if features is None:
            continue
        try:
            found[name] = answers.baseline(features, truth, folds)
        except TaskError:
            continue
    found |= record_answers(cases.cells, folds, lambda read, fold: answers.baseline(read, truth, [fold]), work)
    return {name: found[name] for name in BASELINES if name in found and np.isfinite(found[name]).any(axis=1).all()}


def _baselines(one: Judged, title: str) -> Part:
    leading = one.answers.leading
    model = one.measures[leading]
    bars = {"the model": (model.value, model.low, model.high)}
    bars |= {name: (told.value, told.low, told.high) for name, told in one.baselines.items()}
    rows = [
        [name, _text(told), _text(one.differences[name]), BASELINES[name].replace("logistic regression on ", "")]
        for name, told in one.baselines.items()
    ]
    chart = interval_figure(bars, title=f"{METRIC_NAMES[leading]} with 95 % intervals", chance=one.answers.chance)
    text = (
        f"The same cases and folds, answered by {one.answers.baseline_by} on a few numbers a case. A model that does "
        "not beat the layout of its tiles has not looked at the tissue; one that does not beat bag statistics has not "
        "needed attention."
    )
    headers = ["baseline", METRIC_NAMES[leading], "model less baseline, paired", "what it reads"]
    return Part(f"Baselines{title}", text, figures=[Figure(chart)], tables=[TableView(headers, rows)])


def _text(interval: Interval) -> str:
    return interval_text(interval.value, interval.low, interval.high)


def _plain(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}
