"""What every way of keeping a bag on disk must keep, and small grids and bags to try it with."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

import numpy as np

from wsi_mil.bags import Bag
from wsi_mil.grid import EncoderContract, SlideRef, TileGrid, TileStatus, lay_grid

DIM = 6


def some_slide(name: str = "A1") -> SlideRef:
    """A slide whose pixels are not square, so that no grid step is a whole number."""
    return SlideRef(name, "f" * 64, (5000, 3700), (0.499, 0.4571), "metadata")


def some_contract(dim: int = DIM, name: str = "some") -> EncoderContract:
    """A contract with every kind of field filled."""
    return EncoderContract(
        name, "1", "d" * 64, "{}", 0, "area", "none", (0.5,), (0.25, 1 / 3), "mean", dim, "fp32", 256, 0.5,
        licence="Apache-2.0", versions={"torch": "2"},
    )  # fmt: skip


def some_grid(slide: SlideRef | None = None, *, tiles: int | None = None) -> TileGrid:
    """A grid over the whole of a slide, or its first tiles."""
    slide = slide or some_slide()
    coords, extent, step = lay_grid(slide, size_px=256, mpp=0.5, overlap_px=32)
    tissue = np.linspace(0, 1, len(coords), dtype=np.float32)
    grid = TileGrid(slide, coords, tissue, 256, 0.5, extent, step)
    return grid if tiles is None else grid.take(np.arange(tiles))


def some_bag(name: str = "A1", *, tiles: int | None = None, seed: int = 0, dtype: str = "float16") -> Bag:
    """A bag of random features with one edge tile, one unreadable tile and one named quality."""
    grid = some_grid(some_slide(name), tiles=tiles)
    random = np.random.default_rng(seed)
    status = np.zeros(len(grid), np.uint8)
    status[1:2], status[2:3] = TileStatus.EDGE, TileStatus.UNREADABLE
    features = random.normal(size=(len(grid), DIM)).astype(dtype)
    features[2:3] = 0
    quality = {"sharpness": random.random(len(grid)).astype(np.float32)}
    return Bag(grid.slide, features, grid, some_contract(), status, quality)


def assert_same_bag(one: Bag, other: Bag) -> None:
    """Fail where any part of two bags differs."""
    assert one.slide == other.slide
    assert one.encoder == other.encoder
    assert one.encoder.versions == other.encoder.versions
    assert one.features.dtype == other.features.dtype
    assert (one.grid.size_px, one.grid.mpp) == (other.grid.size_px, other.grid.mpp)
    assert (one.grid.extent_l0, one.grid.step_l0) == (other.grid.extent_l0, other.grid.step_l0)
    np.testing.assert_array_equal(one.features, other.features)
    np.testing.assert_array_equal(one.grid.coords_l0, other.grid.coords_l0)
    np.testing.assert_array_equal(one.grid.tissue, other.grid.tissue)
    np.testing.assert_array_equal(one.status, other.status)
    assert one.quality.keys() == other.quality.keys()
    for name, values in one.quality.items():
        np.testing.assert_array_equal(values, other.quality[name])


class StoreTests:
    """Base of the tests of one way to write a bag; all ways are read by the same functions."""

    @classmethod
    @abstractmethod
    def write(cls, bag: Bag, path: Path) -> None:
        """Write a whole bag under a name."""

    @classmethod
    @abstractmethod
    def read(cls, path: Path) -> Bag:
        """The bag under a name."""

    def test_a_bag_comes_back_as_it_was(self, tmp_path: Path) -> None:
        bag = some_bag()
        self.write(bag, tmp_path / "A1.h5")
        back = self.read(tmp_path / "A1.h5")
        assert_same_bag(bag, back)
        assert back.digest == bag.digest

    def test_single_precision_comes_back_too(self, tmp_path: Path) -> None:
        bag = some_bag(dtype="float32")
        self.write(bag, tmp_path / "A1.h5")
        assert_same_bag(bag, self.read(tmp_path / "A1.h5"))

    def test_a_bag_of_one_tile_comes_back(self, tmp_path: Path) -> None:
        whole = some_bag()
        one = Bag(
            whole.slide, whole.features[:1], whole.grid.take(np.arange(1)), whole.encoder, whole.status[:1],
            {"sharpness": whole.quality["sharpness"][:1]},
        )  # fmt: skip
        self.write(one, tmp_path / "A1.h5")
        assert_same_bag(one, self.read(tmp_path / "A1.h5"))

    def test_the_same_bag_makes_the_same_file(self, tmp_path: Path) -> None:
        for name in ("one.h5", "two.h5"):
            self.write(some_bag(), tmp_path / name)
        assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()
