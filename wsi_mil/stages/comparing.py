"""Several studies of the same patients side by side, with paired tests against the first."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_mil import files
from wsi_mil.errors import StageError, TaskError
from wsi_mil.evaluation import (
    METRICS,
    Difference,
    Interval,
    bootstrap,
    corrected_interval,
    delong,
    find_metric,
    holm,
    paired_difference,
    paired_permutation,
    score,
)
from wsi_mil.layout import STAGE_JSON
from wsi_mil.stages import ledger
from wsi_mil.stages.calibrate import read_predicted

OF_FOLD = re.compile(r"(?:repeat-(\d+)-)?fold-(\d+)$")


@dataclass(frozen=True)
class Compared:
    """One study against the first."""

    name: str
    metrics: dict[str, Interval]
    difference: Interval | None = None
    """Of the metric, this study less the first, on the same resamples of the patients."""
    p: float | None = None
    """Of the paired permutation of patients, adjusted for the number of studies (Holm)."""
    by_delong: Difference | None = None
    """Where both were tested on one untouched test set with one slide a patient."""
    by_folds: Interval | None = None
    """Mean difference over the same folds, Nadeau and Bengio's interval."""


@dataclass(frozen=True)
class Comparison:
    """All of them, on the cases that all have predicted."""

    level: str
    cases: int
    patients: int
    metric: str
    studies: list[Compared]
    notes: list[str] = field(default_factory=list)
    question: str = ""
    """Of a joint task, or empty."""


@dataclass(frozen=True)
class _Told:
    """What one study says, by case."""

    name: str
    folder: Path
    work: Path
    table: pd.DataFrame
    classes: list[str]


def compare_studies(
    works: Sequence[Path],
    *,
    metric: str = "auroc",
    shown: Sequence[str] = ("balanced_accuracy", "brier"),
    draws: int = 1000,
) -> Comparison:
    """Compare work folders, and within each all models under predict/; patients where all predict them, else slides.

    Raises StageError where there are fewer than two, or where they do not answer the same question of the same cases.
    """
    find_metric(metric)
    level, told = _read(works)
    _check(told)
    common = sorted(set.intersection(*(set(one.table.index) for one in told)))
    if not common:
        raise StageError(f"the studies have not one {level} in common: compare studies of one cohort")
    labels = told[0].table.loc[common, "label"]
    differing = [name for name in common if len({one.table.at[name, "label"] for one in told}) > 1]
    if differing:
        raise StageError(f"{len(differing)} {level}(s) have another label in another study, first {differing[0]!r}")
    classes = told[0].classes
    truth = np.array([classes.index(label) for label in labels], dtype=np.int64)
    patients = list(told[0].table.loc[common, "patient"])
    said = {one.name: one.table.loc[common, [f"p_{name}" for name in classes]].to_numpy(np.float64) for one in told}
    first = told[0]
    ps = {one.name: paired_permutation(metric, truth, said[one.name], said[first.name], patients, draws=draws)
          for one in told[1:]}  # fmt: skip
    adjusted, studies = holm(ps), []
    for one in told:
        wanted = [metric, *(name for name in shown if name != metric and name in METRICS)]
        own = {name: bootstrap(name, truth, said[one.name], patients, draws=draws) for name in wanted}
        if one is first:
            studies.append(Compared(one.name, own))
            continue
        both = (said[one.name], said[first.name])
        studies.append(
            Compared(
                one.name,
                own,
                paired_difference(metric, truth, *both, patients, draws=draws),
                adjusted[one.name],
                _by_delong(one, first, truth, both, patients) if metric == "auroc" and len(classes) == 2 else None,
                _by_folds(one, first, metric),
            )
        )
    notes = [*_notes(told, common, level), *_site_gaps(told, studies, metric)]
    return Comparison(level, len(common), len(set(patients)), metric, studies, notes)


def places_of(works: Sequence[Path]) -> list[tuple[str, Path, Path]]:
    """Name, work folder and folder under predict/ of every study. StageError where there are fewer than two."""
    places = []
    resolved = [work.resolve() for work in works]
    for work in works:
        if resolved.count(work.resolve()) > 1:
            raise StageError(f"{work} is given twice: give each work folder once")
        folders = sorted(path.parent for path in (work / "predict").glob("*/slides.csv"))
        if not folders:
            raise StageError(f"{work} has no predictions (no predict/MODEL/slides.csv): give work folders of studies")
        for folder in folders:
            ledger.check_ended(folder, "slides")
        several = len(folders) > 1
        places += [(f"{work.name}/{folder.name}" if several else work.name, work, folder) for folder in folders]
    names = [name for name, _, _ in places]
    if len(set(names)) < len(names):
        places = [(f"{work}/{folder.name}", work, folder) for _, work, folder in places]
    if len(places) < 2:
        raise StageError("there is one study only: give two work folders or more, or one with several models")
    return places


def _read(works: Sequence[Path]) -> tuple[str, list[_Told]]:
    places = places_of(works)
    level = "patient" if all((folder / "patients.csv").exists() for _, _, folder in places) else "slide"
    return level, [_one(name, work, folder, level) for name, work, folder in places]


