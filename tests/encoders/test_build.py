"""Encoders by name: hints, devices, scales, records, folders, and a vector that is not a number."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts.encoder import stained_tiles
from torch import Tensor

from wsi_mil.encoders import CATALOGUE, Encoder, Entry, build_encoder, choose_device, from_entry, limit_threads
from wsi_mil.errors import EncoderError


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ofline", "did you mean 'offline'"),
        ("un", "did you mean 'uni'"),
        ("timm:", "timm:MODEL"),
        ("local:", "local:FOLDER"),
        ("vit2", "known: .*virchow2"),
    ],
)
def test_an_unknown_name_gets_a_hint(name: str, hint: str) -> None:
    with pytest.raises(EncoderError, match=hint):
        build_encoder(name, tile_px=64, tile_mpp=0.5)


class _Broken(Encoder):
    def _forward(self, tiles: Tensor) -> Tensor:
        vectors = torch.zeros(len(tiles), self.dim)
        vectors[2, 1] = float("nan")
        return vectors


def test_a_vector_that_is_not_finite_names_its_row() -> None:
    contract = build_encoder("offline", tile_px=32, tile_mpp=0.5).contract
    with pytest.raises(EncoderError, match="row 2 of 4 tiles"):
        _Broken(contract).encode(stained_tiles(4, 32))


def test_devices() -> None:
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(EncoderError, match="'cuda:99' cannot be used here"):
        choose_device("cuda:99")


def test_threads_are_limited() -> None:
    before = torch.get_num_threads()
    limit_threads(1)
    assert torch.get_num_threads() == 1
    limit_threads(before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_gives_the_same_vectors() -> None:
    tiles = stained_tiles(9, 64)
    vectors = [
        build_encoder("offline", tile_px=64, tile_mpp=0.5, device=name).encode(tiles) for name in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(*vectors, atol=5e-3)


def test_the_face_loads_no_torch() -> None:
    heavy = "{'torch', 'h5py', 'PIL', 'scipy', 'matplotlib'}"
    code = f"import sys, wsi_mil.encoders, wsi_mil.bags, wsi_mil.heatmaps; sys.exit(bool({heavy} & {{*sys.modules}}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


pytest_timm = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", "import timm"], check=False, capture_output=True).returncode != 0,
    reason="timm is not installed: pip install 'wsi_mil[timm]'",
)


@pytest.fixture
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSI_MIL_WEIGHTS", str(tmp_path / "weights"))


TINY = Entry(
    "tiny", "Tiny", "test_vit", 64, 0, "cls", ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), input_px=160, tile_px=160,
    mpp=(0.5, 0.5), licence="MIT",
)  # fmt: skip


def _tiny(row: Entry = TINY, **changes: Any) -> Encoder:
    return from_entry(row, **{"tile_px": 160, "tile_mpp": 0.5, "weights": "random"} | changes)


@pytest_timm
@pytest.mark.parametrize(
    ("tile_px", "tile_mpp", "seen"), [(160, 0.25, "0.25"), (160, 1.0, "1"), (256, 0.5, "0.8"), (80, 0.5, "0.25")]
)
def test_tiles_at_another_scale_are_refused_with_the_command(tile_px: int, tile_mpp: float, seen: str) -> None:
    with pytest.raises(EncoderError) as told:
        _tiny(tile_px=tile_px, tile_mpp=tile_mpp)
    assert f"reach it at {seen}: " in str(told.value)
    assert "wsi-mil tile STUDY.yaml tile.size_px=160 tile.mpp=0.5" in str(told.value)
    contract = _tiny(tile_px=tile_px, tile_mpp=tile_mpp, any_scale=True).contract
    assert (contract.tile_px, contract.trained_mpp) == (tile_px, (0.5, 0.5))


@pytest_timm
def test_tiles_near_the_scale_are_taken() -> None:
    _tiny(tile_px=183, tile_mpp=0.5)
    _tiny(tile_px=160, tile_mpp=0.45)
    _tiny(dataclasses.replace(TINY, mpp=(0.25, 2.0)), tile_mpp=2.0)


@pytest_timm
@pytest.mark.usefixtures("_own_folder")
def test_the_first_load_is_kept_to(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from wsi_mil.encoders import networks

    weights = dict(networks.of_entry(TINY).state_dict())
    save_file(weights, tmp_path / "one.safetensors")
    first = _tiny(weights=str(tmp_path / "one.safetensors")).contract
    assert (first.licence, first.source) == ("MIT", "file one.safetensors")
    assert first.weights_digest == _tiny().contract.weights_digest
    save_file({**weights, "cls_token": weights["cls_token"] + 1}, tmp_path / "two.safetensors")
    with pytest.raises(EncoderError, match="'tiny' is not what this machine first loaded.*weights_digest"):
        _tiny(weights=str(tmp_path / "two.safetensors"))
    assert _tiny(weights=str(tmp_path / "one.safetensors"), pooling="mean").contract.pooling == "mean"


@pytest_timm
@pytest.mark.usefixtures("_own_folder")
def test_a_file_that_is_not_the_published_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ctranspath.pth").write_bytes(b"cut short")
    with pytest.raises(EncoderError, match="not the published file.*7c998680060c"):
        from_entry(CATALOGUE["ctranspath"], tile_px=256, tile_mpp=0.5, weights=str(tmp_path / "ctranspath.pth"))


@pytest_timm
@pytest.mark.usefixtures("_own_folder")
def test_a_folder_as_timm_saves_it(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from wsi_mil.encoders import networks

    module = networks.create("test_vit", {"depth": 1})
    folder = tmp_path / "mine"
    folder.mkdir()
    with pytest.raises(EncoderError, match=r"config\.json.*extract.encoder=timm:MODEL"):
        build_encoder(f"local:{folder}", tile_px=64, tile_mpp=0.5)
    config = {"input_size": [3, 160, 160], "mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "license": "MIT"}
    told = {"architecture": "test_vit", "model_args": {"depth": 1}, "pretrained_cfg": config}
    (folder / "config.json").write_text(json.dumps(told))
    save_file(module.state_dict(), folder / "model.safetensors")
    encoder = build_encoder(f"local:{folder}", tile_px=64, tile_mpp=0.5)
    contract = encoder.contract
    assert (contract.name, contract.mean, contract.licence) == ("local:mine", (0.1, 0.2, 0.3), "MIT")
    assert encoder.encode(stained_tiles(2, 64)).shape == (2, 64)


@pytest_timm
def test_an_unknown_pooling_gets_a_hint() -> None:
    with pytest.raises(EncoderError, match="unknown pooling 'clss': did you mean 'cls'"):
        _tiny(pooling="clss")


def test_the_offline_encoder_takes_no_pooling() -> None:
    with pytest.raises(EncoderError, match="extract.pooling empty"):
        build_encoder("offline", tile_px=64, tile_mpp=0.5, pooling="cls")


@pytest_timm
@pytest.mark.usefixtures("_own_folder")
def test_a_licence_is_recorded_as_the_hub_spells_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file first, the hub later: the catalogue's own spelling must not look like a change."""
    from safetensors.torch import save_file

    from wsi_mil.encoders import build, networks, records

    path = tmp_path / "one.safetensors"
    save_file(dict(networks.of_entry(TINY).state_dict()), path)
    assert _tiny(weights=str(path)).contract.licence == "MIT"
    assert records.read_record("tiny")["licence"] == ""
    origin = build.source.Origin(path, "hub a/tiny", "c" * 40, "mit")
    monkeypatch.setattr(build.source, "find", lambda wanted, given: origin)
    contract = _tiny(weights=None).contract
    assert (contract.licence, contract.revision, contract.source) == ("mit", "c" * 40, "hub a/tiny")
    assert records.read_record("tiny")["revision"] == "c" * 40
