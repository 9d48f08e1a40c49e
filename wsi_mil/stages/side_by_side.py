"""Studies of any kind of question side by side: numbers, grades, survival, labels, several questions at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from wsi_mil import files
from wsi_mil.errors import StageError
from wsi_mil.evaluation import Interval, Statistic, bootstrap_statistic, corrected_interval
from wsi_mil.layout import STAGE_JSON
from wsi_mil.stages.answers import ANSWERS, Answers
from wsi_mil.stages.calibrate import read_predicted
from wsi_mil.stages.cases import Cases, cases_of, names_of, of_patients
from wsi_mil.stages.comparing import Compared, Comparison, compare_studies, folds_digest, places_of
from wsi_mil.stages.folded import cases_by_fold, fold_sizes
from wsi_mil.stages.judge import less
from wsi_mil.stages.opened import open_work
from wsi_mil.stages.question import Asked
from wsi_mil.stages.work import Work

SHOWN = 3
"""Measures of a study: the one compared and the next ones of its kind."""


@dataclass(frozen=True)
class _Told:
    """What one study says to one question."""

    name: str
    work: Work
    answers: Answers
    cases: Cases
    keys: list[str]
    """Of each case: its patient, or its slide."""


def compare_works(works: Sequence[Path], *, metric: str = "", draws: int = 1000) -> list[Comparison]:
    """Compare work folders, and within each all models under predict/; one comparison for each question.

    `metric` empty is the leading measure of the question. Of classes see `compare_studies`; of all others differences
    are of the same resamples of the patients, and of the same folds with Nadeau and Bengio's interval.
    Raises StageError where there are fewer than two, or where they do not answer the same questions of the same cases.
    """
    places = places_of(works)
    kinds = {name: _kind(folder) for name, _, folder in places}
    if len(set(kinds.values())) > 1:
        told = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
        raise StageError(f"the studies ask different kinds of question ({told}): compare studies of one question")
    if set(kinds.values()) == {"classification"}:
        return [compare_studies(works, metric=metric or "auroc", draws=draws)]
    opened = {name: open_work(root, model=folder.name) for name, root, folder in places}
    asked = _questions(opened)
    level = "patient" if all((folder / "patients.csv").exists() for _, _, folder in places) else "slide"
    apart = {one.study.model.bag_of for one in opened.values()}
    if level == "slide" and "patient" in apart:
        raise StageError("some studies predict patients and others slides: set cohort.label_of=patient in all of them")
    found = [_compare(name, one, opened, level, metric=metric, draws=draws) for name, one in asked.items()]
    if metric and not any(one.metric == metric for one in found):
        raise StageError(f"unknown measure {metric!r}: these questions have {', '.join(found[0].studies[0].metrics)}")
    return found


def _kind(folder: Path) -> str:
    path = folder / STAGE_JSON
    told = files.read_json(path)["configuration"].get("task", {}) if path.exists() else {}
    return str(told.get("kind", "classification"))


def _questions(opened: Mapping[str, Work]) -> dict[str, Asked]:
    """Those of the first study, which all must ask."""
    told = {
        name: {part: (one.kind, one.columns, one.horizons) for part, one in work.study.task.questions.items()}
        for name, work in opened.items()
    }
    first = next(iter(told))
    for name, own in told.items():
        if own != told[first]:
            raise StageError(
                f"{name} asks {_said(own)} and {first} {_said(told[first])}: compare studies of the same questions"
            )
    return opened[first].study.task.questions


def _said(questions: Mapping[str, tuple[str, tuple[str, ...], tuple[float, ...]]]) -> str:
    parts = []
    for name, (kind, columns, horizons) in questions.items():
        at = f" at {', '.join(f'{one:g}' for one in horizons)}" if horizons else ""
        parts.append(f"{f'{name}: ' if name else ''}{kind} of {', '.join(columns)}{at}")
    return "; ".join(parts)


def _compare(
    question: str, asked: Asked, opened: Mapping[str, Work], level: str, *, metric: str, draws: int
) -> Comparison:
    told = [_one(question, asked, name, work, level) for name, work in opened.items()]
    common = [key for key in told[0].keys if all(key in one.keys for one in told)]
    if not common:
        raise StageError(f"the studies have not one {level} in common: compare studies of one cohort")
    kept = [_only(one, common) for one in told]
    _check_truth(kept, common, level)
    measures = [one.answers.measures(one.answers.truth(one.cases.cells), one.cases.answers) for one in kept]
    leading = metric if metric in measures[0] else kept[0].answers.leading
    shown = [leading, *(name for name in measures[0] if name != leading)][:SHOWN]
    patients, studies = kept[0].cases.patients, []
    for number, one in enumerate(kept):
        own = {name: bootstrap_statistic(measures[number][name], patients, draws=draws) for name in shown}
        if not number:
            studies.append(Compared(one.name, own))
            continue
        both: Statistic = partial(less, measures[number][leading], measures[0][leading])
        difference = bootstrap_statistic(both, patients, draws=draws)
        over = _by_folds(question, (one, kept[0]), leading, level)
        studies.append(Compared(one.name, own, difference, by_folds=over))
    notes = _notes(told, common, level)
    return Comparison(level, len(common), len(set(patients)), leading, studies, notes, question)


def _notes(told: Sequence[_Told], common: Sequence[str], level: str) -> list[str]:
    notes = [
        f"{one.name} has predicted {len(one.keys)} {level}s; those that another study lacks are left out"
        for one in told
        if len(one.keys) > len(common)
    ]
    if len({folds_digest(one.work.root) for one in told}) > 1:
        notes.append("the studies were dealt into different folds: differences hold the luck of the dealing too")
    return notes


def _one(question: str, asked: Asked, name: str, work: Work, level: str) -> _Told:
    slides = read_predicted(work.stage("predict").folder(work) / "slides.csv")
    own = slides[(slides["part"] == "cross-validation") & (slides["status"] == "predicted")]
    answers = ANSWERS[asked.kind](asked, names_of(question, work))
    cases = cases_of(question, answers, own, work)
    if cases is None:
        raise StageError(f"{name} has no prediction of a labelled slide{f' for {question}' if question else ''}")
    cases = of_patients(cases) if level == "patient" else cases
    return _Told(name, work, answers, cases, _keys(cases, level))


def _keys(cases: Cases, level: str) -> list[str]:
    return list(cases.patients) if level == "patient" else [slides[0] for slides in cases.slides]


def _only(one: _Told, wanted: Sequence[str]) -> _Told:
    """The same study on some cases, in their order."""
    place = {key: row for row, key in enumerate(one.keys)}
    return _Told(one.name, one.work, one.answers, _rows(one.cases, [place[key] for key in wanted]), list(wanted))


def _rows(cases: Cases, rows: Sequence[int]) -> Cases:
    cells = cases.cells.iloc[list(rows)].reset_index(drop=True)
    slides, patients = [cases.slides[row] for row in rows], [cases.patients[row] for row in rows]
    return Cases(slides, patients, cells, cases.answers[list(rows)])


def _check_truth(kept: Sequence[_Told], common: Sequence[str], level: str) -> None:
    """Every study has the same names of answers, and the same label of the same case."""
    first = kept[0]
    known = first.answers.truth(first.cases.cells)
    for one in kept[1:]:
        if one.answers.names != first.answers.names:
            own, other = (", ".join(each.answers.names) for each in (one, first))
            raise StageError(f"{one.name} answers {own} and {first.name} {other}: compare studies of one question")
        same = np.isclose(one.answers.truth(one.cases.cells), known, equal_nan=True).all(axis=1)
        if not same.all():
            differing = common[int(np.argmin(same))]
            raise StageError(f"{(~same).sum()} {level}(s) have another label in another study, first {differing!r}")


def _by_folds(question: str, both: tuple[_Told, _Told], measure: str, level: str) -> Interval | None:
    """Differences fold by fold, where both were dealt alike and their models are of folds."""
    one, first = both
    digests = {folds_digest(each.work.root) for each in both}
    if len(digests) > 1 or "" in digests:
        return None
    left, right = (_fold_values(question, each, measure, level) for each in both)
    places = sorted(set(left) & set(right))
    if len(places) < 2:
        return None
    tested, fitted = fold_sizes(one.work)
    return corrected_interval([left[place] - right[place] for place in places], tested=tested, fitted=fitted)


def _fold_values(question: str, one: _Told, measure: str, level: str) -> dict[tuple[int, int], float]:
    """The measure of each fold on the cases that are compared, where it is defined."""
    slides = read_predicted(one.work.stage("predict").folder(one.work) / "slides.csv")
    own = slides[(slides["part"] == "cross-validation") & (slides["status"] == "predicted")]
    found = {}
    by_place = cases_by_fold(question, one.answers, own, one.work, patients=level == "patient")
    for place, cases in by_place.items():
        rows = [row for row, key in enumerate(_keys(cases, level)) if key in one.keys]
        if rows:
            kept = _rows(cases, rows)
            statistic = one.answers.measures(one.answers.truth(kept.cells), kept.answers)[measure]
            value = float(statistic(np.ones((1, len(rows))))[0])
            if np.isfinite(value):
                found[place] = value
    return found
