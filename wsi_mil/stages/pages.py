"""The parts of the study page that hold numbers: performance, baselines, localisation, training, provenance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from wsi_mil.evaluation import LOWER_IS_BETTER, Interval, Localisation, confusion, pr_curve, roc_curve
from wsi_mil.evaluation import Curve as BootstrapCurve
from wsi_mil.report import (
    Curve,
    Figure,
    Part,
    TableView,
    confusion_figure,
    curve_figure,
    history_figure,
    interval_figure,
    interval_text,
    score_figure,
)
from wsi_mil.stages import ledger
from wsi_mil.stages.baselines import BASELINES
from wsi_mil.stages.evaluate import Evaluation, Scored
from wsi_mil.stages.folded import HEADER, TOLD

if TYPE_CHECKING:
    from wsi_mil.stages.work import Work

METRIC_NAMES = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "f1": "F1",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "brier": "Brier score",
    "log_loss": "log loss",
    "r2": "R2",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "pearson": "Pearson's r",
    "spearman": "Spearman's rho",
    "quadratic_kappa": "quadratic kappa",
    "grade_mae": "mean distance in grades",
    "mean_auroc": "mean AUROC",
    "mean_average_precision": "mean average precision",
    "mean_brier": "mean Brier score",
    "c_index": "C-index",
    "integrated_brier": "integrated Brier score",
}


def name_of(measure: str) -> str:
    """As a person reads it, and which way is better where lower is."""
    better = " (lower is better)" if measure in LOWER_IS_BETTER else ""
    if measure.startswith("auc_at_"):
        return f"AUC at {measure.removeprefix('auc_at_')}"
    if measure.startswith("auroc "):
        return f"AUROC, {measure.removeprefix('auroc ')}"
    return METRIC_NAMES.get(measure, measure) + better


CURVE_DRAWS = 400
"""Resamples behind the band of a curve; a band needs fewer than an interval that is read as a number."""


def performance(told: Evaluation) -> Part:
    """ROC, precision-recall, confusion and metrics, slide and patient."""
    figures = _curves(told.slides)
    counts = confusion(told.slides.truth, told.slides.probabilities)
    figures.append(Figure(confusion_figure(counts, told.slides.classes, title="Confusion, slides")))
    if len(told.slides.classes) == 2:
        labels = [told.slides.classes[index] for index in told.slides.truth]
        drawn = score_figure(
            told.slides.probabilities[:, 1],
            labels,
            told.slides.classes,
            title="Every slide at its predicted probability",
            x=f"probability of {told.slides.classes[1]!r}",
        )
        figures.append(Figure(drawn))
    rows = []
    for name, interval in told.slides.metrics.items():
        better = " (lower is better)" if name in LOWER_IS_BETTER else ""
        row = [METRIC_NAMES.get(name, name) + better, _text(interval)]
        row += [_text(told.patients.metrics[name])] if told.patients else []
        row += [told.folds[name].text] if told.folds else []
        rows.append(row + ([told.patient_folds[name].text] if told.patient_folds else []))
    headers = ["metric", f"{len(told.slides.names)} slides"]
    headers += [f"{len(told.patients.names)} patients"] if told.patients else []
    headers += ([HEADER] if told.folds else []) + ([f"patients, {HEADER}"] if told.patient_folds else [])
    text = (
        "Each slide is predicted by models that saw neither it nor another slide of its patient. Intervals are 95 % "
        "percentile intervals over resampled patients; they are conditional on the trained models. Classes are called "
        "at the highest probability."
    ) + (f" {TOLD}" if told.folds else "")
    if len(told.seeds) > 1:
        values = np.array(list(told.seeds.values()))
        text += f" Seeds alone: AUROC {values.mean():.3f}, standard deviation {values.std(ddof=1):.3f}."
    return Part("Performance", text, figures=figures, tables=[TableView(headers, rows)])


def _curves(scored: Scored) -> list[Figure]:
    """ROC and precision-recall of the positive class, or of each class against the rest."""
    roc, precision = [], []
    positives = range(1, 2) if len(scored.classes) == 2 else range(len(scored.classes))
    for number in positives:
        positive, scores = scored.truth == number, scored.probabilities[:, number]
        one = roc_curve(positive, scores, scored.patients, draws=CURVE_DRAWS)
        name = scored.classes[number]
        roc.append((name, one))
        precision.append((name, pr_curve(positive, scores, scored.patients, draws=CURVE_DRAWS)))
    share = float((scored.truth == 1).mean()) if len(scored.classes) == 2 else None
    return [
        Figure(
            curve_figure(
                [_stepped(name, one) for name, one in roc],
                title="ROC",
                x="false positive rate",
                y="true positive rate",
                chance=None,
                diagonal="chance",
            )
        ),
        Figure(
            curve_figure(
                [_stepped(name, one) for name, one in precision],
                title="Precision and recall",
                x="recall",
                y="precision",
                chance=share,
            )
        ),
    ]


def _stepped(name: str, curve: BootstrapCurve) -> Curve:
    """The curve and its band on the band's grid of x."""
    order = np.argsort(curve.x, kind="stable")
    return Curve(name, curve.grid, np.interp(curve.grid, curve.x[order], curve.y[order]), curve.low, curve.high)


