"""torchmil's methods as aggregators of ours, so that benchmarks put them through the same training and folds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wsi_mil.models import Aggregator, Pooled


class Peer(Aggregator):
    """A method of torchmil (pip install torchmil, Apache-2.0): one logit, told as two so that the loss is the same."""

    weights, exact_contributions, spatial, own_logits = "none", False, False, True
    use, paper, cost, queries, embedding_dim = "to compare", "torchmil", "O(N)", ("tiles",), 1

    def __init__(self, dim: int, n_out: int, *, hidden: int = 256, dropout: float = 0.25) -> None:
        super().__init__()
        if n_out != 2:
            raise ValueError("torchmil's criterion is binary")
        self.module = self.made(dim, nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(dropout)))

    def made(self, dim: int, project: nn.Module) -> nn.Module:
        """The module of torchmil, given the projection that our methods have too."""
        raise NotImplementedError

    def read(self, bag: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logit of a bag [1 tile dim], score of each tile, and the logit of a second stream where there is one."""
        logit, scores = self.module(bag, return_att=True)
        return logit.reshape(()), scores.reshape(-1), None

    def pool(self, features: Tensor, cells: Tensor, offsets: Tensor, clinical: Any = None) -> Pooled:
        """Bag by bag: torchmil pads, which here would only cost."""
        said = [self.read(part[None]) for part in torch.split(features, offsets.diff().tolist())]
        logits = _two(torch.stack([one[0] for one in said]))
        aux = {}
        if said[0][2] is not None:
            aux["stream_logits"] = torch.stack([logits, _two(torch.stack([one[2] for one in said]))])
        scores = torch.cat([one[1] for one in said])[:, None]
        return Pooled(logits[:, :1, None], scores, None, aux["stream_logits"].mean(0) if aux else logits, None, aux)


class TorchmilABMIL(Peer):
    """torchmil's gated attention."""

    def made(self, dim: int, project: nn.Module) -> nn.Module:
        """Widths as our default."""
        from torchmil.models.abmil import ABMIL

        return ABMIL((dim,), att_dim=128, gated=True, feat_ext=project)


class TorchmilDSMIL(Peer):
    """torchmil's dual stream: both streams judged, their mean predicted, as its compute_loss does."""

    losses = {"bag": 0.0, "streams": 2.0}

    def made(self, dim: int, project: nn.Module) -> nn.Module:
        """Widths as our default."""
        from torchmil.models.dsmil import DSMIL

        return DSMIL((dim,), att_dim=128, feat_ext=project)

    def read(self, bag: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """The bag stream, the scores of the instance stream, and its largest."""
        logit, scores = self.module(bag, return_inst_pred=True)
        return logit.reshape(()), scores.reshape(-1), scores.max()


PEERS = {"torchmil abmil": TorchmilABMIL, "torchmil dsmil": TorchmilDSMIL}


def _two(logit: Tensor) -> Tensor:
    return torch.stack([torch.zeros_like(logit), logit], dim=1)
