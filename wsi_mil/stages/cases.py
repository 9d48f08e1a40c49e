"""Labelled cases that no model had seen, for one question, and what the models said of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_mil.stages.answers import Answers
from wsi_mil.stages.predict import speaking_task
from wsi_mil.stages.question import known

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work


@dataclass(frozen=True)
class Cases:
    """Slides, or patients where all of a patient's slides are read as one."""

    slides: list[list[str]]
    """Of each case."""
    patients: list[str]
    cells: pd.DataFrame
    """The case's row of the cohort table."""
    answers: NDArray[np.float64]
    """case answer."""


def names_of(name: str, work: Work) -> list[str]:
    """The answers of a question among those of the models."""
    task = speaking_task(work)
    parts = {part: one.names for part, one, _ in getattr(task, "parts", ())}
    return list(parts.get(name, task.names))


def cases_of(name: str, answers: Answers, slides: pd.DataFrame, work: Work) -> Cases | None:
    """The cases of one question among the rows of a table of predictions; None where none has a label."""
    asked, frame = answers.asked, work.cohort.frame
    columns = [f"p_{name}_{one}" if name else f"p_{one}" for one in answers.names]
    labelled = set(frame["slide"][known(asked, frame)])
    rows = slides[slides["slide"].isin(labelled)]
    if rows.empty:
        return None
    grouped = rows.groupby("patient", sort=False)["slide"].agg(list)
    if work.study.model.bag_of == "patient":
        rows = rows.drop_duplicates("patient")
        members = [list(grouped[patient]) for patient in rows["patient"]]
    else:
        members = [[slide] for slide in rows["slide"]]
    cells = work.rows_of(list(rows["slide"]))
    return Cases(members, list(rows["patient"]), cells, rows[columns].to_numpy(np.float64))


def of_patients(cases: Cases) -> Cases:
    """Patients as cases: the mean answer over the slides of each."""
    rows = pd.DataFrame({"patient": cases.patients}).groupby("patient", sort=False).indices
    members = [[slide for row in own for slide in cases.slides[row]] for own in rows.values()]
    answers = np.stack([cases.answers[own].mean(axis=0) for own in rows.values()])
    cells = cases.cells.iloc[[own[0] for own in rows.values()]].reset_index(drop=True)
    return Cases(members, [str(name) for name in rows], cells, answers)
