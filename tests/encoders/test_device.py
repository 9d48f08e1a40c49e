"""Threads of encoders: one core each in a pool of lone threads, and as before afterwards."""

from __future__ import annotations

import threading

import numpy as np
import torch

from wsi_mil.encoders import build_encoder, lone_threads


def test_each_thread_of_the_pool_computes_alone_and_the_others_as_before() -> None:
    before = torch.get_num_threads()
    together = threading.Barrier(3)

    def count(_: int) -> int:
        together.wait()
        torch.randn(64, 64) @ torch.randn(64, 64)
        return torch.get_num_threads()

    with lone_threads(3) as pool:
        assert list(pool.map(count, range(3))) == [1, 1, 1]
    assert torch.get_num_threads() == before
    fresh: list[int] = []
    thread = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert fresh == [before]


def test_batches_side_by_side_give_what_one_after_the_other_gives() -> None:
    encoder = build_encoder("offline", tile_px=64, tile_mpp=0.5)
    batches = [np.random.default_rng(seed).integers(0, 256, (5, 64, 64, 3), np.uint8) for seed in range(6)]
    with lone_threads(3) as pool:
        side_by_side = list(pool.map(encoder.encode, batches))
    for found, batch in zip(side_by_side, batches, strict=True):
        np.testing.assert_allclose(found, encoder.encode(batch), rtol=1e-5, atol=1e-6)
