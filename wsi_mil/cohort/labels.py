"""What is wrong with the label columns of a table for each kind of question, and what folds are balanced by."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

MIN_STRATA = 2
MAX_STRATA = 4
"""Bins of a number that folds are balanced by: more leave too few patients in each."""

_SHOWN = 8
"""Rows that one sentence lists."""


def number_faults(frame: pd.DataFrame, column: str) -> list[str]:
    """Cells that are no number, and a column that never varies."""
    values, faults = _numbers(frame, column)
    if not faults and values.dropna().nunique() == 1:
        faults.append(f"{column!r} is {values.dropna().iloc[0]:g} for every slide: nothing can be learnt from it")
    return faults


def flag_faults(frame: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Cells that are neither 0, 1 nor empty, and columns without two patients of each kind."""
    faults: list[str] = []
    for column in columns:
        values, own = _numbers(frame, column)
        own += _rows(frame, values.notna() & ~values.isin([0, 1]), column, "neither 0 nor 1")
        counts = {value: frame["patient"][values == value].nunique() for value in (0, 1)}
        few = [f"{count} patient(s) with {value}" for value, count in counts.items() if count < 2]
        if not own and few:
            own.append(f"{column!r} has {' and '.join(few)}: two of each are needed, leave the column out")
        faults += own
    return faults


def class_faults(frame: pd.DataFrame, column: str, classes: Sequence[str]) -> list[str]:
    """Labels that are none of the classes."""
    wrong = (frame[column] != "") & ~frame[column].isin(list(classes))
    return _rows(frame, wrong, column, f"none of {', '.join(classes)}")


def count_faults(frame: pd.DataFrame, column: str, classes: Sequence[str], *, least: int) -> list[str]:
    """Classes with fewer than `least` patients, `classes` or those found; a single one; classes without a case."""
    known = frame[(frame[column] != "") & (frame["patient"] != "")]
    counts = {name: known["patient"][known[column] == name].nunique() for name in classes or sorted(set(known[column]))}
    if len(counts) == 1:
        return [f"the label {column!r} has one value only ({next(iter(counts))!r}): nothing can be learnt from it"]
    faults = []
    for name, count in counts.items():
        if not count:
            faults.append(f"no row has the class {name!r} in {column!r}: add cases, or leave it out of task.classes")
        elif count < least:
            faults.append(
                f"rows {_listed(frame, frame[column] == name)}: the class {name!r} in {column!r} has {count} "
                f"patient(s), {least} are needed (two, and one a fold): lower split.folds, or join or leave out classes"
            )
    return faults


def grade_faults(frame: pd.DataFrame, column: str, classes: Sequence[str]) -> list[str]:
    """Grades whose order is not known, or fewer than three (cells outside `classes` are found elsewhere)."""
    found = sorted(set(frame[column]) - {""})
    if not classes:
        values, faults = _numbers(frame, column)
        if faults:
            return [
                f"{column!r} has grades that are no numbers ({', '.join(map(repr, found[:6]))}): list them in "
                "task.classes from the lowest to the highest"
            ]
    names = list(classes) or found
    if len(names) < 3:
        return [f"{column!r} has the grades {names}: three or more are needed; of two make a classification"]
    return []


def survival_faults(frame: pd.DataFrame, time: str, event: str) -> list[str]:
    """Bad times and events, cells that are filled on one side alone, and a table in which all are censored."""
    times, faults = _numbers(frame, time)
    events, more = _numbers(frame, event)
    faults += more
    faults += _rows(frame, times < 0, time, "negative: a time starts at 0 for every patient")
    strange = events.notna() & ~events.isin([0, 1])
    faults += _rows(frame, strange, event, "neither 1 (the event) nor 0 (last seen without it)")
    half = (frame[time] == "") != (frame[event] == "")
    if half.any():
        faults.append(f"rows {_listed(frame, half)}: only one of {time!r} and {event!r} is filled: fill both or none")
    if not faults and times.notna().any():
        if not (events == 1).any():
            faults.append(f"all are censored: {event!r} is 0 for every slide, so that no risk can be learnt")
        if times.dropna().nunique() == 1:
            faults.append(f"{time!r} is {times.dropna().iloc[0]:g} for every slide: no two can be compared")
    return faults


def number_strata(frame: pd.DataFrame, column: str, *, least: int) -> pd.Series:
    """Bins of a number with about equally many slides, none with fewer than `least` patients where that can be."""
    values = pd.to_numeric(frame[column], errors="coerce")
    for bins in range(MAX_STRATA, MIN_STRATA - 1, -1):
        edges = np.unique(np.quantile(values.dropna(), np.linspace(0, 1, bins + 1)[1:-1]))
        names = pd.Series(np.searchsorted(edges, values, side="left"), index=frame.index).map("bin {}".format)
        if frame["patient"].groupby(names).nunique().min() >= least:
            return names
    return pd.Series("all", index=frame.index)


def survival_strata(frame: pd.DataFrame, time: str, event: str, *, least: int) -> pd.Series:
    """Events and censored, each in an early and a late half; halves that are too small for the folds are joined."""
    events = pd.to_numeric(frame[event], errors="coerce") == 1
    times = pd.to_numeric(frame[time], errors="coerce")
    kind = events.map({True: "event", False: "censored"})
    late = times > times.groupby(kind).transform("median")
    halves = kind + late.map({True: ", late", False: ", early"})
    few = frame["patient"].groupby(halves).nunique()
    small = {str(name).split(",")[0] for name, count in few.items() if count < least}
    names = halves.where(~kind.isin(small), kind)
    return joined_strata(frame, names, least=least)


def flag_strata(frame: pd.DataFrame, columns: Sequence[str], *, least: int) -> pd.Series:
    """Groups of equal labels: column by column a group is parted where each part keeps `least` patients."""
    names = pd.Series("", index=frame.index)
    for column in columns:
        for name, group in frame.groupby(names, sort=True):
            value = group[column].map(lambda cell: cell[:1] or "?")
            if group["patient"].groupby(value).nunique().min() >= least:
                names.loc[group.index] = f"{name} {column} " + value
    return names.str.strip().replace("", "all")


def joined_strata(frame: pd.DataFrame, names: pd.Series, *, least: int) -> pd.Series:
    """Strata with fewer than `least` patients made one, and with the smallest of the others where still too few."""
    counts = frame["patient"].groupby(names).nunique()
    rare = set(counts.index[counts < least])
    if not rare:
        return names
    if frame["patient"][names.isin(rare)].nunique() < least and len(rare) < len(counts):
        rare.add(counts[counts >= least].idxmin())
    return names.where(~names.isin(rare), " or ".join(sorted(rare)))


def _numbers(frame: pd.DataFrame, column: str) -> tuple[pd.Series, list[str]]:
    """The cells as numbers, NaN where empty, and a fault for those that are none."""
    values = pd.to_numeric(frame[column].where(frame[column] != "", np.nan), errors="coerce").astype(float)
    wrong = (frame[column] != "") & ~values.map(math.isfinite)
    return values, _rows(frame, wrong, column, "no finite number (write it with a decimal point)")


def _rows(frame: pd.DataFrame, wrong: pd.Series, column: str, what: str) -> list[str]:
    return [f"row {row + 2}: {column!r} is {frame[column][row]!r}, {what}" for row in frame.index[wrong]]


def _listed(frame: pd.DataFrame, wrong: pd.Series) -> str:
    rows = [str(row + 2) for row in frame.index[wrong]]
    return ", ".join(rows[:_SHOWN]) + (f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else "")
