"""Networks as encoders: the transform on the device, pooling, precision, and what timm needs to be there."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from contracts.encoder import EncoderTests, stained_tiles

pytest.importorskip("timm", reason="timm is not installed: pip install 'wsi_mil[timm]'", exc_type=ImportError)

import timm
from PIL import Image

from wsi_mil.encoders import Encoder, NetworkEncoder, Transform, build_encoder, module_encoder, networks
from wsi_mil.errors import EncoderError, MissingExtra

MODEL = "test_resnet"
"""Half a million parameters, made by timm for tests; takes 160 px."""


def built(**changes: Any) -> Encoder:
    values = {"name": f"timm:{MODEL}", "tile_px": 64, "tile_mpp": 0.5, "weights": "random"} | changes
    return build_encoder(values.pop("name"), **values)


class TestTimm(EncoderTests):
    """An untrained network keeps the contract."""

    @classmethod
    def build(cls, **changes: Any) -> Encoder:
        return built(**changes)


class TestTimmVit(EncoderTests):
    """So does a small vision transformer, in half precision."""

    tolerance = 2e-2

    @classmethod
    def build(cls, **changes: Any) -> Encoder:
        return built(**{"name": "timm:test_vit", "precision": "bf16"} | changes)


def test_the_contract_says_random() -> None:
    contract = built().contract
    assert "untrained" in contract.source
    assert contract.licence == "none (untrained)"
    assert contract.input_px == 160
    assert "bilinear" in contract.resize
    assert contract.crop == "none"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(
    "model",
    [
        "test_resnet",
        "test_vit",
        "test_efficientnet",
        "resnet18",
        "vit_tiny_patch16_224",
        "swin_tiny_patch4_window7_224",
    ],
)
def test_reduced_precision_stays_close(model: str, precision: str) -> None:
    tiles = stained_tiles(2, 64)
    full, half = (built(name=f"timm:{model}", precision=one).encode(tiles) for one in ("fp32", precision))
    cosine = (full * half).sum(axis=1) / np.linalg.norm(full, axis=1) / np.linalg.norm(half, axis=1)
    assert cosine.min() > 0.999
    assert (full != half).any()


def test_weights_kept_rounded_give_what_autocast_gives() -> None:
    """Rounding them once instead of at every batch changes nothing."""
    encoder = built(name="timm:test_vit", precision="bf16")
    module = timm.create_model("test_vit", num_classes=0)
    full = built(name="timm:test_vit")
    assert isinstance(encoder, NetworkEncoder)
    assert isinstance(full, NetworkEncoder)
    module.load_state_dict(full._vectors.state_dict())  # type: ignore[attr-defined]
    pixels = encoder._prepared(torch.from_numpy(stained_tiles(2, 64)))
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = module.eval()(pixels)
    np.testing.assert_array_equal(encoder.encode(stained_tiles(2, 64)), expected.float().numpy())


def test_the_middle_is_cut_out_after_the_resize() -> None:
    class Corner(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels[:, :, 0, 0]

    transform = Transform(8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), resize_px=16)
    encoder = module_encoder(Corner(), name="mine", transform=transform, tile_px=16, tile_mpp=0.5)
    tiles = stained_tiles(3, 16)
    np.testing.assert_allclose(encoder.encode(tiles), tiles[:, 4, 4] / 255, atol=1e-6)
    assert encoder.contract.crop == "middle 8 px"
    assert encoder.covered == 0.5


def test_a_module_of_ones_own() -> None:
    def mine(seed: int) -> Encoder:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 4), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        transform = Transform(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        return module_encoder(module, name="mine", transform=transform, tile_px=64, tile_mpp=0.5, licence="MIT")

    encoder = mine(1)
    assert encoder.encode(stained_tiles(2, 64)).shape == (2, 5)
    assert encoder.contract == mine(1).contract
    assert encoder.contract.licence == "MIT"
    assert [text.split(":")[0] for text in encoder.contract.difference(mine(2).contract)] == ["weights_digest"]


@pytest.mark.parametrize(
    ("pooling", "dim", "parts"),
    [("cls", 64, ["cls"]), ("mean", 64, ["mean"]), ("cls+mean", 128, ["cls", "mean"])],
)
def test_poolings(pooling: str, dim: int, parts: list[str]) -> None:
    encoder = built(name="timm:test_vit", pooling=pooling)
    assert isinstance(encoder, NetworkEncoder)
    module = networks.create("test_vit", {}).eval()
    tiles = stained_tiles(2, 64)
    with torch.inference_mode():
        tokens = module.forward_features(encoder._prepared(torch.from_numpy(tiles)))  # type: ignore[operator]
    by_name = {"cls": tokens[:, 0], "mean": tokens[:, 1:].mean(1)}
    expected = torch.cat([by_name[part] for part in parts], dim=1)
    assert (encoder.contract.pooling, encoder.dim) == (pooling, dim)
    np.testing.assert_allclose(encoder.encode(tiles), expected.numpy(), atol=1e-5)


def test_tokens_come_tile_by_tile_and_row_by_row() -> None:
    encoder = built(name="timm:test_vit", pooling="tokens")
    tiles = stained_tiles(3, 64)
    features = encoder.encode(tiles)
    assert (encoder.tokens, features.shape) == (100, (300, 64)), "160 px in patches of 16"
    np.testing.assert_allclose(features[100:200], encoder.encode(tiles[1:2]), atol=1e-5)
    mean = built(name="timm:test_vit", pooling="mean").encode(tiles)
    np.testing.assert_allclose(features.reshape(3, 100, 64).mean(1), mean, atol=1e-5)


@pytest.mark.parametrize(("model", "pooling"), [("test_resnet", "cls"), ("test_resnet", "tokens")])
def test_a_network_without_tokens_cannot_be_pooled(model: str, pooling: str) -> None:
    with pytest.raises(EncoderError, match=f"no tokens to pool as '{pooling}'"):
        built(name=f"timm:{model}", pooling=pooling)


def test_compiling_is_handed_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function: compiled.append(function) or function)
    tiles = stained_tiles(1, 64)
    np.testing.assert_array_equal(built(compiled=True).encode(tiles), built().encode(tiles))
    assert len(compiled) == 1


class _Broken(torch.nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.full((len(pixels), 4), float("nan"))


def test_a_network_that_gives_nan_is_refused() -> None:
    transform = Transform(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    encoder = module_encoder(_Broken(), name="broken", transform=transform, tile_px=32, tile_mpp=0.5)
    with pytest.raises(EncoderError, match="'broken' gave NaN or infinity for row 0 of 2"):
        encoder.encode(stained_tiles(2, 32))


@pytest.mark.parametrize("size_px", [64, 300])
@pytest.mark.parametrize(("model", "how"), [("test_resnet", "BILINEAR"), ("test_vit", "BICUBIC")])
def test_the_transform_is_pillows_resize_and_timms_normalisation(size_px: int, model: str, how: str) -> None:
    """Enlarged and made smaller, over edges at which a bicubic filter leaves the range."""
    encoder, tiles = built(name=f"timm:{model}", tile_px=size_px), stained_tiles(2, size_px)
    tiles[0, : size_px // 2], tiles[0, size_px // 2 :] = 0, 255
    assert isinstance(encoder, NetworkEncoder)
    assert encoder.contract.resize.startswith(how.lower())
    ours = encoder._prepared(torch.from_numpy(tiles))
    resized = np.stack([np.asarray(Image.fromarray(t).resize((160, 160), Image.Resampling[how])) for t in tiles])
    mean, std = np.array(encoder.contract.mean), np.array(encoder.contract.std)
    theirs = (resized / 255 - mean) / std
    # Pillow rounds to whole grey levels, after each of the two directions: here 1/255/std, about 0.01.
    assert np.abs(ours.permute(0, 2, 3, 1).numpy() - theirs).max() < 0.03


def test_an_untrained_network_does_not_depend_on_what_was_drawn_before() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        after = torch.rand(1)
        torch.manual_seed(99)
        digest = built().contract.weights_digest
        assert torch.rand(1) == after, "nor does it disturb what is drawn later"
    assert digest == built().contract.weights_digest


def test_an_unknown_model_gets_a_suggestion() -> None:
    with pytest.raises(EncoderError, match="did you mean 'resnet18'"):
        built(name="timm:resnet_18")


@pytest.fixture
def import_fails(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Exception]]:
    """Importing timm raises the one exception put into the list."""
    raised: list[Exception] = []
    real = builtins.__import__

    def failing(name: str, *rest: Any, **named: Any) -> Any:
        if name == "timm":
            raise raised[0]
        return real(name, *rest, **named)

    monkeypatch.delitem(sys.modules, "timm")
    monkeypatch.setattr(builtins, "__import__", failing)
    yield raised
    monkeypatch.undo()


def test_without_timm_the_extra_is_named(import_fails: list[Exception]) -> None:
    import_fails.append(ImportError("No module named 'timm'"))
    with pytest.raises(MissingExtra, match=r"wsi_mil\[timm\]"):
        built()


def test_a_torchvision_of_another_build_is_explained(import_fails: list[Exception]) -> None:
    import_fails.append(RuntimeError("operator torchvision::nms does not exist"))
    with pytest.raises(EncoderError, match="from the same index"):
        built()
