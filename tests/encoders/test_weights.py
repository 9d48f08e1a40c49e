"""Files of weights: of several kinds, of other networks, damaged, and those that must not be opened."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts.encoder import stained_tiles

pytest.importorskip("timm", reason="timm is not installed: pip install 'wsi_mil[timm]'", exc_type=ImportError)

import timm
from safetensors.torch import save_file

from wsi_mil.encoders import Encoder, NetworkEncoder, build_encoder
from wsi_mil.errors import EncoderError

MODEL = "test_resnet"


def built(**changes: Any) -> Encoder:
    return build_encoder(f"timm:{MODEL}", **{"tile_px": 64, "tile_mpp": 0.5, "weights": "random"} | changes)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSI_MIL_WEIGHTS", str(tmp_path / "weights"))


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """A network's weights with its classifier, as they lie on a hub; not those of the random encoder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return dict(timm.create_model(MODEL, pretrained=False).state_dict())


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
    assert isinstance(encoders[0], NetworkEncoder)
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


def test_weights_that_are_not_finite_are_refused(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    broken = {key: value.clone() for key, value in weights.items()}
    broken["conv1.0.weight"][0, 0, 0, 0] = float("nan")
    save_file(broken, tmp_path / "w.safetensors")
    with pytest.raises(EncoderError, match="'conv1.0.weight'.*NaN"):
        built(weights=str(tmp_path / "w.safetensors"))


def test_half_precision_in_the_file_is_widened(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    half = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    save_file(half, tmp_path / "half.safetensors")
    save_file(
        {key: value.float() if value.is_floating_point() else value for key, value in half.items()},
        tmp_path / "full.safetensors",
    )
    one = built(weights=str(tmp_path / "half.safetensors")).contract
    assert one == built(weights=str(tmp_path / "full.safetensors")).contract
