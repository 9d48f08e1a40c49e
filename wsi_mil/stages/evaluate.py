"""All numbers of a study: metrics with intervals, baselines in the same folds, and what the heatmaps find."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_mil.bags import read_bag
from wsi_mil.evaluation import (
    METRICS,
    Interval,
    Localisation,
    bootstrap,
    centre_scores,
    localise,
    paired_difference,
)
from wsi_mil.heatmaps import heatmap_from_hdf5
from wsi_mil.stages import ledger
from wsi_mil.stages.answers import ANSWERS
from wsi_mil.stages.baselines import SlideNumbers, colour_scores, numbers_of, run_baselines
from wsi_mil.stages.calibrate import read_predicted
from wsi_mil.stages.features import bags_of
from wsi_mil.stages.folded import Folded, fold_means
from wsi_mil.stages.train import read_folds
from wsi_mil.stages.truth import Truth

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work


@dataclass(frozen=True)
class Scored:
    """Predictions of labelled cases that no model had seen, ready for any metric."""

    names: list[str]
    patients: list[str]
    classes: list[str]
    truth: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    metrics: dict[str, Interval]


@dataclass(frozen=True)
class Evaluation:
    """What a report tells of a study."""

    slides: Scored
    patients: Scored | None
    baselines: dict[str, Interval]
    differences: dict[str, Interval]
    """AUROC of the model less that of each baseline, on the same resamples of the patients."""
    seeds: dict[str, float] = field(default_factory=dict)
    """AUROC of each seed alone."""
    folds: Folded = field(default_factory=dict)
    """Each metric of the slides as a mean over the folds."""
    patient_folds: Folded = field(default_factory=dict)
    """The same of the patients, where there are such."""
    localisation: dict[str, dict[str, Localisation]] = field(default_factory=dict)
    """By group of slides (cross-validation, new), then by score."""


def evaluate(work: Work, *, draws: int, truth: Truth | None) -> Evaluation | None:
    """Evaluate the cross-validated predictions; None where no labelled slide is predicted."""
    folder = work.stage("predict").folder(work)
    slides = read_slides(work)
    known = slides[(slides["part"] == "cross-validation") & (slides["status"] == "predicted") & (slides["label"] != "")]
    if known.empty or work.study.predict.models is not None:
        return None
    members = [[slide] for slide in known["slide"]]
    if work.study.model.bag_of == "patient":  # all slides of a patient have one answer
        members = list(known.groupby("patient", sort=False)["slide"].agg(list))
        known = known.drop_duplicates("patient")
    scored = _scored(known, "slide", draws)
    patients = None
    if (folder / "patients.csv").exists():
        table = read_predicted(folder / "patients.csv")
        patients = _scored(table[(table["label"] != "") & table["patient"].isin(known["patient"])], "patient", draws)
    paths, _ = bags_of(work, slides["slide"][slides["status"] == "predicted"])
    numbers = {slide: numbers_of(read_bag(path)) for slide, path in paths.items()}
    baselines = run_baselines(members, numbers, scored.truth, work)
    intervals, differences = {}, {}
    for name, baseline in baselines.items():
        probabilities = baseline.probabilities
        intervals[name] = bootstrap("auroc", scored.truth, probabilities, scored.patients, draws=draws)
        differences[name] = paired_difference(
            "auroc", scored.truth, scored.probabilities, probabilities, scored.patients, draws=draws
        )
    asked = next(iter(work.study.task.questions.values()))
    answers = ANSWERS["classification"](asked, scored.classes)
    return Evaluation(
        scored,
        patients,
        intervals,
        differences,
        _seeds(folder, known, scored),
        fold_means("", answers, known, work, draws=draws),
        fold_means("", answers, known, work, draws=draws, patients=True) if patients else {},
        {} if truth is None else localise_maps(work, slides, numbers, baselines, truth),
    )


def read_slides(work: Work) -> pd.DataFrame:
    """slides.csv of the predict stage. Raises StageError where it was not run or failed last."""
    return read_predicted(ledger.require("predict", "slides", work))


def _scored(rows: pd.DataFrame, name: str, draws: int) -> Scored:
    answers = [column for column in rows.columns if column.startswith("p_")]
    classes = [column.removeprefix("p_") for column in answers]
    truth = np.array([classes.index(label) for label in rows["label"]], dtype=np.int64)
    probabilities = rows[answers].to_numpy(np.float64)
    patients = list(rows["patient"])
    metrics = {
        metric: bootstrap(metric, truth, probabilities, patients, draws=draws)
        for metric in METRICS
        if len(classes) == 2 or metric not in ("sensitivity", "specificity")
    }
    return Scored(list(rows[name]), patients, classes, truth, probabilities, metrics)


def _seeds(folder: Path, known: pd.DataFrame, scored: Scored) -> dict[str, float]:
    """AUROC of each seed's models alone: how much of the result is luck."""
    from wsi_mil.evaluation import score

    rows = pd.read_csv(folder / "models.csv", dtype={"slide": str, "model": str})
    rows = rows[rows["slide"].isin(known["slide"])]
    rows = rows.assign(seed=rows["model"].str.split("/").str[0])
    answers = [f"p_{name}" for name in scored.classes]
    found = {}
    for seed, part in rows.groupby("seed", sort=True):
        means = part.groupby("slide")[answers].mean().reindex(scored.names)
        if not means.isna().any(axis=None):
            found[str(seed)] = score("auroc", scored.truth, means.to_numpy(np.float64))
    return found


