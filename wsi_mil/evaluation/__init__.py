"""Numbers that can be believed: metrics, patient-bootstrap intervals, curves, baselines, localisation (no torch)."""

from __future__ import annotations

from wsi_mil.evaluation.baselines import (
    Baseline,
    Fold,
    LinearModel,
    bag_statistics,
    layout_statistics,
    out_of_fold_logistic,
)
from wsi_mil.evaluation.curves import Curve, pr_curve, roc_curve
from wsi_mil.evaluation.intervals import (
    Interval,
    Statistic,
    bootstrap,
    bootstrap_mean,
    bootstrap_statistic,
    paired_difference,
)
from wsi_mil.evaluation.linear import out_of_fold_cox, out_of_fold_ridge
from wsi_mil.evaluation.localisation import Localisation, centre_scores, localise, tile_ap, tile_auroc
from wsi_mil.evaluation.measures import class_measures, grade_measures, label_measures, number_measures
from wsi_mil.evaluation.metrics import LOWER_IS_BETTER, METRICS, Metric, confusion, score
from wsi_mil.evaluation.survival import SurvivalCurve, kaplan_meier, log_rank, survival_measures

__all__ = [
    "LOWER_IS_BETTER",
    "METRICS",
    "Baseline",
    "Curve",
    "Fold",
    "Interval",
    "LinearModel",
    "Localisation",
    "Metric",
    "Statistic",
    "SurvivalCurve",
    "bag_statistics",
    "bootstrap",
    "bootstrap_mean",
    "bootstrap_statistic",
    "centre_scores",
    "class_measures",
    "confusion",
    "grade_measures",
    "kaplan_meier",
    "label_measures",
    "layout_statistics",
    "localise",
    "log_rank",
    "number_measures",
    "out_of_fold_cox",
    "out_of_fold_logistic",
    "out_of_fold_ridge",
    "paired_difference",
    "pr_curve",
    "roc_curve",
    "score",
    "survival_measures",
    "tile_ap",
    "tile_auroc",
]
