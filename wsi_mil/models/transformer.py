"""Attention between vectors as several methods use it: crosswise, within windows, written out to be looked into."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional


class CrossAttention(nn.Module):
    """x + O softmax(Q LN(x) . K LN(y) / sqrt(d)) V LN(y), over all y."""

    def __init__(self, hidden: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_asking, self.norm_asked = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.query = nn.Linear(hidden, hidden)
        # no bias for keys: it would cancel in the softmax
        self.key = nn.Linear(hidden, hidden, bias=False)
        self.value = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, hidden)

    def forward(
        self, asking: Float[Tensor, "asking hidden"], asked: Float[Tensor, "asked hidden"]
    ) -> Float[Tensor, "asking hidden"]:
        """What was asked, added to who asks."""
        known = self.norm_asked(asked)
        parts = (self.query(self.norm_asking(asking)), self.key(known), self.value(known))
        query, key, value = (part.unflatten(1, (self.heads, -1)).transpose(0, 1)[None] for part in parts)
        answer = functional.scaled_dot_product_attention(query, key, value)[0]  #         head asking part
        mixed: Tensor = asking + self.out(answer.transpose(0, 1).flatten(1))
        return mixed


class Block(nn.Module):
    """x + MHA(LN(x)), then x + MLP(LN(x)); gives its attention away, so it is written out."""

    def __init__(self, hidden: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_mixing, self.norm_mlp = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.inward = nn.Linear(hidden, 3 * hidden, bias=False)
        self.outward = nn.Linear(hidden, hidden)
        self.mlp = nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.GELU(), nn.Linear(2 * hidden, hidden))

    def forward(
        self, tokens: Float[Tensor, "bag token hidden"]
    ) -> tuple[Float[Tensor, "bag token hidden"], Float[Tensor, "bag head token token"]]:
        """Tokens that have seen one another, and how."""
        whole = self.inward(self.norm_mixing(tokens)).unflatten(2, (3, self.heads, -1))
        query, key, value = whole.permute(2, 0, 3, 1, 4)  #                               bag head token part
        likeness = query @ key.mT / query.shape[-1] ** 0.5
        attention = likeness.to(torch.promote_types(likeness.dtype, torch.float32)).softmax(dim=-1)
        mixed = (attention.to(value.dtype) @ value).transpose(1, 2).flatten(2)
        tokens = tokens + self.outward(mixed)
        return tokens + self.mlp(self.norm_mlp(tokens)), attention


class MaskedBlock(nn.Module):
    """x + MHA(LN(x), [LN(c), LN(x)]), then x + MLP(LN(x)), within each set; c are further vectors for its keys.

    Slots outside the mask are read by none; what stands in them afterwards means nothing.
    """

    def __init__(self, hidden: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_mixing, self.norm_mlp = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.query = nn.Linear(hidden, hidden)
        # no bias for keys: it would cancel in the softmax
        self.key = nn.Linear(hidden, hidden, bias=False)
        self.value = nn.Linear(hidden, hidden)
        self.outward = nn.Linear(hidden, hidden)
        self.mlp = nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.GELU(), nn.Linear(2 * hidden, hidden))

    def forward(
        self,
        tokens: Float[Tensor, "set slot hidden"],
        mask: Bool[Tensor, "set slot"] | None,
        *,
        context: Float[Tensor, "set more hidden"] | None = None,
        bias: Float[Tensor, "set head slot slot"] | Float[Tensor, "1 head slot slot"] | None = None,
    ) -> Float[Tensor, "set slot hidden"]:
        """Tokens that have seen those of their set; `bias` is added to the likeness of each two slots.

        Without a mask all slots are read, and one bias for all sets is not copied for each.
        """
        known = self.norm_mixing(tokens)
        asked = known if context is None else torch.cat([self.norm_mixing(context), known], dim=1)
        more = asked.shape[1] - tokens.shape[1]
        parts = (self.query(known), self.key(asked), self.value(asked))
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        added = None if bias is None else functional.pad(bias, (more, 0)).to(query.dtype)
        if mask is not None:
            allowed = functional.pad(mask, (more, 0), value=True)[:, None, None]  #       set 1 1 key
            added = allowed if added is None else added.masked_fill(~allowed, float("-inf"))
        answer = functional.scaled_dot_product_attention(query, key, value, attn_mask=added)
        tokens = tokens + self.outward(answer.transpose(1, 2).flatten(2))
        mixed: Tensor = tokens + self.mlp(self.norm_mlp(tokens))
        return mixed

    def attention(self, tokens: Float[Tensor, "set slot hidden"]) -> Float[Tensor, "set head slot slot"]:
        """How much each slot looks at each other one, written out, where all slots are read and nothing else is."""
        known = self.norm_mixing(tokens)
        query, key = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.query(known), self.key(known))
        )
        return (query @ key.mT / query.shape[-1] ** 0.5).softmax(dim=-1)


def rolled(
    before: Float[Tensor, "token token"] | None, attention: Float[Tensor, "head token token"]
) -> Float[Tensor, "token token"]:
    """Rollout through one layer more: (mean over heads of A + I) / 2, times what came before (Abnar, Zuidema 2020)."""
    one = torch.eye(attention.shape[-1], dtype=attention.dtype, device=attention.device)
    step = (attention.mean(dim=0) + one) / 2
    return step if before is None else step @ before
