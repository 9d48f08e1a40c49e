"""A whole model: standardised features, a method that reads bags, and a head where the method has none."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from wsi_mil.errors import ModelError, unknown
from wsi_mil.models.abmil import ABMIL
from wsi_mil.models.aggregator import Aggregator, Clinical, Pooled
from wsi_mil.models.clam import CLAM
from wsi_mil.models.cral import CRAL
from wsi_mil.models.dsmil import DSMIL
from wsi_mil.models.dtfd import DTFD
from wsi_mil.models.fusion import Fusion
from wsi_mil.models.gashis import GasHis
from wsi_mil.models.gtp import GTP
from wsi_mil.models.hierarchical import Hierarchical
from wsi_mil.models.instance import InstanceMIL
from wsi_mil.models.latent import Latent
from wsi_mil.models.layers import Head
from wsi_mil.models.lca_db import LCADB
from wsi_mil.models.lesion_query import LesionQuery
from wsi_mil.models.local import Local
from wsi_mil.models.loss_attention import LossAttention
from wsi_mil.models.mil_vt import MILVT
from wsi_mil.models.patch_gcn import PatchGCN
from wsi_mil.models.persam import PersAM
from wsi_mil.models.pooling import MaxPool, MeanPool
from wsi_mil.models.smile import SMILE
from wsi_mil.models.soft_attention import SoftAttention
from wsi_mil.models.stats import BagStatistics
from wsi_mil.models.transmil import TransMIL

LIMIT = 5.0
"""Spreads from the mean beyond which a standardised feature is cut.

