"""Everything that is fitted: training runs, inference, checkpoints, combined predictions."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsi_mil.training.auxiliary import Auxiliary as Auxiliary
    from wsi_mil.training.auxiliary import Step as Step
    from wsi_mil.training.checkpoint import Checkpoint as Checkpoint
    from wsi_mil.training.checkpoint import Training as Training
    from wsi_mil.training.checkpoint import load_checkpoint as load_checkpoint
    from wsi_mil.training.checkpoint import model_hash as model_hash
    from wsi_mil.training.checkpoint import require_contract as require_contract
    from wsi_mil.training.checkpoint import save_checkpoint as save_checkpoint
    from wsi_mil.training.combine import by_patient as by_patient
    from wsi_mil.training.combine import fit_weights as fit_weights
    from wsi_mil.training.combine import mean_prediction as mean_prediction
    from wsi_mil.training.combine import mean_rank as mean_rank
    from wsi_mil.training.combine import weighted_prediction as weighted_prediction
    from wsi_mil.training.fitting import Fitted as Fitted
    from wsi_mil.training.fitting import Progress as Progress
    from wsi_mil.training.fitting import feature_moments as feature_moments
    from wsi_mil.training.fitting import fit as fit
    from wsi_mil.training.inference import Inference as Inference
    from wsi_mil.training.inference import check_sum as check_sum
    from wsi_mil.training.inference import infer as infer
    from wsi_mil.training.inference import predict_many as predict_many
    from wsi_mil.training.inference import settled as settled
    from wsi_mil.training.novelty import KINDS as KINDS
    from wsi_mil.training.novelty import Novelty as Novelty
    from wsi_mil.training.novelty import Said as Said
    from wsi_mil.training.novelty import fit_novelty as fit_novelty
    from wsi_mil.training.novelty import sampled_tiles as sampled_tiles
    from wsi_mil.training.resume import Snapshot as Snapshot
    from wsi_mil.training.settings import FitSettings as FitSettings
    from wsi_mil.training.source import Bags as Bags
    from wsi_mil.training.source import BagSource as BagSource
    from wsi_mil.training.source import Cached as Cached
    from wsi_mil.training.source import Known as Known

# torch takes a second to load: it is loaded with the first name that needs it.
_FILES = {
    "Auxiliary": "auxiliary",
    "BagSource": "source",
    "Bags": "source",
    "Cached": "source",
    "Checkpoint": "checkpoint",
    "FitSettings": "settings",
    "Fitted": "fitting",
    "Inference": "inference",
    "KINDS": "novelty",
    "Known": "source",
    "Novelty": "novelty",
    "Progress": "fitting",
    "Said": "novelty",
    "Snapshot": "resume",
    "Step": "auxiliary",
    "Training": "checkpoint",
    "by_patient": "combine",
    "check_sum": "inference",
    "feature_moments": "fitting",
    "fit": "fitting",
    "fit_novelty": "novelty",
    "fit_weights": "combine",
    "infer": "inference",
    "load_checkpoint": "checkpoint",
    "mean_prediction": "combine",
    "mean_rank": "combine",
    "model_hash": "checkpoint",
    "predict_many": "inference",
    "require_contract": "checkpoint",
    "save_checkpoint": "checkpoint",
    "sampled_tiles": "novelty",
    "settled": "inference",
    "weighted_prediction": "combine",
}
__all__ = sorted(_FILES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