def _one(name: str, work: Path, folder: Path, level: str) -> _Told:
    slides = read_predicted(folder / "slides.csv")
    own = slides[(slides["part"] == "cross-validation") & (slides["status"] == "predicted") & (slides["label"] != "")]
    table = own
    if level == "patient":
        table = read_predicted(folder / "patients.csv")
        table = table[table["patient"].isin(own["patient"])]
    classes = [column.removeprefix("p_") for column in table.columns if column.startswith("p_")]
    if not set(own["label"]) <= set(classes):
        raise StageError(f"{folder} holds no predictions of its labels as classes: predict again")
    return _Told(name, folder, work, table.set_index(level, drop=False), classes)


def _check(told: Sequence[_Told]) -> None:
    for one in told[1:]:
        if one.classes != told[0].classes:
            raise StageError(
                f"{one.name} has the classes {', '.join(one.classes)} and {told[0].name} {', '.join(told[0].classes)}: "
                "compare studies of one question, with classes in one order (task.classes)"
            )


def _notes(told: Sequence[_Told], common: Sequence[str], level: str) -> list[str]:
    notes = [
        f"{one.name} has predicted {len(one.table)} {level}s; those that another study lacks are left out"
        for one in told
        if len(one.table) > len(common)
    ]
    if len({folds_digest(one.work) for one in told}) > 1:
        notes.append("the studies were dealt into different folds: differences hold the luck of the dealing too")
    return notes


def _site_gaps(told: Sequence[_Told], studies: Sequence[Compared], metric: str) -> list[str]:
    """What folds by patients gain over folds that keep sites whole, where the first and another differ in that."""
    kept = [_keeps_sites(one) for one in told]
    notes = []
    for whole, one in zip(kept[1:], studies[1:], strict=True):
        if None in (whole, kept[0]) or whole == kept[0] or one.difference is None:
            continue
        gap = one.difference
        value, low, high = (gap.value, gap.low, gap.high) if kept[0] else (-gap.value, -gap.high, -gap.low)
        notes.append(
            f"gap between folds by patients and folds that keep sites whole, {one.name} and {studies[0].name}: "
            f"{metric} {value:+.3f} ({low:+.3f} to {high:+.3f}); far from 0 it means that the site was learnt"
        )
    return notes


def _keeps_sites(one: _Told) -> bool | None:
    """Whether the folds of a study keep sites whole; None where they were brought or dealt otherwise."""
    path = one.work / "split" / STAGE_JSON
    if not path.exists():
        return None
    told = files.read_json(path)["configuration"].get("split", {})
    if told.get("table") or told.get("column"):
        return None
    return bool(told.get("by", "patients") != "patients")


def folds_digest(work: Path) -> str:
    """Of the fold table of a work folder; empty where it has none."""
    path = work / "split" / "folds.csv"
    return files.digest_file(path) if path.exists() else ""


def _by_delong(
    one: _Told,
    first: _Told,
    truth: NDArray[np.int64],
    said: tuple[NDArray[np.float64], NDArray[np.float64]],
    patients: Sequence[str],
) -> Difference | None:
    """Only of one test set that is tested by one fold."""
    for study in (one, first):
        path = study.work / "split" / "folds.csv"
        folds = pd.read_csv(path) if path.exists() else pd.DataFrame({"repeat": [0, 1], "fold": [0, 0]})
        if len(folds[["repeat", "fold"]].drop_duplicates()) > 1:
            return None
    try:
        return delong(truth == 1, said[0][:, 1], said[1][:, 1], list(patients))
    except TaskError:
        return None


def _by_folds(one: _Told, first: _Told, metric: str) -> Interval | None:
    """Differences fold by fold, where both were dealt alike and their models are of folds."""
    if not folds_digest(one.work) or folds_digest(one.work) != folds_digest(first.work):
        return None
    left, right = _fold_scores(one, metric), _fold_scores(first, metric)
    places = sorted(set(left) & set(right))
    if len(places) < 2:
        return None
    folds = pd.read_csv(one.work / "split" / "folds.csv")
    sides = folds.assign(test=folds["role"] == "test").groupby(["repeat", "fold"])["test"].agg(["sum", "size"]).mean()
    tested = float(sides["sum"])
    values = [left[place] - right[place] for place in places]
    return corrected_interval(values, tested=tested, fitted=float(sides["size"]) - tested)


def _fold_scores(one: _Told, metric: str) -> Mapping[tuple[int, int], float]:
    rows = pd.read_csv(one.folder / "models.csv", dtype={"slide": str, "model": str})
    found = rows["model"].str.extract(OF_FOLD)
    if found[1].isna().any():
        return {}
    rows = rows.assign(repeat=found[0].fillna("0").astype(int), fold=found[1].astype(int))
    slides = read_predicted(one.folder / "slides.csv").set_index("slide")
    kept = slides[(slides["part"] == "cross-validation") & (slides["label"] != "")]
    answers, scores = [f"p_{name}" for name in one.classes], {}
    rows = rows[rows["slide"].isin(kept.index)]
    for repeat, fold in rows[["repeat", "fold"]].drop_duplicates().to_numpy().tolist():
        part = rows[(rows["repeat"] == repeat) & (rows["fold"] == fold)]
        means = part.groupby("slide")[answers].mean()
        truth = np.array([one.classes.index(label) for label in kept["label"].loc[means.index]], dtype=np.int64)
        value = score(metric, truth, means.to_numpy(np.float64))
        if np.isfinite(value):
            scores[(repeat, fold)] = value
    return scores
