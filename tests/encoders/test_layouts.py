"""Files as published against the libraries that wrote them: random models of transformers, and older names."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts.encoder import stained_tiles
from torch import Tensor

pytest.importorskip("timm", reason="timm is not installed: pip install 'wsi_mil[timm]'", exc_type=ImportError)
pytest.importorskip("transformers", reason="transformers, a library of the tests, is not installed")

import transformers
from safetensors.torch import load_file

from wsi_mil.encoders import CATALOGUE, Entry, NetworkEncoder, from_entry, networks
from wsi_mil.encoders.layouts import LAYOUTS

WIDTH = 96


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSI_MIL_WEIGHTS", str(tmp_path / "weights"))


def _random(module: torch.nn.Module) -> torch.nn.Module:
    """Weights that leave no part of a block without effect (published layer scales begin near 0)."""
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in module.named_parameters():
            spread = 0.5 if "lambda1" in name else 0.05
            value.add_(torch.randn(value.shape, generator=random) * spread)
    return module.eval()


def _vit() -> Any:
    config = transformers.ViTConfig(
        num_hidden_layers=2, hidden_size=WIDTH, num_attention_heads=3, intermediate_size=384
    )
    return transformers.ViTModel(config, add_pooling_layer=False)


def _dinov2(patch: int, **options: Any) -> Any:
    config = transformers.Dinov2Config(
        num_hidden_layers=2, hidden_size=WIDTH, num_attention_heads=3, patch_size=patch, image_size=224, **options
    )
    return transformers.Dinov2Model(config)


def _registers() -> Any:
    config = transformers.Dinov2WithRegistersConfig(
        num_hidden_layers=2, hidden_size=WIDTH, num_attention_heads=3, patch_size=14, image_size=224,
        num_register_tokens=4,
    )  # fmt: skip
    return transformers.Dinov2WithRegistersModel(config)


MODELS = {
    "phikon": _vit,
    "phikon-v2": lambda: _dinov2(16),
    "midnight-12k": lambda: _dinov2(14, use_swiglu_ffn=True),
    "hibou-b": _registers,
    "hibou-l": _registers,
}
"""What the authors' own code builds, two blocks deep and narrow."""


def _built(row: Entry, weights: Path) -> NetworkEncoder:
    small = {"depth": 2, "embed_dim": WIDTH, "num_heads": 3}
    row = dataclasses.replace(row, arguments={**row.arguments, **small}, dim=row.dim if row.name == "plip" else WIDTH)
    return from_entry(row, tile_px=row.input_px, tile_mpp=0.5, weights=str(weights))


@pytest.mark.parametrize("name", MODELS)
def test_the_vectors_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    row = CATALOGUE[name]
    theirs = _random(MODELS[name]())
    theirs.save_pretrained(tmp_path)
    encoder = _built(row, tmp_path / "model.safetensors")
    tiles = stained_tiles(1, 224)
    with torch.inference_mode():
        hidden = theirs(pixel_values=encoder._prepared(torch.from_numpy(tiles))).last_hidden_state
    prefix = 5 if "hibou" in name else 1
    expected = hidden[:, 0]
    if row.pooling == "cls+mean":
        expected = torch.cat([expected, hidden[:, prefix:].mean(1)], dim=1)
    np.testing.assert_allclose(encoder.encode(tiles), expected.numpy(), atol=1e-4, rtol=1e-3)


def test_plip_gives_the_image_features_of_clip(tmp_path: Path) -> None:
    text = {"num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1}
    text |= {"vocab_size": 8, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    image = {"hidden_size": WIDTH, "num_attention_heads": 3, "intermediate_size": 384, "num_hidden_layers": 2}
    image |= {"patch_size": 32, "image_size": 224}
    theirs = _random(
        transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=image, projection_dim=512))
    )
    theirs.save_pretrained(tmp_path)
    encoder = _built(CATALOGUE["plip"], tmp_path / "model.safetensors")
    tiles = stained_tiles(1, 224)
    with torch.inference_mode():
        pixels = encoder._prepared(torch.from_numpy(tiles))
        expected = theirs.visual_projection(theirs.vision_model(pixel_values=pixels).pooler_output)
    np.testing.assert_allclose(encoder.encode(tiles), expected.numpy(), atol=1e-4, rtol=1e-3)


