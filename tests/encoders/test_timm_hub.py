"""Networks of timm: transform, weights from files of several kinds, and files that must not be opened."""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts.encoder import EncoderTests, stained_tiles

pytest.importorskip("timm", reason="timm is not installed: pip install 'wsi_mil[timm]'", exc_type=ImportError)

import timm
from PIL import Image
from safetensors.torch import save_file

from wsi_mil.encoders import Encoder, TimmEncoder, build_encoder
from wsi_mil.errors import EncoderError, MissingExtra

MODEL = "test_resnet"
"""Half a million parameters, made by timm for tests; takes 160 px."""


def built(**changes: Any) -> Encoder:
    values = {"name": f"timm:{MODEL}", "tile_px": 64, "tile_mpp": 0.5, "weights": "random"} | changes
    return build_encoder(values.pop("name"), **values)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """A network's weights with its classifier, as they lie on a hub; not those of the random encoder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return dict(timm.create_model(MODEL, pretrained=False).state_dict())


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
    assert "untrained" in contract.revision
    assert contract.input_px == 160
    assert "bilinear" in contract.resize
    assert contract.crop == "none"


def test_no_weights_are_refused_and_random_is_named() -> None:
    with pytest.raises(EncoderError, match="needs weights.*'random'"):
        built(weights=None)


def test_bfloat16_stays_close() -> None:
    tiles = stained_tiles(4, 64)
    full, half = built().encode(tiles), built(precision="bf16").encode(tiles)
    cosine = (full * half).sum(axis=1) / np.linalg.norm(full, axis=1) / np.linalg.norm(half, axis=1)
    assert cosine.min() > 0.999
    assert (full != half).any()


@pytest.mark.parametrize("size_px", [64, 300])
@pytest.mark.parametrize(("model", "how"), [("test_resnet", "BILINEAR"), ("test_vit", "BICUBIC")])
def test_the_transform_is_pillows_resize_and_timms_normalisation(size_px: int, model: str, how: str) -> None:
    """Enlarged and made smaller, over edges at which a bicubic filter leaves the range."""
    encoder, tiles = built(name=f"timm:{model}", tile_px=size_px), stained_tiles(2, size_px)
    tiles[0, : size_px // 2], tiles[0, size_px // 2 :] = 0, 255
    assert isinstance(encoder, TimmEncoder)
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


def test_safetensors_and_state_dicts_load_alike(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(weights, tmp_path / "w.safetensors")
    torch.save(weights, tmp_path / "w.pt")
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "wrapped.pth")
    encoders = [built(weights=str(tmp_path / name)) for name in ("w.safetensors", "w.pt", "wrapped.pth")]
    assert len({encoder.contract.weights_digest for encoder in encoders}) == 1
    assert encoders[0].contract == encoders[2].contract
    assert encoders[0].contract.weights_digest != built().contract.weights_digest
    tiles = stained_tiles(2, 64)
    reference = timm.create_model(MODEL, pretrained=False, num_classes=0).eval()
    reference.load_state_dict({key: value for key, value in weights.items() if not key.startswith("fc.")})
    assert isinstance(encoders[0], TimmEncoder)
    with torch.inference_mode():
        expected = reference(encoders[0]._prepared(torch.from_numpy(tiles)))
    np.testing.assert_allclose(encoders[0].encode(tiles), expected.numpy(), atol=1e-4)


def test_missing_and_surplus_weights_are_named(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    changed = dict(weights)
    changed["strange.weight"] = changed.pop("conv1.0.weight")
    save_file(changed, tmp_path / "w.safetensors")
    with pytest.raises(EncoderError, match=r"missing: conv1\.0\.weight; surplus: strange\.weight"):
        built(weights=str(tmp_path / "w.safetensors"))


def test_a_weight_of_another_shape_is_named(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(weights | {"conv1.0.weight": torch.zeros(1, 3, 3, 3)}, tmp_path / "w.safetensors")
    with pytest.raises(EncoderError, match=r"'conv1.0.weight'.*\(1, 3, 3, 3\)"):
        built(weights=str(tmp_path / "w.safetensors"))


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo wsi_mil",)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    torch.save({"a": _Evil()}, tmp_path / "evil.pt")
    monkeypatch.setattr(os, "system", ran.append)
    with pytest.raises(EncoderError, match="refused"):
        built(weights=str(tmp_path / "evil.pt"))
    assert not ran


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pt"])
def test_damaged_weights_are_refused(weights: dict[str, torch.Tensor], tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("pt"):
        torch.save(weights, path)
    else:
        save_file(weights, path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(EncoderError, match=name):
        built(weights=str(path))


def test_a_missing_file_and_a_list_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="no file of weights"):
        built(weights=str(tmp_path / "none.pt"))
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(EncoderError, match="not a table of named tensors"):
        built(weights=str(tmp_path / "list.pt"))


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
