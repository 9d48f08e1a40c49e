"""The page of a validation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wsi_mil.evaluation import LOWER_IS_BETTER, Interval
from wsi_mil.report import Headline, Part, TableView, interval_text, page
from wsi_mil.stages.judgement_pages import calibration, figures_of, sets, subgroups
from wsi_mil.stages.pages import METRIC_NAMES

if TYPE_CHECKING:
    from wsi_mil.stages.validation import Validation
    from wsi_mil.stages.work import Work


def page_of(told: Validation, work: Work) -> str:
    """The whole page as HTML."""
    judged = told.judged
    headlines = [_headline("AUROC", told.metrics["auroc"])]
    headlines += [_headline(name, one) for name, one in list(judged.decisions.items())[:2]]
    slope = judged.measures["calibrated"]["calibration_slope"]
    headlines.append(_headline("calibration slope", slope))
    parts = [discrimination(told), calibration(judged), sets(judged)]
    parts += [subgroups(column, groups, judged) for column, groups in judged.groups.items()]
    parts += [drift(told), local(told)]
    name = work.study.predict.models.name if work.study.predict.models else ""
    subtitle = (
        f"{name}, frozen with its calibrator and threshold, on {len(judged.truth)} {judged.level}s of "
        f"{len(set(judged.patients))} patients"
    )
    return page(title="Validation on another cohort", subtitle=subtitle, headlines=headlines, parts=parts)


def discrimination(told: Validation) -> Part:
    """Metrics on this cohort, beside what cross-validation had said."""
    rows = []
    for name, one in told.metrics.items():
        better = " (lower is better)" if name in LOWER_IS_BETTER else ""
        before = told.development.get(name)
        rows.append([METRIC_NAMES.get(name, name) + better, _text(one), _text(before) if before else "–"])
    text = (
        "Nothing was fitted on this cohort: models, calibrator and threshold are those of the model's own study. Both "
        f"columns are of calibrated probabilities of {told.judged.level}s; classes are called at the highest of them. "
        "Intervals are 95 % percentile intervals over resampled patients."
    )
    return Part("Performance", text, tables=[TableView(["metric", "this cohort", "cross-validation"], rows)])


def drift(told: Validation) -> Part:
    """How far the inputs lie from those of training."""
    values = np.array(list(told.drift.distance.values()))
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    rows = [["this cohort", f"{middle:.2f}", f"{low:.2f} to {high:.2f}"]]
    text = (
        "Distance of each slide's mean tile from the training tiles' mean, in spreads of the training tiles (root mean "
        "square over features)."
    )
    if told.drift.reference is not None:
        rows.append(["the model's own study", f"{told.drift.reference[0]:.2f}", f"95 %: {told.drift.reference[1]:.2f}"])
        beyond = float((values > told.drift.reference[1]).mean())
        text += f" {beyond:.0%} of the slides lie beyond the 95 % quantile of the model's own slides."
    if told.drift.told_apart is not None:
        text += (
            f" A logistic regression tells the cohorts' mean tiles apart with an AUROC of {told.drift.told_apart:.2f} "
            "(0.5: alike). Two hospitals nearly always differ; it says that inputs moved, not that answers are wrong."
        )
    headers = ["slides", "median distance", "5 % to 95 %"]
    return Part("Drift of the inputs", text, tables=[TableView(headers, rows)])


def local(told: Validation) -> Part:
    """What recalibration with a few local cases would bring."""
    rows = [[str(one.k), f"{one.before:.3f}", f"{one.after:.3f}", f"{one.worse:.0%}"] for one in told.local]
    text = (
        "Platt's line refitted on k local patients and judged on the others, means over 50 random choices of the k. "
        "The order of the patients, and with it the AUROC, stays as it is."
    )
    if not rows:
        return Part("Recalibration with local cases", f"{text} There are too few patients for it.")
    headers = ["local patients", "log loss of the others before", "after", "choices in which it got worse"]
    return Part("Recalibration with local cases", text, tables=[TableView(headers, rows)])


def numbers_of(told: Validation) -> dict[str, Any]:
    """The numbers for programs."""
    return {
        "metrics": {name: _plain(one) for name, one in told.metrics.items()},
        "development": {name: _plain(one) for name, one in told.development.items()},
        **figures_of(told.judged),
        "drift": vars(told.drift),
        "recalibration": [vars(one) for one in told.local],
    }


def _headline(name: str, one: Interval) -> Headline:
    return Headline(f"{one.value:.3f}", name, f"95 % {one.low:.3f} to {one.high:.3f}")


def _plain(one: Interval) -> dict[str, float]:
    return {"value": one.value, "low": one.low, "high": one.high}


def _text(one: Interval) -> str:
    return interval_text(one.value, one.low, one.high)
