"""Numbers that can be believed: metrics, patient-bootstrap intervals, curves, baselines and localisation (no torch)."""

from __future__ import annotations

from wsi_mil.evaluation.baselines import (
    Baseline,
    Fold,
    LinearModel,
    bag_statistics,
    layout_statistics,
    out_of_fold_logistic,
)
from wsi_mil.evaluation.calibration import (
    CALIBRATION_METRICS,
    FEW_FOR_ECE,
    DecisionCurve,
    Reliability,
    calibration_intercept,
    calibration_slope,
    decision_curve,
    expected_calibration_error,
    reliability,
    wilson,
)
from wsi_mil.evaluation.calibrators import METHODS, Calibrator, Method, fit_calibrator, logit
from wsi_mil.evaluation.conformal import (
    Conformal,
    coverage_band,
    expected_band,
    fit_conformal,
    mean_size,
    patients_covered,
    patients_needed,
)
from wsi_mil.evaluation.curves import Curve, pr_curve, roc_curve
from wsi_mil.evaluation.intervals import Interval, bootstrap, bootstrap_mean, paired_difference
from wsi_mil.evaluation.leakage import SAME_BAG, Signature, near_pairs, share_found, shared_patients, signature
from wsi_mil.evaluation.localisation import Localisation, centre_scores, localise, tile_ap, tile_auroc
from wsi_mil.evaluation.metrics import LOWER_IS_BETTER, METRICS, Metric, confusion, score
from wsi_mil.evaluation.thresholds import RULES, Rule, at_decision, choose_threshold

__all__ = [
    "CALIBRATION_METRICS",
    "FEW_FOR_ECE",
    "LOWER_IS_BETTER",
    "METHODS",
    "METRICS",
    "RULES",
    "SAME_BAG",
    "Baseline",
    "Calibrator",
    "Conformal",
    "Curve",
    "DecisionCurve",
    "Fold",
    "Interval",
    "LinearModel",
    "Localisation",
    "Method",
    "Metric",
    "Reliability",
    "Rule",
    "Signature",
    "at_decision",
    "bag_statistics",
    "bootstrap",
    "bootstrap_mean",
    "calibration_intercept",
    "calibration_slope",
    "centre_scores",
    "choose_threshold",
    "confusion",
    "coverage_band",
    "decision_curve",
    "expected_band",
    "expected_calibration_error",
    "fit_calibrator",
    "fit_conformal",
    "layout_statistics",
    "localise",
    "logit",
    "mean_size",
    "near_pairs",
    "out_of_fold_logistic",
    "paired_difference",
    "patients_covered",
    "patients_needed",
    "pr_curve",
    "reliability",
    "roc_curve",
    "score",
    "share_found",
    "shared_patients",
    "signature",
    "tile_ap",
    "tile_auroc",
    "wilson",
]
