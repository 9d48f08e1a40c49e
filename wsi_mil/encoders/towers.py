"""The parts of published encoders that timm has not: a stem, an attention pooling, a projection, a shortened ResNet."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

POOLER_HEADS = 8


class ConvStem(nn.Module):
    """The stem of CTransPath (Wang et al. 2022): two convolutions of stride 2 and one of 1 x 1 in place of patches."""

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        embed_dim: int = 96,
        norm_layer: type[nn.Module] | None = None,
        **_: Any,
    ) -> None:
        super().__init__()
        narrow, wide = embed_dim // 8, embed_dim // 4
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.grid_size = (height // 4, width // 4)
        self.proj = nn.Sequential(
            nn.Conv2d(3, narrow, kernel_size=3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
            nn.Conv2d(narrow, wide, kernel_size=3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, embed_dim, kernel_size=1),
        )
        self.norm = norm_layer(embed_dim) if norm_layer is not None else nn.Identity()

    def forward(self, pixels: Tensor) -> Tensor:
        """Channels-last map [tile height width dim] of images [tile 3 height width]."""
        found: Tensor = self.norm(self.proj(pixels).permute(0, 2, 3, 1))
        return found


class AttentionPooler(nn.Module):
    """One learnt query that attends to the tokens (CoCa's contrastive pooler as in CONCH v1.5), without biases."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, dim))
        self.ln_k = nn.LayerNorm(width)
        self.ln_q = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(width, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """One vector [tile dim] of the tokens [tile token width]."""
        keys, values = self.to_kv(self.ln_k(tokens)).chunk(2, dim=-1)
        query = self.to_q(self.ln_q(self.query)).expand(len(tokens), -1, -1)
        split = [part.unflatten(-1, (POOLER_HEADS, -1)).transpose(1, 2) for part in (query, keys, values)]
        found = functional.scaled_dot_product_attention(*split)
        pooled: Tensor = self.to_out(found.transpose(1, 2).flatten(2))
        return pooled[:, 0]


class AttentionPooled(nn.Module):
    """CONCH v1.5's vision tower: a vision transformer whose tokens, the class token too, one query attends to."""

    def __init__(self, trunk: Any, *, dim: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.attn_pool_contrast = AttentionPooler(trunk.embed_dim, dim)
        self.ln_contrast = nn.LayerNorm(dim)

    def forward(self, pixels: Tensor) -> Tensor:
        """Vectors [tile dim]."""
        found: Tensor = self.ln_contrast(self.attn_pool_contrast(self.trunk.forward_features(pixels)))
        return found


class Projected(nn.Module):
    """CLIP's image tower: the class token through a linear map without bias."""

    def __init__(self, trunk: Any, *, dim: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.projection = nn.Linear(trunk.embed_dim, dim, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Vectors [tile dim]."""
        found: Tensor = self.projection(self.trunk.forward_features(pixels)[:, 0])
        return found


class ThirdStage(nn.Module):
    """A ResNet up to its third stage, averaged over the pixels, as CLAM cuts it."""

    def __init__(self, trunk: Any, *, dim: int) -> None:
        super().__init__()
        self.trunk = trunk
        for name in ("layer4", "global_pool", "fc"):
            setattr(trunk, name, nn.Identity())

    def forward(self, pixels: Tensor) -> Tensor:
        """Vectors [tile dim]."""
        trunk = self.trunk
        stem = trunk.maxpool(trunk.act1(trunk.bn1(trunk.conv1(pixels))))
        found: Tensor = trunk.layer3(trunk.layer2(trunk.layer1(stem)))
        return found.mean(dim=(2, 3))


TOWERS: dict[str, type[nn.Module]] = {
    "AttentionPooled": AttentionPooled,
    "Projected": Projected,
    "ThirdStage": ThirdStage,
}
"""Modules around a network of timm, by the name that rows of the catalogue give as `tower`."""
