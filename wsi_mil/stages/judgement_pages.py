"""The parts of the report about reliance: leakage audit, uncertainty, calibration, sets, sites and subgroups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wsi_mil.evaluation import FEW_FOR_ECE, Interval, decision_curve, reliability, seed_spread
from wsi_mil.report import (
    Bins,
    Curve,
    Figure,
    Part,
    TableView,
    benefit_figure,
    interval_figure,
    interval_text,
    reliability_figure,
)
from wsi_mil.stages import ledger
from wsi_mil.stages.apart import group_parts
from wsi_mil.stages.folded import TOLD, FoldMean
from wsi_mil.stages.judgement import Group, Judgement, worst
from wsi_mil.stages.pages import name_of

if TYPE_CHECKING:
    from wsi_mil.stages.evaluate import Evaluation
    from wsi_mil.stages.judge import Judged
    from wsi_mil.stages.work import Work

NAMES = {
    "calibration_slope": "calibration slope (1 is right)",
    "calibration_intercept": "calibration intercept (0 is right)",
    "brier": "Brier score",
    "log_loss": "log loss",
    "expected_calibration_error": "expected calibration error",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "positive predictive value",
    "npv": "negative predictive value",
    "auroc": "AUROC",
}

CLUSTERED = "95 % percentile intervals over resampled patients, conditional on the trained models."


def parts_of(told: Judgement | None, evaluated: Evaluation | None, work: Work) -> list[Part]:
    """All parts, or one that says why there are none."""
    found = [audit(work)] if work.study.predict.models is None else []
    last = []
    if evaluated:
        pooled, folds = evaluated.slides.metrics["auroc"], evaluated.folds.get("auroc")
        last = [uncertainty(pooled, folds, evaluated.seeds, measure="AUROC", of="slides")]
    if told is None:
        record = ledger.read_record(work.stage("calibrate"), "slides", work)
        why = record["facts"].get("skipped") if record and record["facts"] else "run `wsi-mil calibrate`"
        return [
            *found,
            Part("Calibration", f"Not calibrated: {why or 'there is no labelled prediction to judge'}."),
            *last,
        ]
    found += [calibration(told), sets(told)]
    found += [subgroups(column, groups, told) for column, groups in told.groups.items()]
    return [*found, *last]


def parts_of_questions(judged: Sequence[Judged], work: Work) -> list[Part]:
    """The same for questions that are no classification, as far as it applies to them."""
    found = [audit(work)] if work.study.predict.models is None else []
    text = (
        f"Calibrators, thresholds, decision curves, conformal sets and rejection are of one class a slide and do not "
        f"apply: this study asks a question of kind {work.study.task.kind}. How well its numbers agree with the truth "
        "stands under Performance."
    )
    found.append(Part("Calibration", text))
    for one in judged:
        title, leading = f": {one.name}" if one.name else "", one.answers.leading
        told = uncertainty(
            one.measures[leading], one.folds.get(leading), one.seeds, measure=name_of(leading), of=one.of, title=title
        )
        found += [told, *group_parts(one.groups, one.answers, title)]
    return found


def audit(work: Work) -> Part:
    """What was looked for before training, and what was found."""
    stage, rows = work.stage("train"), []
    for item in stage.items(work):
        record = ledger.read_record(stage, item.name, work)
        told = record["facts"].get("audit") if record and record["facts"] else None
        if told:
            rows.append([item.name, str(told["bags"]), "; ".join(told["warnings"]) or "nothing"])
        elif record and record["outcome"] == "failed":
            rows.append([item.name, "–", record["why"]])
    dealt = ledger.read_record(work.stage("split"), "folds", work)
    rows += [["the folds", "–", warning] for warning in ((dealt or {}).get("facts") or {}).get("warnings", [])]
    text = (
        "Before a fold is trained, nothing of its test role may be among what it learns from: no patient, no file "
        "under two names, no bag with the same or nearly the same tiles, no slide that the encoder is known to "
        "have been pretrained on. A finding stops the training. Before prediction the same is looked for again, "
        "and what each checkpoint was fitted on (weights, scaler, clinical record) is compared with whom it tests. A "
        "block cut and scanned anew is not found."
    )
    return Part("Leakage audit", text, tables=[TableView(["fold", "bags", "found"], rows)] if rows else [])


def calibration(told: Judgement) -> Part:
    """Reliability, decision curve, measures before and after, decisions at the threshold."""
    numbers = range(1, 2) if len(told.classes) == 2 else range(len(told.classes))
    kinds = (("raw", told.raw), ("calibrated", told.calibrated)) if len(told.classes) == 2 else (("", told.calibrated),)
    lines = []
    for kind, said in kinds:
        for number in numbers:
            one = reliability(told.truth == number, said[:, number])
            name = kind if len(told.classes) == 2 else told.classes[number]
            lines.append(Bins(name, one.said, one.came, one.low, one.high))
    figures = [Figure(reliability_figure(lines, title="Reliability", thresholds=told.thresholds))]
    if len(told.classes) == 2:
        figures.append(Figure(_benefit(told)))
    rows = [
        [NAMES[name], *(_text(told.measures[kind][name]) for kind in ("raw", "calibrated"))]
        for name in NAMES
        if name in told.measures["raw"]
    ]
    tables = [TableView(["measure", "as predicted", "calibrated"], rows)]
    if told.decisions:
        at = [[NAMES[name], _text(one)] for name, one in told.decisions.items()]
        tables.append(TableView([f"deciding on {told.classes[-1]!r}", "on test patients"], at))
    return Part("Calibration", _calibration_text(told), figures=figures, tables=tables)


def sets(told: Judgement) -> Part:
    """How often conformal sets hold the class, with the band in which that should lie."""
    if not told.coverage:
        return Part("Conformal sets", f"No sets: {told.refused or 'none were fitted'}.")
    rows = [
        [name, str(one.patients), f"{one.share:.3f}", f"{one.low:.3f} to {one.high:.3f}", f"{one.size:.2f}"]
        for name, one in told.coverage.items()
    ]
    crossed = (
        " The sets are cross-fitted, on models of other folds: the promise is then approximate."
        if told.source == "cross-fitted"
        else ""
    )
    text = (
        "Sets of classes that hold a patient's class at the promised rate (split conformal, the patient as the unit). "
        "The band is where the share covered should lie in 95 % of studies of this size if test and calibration "
        "patients are exchangeable (beta-binomial, of the smallest calibration set). Nothing is promised for other "
        f"sites, scanners or selections of patients: the rows of single sites are observations.{crossed}"
    )
    headers = ["patients", "n", "share covered", "expected band", "classes in a set"]
    return Part("Conformal sets", text, tables=[TableView(headers, rows)])


def subgroups(column: str, groups: Mapping[str, Group], told: Judgement) -> Part:
    """Metrics of each value of a column, as a forest and a table."""
    overall = {name: told.decisions[name] for name in ("sensitivity", "specificity") if name in told.decisions}
    shown = {name: one.metrics["auroc"] for name, one in groups.items() if "auroc" in one.metrics}
    forest = {name: (one.value, one.low, one.high) for name, one in shown.items()}
    rows = []
    for name, one in groups.items():
        counts = ", ".join(f"{count} {label}" for count, label in zip(one.counts, told.classes, strict=True))
        cells = [
            _text(one.metrics[metric]) if metric in one.metrics else "–" for metric in ("auroc", "brier", *overall)
        ]
        rows.append([name, str(one.patients), counts, *cells])
    v, p = told.association.get(column, (float("nan"), float("nan")))
    low = worst(groups)
    text = f"{CLUSTERED} A group with fewer than two patients of a class has no AUROC. "
    if v == v:
        text += f"Association of {column} and label: Cramer's V {v:.2f} (p {p:.3f}, permutation of patients). "
    if low is not None:
        text += f"Lowest: {low} with an AUROC of {_text(shown[low])}; the lowest of several is low by chance too. "
    if column == "site":
        text += (
            "Features nearly always betray the site, so that a model can learn the site in place of the tissue where "
            "the two go together; compare with `split.by: sites`."
        )
    figures = [Figure(interval_figure(forest, title=f"AUROC by {column}"))] if forest else []
    headers = [column, "patients", told.level + "s", "AUROC", "Brier score", *(NAMES[name] for name in overall)]
    return Part(f"By {column}", text, figures=figures, tables=[TableView(headers, rows)])


def uncertainty(
    pooled: Interval, folds: FoldMean | None, seeds: Mapping[str, float], *, measure: str, of: str, title: str = ""
) -> Part:
    """What chooses the figures besides the model: patients, folds, seeds."""
    rows = [[f"{measure}, all folds' {of} together", _text(pooled), "patients, resampled"]]
    if folds is not None:
        known = [value for value in folds.values if value == value]
        reach = f"folds, from {min(known):.3f} to {max(known):.3f}" if known else "folds"
        rows.append([f"{measure}, mean over folds", folds.text, reach])
    text = f"Of the {of} together the intervals are {CLUSTERED} {TOLD}"
    spread = seed_spread(seeds, pooled)
    if spread is not None:
        values = list(seeds.values())
        mean, reach = sum(values) / len(values), f"seeds, from {min(values):.3f} to {max(values):.3f}"
        told = f"{mean:.3f}, standard deviation {spread.seeds:.3f} ({spread.patients:.3f} of patients)"
        rows.append([f"{measure}, single seeds ({len(values)})", told, reach])
        text += " Between seeds varies the luck of training, which no interval over patients holds."
    else:
        text += " One seed was trained: how far training runs differ is not known (`train.seeds`)."
    tables = [TableView(["figure", "value", "what varies"], rows)]
    return Part(f"Uncertainty of the figures{title}", text, tables=tables)


def figures_of(told: Judgement) -> dict[str, Any]:
    """The numbers for programs."""
    return {
        "calibration": {kind: _plain_all(found) for kind, found in told.measures.items()},
        "decisions": _plain_all(told.decisions),
        "thresholds": list(told.thresholds),
        "coverage": {name: vars(one) for name, one in told.coverage.items()},
        "groups": {
            column: {name: {"patients": one.patients, **_plain_all(one.metrics)} for name, one in groups.items()}
            for column, groups in told.groups.items()
        },
        "association": {name: {"cramers_v": v, "p": p} for name, (v, p) in told.association.items()},
    }


def _calibration_text(told: Judgement) -> str:
    source = (
        "on the calibrate role of each fold, whose patients neither trained a model, nor chose an epoch, nor are tested"
        if told.source == "the calibrate role"
        else "cross-fitted: for each fold on the tested patients of the other folds (`split.calibrate` keeps patients "
        "of their own for it)"
    )
    text = f"Fitted {source}. A slope below 1 is overconfidence, an intercept above 0 predicts too low. {CLUSTERED}"
    if told.thresholds:
        cuts = f"{min(told.thresholds):.3f}" + (f" to {max(told.thresholds):.3f}" if len(told.thresholds) > 1 else "")
        text += f" Threshold: {told.rule}; {cuts} on the calibrated probability."
    elif len(told.classes) > 2:
        text += " Of several classes the most probable one is called; thresholds are of two."
    if len(told.truth) < FEW_FOR_ECE:
        text += (
            f" With {len(told.truth)} cases the expected calibration error is mostly chance (a right model would show "
            "one too): read slope, intercept and Brier score."
        )
    return text + "".join(f" Note: {note}." for note in told.notes)


def _benefit(told: Judgement) -> str:
    curves, last = [], None
    for name, said in (("as predicted", told.raw), ("calibrated", told.calibrated)):
        last = decision_curve(told.truth == 1, said[:, 1], told.patients)
        curves.append(Curve(name, last.thresholds, last.model, last.low, last.high))
    assert last is not None
    everyone = Curve("call all", last.thresholds, last.call_all)
    return benefit_figure(curves, call_all=everyone, title="Decision curve")


def _plain_all(found: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    return {name: _plain(one) for name, one in found.items()}


def _plain(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _text(interval: Interval) -> str:
    return interval_text(interval.value, interval.low, interval.high)