def localise_maps(
    work: Work, slides: pd.DataFrame, numbers: dict[str, SlideNumbers], baselines: dict[str, Any], truth: Truth
) -> dict[str, dict[str, Localisation]]:
    """Per-slide tile AUROC of each channel of the maps, beside scores that know less."""
    folder = work.stage("heatmap").folder(work)
    folds = read_folds(work)
    order = list(folds.groupby(["repeat", "fold"], sort=True).groups)
    tests = {
        slide: [order.index(place) for place in zip(rows["repeat"], rows["fold"], strict=True)]
        for slide, rows in folds[folds["role"] == "test"].groupby("slide", sort=False)
    }
    truths: dict[str, dict[str, NDArray[np.bool_]]] = {}
    scores: dict[str, dict[str, dict[str, NDArray[Any]]]] = {}
    for slide, part in zip(slides["slide"], slides["part"], strict=True):
        path = folder / slide / f"{slide}.h5"
        if slide not in numbers or not path.exists():
            continue
        heatmap = heatmap_from_hdf5(path.read_bytes())
        told = truth.tiles(heatmap.grid)
        read = np.isfinite(heatmap.scores).all(axis=1)
        if told is None or not (told[1] & read).any():
            continue
        keep = told[1] & read
        truths.setdefault(part, {})[slide] = told[0][keep]
        by_score = {name: heatmap.scores[keep, heatmap.channels.index(name)] for name in _shown(heatmap.channels)}
        by_score["distance from the tissue's centre"] = centre_scores(heatmap.grid.coords_l0)[keep]
        by_score |= colour_only(numbers[slide], baselines, tests.get(slide, list(range(len(order)))), keep[read])
        for name, values in by_score.items():
            scores.setdefault(part, {}).setdefault(name, {})[slide] = values
    return {
        part: {name: localise(truths[part], by_slide) for name, by_slide in by_name.items()}
        for part, by_name in scores.items()
    }


def colour_only(
    numbers: SlideNumbers, baselines: dict[str, Any], folds: list[int], keep: NDArray[np.bool_]
) -> dict[str, NDArray[Any]]:
    """Scores of tiles that know nothing but their colour."""
    if not numbers.tile_rgb.shape[1]:
        return {}
    found: dict[str, NDArray[Any]] = {"darkness": -numbers.tile_rgb[:, :3].mean(axis=1)[keep]}
    if "colour mean and spread" in baselines:
        found["colour, logistic regression"] = colour_scores(baselines["colour mean and spread"], numbers, folds)[keep]
    return found


def _shown(channels: tuple[str, ...]) -> list[str]:
    """The contribution to the last class, and the attention; of a method with scores for each class, that class's."""
    contributions = [name for name in channels if name.startswith("contribution_")]
    attention = [name for name in channels if name.startswith("attention_logit")]
    by_class = [name for name in attention if name.startswith("attention_logit_class ")]
    return [*contributions[-1:], *[name for name in attention if name not in by_class[:-1]]]
