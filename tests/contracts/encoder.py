"""What every encoder must keep; an encoder inherits all of it by saying how it is built."""

from __future__ import annotations

import json
from abc import abstractmethod
from typing import Any

import numpy as np
import pytest

from wsi_mil.encoders import Encoder
from wsi_mil.errors import EncoderError
from wsi_mil.grid import EncoderContract

TILE_PX = 64


def stained_tiles(count: int, size_px: int, seed: int = 0) -> np.ndarray:
    """Tiles with smooth pink ground and dark blue spots, uint8 (tile, size, size, 3)."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:size_px, :size_px]
    near_y, near_x = np.mgrid[:11, :11]
    tiles = np.empty((count, size_px, size_px, 3))
    for tile in tiles:
        waves = np.sin(x / random.uniform(3, 12) + random.uniform(0, 6)) * np.cos(y / random.uniform(3, 12))
        tile[:] = np.array([225, 170, 200]) + waves[..., None] * random.uniform(5, 25)
        for _ in range(size_px**2 // 250):
            left, top = random.integers(0, size_px - 11, 2)
            spot = np.exp(-((((near_x - 5.3) ** 2 + (near_y - 4.8) ** 2) / random.uniform(2, 4) ** 2) ** 2))[..., None]
            part = tile[top : top + 11, left : left + 11]
            part[:] = part * (1 - spot) + spot * np.array([95, 65, 140])
    return np.clip(tiles + random.normal(0, 4, tiles.shape), 0, 255).astype(np.uint8)


class EncoderTests:
    """Base of the tests of one encoder."""

    tolerance = 1e-5
    """Largest difference, for features of order 1, that another batch may make."""

    @classmethod
    @abstractmethod
    def build(cls, **changes: Any) -> Encoder:
        """The encoder for tiles of TILE_PX at 0.5 mpp, with some arguments changed."""

    @pytest.fixture(scope="class")
    @classmethod
    def encoder(cls) -> Encoder:
        """The encoder as most tests take it."""
        return cls.build()

    def test_one_finite_float32_vector_a_tile(self, encoder: Encoder) -> None:
        features = encoder.encode(stained_tiles(3, TILE_PX))
        assert features.shape == (3, encoder.dim)
        assert features.dtype == np.float32
        assert np.isfinite(features).all()
        assert features.std(axis=0).max() > 0, "different tiles give different vectors"

    def test_the_same_tile_gives_the_same_vector_in_any_batch(self, encoder: Encoder) -> None:
        tiles = stained_tiles(7, TILE_PX)
        together = encoder.encode(tiles)
        alone = np.concatenate([encoder.encode(tiles[i : i + 1]) for i in range(7)])
        assert np.abs(together - alone).max() <= self.tolerance * max(1, np.abs(together).max())

    def test_built_again_it_is_the_same(self, encoder: Encoder) -> None:
        again = self.build()
        assert again.contract == encoder.contract
        tiles = stained_tiles(2, TILE_PX)
        np.testing.assert_array_equal(again.encode(tiles), encoder.encode(tiles))

    def test_no_tiles_give_no_vectors(self, encoder: Encoder) -> None:
        assert encoder.encode(stained_tiles(0, TILE_PX)).shape == (0, encoder.dim)

    @pytest.mark.parametrize("value", [0, 255])
    def test_a_blank_tile_is_finite(self, encoder: Encoder, value: int) -> None:
        assert np.isfinite(encoder.encode(np.full((1, TILE_PX, TILE_PX, 3), value, np.uint8))).all()

    def test_read_only_memory_is_accepted(self, encoder: Encoder) -> None:
        tiles = stained_tiles(1, TILE_PX)
        tiles.flags.writeable = False
        assert encoder.encode(tiles).shape == (1, encoder.dim)

    def test_tiles_of_another_size_are_refused(self, encoder: Encoder) -> None:
        with pytest.raises(EncoderError, match="64 x 64"):
            encoder.encode(stained_tiles(1, TILE_PX + 2))

    def test_the_contract_survives_json_and_says_what_was_asked(self, encoder: Encoder) -> None:
        contract = encoder.contract
        assert EncoderContract.from_dict(json.loads(json.dumps(contract.to_dict()))) == contract
        assert (contract.name, contract.dim) == (encoder.name, encoder.dim)
        assert (contract.tile_px, contract.tile_mpp) == (TILE_PX, 0.5)
        assert len(contract.weights_digest) == 64

    def test_another_scale_is_another_contract(self, encoder: Encoder) -> None:
        assert encoder.contract.difference(self.build(tile_mpp=0.25).contract) == ["tile_mpp: 0.5 -> 0.25"]

    def test_an_unknown_precision_is_refused(self) -> None:
        with pytest.raises(EncoderError, match="fp8"):
            self.build(precision="fp8")
