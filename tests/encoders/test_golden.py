"""Golden embeddings: tiles that are the same everywhere, and encoders that are not what they were."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest

from wsi_mil.encoders import Golden, build_encoder, compare, embed, golden_of, load_golden, save_golden
from wsi_mil.encoders.golden import golden_tiles
from wsi_mil.errors import EncoderError

TILES_SHA256 = "0cbb6c1a2b8ef8f84ad21c2a6e8c7d926f8fb9cb02f4cd4cc3c404e2000c62e3"


@pytest.fixture(scope="module")
def golden() -> Golden:
    return embed(build_encoder("offline", tile_px=64, tile_mpp=0.5))


def test_the_tiles_never_change() -> None:
    tiles = golden_tiles(64)
    assert hashlib.sha256(tiles.tobytes()).hexdigest() == TILES_SHA256
    assert tiles.shape == (4, 64, 64, 3)
    assert len({tile.tobytes() for tile in tiles}) == 4


def test_the_offline_encoder_is_what_it_was(golden: Golden) -> None:
    kept = golden_of("offline", None)
    assert isinstance(kept, np.ndarray)
    told = compare(golden, kept)
    assert told.same
    assert told.largest < 2e-3
    assert not compare(dataclasses.replace(golden, features=golden.features[:, ::-1].copy()), kept).same


def test_it_comes_back_from_its_file(golden: Golden, tmp_path: Path) -> None:
    save_golden(golden, tmp_path / "offline.npz")
    back = load_golden(tmp_path / "offline.npz")
    assert back.contract == golden.contract
    told = compare(golden, back)
    assert (told.same, told.largest, told.differences) == (True, 0.0, ())
    assert told.cosine == pytest.approx(1)


def test_one_tile_that_differs_is_enough(golden: Golden) -> None:
    features = golden.features.copy()
    features[3, :100] += 0.5
    told = compare(golden, dataclasses.replace(golden, features=features))
    assert not told.same
    assert told.cosine < 0.999


def test_reduced_precision_may_differ_a_little_more(golden: Golden) -> None:
    noise = np.random.default_rng(0).normal(0, 0.03, golden.features.shape).astype(np.float32)
    near = dataclasses.replace(golden, features=golden.features + noise)
    assert not compare(near, golden).same
    half = dataclasses.replace(golden.contract, precision="bf16")
    told = compare(dataclasses.replace(near, contract=half), golden)
    assert told.same
    assert told.differences == ("precision: 'fp32' -> 'bf16'",)


def test_another_dimension_is_not_the_same(golden: Golden) -> None:
    assert not compare(golden, dataclasses.replace(golden, features=golden.features[:, 1:])).same


def test_the_weights_folder_is_looked_at(golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSI_MIL_WEIGHTS", str(tmp_path))
    assert golden_of("uni", None) is None
    save_golden(golden, tmp_path / "golden" / "uni.npz")
    kept = golden_of("uni", None)
    assert isinstance(kept, Golden)
    assert kept.contract == golden.contract


def test_what_is_none_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    np.savez(tmp_path / "pickle.npz", features=np.array([{}], dtype=object), contract="{}")
    (tmp_path / "text.npz").write_text("no")
    for name in ("other", "pickle", "text", "none"):
        with pytest.raises(EncoderError, match=rf"{name}\.npz is no golden embedding.*--save-golden"):
            load_golden(tmp_path / f"{name}.npz")
