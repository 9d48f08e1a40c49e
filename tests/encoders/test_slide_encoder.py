"""Slide encoders on bags: the equations, published names, and tiles of another encoder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.store import some_contract
from safetensors.torch import save_file

from wsi_mil.encoders import SLIDE_ENCODERS, SlideEncoder, build_slide_encoder
from wsi_mil.encoders.slide_encoder import Feather
from wsi_mil.errors import EncoderError
from wsi_mil.grid import EncoderContract

CONCH = some_contract(768, "conch-v1.5")
CELLS = np.arange(10).reshape(5, 2)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSI_MIL_WEIGHTS", str(tmp_path / "weights"))


@pytest.fixture
def features() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, 768)).astype(np.float16)


@pytest.mark.parametrize("name", SLIDE_ENCODERS)
def test_every_row_is_built(name: str) -> None:
    encoder = build_slide_encoder(name, weights_from="random")
    row = encoder.entry
    contract = some_contract(row.reads_dim, row.reads)
    vector, attention = encoder.encode(np.ones((3, row.reads_dim), "f4"), CELLS[:3], contract=contract, where="A1")
    assert vector.shape == (row.dim,)
    np.testing.assert_allclose(attention, 1 / 3, atol=1e-6)


def test_the_vector_is_that_of_the_equations(features: np.ndarray) -> None:
    encoder = build_slide_encoder("feather-conch-v1.5", weights_from="random")
    w = {key: value.double().numpy() for key, value in encoder._module.state_dict().items()}  # type: ignore[attr-defined]
    h = np.maximum(features @ w["patch_embed.0.weight"].T + w["patch_embed.0.bias"], 0)
    a = np.tanh(h @ w["global_attn.attention_a.0.weight"].T + w["global_attn.attention_a.0.bias"])
    b = 1 / (1 + np.exp(-(h @ w["global_attn.attention_b.0.weight"].T + w["global_attn.attention_b.0.bias"])))
    scores = (a * b) @ w["global_attn.attention_c.weight"].T + w["global_attn.attention_c.bias"]
    weights = np.exp(scores - scores.max())[:, 0]
    weights /= weights.sum()
    vector, attention = encoder.encode(features, CELLS, contract=CONCH, where="A1")
    np.testing.assert_allclose(attention, weights, atol=1e-5)
    np.testing.assert_allclose(vector, weights @ h, atol=1e-5)
    assert (a.shape[1], vector.shape) == (384, (512,))


def test_published_names_are_read(features: np.ndarray, tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        module = Feather.network(SLIDE_ENCODERS["feather-conch-v1.5"])
    named = {f"model.{key}": value for key, value in module.state_dict().items()}
    save_file({**named, "model.classifier.weight": torch.zeros(2, 512)}, tmp_path / "w.safetensors")
    encoder = build_slide_encoder("feather-conch-v1.5", weights_from=str(tmp_path / "w.safetensors"))
    untrained = build_slide_encoder("feather-conch-v1.5", weights_from="random")
    assert encoder.weights_digest != untrained.weights_digest
    assert encoder.origin == "file w.safetensors"
    one, other = (each.encode(features, CELLS, contract=CONCH, where="A1")[0] for each in (encoder, untrained))
    assert np.abs(one - other).max() > 1e-3
    del named["model.global_attn.attention_c.weight"]
    save_file(named, tmp_path / "less.safetensors")
    with pytest.raises(EncoderError, match=r"missing: global_attn\.attention_c\.weight"):
        build_slide_encoder("feather-conch-v1.5", weights_from=str(tmp_path / "less.safetensors"))


@pytest.mark.parametrize("name", ["conch_v15", "CONCH v1.5", "conch-v1.5"])
def test_tiles_under_another_spelling_are_taken(features: np.ndarray, name: str) -> None:
    encoder = build_slide_encoder("feather-conch-v1.5", weights_from="random")
    encoder.encode(features, CELLS, contract=dataclasses.replace(CONCH, name=name), where="A1")


@pytest.mark.parametrize("contract", [some_contract(768, "ctranspath"), some_contract(1024, "conch-v1.5")])
def test_tiles_of_another_encoder_are_refused(features: np.ndarray, contract: EncoderContract) -> None:
    encoder = build_slide_encoder("feather-conch-v1.5", weights_from="random")
    with pytest.raises(
        EncoderError, match="slide 'A1': slide encoder 'feather-conch-v1.5' reads tiles of 'conch-v1.5'"
    ):
        encoder.encode(features, CELLS, contract=contract, where="slide 'A1'")


def test_no_tiles_and_no_numbers_are_refused(features: np.ndarray) -> None:
    encoder = build_slide_encoder("feather-conch-v1.5", weights_from="random")
    with pytest.raises(EncoderError, match="no tile to encode"):
        encoder.encode(features[:0], CELLS[:0], contract=CONCH, where="A1")
    broken = features.copy()
    broken[0, 0] = np.inf
    with pytest.raises(EncoderError, match="NaN or infinity"):
        encoder.encode(broken, CELLS, contract=CONCH, where="A1")


def test_an_unknown_name_gets_a_hint() -> None:
    assert issubclass(Feather, SlideEncoder)
    with pytest.raises(EncoderError, match="did you mean 'feather-uni'"):
        build_slide_encoder("feather-unni")
