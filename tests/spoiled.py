"""Cohort tables made bad in one way, and copies of a study to try them on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from wsi_mil.stages import Work

Bad = Callable[[pd.DataFrame], pd.DataFrame]

SURVIVAL = ("task.kind=survival", "task.label=''", "task.time=time", "task.event=event", "model.name=mean")


def copied(clean: Work, folder: Path) -> Work:
    """The study of another folder, for one test to spoil."""
    shutil.copytree(clean.root.parent, folder / "copy")
    return Work(folder / "copy" / "work", clean.study)


def cells(column: str, values: dict[int, str]) -> Bad:
    """Other cells in some rows of a column."""

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.copy()
        for row, value in values.items():
            frame.loc[row, column] = value
        return frame

    return change


def survival(events: list[str]) -> Bad:
    """Times that rise, and these events."""
    return lambda frame: frame.assign(time=[str(5 + row) for row in range(len(frame))], event=events)
