"""What one slide's report tells: its prediction, how far it moves, what was decided, and what the record did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_mil.bags import Bag
from wsi_mil.errors import StageError, WsiMilError, unknown
from wsi_mil.grid import TileStatus
from wsi_mil.stages.calibrate import read_predicted
from wsi_mil.stages.calibrated import NAME, Calibration, load_calibration
from wsi_mil.stages.stage import Item
from wsi_mil.stages.train import model_label
from wsi_mil.stages.trained import (
    TrainedModel,
    answer,
    factors_of,
    hashes,
    read_checked_bag,
    read_predictions,
    speakers,
    trained_models,
)

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work

HALVES, FEWEST_HALVES, MOST_READINGS = 40, 8, 200
"""Random halves of the tiles that are read again: so many, fewer where there are many models, never below."""

FEWEST_TILES = 8
"""Tiles below which halves say nothing."""


@dataclass(frozen=True)
class Moved:
    """How far the answers of a slide move when one thing is changed: the lowest and highest of each answer."""

    what: str
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True)
class Factor:
    """A clinical factor that the model reads."""

    name: str
    known: bool
    change: NDArray[np.float64]
    """Of each answer when the factor is taken as missing: the answer with it less the answer without."""


@dataclass(frozen=True)
class CaseTold:
    """Everything about one slide that its report shows."""

    slide: str
    patient: str
    row: dict[str, object]
    """Of slides.csv, with the columns of the calibrate stage where it was run."""
    answers: tuple[str, ...]
    values: NDArray[np.float64]
    calibrated: NDArray[np.float64] | None
    models: tuple[str, ...]
    moved: tuple[Moved, ...] = ()
    factors: tuple[Factor, ...] = ()
    hashes: dict[str, str] = field(default_factory=dict)
    bag: Bag | None = None
    refused: str = ""
    """Why there is no conformal set, where there is none."""
    source: str = ""
    """What the calibration was fitted on."""
    notes: tuple[str, ...] = ()


def case_folder(work: Work) -> Path:
    """Where the pages of the study's model lie, if no other folder is asked for: case/MODEL."""
    return work.root / "case" / model_label(work)


def told_case(slide: str, work: Work) -> CaseTold:
    """Read the tables, and the models once more for what they do not hold.

    Raises StageError for a slide that is not in the cohort, or has no prediction.
    """
    if slide not in work.cohort.slides:
        raise StageError(unknown("slide", slide, work.cohort.slides))
    row = _row(slide, work)
    if row["status"] != "predicted":
        raise StageError(f"slide {slide!r} has no prediction ({row['status']}: {row.get('note') or 'no reason given'})")
    columns = [name for name in row if name.startswith("p_")]
    answers = tuple(name.removeprefix("p_") for name in columns)
    values = np.array([row[name] for name in columns], dtype=np.float64)
    has = all(f"calibrated_{name}" in row for name in answers)
    laid = np.array([row[f"calibrated_{name}"] for name in answers], dtype=np.float64) if has else None
    rows = read_predictions(work)
    rows = rows[rows["slide"] == slide]
    calibration = _calibration(work)
    fitted = None if calibration is None else calibration.levels["slide"]
    refused = next((one.refused for one in fitted.values() if one.refused), "") if fitted else ""
    told = CaseTold(
        slide,
        str(row["patient"]),
        row,
        answers,
        values,
        laid,
        tuple(rows["model"]),
        refused=refused,
        source=calibration.source if calibration else "",
    )
    return _read_again(told, rows, calibration, work)


