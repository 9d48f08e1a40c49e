"""The part of the report that sets all models of a work folder side by side, on the same cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsi_mil.errors import WsiMilError
from wsi_mil.evaluation import Interval
from wsi_mil.report import Figure, Part, TableView, interval_figure, interval_text
from wsi_mil.stages.comparing import Compared, Comparison
from wsi_mil.stages.pages import METRIC_NAMES, name_of
from wsi_mil.stages.side_by_side import compare_works

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work

TITLE = "Models side by side"

CHANCE = {"auroc": 0.5, "mean_auroc": 0.5, "c_index": 0.5}
"""Of the measures that are drawn beside chance."""


def rivals(work: Work, *, draws: int) -> list[Part]:
    """The models under predict/, paired; nothing where there is one only, or they cannot be compared."""
    if len(list((work.root / "predict").glob("*/slides.csv"))) < 2 or work.study.predict.models is not None:
        return []
    try:
        told = compare_works([work.root], draws=draws)
    except WsiMilError as error:
        return [Part(TITLE, f"The models of this folder are not compared: {error}.")]
    return [_compared(one, work) for one in told]


def _compared(told: Comparison, work: Work) -> Part:
    metric = METRIC_NAMES.get(told.metric, told.metric)
    names = [one.name.removeprefix(f"{work.root.name}/") for one in told.studies]
    shown = list(told.studies[0].metrics)
    bars = {name: _bar(one.metrics[told.metric]) for name, one in zip(names, told.studies, strict=True)}
    tested, folded = (any(getattr(one, name) is not None for one in told.studies) for name in ("p", "by_folds"))
    rows = []
    for name, one in zip(names, told.studies, strict=True):
        row = [name, *(_text(one.metrics[key]) for key in shown), _less(one.difference)]
        rows.append(row + [_p(one)] * tested + [_less(one.by_folds)] * folded)
    headers = ["model", *(name_of(key) for key in shown), f"{metric} less {names[0]}"]
    headers += ["p"] * tested + ["fold by fold"] * folded
    text = (
        f"All models of this work folder on the {told.cases} {told.level}s of {told.patients} patients that each has "
        "predicted. Differences are paired: the same resamples of the patients for both"
    )
    text += "; p is of a paired permutation, adjusted for the number of models (Holm)." if tested else "."
    text += " Fold by fold: the mean difference over the folds, with Nadeau and Bengio's interval." if folded else ""
    text = " ".join([text, *(f"{note}." for note in told.notes)])
    figure = interval_figure(bars, title=f"{metric} with 95 % intervals", chance=CHANCE.get(told.metric))
    title = f"{TITLE}: {told.question}" if told.question else TITLE
    return Part(title, text, figures=[Figure(figure)], tables=[TableView(headers, rows)])


def _p(one: Compared) -> str:
    return "–" if one.p is None else f"{one.p:.3f}"


def _less(interval: Interval | None) -> str:
    return "–" if interval is None else _text(interval)


def _bar(one: Interval) -> tuple[float, float, float]:
    return one.value, one.low, one.high


def _text(interval: Interval) -> str:
    return interval_text(interval.value, interval.low, interval.high)