def baselines(told: Evaluation) -> Part:
    """The model beside what can be had without it."""
    model = told.slides.metrics["auroc"]
    rows = {"the model": (model.value, model.low, model.high)}
    rows |= {name: (one.value, one.low, one.high) for name, one in told.baselines.items()}
    table = [[name, _text(one), _text(told.differences[name]), BASELINES[name]] for name, one in told.baselines.items()]
    text = (
        "Baselines in the same folds, on the same slides. A model that does not beat the layout of its tiles has not "
        "looked at the tissue; one that does not beat bag statistics has not needed attention."
    )
    return Part(
        "Baselines",
        text,
        figures=[Figure(interval_figure(rows, title="Slide AUROC with 95 % intervals"))],
        tables=[TableView(["baseline", "slide AUROC", "model less baseline, paired", "what it is"], table)],
    )


def localisation(found: Mapping[str, Mapping[str, Localisation]], work: Work) -> Part:
    """How well the maps find the lesions."""
    patients = dict(zip(work.cohort.frame["slide"], work.cohort.frame["patient"], strict=True))
    rows = []
    for part, scores in found.items():
        for name, one in scores.items():
            ap = f"{one.mean_average_precision:.3f}" if one.slides else "–"
            prevalence = f"{one.prevalence.mean():.3f}" if one.slides else "–"
            rows.append([part, name, _text(one.interval(patients)), ap, prevalence, str(len(one.slides))])
    headers = ["slides", "score of a tile", "mean tile AUROC", "mean average precision", "prevalence", "n"]
    text = (
        "Tiles against the truth, slide by slide; a slide counts if it has tiles of both kinds. A contribution is what "
        "a tile adds to the class; attention says only how much the model looked at it. Below: scores that know less."
    )
    return Part("What the heatmaps find", text, tables=[TableView(headers, rows)])


def training(work: Work) -> Part:
    """Loss curves of every fold."""
    stage, histories, chosen = work.stage("train"), {}, {}
    for item in stage.items(work):
        path = stage.output(item, work) / "history.csv"
        if path.exists():
            histories[item.name] = pd.read_csv(path).to_dict(orient="list")
            record = ledger.read_record(stage, item.name, work)
            if record and record["facts"].get("epoch"):
                chosen[item.name] = int(record["facts"]["epoch"])
    text = "The epoch is chosen by the loss on the select role; the test role is not handed to training at all."
    return Part("Training", text, figures=[Figure(history_figure(histories, chosen=chosen))])  # type: ignore[arg-type]


def _text(interval: Interval) -> str:
    return interval_text(interval.value, interval.low, interval.high)
