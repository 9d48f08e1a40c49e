"""Slide encoders: a whole bag in, one vector a slide out; pretrained by others, with weights that the user brings.

FEATHER (Shao et al. 2025, arXiv:2506.09022) is the gated attention pooling of Ilse et al. (2018), pretrained on slides:

    h_i = relu(W x_i),   a = softmax_i(w . (tanh(V h_i) * sigmoid(U h_i))),   z = sum_i a_i h_i

with 512 numbers for h and 384 in the attention. TITAN, PRISM, CHIEF and GigaPath's slide encoder are not here: their
networks cannot be rebuilt for certain without their authors' code.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from wsi_mil.encoders import records, source, weights
from wsi_mil.encoders.networks import SEED
from wsi_mil.errors import EncoderError, unknown
from wsi_mil.grid import EncoderContract


@dataclass(frozen=True)
class SlideEntry:
    """One published slide encoder."""

    name: str
    reads: str
    """Encoder of the tiles it was trained on."""
    reads_dim: int
    dim: int
    hub: str
    licence: str
    paper: str


FEATHER_PAPER = "Shao et al. 2025, arXiv:2506.09022"
FEATHER_HUB = "MahmoodLab/abmil.base.{}.pc108-24k"
_ROWS = (
    SlideEntry("feather-conch-v1.5", "conch-v1.5", 768, 512, FEATHER_HUB.format("conch_v15"), "unknown", FEATHER_PAPER),
    SlideEntry("feather-uni", "uni", 1024, 512, FEATHER_HUB.format("uni"), "unknown", FEATHER_PAPER),
    SlideEntry("feather-uni2-h", "uni2-h", 1536, 512, FEATHER_HUB.format("uni_v2"), "unknown", FEATHER_PAPER),
)
SLIDE_ENCODERS: dict[str, SlideEntry] = {row.name: row for row in _ROWS}
"""Slide encoders by name."""


class SlideEncoder(ABC):
    """Turns the features of one slide's tiles into one vector, and says how much each tile counted."""

    def __init__(self, entry: SlideEntry, *, weights_digest: str, revision: str, origin: str, device: str) -> None:
        self.entry = entry
        self.weights_digest = weights_digest
        self.revision = revision
        self.origin = origin
        self.device = torch.device(device)

    @final
    def encode(
        self,
        features: Float[np.ndarray, "tile dim"],
        cells: Int64[np.ndarray, "tile 2"],
        *,
        contract: EncoderContract,
        where: str,
    ) -> tuple[Float32[np.ndarray, "out"], Float32[np.ndarray, "tile"]]:
        """The slide's vector, and the weight of each tile (they add up to 1).

        `where` names the bag. Raises EncoderError where its tiles are of another encoder than this one reads, there is
        none, or the vector is not finite.
        """
        if _spelt(contract.name) != _spelt(self.entry.reads) or contract.dim != self.entry.reads_dim:
            raise EncoderError(
                f"{where}: slide encoder {self.entry.name!r} reads tiles of {self.entry.reads!r} "
                f"({self.entry.reads_dim} numbers), not of {contract.name!r} ({contract.dim}): extract them with it"
            )
        if not len(features):
            raise EncoderError(f"{where}: no tile to encode")
        with torch.inference_mode():
            told = torch.from_numpy(np.array(features, dtype=np.float32)).to(self.device)
            vector, attention = self._forward(told, torch.from_numpy(np.array(cells)).to(self.device))
        if not bool(torch.isfinite(vector).all()):
            raise EncoderError(f"{where}: slide encoder {self.entry.name!r} gave NaN or infinity")
        return vector.float().cpu().numpy(), attention.float().cpu().numpy()

    @abstractmethod
    def _forward(self, features: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Vector [out] and weights [tile] of features [tile dim] at cells [tile 2]."""


class Feather(SlideEncoder):
    """FEATHER's attention pooling."""

    HIDDEN, ATTENTION = 512, 384

    def __init__(self, entry: SlideEntry, module: nn.Module, **facts: Any) -> None:
        super().__init__(entry, **facts)
        self._module: Any = module.eval().requires_grad_(requires_grad=False).to(self.device)

    @classmethod
    def network(cls, entry: SlideEntry) -> nn.Module:
        """The untrained network, its tensors named as in the published files."""
        wide, narrow = cls.HIDDEN, cls.ATTENTION
        attention = nn.ModuleDict(
            {
                "attention_a": nn.Sequential(nn.Linear(wide, narrow), nn.Tanh()),
                "attention_b": nn.Sequential(nn.Linear(wide, narrow), nn.Sigmoid()),
                "attention_c": nn.Linear(narrow, 1),
            }
        )
        embedding = nn.Sequential(nn.Linear(entry.reads_dim, wide), nn.ReLU())
        return nn.ModuleDict({"patch_embed": embedding, "global_attn": attention})

    def _forward(self, features: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self._module["patch_embed"](features)
        gate = self._module["global_attn"]
        scores = gate["attention_c"](gate["attention_a"](hidden) * gate["attention_b"](hidden))[:, 0]
        attention = scores.softmax(dim=0)
        return attention @ hidden, attention


def build_slide_encoder(name: str, *, weights_from: str = "", device: str = "cpu") -> SlideEncoder:
    """The slide encoder of a name; `weights_from` is a file, a folder, or "random" for an untrained one.

    Raises EncoderError for an unknown name, or weights that are missing, damaged or of another network.
    """
    if name not in SLIDE_ENCODERS:
        raise EncoderError(unknown("slide encoder", name, SLIDE_ENCODERS))
    entry = SLIDE_ENCODERS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        module = Feather.network(entry)
    if weights_from == "random":
        return Feather(
            entry, module, weights_digest=weights.digest(module), revision="", origin="untrained", device=device
        )
    found = source.find(source.Wanted(name, entry.hub, gated="yes"), weights_from)
    weights.fit(module, _plain(weights.read(found.path, name=name)), name=name, where=str(found.path))
    known = records.check_record(
        name, weights_digest=weights.digest(module), revision=found.revision, licence=found.licence, source=found.source
    )
    return Feather(
        entry, module, weights_digest=known["weights_digest"], revision=known["revision"], origin=found.source,
        device=device,
    )  # fmt: skip


def _plain(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the wrapper's prefix, and without the classifier of the pretraining."""
    short = {re.sub(r"^model\.", "", key): value for key, value in named.items()}
    return {key: value for key, value in short.items() if not key.startswith("classifier.")}


def _spelt(name: str) -> str:
    """As other programs may spell it: conch_v15 for conch-v1.5, uni_v2 for uni2-h, uni_v1 for uni."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return {"univ1": "uni", "univ2": "uni2h", "uni2": "uni2h"}.get(plain, plain)
