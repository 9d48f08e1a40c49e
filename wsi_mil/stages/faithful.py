"""Whether the heatmaps of a study can be believed: what they do to the model, to chance, and to the truth."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_mil import models, training
from wsi_mil.bags import read_bag
from wsi_mil.errors import StageError
from wsi_mil.evaluation import (
    Baseline,
    Found,
    centre_scores,
    detections,
    dice_at,
    faithfulness,
    froc,
    lesions,
    pointing,
    rank_correlation,
    tile_ap,
    tile_auroc,
)
from wsi_mil.heatmaps import Heatmap, heatmap_from_hdf5
from wsi_mil.stages.baselines import SlideNumbers, numbers_of, run_baselines
from wsi_mil.stages.evaluate import colour_only, read_slides
from wsi_mil.stages.explained import explain
from wsi_mil.stages.features import bags_of
from wsi_mil.stages.train import read_folds
from wsi_mil.stages.trained import Question, load, question, read_checked_bag, speakers, trained_models
from wsi_mil.stages.truth import Truth

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work

AREA = 0.1
"""Share of the tiles that Dice marks."""

RANDOM_MODELS = 2
"""Models with fresh weights that each map is compared with."""

OWN_SCALE = ("attention", "rollout", "GraphCAM", "mean rank")
"""Kinds of numbers that are relative to their slide: not pooled over slides, so that FROC has nothing to say."""


@dataclass(frozen=True)
class Judged:
    """All that was measured, one row a slide and map, and FROC of each map."""

    rows: pd.DataFrame
    """slide, patient, map, kind, deletion, insertion, random_weights; with truth auroc, average_precision, prevalence,
    dice, pointing. NaN where it is not defined."""
    froc: dict[str, float]
    """Mean over models of the score of CAMELYON16, by map."""
    answer: str
    """What the maps are of."""


@dataclass(frozen=True)
class _Case:
    """A slide with its map and the models that speak of it."""

    heatmap: Heatmap
    asked: dict[str, Question]
    maps: dict[str, NDArray[Any]]
    """Scores of its usable tiles, by map: the channels of the answer, then the baselines."""
    kinds: dict[str, str]


def judge_maps(
    work: Work, truth: Truth | None, *, tick: Callable[[int, int], None] = lambda done, total: None
) -> Judged:
    """Every channel of every map that is there, beside baselines that know less of the slide.

    Raises StageError where there is no map.
    """
    slides = read_slides(work)
    slides = slides[slides["status"] == "predicted"]
    baselines, numbers = _baselines(work, slides)
    rows: list[dict[str, Any]] = []
    found: dict[tuple[str, str], list[Found]] = {}
    of = ""
    for number, (slide, patient) in enumerate(zip(slides["slide"], slides["patient"], strict=True)):
        tick(number, len(slides))
        case, of = _case(slide, numbers, baselines, work)
        if case is None:
            continue
        measured = _measure(case, of, work)
        told = None if truth is None else truth.tiles(case.heatmap.grid)
        for name, values in measured.items():
            row = {"slide": slide, "patient": patient, "map": name, "kind": case.kinds[name], **values}
            rows.append(row | ({} if told is None else _localised(case, name, told)))
            if told is not None and _poolable(case, name):
                found.setdefault((name, case.heatmap.model), []).append(_found(case, name, told))
    if not rows:
        raise StageError(f"{work.stage('heatmap').folder(work)} holds no map: run `wsi-mil heatmap` first")
    return Judged(pd.DataFrame(rows), _frocs(found), of)


def _baselines(work: Work, slides: pd.DataFrame) -> tuple[dict[str, Baseline], dict[str, SlideNumbers]]:
    paths, _ = bags_of(work, slides["slide"])
    numbers = {slide: numbers_of(read_bag(path)) for slide, path in paths.items()}
    if work.study.task.kind != "classification" or work.study.predict.models is not None:
        return {}, numbers
    known = slides[(slides["part"] == "cross-validation") & (slides["label"] != "")]
    classes = [name.removeprefix("p_") for name in slides.columns if name.startswith("p_")]
    truth = np.array([classes.index(label) for label in known["label"]], dtype=np.int64)
    return run_baselines([[slide] for slide in known["slide"]], numbers, truth, work), numbers


def _case(
    slide: str, numbers: dict[str, SlideNumbers], baselines: dict[str, Baseline], work: Work
) -> tuple[_Case | None, str]:
    """A slide that has a map, and the answer that is judged."""
    stage = work.study.heatmap
    path = stage.folder(work) / slide / f"{slide}.h5"
    if not path.exists():
        return None, ""
    heatmap, bag = heatmap_from_hdf5(path.read_bytes()), read_checked_bag(slide, work)
    if heatmap.grid.slide != bag.slide or len(heatmap.grid) != len(bag.grid):
        raise StageError(f"the map of slide {slide!r} is not of its bag; run heatmap again")
    trained = speakers(trained_models(work), work)[slide]
    of = stage.of or load(trained[0], work).task.shown(np.array(list(heatmap.prediction.values())))
    maps = {name: heatmap.column(name)[bag.usable] for name in channels_of(heatmap, of)}
    kinds = {name: heatmap.kinds.get(name, "") for name in maps}
    others = {"distance from the tissue's centre": centre_scores(heatmap.grid.coords_l0)[bag.usable]}
    every = np.ones(int(bag.usable.sum()), dtype=bool)
    others |= colour_only(numbers[slide], baselines, _tested(slide, work), every)
    asked = {model.name: question(model, bag, work) for model in trained}
    return _Case(heatmap, asked, maps | others, kinds | dict.fromkeys(others, "baseline")), of


def channels_of(heatmap: Heatmap, of: str) -> list[str]:
    """The channels of one answer, and those of none."""
    told = []
    for name in heatmap.channels:
        answers = [answer for answer in heatmap.prediction if name.endswith(f"_{answer}")]
        if not answers or max(answers, key=len) == of:
            told.append(name)
    return told


def _tested(slide: str, work: Work) -> list[int]:
    """The folds that test a slide, or all for a slide of none."""
    if work.study.predict.models is not None:
        return []
    folds = read_folds(work)
    order = list(folds.groupby(["repeat", "fold"], sort=True).groups)
    rows = folds[(folds["role"] == "test") & (folds["slide"] == slide)]
    return [order.index(place) for place in zip(rows["repeat"], rows["fold"], strict=True)] or list(range(len(order)))


def _measure(case: _Case, of: str, work: Work) -> dict[str, dict[str, float]]:
    """What the order of each map does to the models, and what is left of it with random weights; mean over models."""
    methods = work.study.heatmap.methods
    every: dict[str, list[dict[str, float]]] = {name: [] for name in case.maps}
    for asked in case.asked.values():
        own = explain(asked, methods)
        maps = {name: own.columns[name][own.here] if name in own.columns else case.maps[name] for name in case.maps}
        gains = faithfulness(_asking(asked, of), maps)
        random = [explain(_forgotten(asked, seed), methods) for seed in range(RANDOM_MODELS)]
        for name, values in maps.items():
            same = [abs(rank_correlation(values, one.columns[name][one.here])) for one in random if name in one.columns]
            told = {"random_weights": float(np.mean(same)) if same else float("nan")}
            every[name].append({"deletion": gains[name].deletion, "insertion": gains[name].insertion, **told})
    return {name: {key: float(np.mean([one[key] for one in told])) for key in told[0]} for name, told in every.items()}


def _asking(asked: Question, of: str) -> Callable[[NDArray[np.bool_]], float]:
    """The model on some of the slide's tiles, with all of the patient's other slides, on the axis of contributions."""
    task = asked.checkpoint.task
    column = list(task.names).index(of)

    def ask(kept: NDArray[np.bool_]) -> float:
        rows = np.ones(len(asked.features), dtype=bool)
        rows[asked.here] = kept
        said = training.infer(asked.checkpoint.model, asked.features[rows], asked.cells[rows], record=asked.record)
        return float(task.scores(said.logits[None])[0, column])

    return ask


def _forgotten(asked: Question, seed: int) -> Question:
    """The same question to a model of the same making that was never trained (Adebayo et al., NeurIPS 2018)."""
    model = asked.checkpoint.model
    spec = model.spec
    fresh = models.build_model(
        spec.name if spec.name in models.MODELS else type(model.aggregator),
        dim=spec.dim,
        n_out=spec.n_out,
        factors=spec.factors,
        fusion=spec.fusion,
        seed=10_000 + seed,
        **spec.options,
    )
    for name in ("feature_mean", "feature_scale", "feature_limit"):
        getattr(fresh, name).copy_(getattr(model, name))
    fresh = fresh.to(model.feature_mean.device).eval()
    return dataclasses.replace(asked, checkpoint=dataclasses.replace(asked.checkpoint, model=fresh))


def _localised(case: _Case, name: str, told: tuple[NDArray[np.bool_], NDArray[np.bool_]]) -> dict[str, float]:
    """One map against the truth of the tiles where it is known; nothing where they are all of one kind."""
    positive, scores, _ = _known(case, name, told)
    if not len(positive) or positive.all() or not positive.any():
        return {}
    return {
        "auroc": tile_auroc(positive, scores),
        "average_precision": tile_ap(positive, scores),
        "prevalence": float(positive.mean()),
        "dice": dice_at(positive, scores, share=AREA),
        "pointing": pointing(positive, scores),
    }


def _known(
    case: _Case, name: str, told: tuple[NDArray[np.bool_], NDArray[np.bool_]]
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.int64]]:
    """Truth, scores and cells of the tiles that have both."""
    read = np.isfinite(case.heatmap.scores).all(axis=1)
    keep = told[1] & read
    cells = np.rint(case.heatmap.grid.coords_l0[keep] / np.asarray(case.heatmap.grid.step_l0)).astype(np.int64)
    return told[0][keep], np.asarray(case.maps[name], dtype=np.float64)[keep[read]], cells


def _poolable(case: _Case, name: str) -> bool:
    """Whether the numbers of a map mean the same on every slide of one model."""
    return case.kinds[name] not in OWN_SCALE and not name.startswith("distance")


def _found(case: _Case, name: str, told: tuple[NDArray[np.bool_], NDArray[np.bool_]]) -> Found:
    positive, scores, cells = _known(case, name, told)
    if not len(positive):
        return Found(np.zeros(0), np.zeros(0, np.int64), 0)
    own = lesions(cells, positive)
    places = detections(cells, scores)
    return Found(scores[places], own[places], int(own.max()))


def _frocs(found: Mapping[tuple[str, str], Sequence[Found]]) -> dict[str, float]:
    """For each map the mean over models: slides that different models read are not on one scale."""
    scores: dict[str, list[float]] = {}
    for (name, _), slides in found.items():
        told = froc(slides)
        if told is not None:
            scores.setdefault(name, []).append(told.score)
    return {name: float(np.mean(values)) for name, values in scores.items()}
