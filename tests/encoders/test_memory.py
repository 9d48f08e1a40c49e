"""A device whose memory is full: the batch is halved and nothing is lost; and how a batch size is found."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch import Tensor

from wsi_mil.encoders import Encoder, build_encoder, choose_batch_tiles
from wsi_mil.encoders.batch_size import fastest
from wsi_mil.errors import EncoderError

PIXELS = np.random.default_rng(0).integers(0, 256, (23, 32, 32, 3), dtype=np.uint8)


class Small(Encoder):
    """An encoder on a device that holds a few tiles at once."""

    def __init__(self, room: int) -> None:
        super().__init__(build_encoder("offline", tile_px=32, tile_mpp=0.5).contract)
        self.room, self.sizes = room, list[int]()

    def _forward(self, tiles: Tensor) -> Tensor:
        self.sizes.append(len(tiles))
        if len(tiles) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return tiles.float().mean(dim=(1, 2)).repeat(1, self.dim // 3 + 1)[:, : self.dim]


def test_a_batch_that_does_not_fit_is_halved_until_it_does(caplog: pytest.LogCaptureFixture) -> None:
    small = Small(6)
    with caplog.at_level(logging.WARNING):
        got = small.encode(PIXELS)
    np.testing.assert_array_equal(got, Small(100).encode(PIXELS))
    assert small.most_tiles == 5
    assert small.sizes == [23, 11, 5, 5, 5, 5, 3]
    assert "out of memory; from now on 5 tiles at once" in caplog.text
    small.sizes.clear()
    small.encode(PIXELS)
    assert max(small.sizes) == 5, "what was learnt is not tried again"


def test_no_room_for_one_tile_is_an_error_with_a_remedy() -> None:
    with pytest.raises(EncoderError, match=r"no room for a single tile on cpu.*extract\.precision=bf16"):
        Small(0).encode(PIXELS)


def test_any_other_fault_is_not_taken_for_memory() -> None:
    class Broken(Small):
        def _forward(self, tiles: Tensor) -> Tensor:
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        Broken(9).encode(PIXELS)


@pytest.mark.parametrize(
    ("speeds", "best"),
    [
        ({32: 100, 64: 190, 128: 195, 256: 500}, 64),
        ({32: 100, 64: 190, 128: 300, 256: 600}, 256),
        ({32: 100, 64: None, 128: 300}, 32),
        ({32: None}, 1),
    ],
)
def test_the_batch_grows_while_it_pays_and_fits(speeds: dict[int, float | None], best: int) -> None:
    assert fastest(speeds.__getitem__, speeds) == best


def test_on_a_cpu_nothing_is_tried() -> None:
    small = Small(9)
    assert choose_batch_tiles(small) == 32
    assert not small.sizes


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_what_the_cpu_gives() -> None:
    """Through pinned memory and streams, from two threads at once, and with a batch size found by trying."""
    from concurrent.futures import ThreadPoolExecutor

    pytest.importorskip("timm")
    name = "timm:vit_tiny_patch16_224"
    here = build_encoder(name, tile_px=32, tile_mpp=0.5, weights="random", any_scale=True)
    there = build_encoder(name, tile_px=32, tile_mpp=0.5, weights="random", any_scale=True, device="cuda")
    want = here.encode(PIXELS)
    with ThreadPoolExecutor(2) as pool:
        for got in pool.map(there.encode, [PIXELS] * 8):
            cosine = (got * want).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(want, axis=1)
            assert cosine.min() > 0.999
    assert choose_batch_tiles(there) >= 32
