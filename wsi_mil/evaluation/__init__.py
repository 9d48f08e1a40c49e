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
from wsi_mil.evaluation.curves import Curve, pr_curve, roc_curve
from wsi_mil.evaluation.intervals import Interval, bootstrap, bootstrap_mean, paired_difference
from wsi_mil.evaluation.leakage import SAME_BAG, Signature, near_pairs, share_found, shared_patients, signature
from wsi_mil.evaluation.localisation import Localisation, centre_scores, localise, tile_ap, tile_auroc
from wsi_mil.evaluation.metrics import LOWER_IS_BETTER, METRICS, Metric, confusion, score

__all__ = [
    "LOWER_IS_BETTER",
    "METRICS",
    "SAME_BAG",
    "Baseline",
    "Curve",
    "Fold",
    "Interval",
    "LinearModel",
    "Localisation",
    "Metric",
    "Signature",
    "bag_statistics",
    "bootstrap",
    "bootstrap_mean",
    "centre_scores",
    "confusion",
    "layout_statistics",
    "localise",
    "near_pairs",
    "out_of_fold_logistic",
    "paired_difference",
    "pr_curve",
    "roc_curve",
    "score",
    "share_found",
    "shared_patients",
    "signature",
    "tile_ap",
    "tile_auroc",
]
