"""A clinical record as vectors: one token a factor, a learned one where the factor is not known."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wsi_mil.errors import ModelError
from wsi_mil.models.aggregator import Clinical


class RecordTokens(nn.Module):
    """u_m = MLP_m(factor m) + type m, or a learned token for a factor that is missing.

    In training each factor is taken for missing with probability `dropout`, so that a model also works without it.
    """

    def __init__(self, factors: tuple[int, ...], hidden: int, *, dropout: float) -> None:
        super().__init__()
        self.sizes, self.dropout = list(factors), dropout
        self.factors = nn.ModuleList(
            nn.Sequential(nn.Linear(size, hidden), nn.GELU(), nn.Linear(hidden, hidden)) for size in factors
        )
        self.types = nn.Parameter(torch.randn(len(factors), hidden) * 0.02)
        self.missing = nn.Parameter(torch.randn(len(factors), hidden) * 0.02)

    def forward(self, clinical: Clinical) -> tuple[Tensor, Tensor]:
        """Tokens [bag, factor, hidden] and which are known [bag, factor]; half a factor is as good as none."""
        if clinical.values.shape[1] != sum(self.sizes):
            raise ModelError(
                f"the record has {clinical.values.shape[1]} columns and the model's factors {self.sizes} have "
                f"{sum(self.sizes)}; give the columns that it was trained with"
            )
        missing = clinical.missing.to(self.types.device)
        values = clinical.values.to(self.types).masked_fill(missing, 0.0)
        known = torch.stack([~part.any(dim=1) for part in torch.split(missing, self.sizes, dim=1)], dim=1)
        if self.training:
            known = known & (torch.rand(known.shape, device=known.device) >= self.dropout)
        columns = zip(self.factors, torch.split(values, self.sizes, dim=1), strict=True)
        said = torch.stack([factor(part) for factor, part in columns], dim=1)
        return torch.where(known[..., None], said, self.missing.to(said.dtype)) + self.types, known


def nothing_known(factors: tuple[int, ...], bags: int) -> Clinical:
    """The record of bags of whose patients nothing is known."""
    shape = bags, sum(factors)
    return Clinical(torch.zeros(shape), torch.ones(shape, dtype=torch.bool))
