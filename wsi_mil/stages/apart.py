"""The measures of one question apart: of each site or other group of cases, and of each seed's models alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from wsi_mil.evaluation import Interval, bootstrap_statistic
from wsi_mil.report import Figure, Part, TableView, interval_figure, interval_text
from wsi_mil.stages.answers import Answers
from wsi_mil.stages.cases import Cases, cases_of
from wsi_mil.stages.judgement import values_of
from wsi_mil.stages.pages import name_of

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work

FEWEST = 5
"""Patients below which a group has no numbers: of fewer, a rank or a spread is mostly chance."""

SHOWN = 3
"""Measures on the page; all of them are in figures.json."""


@dataclass(frozen=True)
class GroupMeasures:
    """The measures of the cases of one site, scanner or other value of a column."""

    cases: int
    patients: int
    measures: Mapping[str, Interval]
    """Empty for a group of fewer than FEWEST patients."""

    @property
    def plain(self) -> dict[str, Any]:
        """For programs."""
        told = {name: {"value": one.value, "low": one.low, "high": one.high} for name, one in self.measures.items()}
        return {"cases": self.cases, "patients": self.patients, **told}


Groups = Mapping[str, Mapping[str, GroupMeasures]]
"""By column, then by value."""


def by_group(answers: Answers, cases: Cases, work: Work, *, columns: Sequence[str], draws: int) -> Groups:
    """Every value of the site and of some columns that have two values or more among the cases."""
    level = "patient" if work.study.model.bag_of == "patient" else "slide"
    truth, patients = answers.truth(cases.cells), np.asarray(cases.patients)
    found: dict[str, dict[str, GroupMeasures]] = {}
    for column, values in values_of(work, cases.cells, level, columns).items():
        for value in sorted(set(values)) if len(set(values)) > 1 else ():
            here = np.asarray(values) == value
            own, count = list(patients[here]), len(set(patients[here]))
            measures = answers.measures(truth[here], cases.answers[here]) if count >= FEWEST else {}
            told = {name: bootstrap_statistic(one, own, draws=draws) for name, one in measures.items()}
            found.setdefault(column, {})[value] = GroupMeasures(int(here.sum()), count, told)
    return found


def by_seed(name: str, answers: Answers, slides: pd.DataFrame, work: Work) -> dict[str, float]:
    """The leading measure of each seed's models alone: how much of the result is luck.

    `slides` has the rows of the table of predictions that are judged.
    """
    rows = pd.read_csv(work.stage("predict").folder(work) / "models.csv", dtype={"slide": str, "model": str})
    columns = [column for column in slides.columns if column.startswith("p_")]
    found = {}
    for seed, part in rows.groupby(rows["model"].str.split("/").str[0], sort=True):
        means = part.groupby("slide")[columns].mean().reindex(slides["slide"])
        cases = cases_of(name, answers, slides.assign(**{one: means[one].to_numpy() for one in columns}), work)
        if cases is not None and np.isfinite(cases.answers).all():
            statistic = answers.measures(answers.truth(cases.cells), cases.answers)[answers.leading]
            found[str(seed)] = float(statistic(np.ones((1, len(cases.patients))))[0])
    return found


def group_parts(groups: Groups, answers: Answers, title: str) -> list[Part]:
    """A forest of the leading measure and a table for each column."""
    parts = []
    for column, own in groups.items():
        known = {name: one.measures[answers.leading] for name, one in own.items() if one.measures}
        forest = {name: (one.value, one.low, one.high) for name, one in known.items() if np.isfinite(one.value)}
        shown = list(next((one.measures for one in own.values() if one.measures), ()))[:SHOWN]
        rows = [
            [name, str(one.patients), str(one.cases)]
            + [_text(one.measures[measure]) if one.measures else "–" for measure in shown]
            for name, one in own.items()
        ]
        text = (
            "95 % percentile intervals over resampled patients, conditional on the trained models. A group of fewer "
            f"than {FEWEST} patients has no numbers. The worst of several groups is the worst by chance too."
        )
        if column == "site":
            text += (
                " Features nearly always betray the site, so that a model can learn the site in place of the tissue "
                "where the two go together; compare with `split.by: sites` and with the baseline of the site alone."
            )
        chart = interval_figure(forest, title=f"{name_of(answers.leading)} by {column}", chance=answers.chance)
        headers = [column, "patients", "cases", *(name_of(measure) for measure in shown)]
        figures = [Figure(chart)] if forest else []
        parts.append(Part(f"By {column}{title}", text, figures=figures, tables=[TableView(headers, rows)]))
    return parts


def _text(interval: Interval) -> str:
    return interval_text(interval.value, interval.low, interval.high)
