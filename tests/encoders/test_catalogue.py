"""Names of encoders, devices, and an encoder whose vectors are not numbers."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from contracts.encoder import stained_tiles
from torch import Tensor

from wsi_mil.encoders import Encoder, build_encoder, choose_device, limit_threads
from wsi_mil.errors import EncoderError


@pytest.mark.parametrize(
    ("name", "hint"),
    [("ofline", "did you mean 'offline'"), ("uni", "known: offline, timm:MODEL"), ("timm:", "timm:MODEL")],
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
