"""Reading a bag: our layout beside a bare memory map and those of others (TRIDENT: chunks of one row; CLAM: of 32)."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from wsi_mil.bags import Bag, bag_to_hdf5, read_bag
from wsi_mil.grid import EncoderContract, SlideRef, TileGrid

TILES, DIM, SAMPLE = 10_000, 1_536, 512


def main() -> None:
    """Print milliseconds for the whole bag and for 512 rows, and the ratio to ours."""
    random = np.random.default_rng(0)
    features = random.standard_normal((TILES, DIM)).astype(np.float16)
    rows = np.sort(random.choice(TILES, SAMPLE, replace=False))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "ours.h5").write_bytes(bag_to_hdf5(_bag(features)))
        for title, chunk in (("trident", 1), ("clam", 32)):
            with h5py.File(folder / f"{title}.h5", "w") as file:
                file.create_dataset("features", data=features.astype(np.float32), chunks=(chunk, DIM))
        times = {
            "ours": (
                _best(lambda: read_bag(folder / "ours.h5").features),
                _best(lambda: read_bag(folder / "ours.h5", rows=rows).features),
            )
        }
        with h5py.File(folder / "ours.h5") as file:
            place = file["features"].id.get_offset()

        def bare() -> np.ndarray:
            return np.memmap(folder / "ours.h5", np.float16, "r", place, (TILES, DIM))

        times["map"] = (_best(lambda: np.array(bare())), _best(lambda: np.array(bare()[rows])))
        for title in ("clam", "trident"):
            path = folder / f"{title}.h5"
            times[title] = (_best(lambda p=path: _read(p, None)), _best(lambda p=path: _read(p, rows)))
    print(f"{'layout':>8} {'whole, ms':>10} {'ratio':>6} {'512 rows, ms':>13} {'ratio':>6}")
    for title, (whole, some) in times.items():
        first = times["ours"]
        print(f"{title:>8} {whole * 1e3:>10.1f} {whole / first[0]:>6.1f} {some * 1e3:>13.1f} {some / first[1]:>6.1f}")


def _bag(features: np.ndarray) -> Bag:
    slide = SlideRef("A1", "0" * 64, (100_000, 100_000), (0.5, 0.5), "metadata")
    places = np.arange(TILES)
    coords = np.stack([places % 100, places // 100], axis=1).astype(np.int64) * 256
    share = np.ones(TILES, np.float32)
    grid = TileGrid(slide, coords, share, 256, 0.5, extent_l0=(256.0, 256.0), step_l0=(256.0, 256.0))
    contract = EncoderContract(
        name="x", revision="1", weights_digest="0", architecture="{}", input_px=224, resize="bicubic", crop="none",
        mean=(0.5,), std=(0.5,), pooling="cls", dim=DIM, precision="fp32", tile_px=256, tile_mpp=0.5,
    )  # fmt: skip
    return Bag(slide, features, grid, contract, np.zeros(TILES, np.uint8))


def _read(path: Path, rows: np.ndarray | None) -> np.ndarray:
    with h5py.File(path) as file:
        return file["features"][:] if rows is None else file["features"][rows]


def _best(function: Callable[[], object]) -> float:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main()
