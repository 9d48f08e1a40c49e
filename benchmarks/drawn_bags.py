"""The bags that benchmarks/training.py trains on, in the layouts of all contenders."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from wsi_mil.bags import Bag, bag_to_hdf5
from wsi_mil.grid import EncoderContract, SlideRef, TileGrid

DIM = 1024
LEAST, MOST = 2_000, 30_000
WITNESSES, SHIFT = 0.02, 3.0


def write(folder: Path, count: int) -> int:
    """The bags in the three layouts, where they are not there yet; how many tiles there are."""
    random = np.random.default_rng(0)
    total = 0
    for name in ("npy", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        tiles = int(np.exp(random.uniform(np.log(LEAST), np.log(MOST))))
        label, total = number % 2, total + tiles
        name = f"{number:04d}-{tiles}-{label}"
        seed = np.random.default_rng(number)
        if (folder / "labels" / f"{name}.npy").exists():
            continue
        features = seed.standard_normal((tiles, DIM), dtype=np.float32)
        if label:
            features[seed.choice(tiles, max(1, int(WITNESSES * tiles)), replace=False), :32] += SHIFT
        (folder / f"{name}.h5").write_bytes(bag_to_hdf5(bag_of(features.astype(np.float16), name)))
        torch.save(torch.from_numpy(features), folder / f"{name}.pt")
        np.save(folder / "npy" / f"{name}.npy", features)
        np.save(folder / "labels" / f"{name}.npy", np.array(label))
    os.sync()
    return total


def bag_of(features: np.ndarray, name: str) -> Bag:
    """A bag of a square grid."""
    slide = SlideRef(name, "0" * 64, (1_000_000, 1_000_000), (0.5, 0.5), "metadata")
    places = np.arange(len(features))
    coords = np.stack([places % 200, places // 200], axis=1).astype(np.int64) * 256
    share = np.ones(len(features), np.float32)
    grid = TileGrid(slide, coords, share, 256, 0.5, extent_l0=(256.0, 256.0), step_l0=(256.0, 256.0))
    contract = EncoderContract(
        name="x", revision="1", weights_digest="0", architecture="{}", input_px=224, resize="bicubic", crop="none",
        mean=(0.5,), std=(0.5,), pooling="cls", dim=DIM, precision="fp32", tile_px=256, tile_mpp=0.5,
    )  # fmt: skip
    return Bag(slide, features, grid, contract, np.zeros(len(features), np.uint8))
