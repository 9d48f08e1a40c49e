"""Names of tensors in published files, and the names that timm gives the same tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]

LETTERS = {"q": "query", "k": "key", "v": "value"}

VIT_NAMES = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.weights_in\.", ".mlp.fc1."),
    (r"\.mlp\.weights_out\.", ".mlp.fc2."),
    (r"^layernorm\.", "norm."),
)
"""ViTModel, Dinov2Model and Dinov2WithRegistersModel of transformers, in the order in which the rules apply."""

CLIP_NAMES = (
    (r"^visual_projection\.", "projection."),
    (r"^vision_model\.", "trunk."),
    (r"\.embeddings\.class_embedding$", ".cls_token"),
    (r"\.embeddings\.position_embedding\.weight$", ".pos_embed"),
    (r"\.embeddings\.patch_embedding\.", ".patch_embed.proj."),
    (r"\.pre_layrnorm\.", ".norm_pre."),
    (r"\.post_layernorm\.", ".norm."),
    (r"\.encoder\.layers\.(\d+)\.", r".blocks.\1."),
    (r"\.layer_norm(\d)\.", r".norm\1."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"\.self_attn\.(q|k|v)_proj\.", lambda match: f".attn.{LETTERS[match[1]]}."),
)
"""CLIPModel of transformers, its image half."""


def _transformers_vit(weights: Weights) -> dict[str, Tensor]:
    # A checkpoint of a larger model keeps its backbone under a prefix; what is only for pretraining is left out.
    plain = {re.sub(r"^(?:vit|dinov2)\.", "", key): value for key, value in weights.items()}
    kept = {key: value for key, value in plain.items() if not re.match(r"pooler\.|embeddings\.mask_token|decoder", key)}
    named = _joined(_renamed(kept, VIT_NAMES))
    return _registers(named) if "reg_token" in named else named


def _dinov2_original(weights: Weights) -> dict[str, Tensor]:
    """Of Meta's code: blocks in chunks, under `backbone.`, with heads that are only for pretraining."""
    named = {}
    for key, value in weights.items():
        if re.match(r"(?:dino_head|ibot_head)\.|(?:backbone\.)?mask_token$", key):
            continue
        name = re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", key.removeprefix("backbone."))
        named[name.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2.")] = value
    if "register_tokens" in named:
        named["reg_token"] = named.pop("register_tokens")
        return _registers(named)
    return named


def _clip(weights: Weights) -> dict[str, Tensor]:
    image = {key: value for key, value in weights.items() if re.match(r"vision_model\.|visual_projection\.", key)}
    kept = {key: value for key, value in image.items() if not key.endswith("position_ids")}
    named = _joined(_renamed(kept, CLIP_NAMES))
    for key, shape in (("trunk.cls_token", (1, 1, -1)), ("trunk.pos_embed", None)):
        if key in named:
            named[key] = named[key].reshape(shape) if shape else named[key][None]
    return named


def _third_stage(weights: Weights) -> dict[str, Tensor]:
    """Of a whole ResNet in timm: what lies behind the third stage is left out."""
    return {f"trunk.{key}": value for key, value in weights.items() if not key.startswith(("layer4.", "fc."))}


def _swin(weights: Weights) -> dict[str, Tensor]:
    """Of Swin in timm below 0.9, where a stage ends with the step down that now begins the next."""
    kept = {
        key: value
        for key, value in weights.items()
        if not (key.endswith(("attn_mask", "relative_position_index")) or key.startswith("head."))
    }
    if "layers.0.downsample.reduction.weight" not in kept:
        return kept
    return {
        re.sub(r"^layers\.(\d+)\.downsample", lambda match: f"layers.{int(match[1]) + 1}.downsample", key): value
        for key, value in kept.items()
    }


LAYOUTS: dict[str, Callable[[Weights], dict[str, Tensor]]] = {
    "timm": dict,
    "vit": _transformers_vit,
    "dinov2": _transformers_vit,
    "dinov2_original": _dinov2_original,
    "clip": _clip,
    "swin": _swin,
    "third_stage": _third_stage,
}
"""From the names in a file to timm's, by the layout that a row of the catalogue states."""


def _renamed(
    weights: Weights, rules: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]
) -> dict[str, Tensor]:
    named = {}
    for key, value in weights.items():
        name = key
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        named[name] = value
    return named


def _joined(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value as the one matrix that timm keeps."""
    whole = dict(weights)
    for key in weights:
        if ".attn.query." in key:
            parts = [key.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
            if all(part in whole for part in parts):
                whole[key.replace(".query.", ".qkv.")] = torch.cat([whole.pop(part) for part in parts])
    return whole


def _registers(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """With registers timm keeps places for patches only: the class token's own goes into the class token."""
    places = named["pos_embed"]
    return named | {"cls_token": named["cls_token"] + places[:, :1], "pos_embed": places[:, 1:]}