def test_a_prefix_a_pooler_and_a_mask_token_are_left_out(tmp_path: Path) -> None:
    MODELS["hibou-b"]().save_pretrained(tmp_path)
    plain = load_file(tmp_path / "model.safetensors")
    dressed = {f"dinov2.{key}": value for key, value in plain.items()} | {"dinov2.pooler.dense.weight": torch.ones(1)}
    assert "embeddings.mask_token" in plain
    assert LAYOUTS["dinov2"](dressed).keys() == LAYOUTS["dinov2"](plain).keys()


def test_gpfm_as_published_with_chunks_of_blocks() -> None:
    row = CATALOGUE["gpfm"]
    module = networks.create(row.architecture, {**row.arguments, "depth": 4}, device="meta")
    wanted = module.state_dict()
    published: dict[str, Tensor] = {"backbone.mask_token": torch.ones(1), "dino_head.mlp.0.weight": torch.ones(1)}
    for key, value in wanted.items():
        parts = key.split(".")
        if parts[0] == "blocks":
            parts.insert(1, str(int(parts[1]) // 2))
        published["backbone." + ".".join(parts)] = value
    assert "backbone.blocks.1.3.norm1.weight" in published
    assert LAYOUTS["dinov2_original"](published).keys() == wanted.keys()
    assert LAYOUTS["dinov2_original"](wanted).keys() == wanted.keys(), "and as saved by timm"


def test_swiglu_and_registers_of_the_original_code() -> None:
    found = LAYOUTS["dinov2_original"](
        {
            "blocks.0.mlp.w12.weight": torch.ones(1), "blocks.0.mlp.w3.bias": torch.ones(1),
            "register_tokens": torch.ones(1, 4, 2), "cls_token": torch.ones(1, 1, 2), "pos_embed": torch.ones(1, 5, 2),
        }
    )  # fmt: skip
    assert {"blocks.0.mlp.fc1.weight", "blocks.0.mlp.fc2.bias", "reg_token"} <= found.keys()
    assert found["pos_embed"].shape == (1, 4, 2)
    assert found["cls_token"].tolist() == [[[2.0, 2.0]]]


def test_ctranspath_as_published_by_older_timm() -> None:
    wanted = networks.of_entry(CATALOGUE["ctranspath"]).state_dict()
    older = {"head.weight": torch.ones(1), "layers.0.blocks.1.attn_mask": torch.ones(1)}
    for key, value in wanted.items():
        parts = key.split(".")
        if parts[2:3] == ["downsample"]:
            parts[1] = str(int(parts[1]) - 1)
        older[".".join(parts)] = value
    assert "layers.0.downsample.norm.weight" in older
    assert "patch_embed.proj.3.weight" in older, "the stem's second convolution, as its authors count"
    named = LAYOUTS["swin"](older)
    assert named.keys() == wanted.keys()
    assert all(named[key] is value for key, value in wanted.items())


def test_a_whole_resnet_is_cut() -> None:
    import timm

    whole = timm.create_model("resnet50").state_dict()
    wanted = networks.of_entry(CATALOGUE["resnet50"]).state_dict()
    assert LAYOUTS["third_stage"](whole).keys() == wanted.keys()


def test_the_cut_resnet_is_timms_own_features() -> None:
    import timm

    cut = networks.of_entry(CATALOGUE["resnet50"]).eval()
    features = timm.create_model("resnet50", features_only=True, out_indices=(3,)).eval()
    features.load_state_dict({key.removeprefix("trunk."): value for key, value in cut.state_dict().items()})
    pixels = torch.from_numpy(stained_tiles(1, 64)).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        np.testing.assert_allclose(cut(pixels), features(pixels)[0].mean((2, 3)), atol=1e-5)
