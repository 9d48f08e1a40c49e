"""Dropout whose random numbers cost little: on a CPU torch draws one a value, which takes a tenth of a step."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

_STEPS = 1 << 16
"""A value is dropped where 16 random bits lie below p * 2 ** 16: p is kept to within 1 / 131,072."""


class Dropout(nn.Dropout):
    """`nn.Dropout` from 16 random bits a value, four values a draw. Elsewhere than on a CPU it is torch's own."""

    def forward(self, input: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Drop each value with probability p in training, and scale the others by 1 / (1 - p)."""
        least = round(self.p * _STEPS)
        if not self.training or not 0 < least < _STEPS or input.device.type != "cpu" or self.inplace:
            return super().forward(input)
        words = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        draws = words.view(torch.int16)[: input.numel()].view(input.shape)
        return input * (draws >= least - _STEPS // 2).to(input.dtype).mul_(_STEPS / (_STEPS - least))
