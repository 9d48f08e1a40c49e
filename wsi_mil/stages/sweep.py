"""Several models, encoders and settings on the same folds, and the honest score of choosing among them.

Whoever picks the best row of a table of test scores has chosen on the test folds. Here the choice is made again in each
fold, by the loss on its select role, and the chosen model's predictions of that fold's test slides are put together:
the score of these is what the whole procedure, choosing included, can be expected to give (nested selection; Varma and
Simon, BMC Bioinformatics 2006).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import Field, field_validator

from wsi_mil import files
from wsi_mil.config import Section, StudyPath, load
from wsi_mil.errors import StageError
from wsi_mil.evaluation import LOWER_IS_BETTER, Interval
from wsi_mil.layout import folder_name
from wsi_mil.stages.evaluate import read_slides
from wsi_mil.stages.judge import measured
from wsi_mil.stages.study import Study, load_study
from wsi_mil.stages.train import read_folds
from wsi_mil.stages.trained import TrainedModel, read_predictions, trained_models

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work

CHOSEN = "chosen in each fold"
"""Name of the row that tells the score of the choice."""

Fold = tuple[int, int]


class SweepFile(Section):
    """What is tried: every combination of the values, each as a model of its own in one work folder."""

    study: StudyPath
    """The study file that all have in common, with its seeds."""
    vary: dict[str, tuple[Any, ...]] = Field(min_length=1)
    """Settings and their values, such as {model.name: [abmil, clam], extract.encoder: [offline], train.lr: [1e-4]}."""

    @field_validator("vary", mode="after")
    @classmethod
    def _can_vary(cls, value: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        faults = []
        for name, values in value.items():
            own = name.startswith(("model.", "train.")) and name not in ("model.label", "train.seeds")
            if not (own or name == "extract.encoder"):
                faults.append(f"{name} cannot vary: only extract.encoder and settings of model and train can")
            if not values or len({repr(one) for one in values}) < len(values):
                faults.append(f"{name} needs values, each once")
        if faults:
            raise ValueError("; ".join(faults))
        return value


@dataclass(frozen=True)
class Tried:
    """One combination."""

    label: str
    """Its folder under train/ and predict/."""
    settings: Mapping[str, Any]
    study: Study


@dataclass(frozen=True)
class Swept:
    """What a sweep found for one question of the study."""

    question: str
    """Of a joint task, or empty."""
    leading: str
    """Measure to look at first."""
    scores: Mapping[str, Mapping[str, Interval]]
    """Measures of each combination by its label, the choice in front, then from the best down."""
    by_seed: Mapping[str, Mapping[str, tuple[float, ...]]]
    """The same of the models of each seed alone: what a single training run would have given."""


def read_sweep(path: Path) -> list[Tried]:
    """The combinations of a sweep file. Raises ConfigError with every fault of file, study or values."""
    told = load(path, into=SweepFile)
    found = []
    for values in itertools.product(*told.vary.values()):
        settings = dict(zip(told.vary, values, strict=True))
        label = folder_name("_".join(_named(name, value) for name, value in settings.items()))
        overrides = [f"{name}={_yaml(value)}" for name, value in settings.items()]
        found.append(Tried(label, settings, load_study(told.study, [*overrides, f"model.label={label}"])))
    return found


def score_sweep(name: str, tried: Mapping[str, Work], *, draws: int = 1000) -> list[Swept]:
    """Score every combination and the choice among them, and write sweep/NAME/ in their work folder.

    `tried` are the works of combinations that are trained and predicted, by label. chosen.csv tells what was chosen in
    each fold and by which loss, slides.csv the predictions of the choice, table.csv all scores, with `seeds`, how many
    there are, and `seed_spread`, the standard deviation of the score between the models of single seeds.
    Raises StageError where fewer than two are there, or where there is no select role to choose on.
    """
    if len(tried) < 2:
        raise StageError(f"a sweep compares two combinations or more, and {len(tried)} could be trained and predicted")
    losses = pd.DataFrame({label: _losses(work) for label, work in tried.items()})
    lowest = losses.to_numpy().argmin(axis=1)
    choice = {
        (int(repeat), int(fold)): str(losses.columns[best])
        for (repeat, fold), best in zip(losses.index, lowest, strict=True)
    }
    first = next(iter(tried.values()))
    said = {CHOSEN: _chosen(choice, tried), **{label: read_predictions(work) for label, work in tried.items()}}
    together = _predicted(said[CHOSEN], read_slides(first))
    tables = {CHOSEN: together, **{label: read_slides(work) for label, work in tried.items()}}
    scored = {label: measured(tried.get(label, first), table, draws=draws) for label, table in tables.items()}
    alone = {label: _seeds_alone(rows, tried.get(label, first)) for label, rows in said.items()}
    found = [_ordered(question, scored, alone) for question in scored[CHOSEN]]
    folder = first.root / "sweep" / folder_name(name)
    chosen = losses.assign(chosen=list(choice.values())).rename_axis(["repeat", "fold"]).reset_index()
    files.write_text(folder / "chosen.csv", chosen.to_csv(index=False))
    files.write_text(folder / "slides.csv", together.to_csv(index=False))
    files.write_text(folder / "table.csv", _table(found).to_csv(index=False))
    return found


def _losses(work: Work) -> pd.Series:
    """Loss on the select role at the chosen epoch, mean over seeds, by repeat and fold."""
    rows = []
    for model in trained_models(work):
        history = pd.read_csv(model.folder / "history.csv")
        epoch = files.read_json(model.folder / "model.json")["training"]["epoch"]
        if "select_loss" not in history:
            raise StageError(_unjudged(model, work))
        loss = float(history.loc[history["epoch"] == epoch, "select_loss"].to_numpy()[0])
        rows.append({"repeat": model.repeat, "fold": model.fold, "loss": loss})
    return pd.DataFrame(rows).groupby(["repeat", "fold"])["loss"].mean()


def _unjudged(model: TrainedModel, work: Work) -> str:
    folds = read_folds(work)
    here = (folds["repeat"] == model.repeat) & (folds["fold"] == model.fold) & (folds["role"] == "select")
    if not here.any():
        return f"{model.name} has no loss on the select role: a sweep needs split.select above 0"
    return (
        f"{model.name} has no loss on the select role: the labels of its {here.sum()} slide(s) there cannot tell a "
        "better model from a worse one (of survival, none has an event before another's time): give split.select a "
        "larger share, or lower split.folds"
    )


def _chosen(choice: Mapping[Fold, str], tried: Mapping[str, Work]) -> pd.DataFrame:
    """What the models of the combination chosen in each fold say of its test slides: rows of slide, model, answers."""
    said = {label: read_predictions(work) for label, work in tried.items()}
    parts = []
    for fold, label in choice.items():
        own = {model.name for model in _of_fold(trained_models(tried[label]), fold)}
        parts.append(said[label][said[label]["model"].isin(own)])
    return pd.concat(parts)


def _predicted(rows: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """A table of slides as `predict` writes it, with the mean of some rows of models for the slides that are tested."""
    answers = [column for column in rows.columns if column.startswith("p_")]
    means = rows.groupby("slide")[answers].mean()
    tested = table["slide"].isin(means.index) & (table["part"] == "cross-validation")
    table = table[tested].drop(columns=["predicted", "disagreement"], errors="ignore")
    return table.assign(**{name: table["slide"].map(means[name]) for name in answers}, status="predicted")


def _seeds_alone(rows: pd.DataFrame, work: Work) -> dict[str, dict[str, tuple[float, ...]]]:
    """By question and measure the value of each seed's models alone."""
    table = read_slides(work)
    found: dict[str, dict[str, tuple[float, ...]]] = {}
    for _, part in rows.groupby(rows["model"].str.partition("/")[0]):
        # The values are wanted, and no intervals: two draws are the fewest.
        for question, (_, measures) in measured(work, _predicted(part, table), draws=2).items():
            own = found.setdefault(question, {})
            for name, interval in measures.items():
                own[name] = (*own.get(name, ()), interval.value)
    return found


