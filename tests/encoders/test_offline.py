"""The embedded encoder: what it promises, what it notices, and the vectors it gave when its revision was set."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts.encoder import EncoderTests, stained_tiles
from scipy.ndimage import gaussian_filter

from wsi_mil.encoders import Encoder, OfflineEncoder, build_encoder, limit_threads
from wsi_mil.encoders.offline import BOUND, REVISION
from wsi_mil.errors import EncoderError

GOLDEN = Path(__file__).parents[1] / "golden" / "offline_encoder.npz"

TURNS = {
    "left to right": lambda tiles: tiles[:, :, ::-1],
    "upside down": lambda tiles: tiles[:, ::-1],
    "transposed": lambda tiles: tiles.transpose(0, 2, 1, 3),
    "a quarter": lambda tiles: np.rot90(tiles, 1, (1, 2)),
    "a half": lambda tiles: np.rot90(tiles, 2, (1, 2)),
    "three quarters": lambda tiles: np.rot90(tiles, 3, (1, 2)),
}


def built(size_px: int) -> Encoder:
    return build_encoder("offline", tile_px=size_px, tile_mpp=0.5)


class TestOffline(EncoderTests):
    """The embedded encoder keeps the contract."""

    @classmethod
    def build(cls, **changes: Any) -> Encoder:
        return build_encoder("offline", **{"tile_px": 64, "tile_mpp": 0.5} | changes)


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("size_px", [32, 50, 129, 256])
def test_flips_and_quarter_turns_change_nothing(turn: str, size_px: int) -> None:
    encoder, tiles = built(size_px), stained_tiles(3, size_px, seed=size_px)
    turned = np.ascontiguousarray(TURNS[turn](tiles))
    assert not np.array_equal(turned, tiles)
    np.testing.assert_allclose(encoder.encode(turned), encoder.encode(tiles), atol=1e-3)


@pytest.mark.parametrize("size_px", [32, 33, 50, 100, 127, 224, 300, 512])
def test_any_tile_size_gives_numbers_of_order_one(size_px: int) -> None:
    features = built(size_px).encode(stained_tiles(4, size_px))
    assert np.abs(features).max() <= BOUND, "also exact in half precision"
    assert np.sqrt((features**2).mean()) < 4


def test_it_has_between_256_and_512_named_numbers() -> None:
    encoder = OfflineEncoder(tile_px=64, tile_mpp=0.5)
    assert 256 <= encoder.dim <= 512
    assert len(set(encoder.names)) == len(encoder.names) == encoder.dim


def test_too_small_tiles_are_refused() -> None:
    with pytest.raises(EncoderError, match="at least 32 px, not 31"):
        built(31)


def test_half_precision_is_refused() -> None:
    with pytest.raises(EncoderError, match="fp32 only, not bf16"):
        build_encoder("offline", tile_px=64, tile_mpp=0.5, precision="bf16")


def test_weights_are_refused() -> None:
    with pytest.raises(EncoderError, match="has no weights, but 'a.pt'"):
        build_encoder("offline", tile_px=64, tile_mpp=0.5, weights="a.pt")


def test_a_change_of_texture_alone_is_noticed() -> None:
    encoder, tiles = OfflineEncoder(tile_px=64, tile_mpp=0.5), stained_tiles(1, 64)
    blurred = np.rint(gaussian_filter(tiles.astype(float), (0, 2, 2, 0), mode="reflect")).astype(np.uint8)
    sharp, soft = (dict(zip(encoder.names, encoder.encode(one)[0], strict=True)) for one in (tiles, blurred))
    assert abs(soft["colour/red/mean"] - sharp["colour/red/mean"]) < 0.05
    assert soft["octave0/density/edges"] < sharp["octave0/density/edges"] - 0.5
    assert soft["sharpness/red/steps"] < sharp["sharpness/red/steps"] - 0.5


def test_more_nuclei_are_counted_as_more() -> None:
    """Black discs of 9 px on pink: twice as many give twice the peaks."""
    encoder, names = built(128), OfflineEncoder(tile_px=128, tile_mpp=0.5).names
    y, x = np.mgrid[:128, :128]
    found = []
    for spacing in (32, 16):
        discs = ((x % spacing - spacing // 2) ** 2 + (y % spacing - spacing // 2) ** 2) < 16
        tile = np.where(discs[..., None], [90, 60, 140], [230, 180, 205]).astype(np.uint8)[None]
        found.append(dict(zip(names, encoder.encode(tile)[0], strict=True)))
    few, many = found
    assert many["octave1/peaks/number"] > few["octave1/peaks/number"] + 0.2
    assert many["nuclei/all/share"] > few["nuclei/all/share"]
    assert many["colour/haematoxylin/mean"] > few["colour/haematoxylin/mean"]


def test_the_number_of_threads_changes_no_bit_and_stays_as_it_was() -> None:
    encoder, tiles, before = built(256), stained_tiles(20, 256), torch.get_num_threads()
    found = []
    for threads in (1, 2, 3):
        limit_threads(threads)
        found.append(encoder.encode(tiles))
        assert torch.get_num_threads() == threads
        with ThreadPoolExecutor(1) as later:
            assert later.submit(torch.get_num_threads).result() == threads
    limit_threads(before)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize("size_px", [50, 256])
def test_the_vectors_are_those_of_this_revision(size_px: int) -> None:
    """A failure means that old bags no longer mix with new ones: raise REVISION and write the golden file again."""
    golden = np.load(GOLDEN)
    assert str(golden["revision"]) == REVISION
    features = built(size_px).encode(golden[f"tiles_{size_px}"])
    np.testing.assert_allclose(features, golden[f"features_{size_px}"], atol=2e-3)
