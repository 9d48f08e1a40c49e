"""Which slides no model of the study should answer for: scores fitted on the fit role, limits on the calibrate role."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_mil import files, training
from wsi_mil.errors import EmptyItem, ModelError, StageError
from wsi_mil.evaluation import limit_interval, limit_of
from wsi_mil.stages.features import bags_of, digests_of
from wsi_mil.stages.rejection_fit import fitted, negative_files, role_of, said_by
from wsi_mil.stages.stage import Tick
from wsi_mil.stages.train import read_folds
from wsi_mil.stages.trained import TrainedModel, hashes, load, speakers, trained_models

if TYPE_CHECKING:
    from wsi_mil.stages.calibrate import Calibrate
    from wsi_mil.stages.work import Work

Unknown = Literal[
    "none", "combo", "maxlogit", "energy", "msp", "norm", "maha", "knn", "epcc", "inst_topk", "hybrid", "deviation"
]

STATE = "reject"
"""Folder beside calibration.json: limits.json, and what each model's score was fitted to as safetensors."""

LIMITS = "limits.json"

FORMAT = 1

Parts = NDArray[np.float64]


@dataclass(frozen=True)
class Limit:
    """From which score on a model's slides are rejected, fitted on known slides that it has not learnt from."""

    limit: float
    low: float
    high: float
    """95 % interval of the limit over resampled patients."""
    spread: float
    """Standard deviation of the scores it was fitted on: the unit of `novelty`."""
    moments: tuple[tuple[float, float], ...]
    """Mean and spread of each part of a joined score; of one part (0, 1)."""
    cases: int
    patients: int

    def joined(self, parts: Parts) -> float:
        """The score of a slide: the highest of its parts, each in spreads of known slides."""
        return _joined(parts, self.moments)

    def beyond(self, parts: Parts) -> float:
        """How many spreads a slide lies above the limit; below 0 it is answered."""
        return (self.joined(parts) - self.limit) / self.spread


@dataclass(frozen=True)
class Rejection:
    """What was found of the slides of a study."""

    novelty: Mapping[str, float] = field(default_factory=dict)
    """By slide, mean over the models that speak of it: spreads above the limit."""
    score: str = "none"
    source: str = ""
    why: str = ""
    """Why there is none, where one was asked for."""
    by_model: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """The same of each model of the study's own, by its name."""

    def on(self, slides: pd.DataFrame, patients: pd.DataFrame | None) -> tuple[pd.DataFrame, pd.DataFrame | None]:
        """The tables with `novelty` and `rejected`; of a patient the mean over the slides."""
        if not self.novelty:
            return slides, patients
        each = pd.Series(self.novelty)
        by_patient = each.groupby(slides.set_index("slide")["patient"].reindex(each.index)).mean()
        made = _marked(slides, each, "slide")
        return made, None if patients is None else _marked(patients, by_patient, "patient")

    def facts(self) -> dict[str, Any]:
        """For the record of the stage."""
        if self.why:
            return {"reject": f"no slide is rejected: {self.why}"}
        count = sum(value > 0 for value in self.novelty.values())
        return {"rejected": count, "reject": f"{self.score}, {self.source}"} if self.novelty else {}


_Told = tuple[TrainedModel, training.Novelty, dict[str, Parts], dict[str, Parts]]
"""A model, its score, what it says of the slides it may speak of, and of those its limit is set on."""


def told_unknown(work: Work, how: Calibrate, given: Path | None) -> list[str]:
    """Digests of all that a rejection is made from besides the tables: models, bags, negatives, given limits."""
    state = given / STATE if given is not None else None
    if work.study.predict.models is not None:
        if state is None or not (state / LIMITS).exists():
            return []
        return [files.digest_file(path) for path in sorted(state.iterdir())] + _bags_told(work)
    if how.reject == "none" or work.study.predict.members or work.study.task.kind != "classification":
        return []
    negatives = [] if how.negatives is None else digests_of(negative_files(how.negatives, work))
    return [*hashes(trained_models(work)), *_bags_told(work), *negatives]


def reject_own(work: Work, how: Calibrate, folder: Path, tick: Tick) -> Rejection:
    """Fit a score for each model on its fit role and a limit on its calibrate role; judge the slides it may speak of.

    Without a calibrate role the limits are cross-fitted: each model's on what the models of the other folds say of the
    patients that they test. `folder` is written anew. ModelError where negatives are lacking or of another encoder.
    """
    files.remove(folder)
    if how.reject == "none":
        return Rejection()
    if work.study.predict.members:
        return Rejection(why="an ensemble has no embedding of its own; calibrate its members")
    kind, models = training.KINDS[how.reject], trained_models(work)
    by_slide = speakers(models, work)
    told: dict[str, _Told] = {}
    source = "limits from the calibrate role" if (read_folds(work)["role"] == "calibrate").any() else "cross-fitted"
    for number, model in enumerate(models):
        tick(number, len(models))
        score = fitted(model, how, work)
        slides = [slide for slide, able in by_slide.items() if model in able]
        parts = _parts(model, score, slides, work, tiles=kind.tiles)
        own = _parts(model, score, role_of(model, "calibrate", work), work, tiles=kind.tiles)
        told[model.name] = (model, score, parts, own)
    if source == "cross-fitted":
        told = {name: (one[0], one[1], one[2], _crossed(one[0], told, work)) for name, one in told.items()}
    lacking = [name for name, one in told.items() if not one[3]]
    if lacking:
        return Rejection(why=f"no patient is left to set a limit for {lacking[0]} on: give split.calibrate a share")
    patients = dict(zip(work.cohort.frame["slide"], work.cohort.frame["patient"], strict=True))
    limits = {name: _limit(one[3], patients, how.reject_rate) for name, one in told.items()}
    record: dict[str, Any] = {
        "format": FORMAT,
        "score": how.reject,
        "rate": how.reject_rate,
        "source": source,
        "models": {},
    }
    for name, (model, score, _, _) in told.items():
        file = f"{name.replace('/', '-')}.safetensors"
        files.write_bytes(folder / file, score.to_bytes())
        stored = {"sha256": training.model_hash(model.folder), "file": file}
        record["models"][name] = {**stored, **vars(limits[name])}
    files.write_json(folder / LIMITS, record)
    each = {name: {slide: limits[name].beyond(parts) for slide, parts in one[2].items()} for name, one in told.items()}
    return Rejection(_means(each.values()), how.reject, source, by_model=each)