A rare feature or an odd tile (pen, fold) lies tens of spreads out and would take all of the attention. Cutting at 5
brought the log loss of small cohorts down (MUSK1 .34 to .30 in ten folds) and touches hardly any other tile.
"""

BLOCK_TILES = 1024
"""Tiles standardised at a time on a CPU."""

_TOLD = ("weights", "exact_contributions", "spatial", "use", "paper", "cost")

MODELS: dict[str, type[Aggregator]] = {
    "abmil": ABMIL,
    "clam": CLAM,
    "cral": CRAL,
    "dsmil": DSMIL,
    "dtfd": DTFD,
    "gashis": GasHis,
    "gtp": GTP,
    "hierarchical": Hierarchical,
    "instance": InstanceMIL,
    "latent": Latent,
    "lca_db": LCADB,
    "lesion_query": LesionQuery,
    "local": Local,
    "loss_attention": LossAttention,
    "max": MaxPool,
    "mean": MeanPool,
    "mil_vt": MILVT,
    "patch_gcn": PatchGCN,
    "persam": PersAM,
    "smile": SMILE,
    "soft_attention": SoftAttention,
    "stats": BagStatistics,
    "transmil": TransMIL,
}


class ModelSpec(NamedTuple):
    """All that is needed to build a model again, as plain values."""

    name: str
    dim: int
    n_out: int
    factors: tuple[int, ...]
    options: dict[str, Any]
    fusion: str = "none"


class MIL(Aggregator):
    """Features are standardised with numbers kept beside the weights, read by a method, and turned to logits.

    `logits` is never None here. Contributions of a method that leaves the head to this class are given in evaluation
    mode only: no loss needs them, and training is spared their cost.
    """

    own_logits = True

    feature_mean: Tensor
    feature_scale: Tensor
    feature_limit: Tensor

    def __init__(self, aggregator: Aggregator, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.aggregator = aggregator
        for name in (*_TOLD, "breaks", "losses", "recipe", "faster", "judges_parts", "queries", "tile_maps"):
            setattr(self, name, getattr(aggregator, name))
        self.embedding_dim, self.query_per_class = aggregator.embedding_dim, aggregator.query_per_class
        self.register_buffer("feature_mean", torch.zeros(spec.dim))
        self.register_buffer("feature_scale", torch.ones(spec.dim))
        self.register_buffer("feature_limit", torch.tensor(float("inf")))
        self.head = (
            None
            if aggregator.own_logits
            else Head(
                aggregator.embedding_dim,
                queries=len(aggregator.queries),
                n_out=spec.n_out,
                query_per_class=aggregator.query_per_class,
            )
        )

        self.fusion: Fusion | None = None
        if spec.fusion != "none":
            self.fusion = Fusion(spec.fusion, spec.factors, spec.n_out if self.head is None else self.embedding_dim)
            self.exact_contributions = aggregator.exact_contributions and self.fusion.scales

    def standardise(self, mean: Float[Tensor, "dim"], scale: Float[Tensor, "dim"]) -> None:
        """From now on read (features - mean) / scale, cut at LIMIT; all is part of the state a checkpoint holds."""
        if not bool((scale > 0).all()):
            raise ModelError("a scale of the features is zero or less; give 1 to features that never vary")
        self.feature_mean.copy_(mean)
        self.feature_scale.copy_(scale)
        self.feature_limit.fill_(LIMIT)

    def standardised(self, features: Float[Tensor, "tile dim"]) -> Float[Tensor, "tile dim"]:
        """(features - mean) / scale, cut at the limit, in float32.

        On a CPU in blocks that stay in its cache: with 1,024 numbers a tile each pass through memory costs as much as
        the attention.
        """
        per = 1 / self.feature_scale
        if features.device.type != "cpu" or features.requires_grad:
            return features.sub(self.feature_mean).mul_(per).clamp_(-self.feature_limit, self.feature_limit)
        start, limit = -self.feature_mean * per, float(self.feature_limit)
        out = torch.empty(features.shape, dtype=per.dtype)
        for first in range(0, len(features), BLOCK_TILES):
            block = out[first : first + BLOCK_TILES].copy_(features[first : first + BLOCK_TILES])
            torch.addcmul(start, block, per, out=block).clamp_(-limit, limit)
        return out

    def at(self, progress: float) -> None:
        """Pass on what share of the training is done."""
        self.aggregator.at(progress)

    def pool(
        self,
        features: Float[Tensor, "tile dim"],
        cells: Int64[Tensor, "tile 2"],
        offsets: Int64[Tensor, "edge"],
        clinical: Clinical | None = None,
    ) -> Pooled:
        """Read bags up to their logits."""
        own = clinical if self.fusion is None else None  # a fused record is not the method's to read
        pooled = self.aggregator.pool(self.standardised(features), cells, offsets, own)
        if self.head is None:
            return pooled if self.fusion is None else self._fused_logits(pooled, offsets, clinical)
        embedding, scale = (pooled.embedding, None) if self.fusion is None else self.fusion(pooled.embedding, clinical)
        pooled = pooled._replace(logits=self.head(embedding))
        if self.training or not self.exact_contributions:
            return pooled
        assert pooled.attention is not None  # what a weighted mean promises
        tiles = pooled.aux["tiles"]
        if scale is not None:
            tiles = tiles * scale.repeat_interleave(offsets.diff().to(scale.device), dim=0)
        return pooled._replace(contributions=self.head.contributions(tiles, pooled.attention))

    def _fused_logits(self, pooled: Pooled, offsets: Tensor, clinical: Clinical | None) -> Pooled:
        """Logits of a method that makes its own, changed by the record, and what its tiles add to them."""
        assert self.fusion is not None
        logits, scale = self.fusion(pooled.logits, clinical)
        parts = {name for name, kind in self.tile_maps.items() if kind == "contribution"} & set(pooled.aux)
        if pooled.contributions is None or scale is None:
            aux = {name: value for name, value in pooled.aux.items() if name not in parts}
            return pooled._replace(logits=logits, contributions=None, aux=aux)
        scale = scale.repeat_interleave(offsets.diff().to(scale.device), dim=0)
        aux = pooled.aux | {name: pooled.aux[name] * scale for name in parts}
        return pooled._replace(logits=logits, contributions=pooled.contributions * scale, aux=aux)


def build_model(
    name: str | type[Aggregator],
    *,
    dim: int,
    n_out: int,
    factors: tuple[int, ...] = (),
    fusion: str = "none",
    seed: int = 0,
    **options: Any,
) -> MIL:
    """A model by its name in MODELS, or from a class of one's own, with fresh weights.

    `dim` is the length of a tile's features, `n_out` the number of outputs the task wants, `factors` the number of
    columns of each clinical factor, and `fusion` how a method that reads none is given them (`Fusion`): "concat",
    "gated" or "film". The weights depend on `seed` alone; the global random state stays as it is.
    Raises ModelError for an unknown name or option.
    """
    method = MODELS.get(name) if isinstance(name, str) else name
    if method is None:
        raise ModelError(unknown("model", str(name), MODELS))
    title = name if isinstance(name, str) else f"{name.__module__}.{name.__qualname__}"
    _check_sizes(title, dim=dim, n_out=n_out)
    known = set(inspect.signature(method).parameters) - {"dim", "n_out", "factors"}
    for option in options:
        if option not in known:
            raise ModelError(unknown(f"option of model {title!r}:", option, known))
    needed: dict[str, Any] = dict(options)
    if "factors" in inspect.signature(method).parameters:
        needed["factors"] = factors
        if fusion != "none":
            raise ModelError(f"model {title!r} reads the clinical record itself: leave fusion at none")
    elif factors and fusion == "none":
        raise ModelError(
            f"model {title!r} reads no clinical record: set fusion to concat, gated or film, or leave the columns out"
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            aggregator = method(dim, n_out, **needed)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ModelError(f"model {title!r} cannot be built with {options}: {error}") from error
        return MIL(aggregator, ModelSpec(title, dim, n_out, tuple(factors), dict(options), fusion))


def _check_sizes(title: str, *, dim: int, n_out: int) -> None:
    if dim < 1 or n_out < 1:
        raise ModelError(f"model {title!r} needs one feature and one output at least, not dim={dim} and n_out={n_out}")
