"""How a bag is read: every aggregator behind one interface, ragged and padded alike."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsi_mil.models.abmil import ABMIL as ABMIL
    from wsi_mil.models.aggregator import Aggregator as Aggregator
    from wsi_mil.models.aggregator import Clinical as Clinical
    from wsi_mil.models.aggregator import Padded as Padded
    from wsi_mil.models.aggregator import Pooled as Pooled
    from wsi_mil.models.attribution import Attribution as Attribution
    from wsi_mil.models.attribution import attribute as attribute
    from wsi_mil.models.attribution import can as can
    from wsi_mil.models.clam import CLAM as CLAM
    from wsi_mil.models.cral import CRAL as CRAL
    from wsi_mil.models.dsmil import DSMIL as DSMIL
    from wsi_mil.models.dtfd import DTFD as DTFD
    from wsi_mil.models.gashis import GasHis as GasHis
    from wsi_mil.models.gtp import GTP as GTP
    from wsi_mil.models.hierarchical import Hierarchical as Hierarchical
    from wsi_mil.models.instance import InstanceMIL as InstanceMIL
    from wsi_mil.models.latent import Latent as Latent
    from wsi_mil.models.lca_db import LCADB as LCADB
    from wsi_mil.models.lesion_query import LesionQuery as LesionQuery
    from wsi_mil.models.local import Local as Local
    from wsi_mil.models.loss_attention import LossAttention as LossAttention
    from wsi_mil.models.mil import MIL as MIL
    from wsi_mil.models.mil import MODELS as MODELS
    from wsi_mil.models.mil import ModelSpec as ModelSpec
    from wsi_mil.models.mil import build_model as build_model
    from wsi_mil.models.mil_vt import MILVT as MILVT
    from wsi_mil.models.patch_gcn import PatchGCN as PatchGCN
    from wsi_mil.models.persam import PersAM as PersAM
    from wsi_mil.models.persam import replace_factor as replace_factor
    from wsi_mil.models.pooling import MaxPool as MaxPool
    from wsi_mil.models.pooling import MeanPool as MeanPool
    from wsi_mil.models.smile import SMILE as SMILE
    from wsi_mil.models.soft_attention import SoftAttention as SoftAttention
    from wsi_mil.models.stats import BagStatistics as BagStatistics
    from wsi_mil.models.transmil import TransMIL as TransMIL

# torch takes a second to load: it is loaded with the first name that needs it.
_FILES = {
    "ABMIL": "abmil",
    "Aggregator": "aggregator",
    "Attribution": "attribution",
    "BagStatistics": "stats",
    "CLAM": "clam",
    "CRAL": "cral",
    "Clinical": "aggregator",
    "DSMIL": "dsmil",
    "DTFD": "dtfd",
    "GTP": "gtp",
    "GasHis": "gashis",
    "Hierarchical": "hierarchical",
    "InstanceMIL": "instance",
    "LCADB": "lca_db",
    "Latent": "latent",
    "LesionQuery": "lesion_query",
    "Local": "local",
    "LossAttention": "loss_attention",
    "MIL": "mil",
    "MILVT": "mil_vt",
    "MODELS": "mil",
    "MaxPool": "pooling",
    "MeanPool": "pooling",
    "ModelSpec": "mil",
    "Padded": "aggregator",
    "PatchGCN": "patch_gcn",
    "PersAM": "persam",
    "Pooled": "aggregator",
    "SMILE": "smile",
    "SoftAttention": "soft_attention",
    "TransMIL": "transmil",
    "attribute": "attribution",
    "build_model": "mil",
    "can": "attribution",
    "replace_factor": "persam",
}
__all__ = sorted(_FILES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _FILES:
        return getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