def reject_given(work: Work, folder: Path | None) -> Rejection:
    """Judge slides by the scores and limits that given models bring, whatever this study asks for."""
    if folder is None or not (folder / LIMITS).exists():
        return Rejection()
    record, models = _read(folder), trained_models(work)
    told = {training.model_hash(model.folder): model for model in models}
    stored = {str(one["sha256"]): one for one in record["models"].values()}
    found = []
    for digest, model in told.items():
        if digest not in stored:
            return Rejection(why=f"{folder / LIMITS} has no limit for {model.name}: run `wsi-mil calibrate` there")
        one = stored[digest]
        score = training.Novelty.from_bytes((folder / one["file"]).read_bytes(), str(folder / one["file"]))
        limit = _limit_from(one)
        parts = _parts(model, score, work.cohort.slides, work, tiles=training.KINDS[score.name].tiles)
        found.append({slide: limit.beyond(values) for slide, values in parts.items()})
    return Rejection(_means(found), record["score"], record["source"])


def _parts(
    model: TrainedModel, score: training.Novelty, slides: Iterable[str], work: Work, *, tiles: bool
) -> dict[str, Parts]:
    """The score of each slide that can be read, part by part."""
    found = {}
    for slide in slides:
        try:
            found[slide] = score.of(said_by(model, slide, work, tiles=tiles))
        except (EmptyItem, StageError):
            continue  # predict has said why
        except ModelError:
            if work.study.predict.models is None:
                raise
    return found


def _crossed(model: TrainedModel, told: Mapping[str, _Told], work: Work) -> dict[str, Parts]:
    """Scores of the slides that the other folds of its seed and repeat test, none of a patient that it tests."""
    seed, frame = load(model, work).training.seed, work.cohort.frame.set_index("slide")["patient"]
    tested = set(frame[role_of(model, "test", work)])
    found: dict[str, Parts] = {}
    for other, _, parts, _ in told.values():
        if other.repeat == model.repeat and other.fold != model.fold and load(other, work).training.seed == seed:
            own = set(role_of(other, "test", work))
            found |= {slide: one for slide, one in parts.items() if slide in own and frame[slide] not in tested}
    return found


def _limit(known: Mapping[str, Parts], patients: Mapping[str, str], rate: float) -> Limit:
    parts, names = np.stack(list(known.values())), [patients[slide] for slide in known]
    moments = [(0.0, 1.0)]
    if parts.shape[1] > 1:
        moments = [(float(one.mean()), float(one.std()) or 1.0) for one in parts.T]
    scores = np.array([_joined(one, moments) for one in parts])
    counts = pd.Series(names).map(pd.Series(names).value_counts())
    low, high = limit_interval(scores, names, rate)
    limit = limit_of(scores, 1 / counts.to_numpy(np.float64), rate)
    return Limit(limit, low, high, float(scores.std()) or 1.0, tuple(moments), len(known), len(set(names)))


def _joined(parts: Parts, moments: Sequence[tuple[float, float]]) -> float:
    return max((float(value) - mean) / spread for value, (mean, spread) in zip(parts, moments, strict=True))


def _means(told: Iterable[Mapping[str, float]]) -> dict[str, float]:
    table = pd.DataFrame([pd.Series(dict(one), dtype=np.float64) for one in told])
    return {str(slide): float(value) for slide, value in table.mean().items() if value == value}


def _marked(table: pd.DataFrame, novelty: pd.Series, level: str) -> pd.DataFrame:
    values = table[level].map(novelty)
    words = [("yes" if value > 0 else "no") if value == value else "" for value in values]
    return table.assign(novelty=values, rejected=words)


def _read(folder: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = files.read_json(folder / LIMITS)
        if record["format"] != FORMAT:
            raise ModelError(f"{folder / LIMITS} has format {record['format']!r}, and this version reads {FORMAT}")
        for one in record["models"].values():
            _limit_from(one)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{folder / LIMITS} holds no limits ({error}); run `wsi-mil calibrate` again") from error
    return record


def _limit_from(told: Mapping[str, Any]) -> Limit:
    own = {name: told[name] for name in ("limit", "low", "high", "spread", "cases", "patients")}
    return Limit(**own, moments=tuple((float(mean), float(spread)) for mean, spread in told["moments"]))


def _bags_told(work: Work) -> list[str]:
    return digests_of(bags_of(work, work.cohort.slides)[0].values(), work.study.model.beside)