def _of_fold(models: Sequence[TrainedModel], fold: Fold) -> list[TrainedModel]:
    return [model for model in models if (model.repeat, model.fold) == fold]


def _ordered(
    question: str,
    scored: Mapping[str, Mapping[str, tuple[str, Mapping[str, Interval]]]],
    alone: Mapping[str, Mapping[str, Mapping[str, tuple[float, ...]]]],
) -> Swept:
    leading = scored[CHOSEN][question][0]
    values = {label: told[question][1] for label, told in scored.items() if question in told}
    sign = 1 if leading in LOWER_IS_BETTER else -1
    order = sorted(values, key=lambda label: (label != CHOSEN, np.nan_to_num(sign * values[label][leading].value)))
    seeds = {label: alone[label].get(question, {}) for label in order}
    return Swept(question, leading, {label: values[label] for label in order}, seeds)


def _table(found: Sequence[Swept]) -> pd.DataFrame:
    rows = [
        {"question": one.question, "model": label, "measure": name}
        | {"value": interval.value, "low": interval.low, "high": interval.high}
        | _spread(one.by_seed[label].get(name, ()))
        for one in found
        for label, measures in one.scores.items()
        for name, interval in measures.items()
    ]
    return pd.DataFrame(rows)


def _spread(values: Sequence[float]) -> dict[str, Any]:
    """How many seeds there are, and the standard deviation between them; NaN where there is one."""
    return {"seeds": len(values), "seed_spread": float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")}


def _named(setting: str, value: Any) -> str:
    """A value alone where it names itself, else with the name of its setting."""
    plain = str(value).replace("/", "-").replace(":", "-")
    return plain if setting in ("model.name", "extract.encoder") else f"{setting.rsplit('.', 1)[-1]}-{plain}"


def _yaml(value: Any) -> str:
    import yaml

    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()