def _read_again(told: CaseTold, rows: pd.DataFrame, calibration: Calibration | None, work: Work) -> CaseTold:
    """The case with what moves it; a note where bags or models are not at hand."""
    try:
        models = [one for one in speakers(trained_models(work), work)[told.slide] if one.name in told.models]
        bag = read_checked_bag(told.slide, work)
    except WsiMilError as error:
        return replace(told, notes=(*told.notes, f"the models could not read the slide again: {error}"))
    moved = []
    if len(rows) > 1:
        each = rows[[f"p_{name}" for name in told.answers]].to_numpy(np.float64)
        found = {one.name: one for one in models}
        laid = np.stack(
            [_laid(said, found.get(str(name)), calibration) for name, said in zip(rows["model"], each, strict=True)]
        )
        moved.append(Moved(f"lowest and highest of {len(rows)} models", laid.min(axis=0), laid.max(axis=0)))
    halves = _halves(models, bag, calibration, work)
    if halves is not None:
        low, high = np.percentile(halves, [2.5, 97.5], axis=0)
        moved.append(Moved(f"95 % of {len(halves)} random halves of the tiles", low, high))
    factors = _factors(models, bag, told, calibration, work)
    digests = dict(zip([one.name for one in models], hashes(models), strict=True))
    return replace(told, moved=tuple(moved), factors=factors, hashes=digests, bag=bag)


def _halves(
    models: Sequence[TrainedModel], bag: Bag, calibration: Calibration | None, work: Work
) -> NDArray[np.float64] | None:
    """Answers of random halves of the usable tiles [half answer]; None where there are too few tiles.

    The spread of half samples without replacement is that of the bootstrap for means (McCarthy, 1969), and no tile
    stands in a bag twice, which methods that read places would not bear.
    """
    usable = np.flatnonzero(bag.usable)
    if len(usable) < FEWEST_TILES or not models:
        return None
    random = np.random.default_rng(0)
    found = []
    for _ in range(max(FEWEST_HALVES, min(HALVES, MOST_READINGS // len(models)))):
        status = bag.status.copy()
        status[random.permutation(usable)[len(usable) // 2 :]] = TileStatus.UNREADABLE
        found.append(_said(models, replace(bag, status=status), calibration, work))
    return np.stack(found)


def _factors(
    models: Sequence[TrainedModel], bag: Bag, told: CaseTold, calibration: Calibration | None, work: Work
) -> tuple[Factor, ...]:
    known = factors_of(models[0], told.slide, work) if models else {}
    if not known:
        return ()
    with_all = _said(models, bag, calibration, work)
    found = []
    for name, is_known in known.items():
        without = _said(models, bag, calibration, work, without=[name]) if is_known else with_all
        found.append(Factor(name, is_known, with_all - without))
    return tuple(sorted(found, key=lambda one: -float(np.abs(one.change).max())))


def _said(
    models: Sequence[TrainedModel],
    bag: Bag,
    calibration: Calibration | None,
    work: Work,
    *,
    without: Sequence[str] = (),
) -> NDArray[np.float64]:
    """The mean answer of the models, each calibrated by its own fold's calibrator where there is one."""
    each = [_laid(answer(one, bag, work, without=without).values, one, calibration) for one in models]
    return np.asarray(np.mean(each, axis=0), dtype=np.float64)


def _laid(
    values: NDArray[np.float64], model: TrainedModel | None, calibration: Calibration | None
) -> NDArray[np.float64]:
    if calibration is None:
        return values
    place = None if model is None or model.fold is None else (model.repeat or 0, model.fold)
    return np.asarray(calibration.of("slide", place).calibrator.apply(values[None])[0], dtype=np.float64)


def _calibration(work: Work) -> Calibration | None:
    path = work.stage("calibrate").folder(work) / NAME
    return load_calibration(path) if path.exists() else None


def _row(slide: str, work: Work) -> dict[str, object]:
    """The slide's row of the table of calibrate, or of predict where that was not run, or of other predictions."""
    found = _of(slide, work.stage("predict").output(Item("slides"), work))
    laid = work.stage("calibrate").output(Item("slides"), work)
    more = _of(slide, laid) if laid.exists() else {}
    same = bool(more) and all(more.get(name) == value for name, value in found.items() if name.startswith("p_"))
    return more if same else found


def _of(slide: str, path: Path) -> dict[str, object]:
    table = read_predicted(path)
    rows = table[table["slide"] == slide]
    return {str(key): value for key, value in rows.iloc[0].to_dict().items()} if len(rows) else {}
