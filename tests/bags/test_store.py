"""The writer: any order of batches, in memory or on disk, full disks, and features that cannot be stored."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from contracts.store import DIM, StoreTests, some_bag, some_contract, some_grid

from wsi_mil.bags import Bag, BagWriter, bag_to_hdf5, read_bag, verify_bag
from wsi_mil.errors import BagError
from wsi_mil.files import drafted
from wsi_mil.grid import TileStatus

PLENTY = 2**30


def write(bag: Bag, path: Path, *, budget: int, batch: int = 7) -> None:
    """A bag through the writer, in batches that come in a strange order."""
    order = np.random.default_rng(1).permutation(len(bag))
    options = {"dim": DIM, "budget_bytes": budget, "folder": path.parent, "quality": list(bag.quality)}
    with BagWriter(bag.grid, bag.encoder, dtype=bag.features.dtype.name, **options) as writer:
        for start in range(0, len(bag), batch):
            index = order[start : start + batch]
            quality = {name: values[index] for name, values in bag.quality.items()}
            writer.put(index, bag.features[index].astype(np.float32), bag.status[index], quality=quality)
        with drafted(path) as draft:
            writer.save(draft)


class TestInMemory(StoreTests):
    """Within the budget."""

    @classmethod
    def write(cls, bag: Bag, path: Path) -> None:
        write(bag, path, budget=PLENTY)

    @classmethod
    def read(cls, path: Path) -> Bag:
        return read_bag(path)


class TestOnDisk(StoreTests):
    """Beyond the budget."""

    @classmethod
    def write(cls, bag: Bag, path: Path) -> None:
        write(bag, path, budget=0)

    @classmethod
    def read(cls, path: Path) -> Bag:
        return read_bag(path)


def test_memory_disk_and_the_bag_itself_make_one_file(tmp_path: Path) -> None:
    bag = some_bag()
    for name, budget in (("memory.h5", PLENTY), ("disk.h5", 0)):
        write(bag, tmp_path / name, budget=budget)
        assert (tmp_path / name).read_bytes() == bag_to_hdf5(bag)
        verify_bag(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk.h5", "memory.h5"], "nothing else is left"


def test_several_blocks_of_rows_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsi_mil.bags.store.BLOCK_ROWS", 16)
    write(some_bag(), tmp_path / "A1.h5", budget=0)
    assert (tmp_path / "A1.h5").read_bytes() == bag_to_hdf5(some_bag())


@pytest.mark.parametrize("budget", [PLENTY, 0])
def test_a_feature_too_large_for_half_precision_names_slide_and_tile(tmp_path: Path, budget: int) -> None:
    grid = some_grid()
    features = np.zeros((2, DIM), np.float32)
    features[1, 4] = 1e6
    with BagWriter(grid, some_contract(), dim=DIM, budget_bytes=budget, folder=tmp_path) as writer:
        x, y = grid.coords_l0[5]
        with pytest.raises(BagError, match=rf"'A1', tile 5 at \({x}, {y}\).*1e\+06, too large for float16"):
            writer.put(np.array([4, 5]), features, np.zeros(2, np.uint8))


def test_nan_names_slide_and_tile_unless_the_tile_is_unreadable(tmp_path: Path) -> None:
    features = np.full((1, DIM), np.nan, np.float32)
    with BagWriter(some_grid(tiles=4), some_contract(), dim=DIM, budget_bytes=PLENTY, folder=tmp_path) as writer:
        with pytest.raises(BagError, match="'A1', tile 3 at .*NaN"):
            writer.put(np.array([3]), features, np.zeros(1, np.uint8))
        writer.put(np.array([3]), features, np.full(1, TileStatus.UNREADABLE, np.uint8))
        writer.put(np.arange(3), np.ones((3, DIM), np.float32), np.zeros(3, np.uint8))
        assert writer.status.tolist() == [0, 0, 0, TileStatus.UNREADABLE]
        writer.save(tmp_path / "A1.h5")
    assert not read_bag(tmp_path / "A1.h5").features[3].any()


def test_missing_tiles_are_counted(tmp_path: Path) -> None:
    with BagWriter(some_grid(tiles=4), some_contract(), dim=DIM, budget_bytes=PLENTY, folder=tmp_path) as writer:
        writer.put(np.array([3]), np.ones((1, DIM), np.float32), np.zeros(1, np.uint8))
        with pytest.raises(BagError, match="3 of 4 tiles have no features"):
            writer.save(tmp_path / "A1.h5")
    assert not (tmp_path / "A1.h5").exists()


def test_another_dim_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="7 columns for an encoder of 6"):
        BagWriter(some_grid(), some_contract(), dim=7, budget_bytes=PLENTY, folder=tmp_path)
    writer = BagWriter(some_grid(), some_contract(), dim=DIM, budget_bytes=PLENTY, folder=tmp_path)
    with pytest.raises(BagError, match="5 columns for a bag of 6"):
        writer.put(np.array([0]), np.ones((1, 5), np.float32), np.zeros(1, np.uint8))


FULL_DISK = """
import resource, signal, sys
import numpy as np
from pathlib import Path
from contracts.store import some_contract, some_grid
from wsi_mil.bags import BagWriter

folder, budget, limit = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
grid, dim = some_grid(), 2000
with BagWriter(grid, some_contract(dim), dim=dim, budget_bytes=budget, folder=folder) as writer:
    writer.put(np.arange(len(grid)), np.ones((len(grid), dim), np.float32), np.zeros(len(grid), np.uint8))
    if writer._file is not None:
        writer._file.flush()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        writer.save(folder / "draft.h5")
    except OSError as error:
        print("errno", error.errno)
"""


@pytest.mark.parametrize("budget", [PLENTY, 0])
@pytest.mark.parametrize("limit", [0, 500, 700_000])
def test_a_full_disk_is_an_oserror_and_no_crash(tmp_path: Path, budget: int, limit: int) -> None:
    """A limit on the size of files stands for the full disk, which no test can have without being root."""
    tests = Path(__file__).parents[1]
    search = os.pathsep.join([str(tests), str(tests.parent)])
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path), str(budget), str(limit)]
    ended = subprocess.run(
        command, check=False, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": search}
    )
    assert ended.stdout.strip() == f"errno {errno.EFBIG}", ended.stderr
    assert ended.returncode == 0, "HDF5 must not take the process down at exit"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != limit


def test_a_file_cut_by_a_full_disk_is_not_taken_for_whole(tmp_path: Path) -> None:
    test_a_full_disk_is_an_oserror_and_no_crash(tmp_path, 0, 700_000)
    with pytest.raises(BagError):
        read_bag(tmp_path / "draft.h5")


def test_the_file_is_one_piece(tmp_path: Path) -> None:
    write(some_bag(), tmp_path / "A1.h5", budget=0)
    with h5py.File(tmp_path / "A1.h5") as file:
        assert file["features"].chunks is None
        assert file["features"].id.get_offset() is not None


def test_tiles_left_out_keep_their_features_and_unreadable_ones_their_mark(tmp_path: Path) -> None:
    bag = some_bag(tiles=5)
    with BagWriter(
        bag.grid, bag.encoder, dim=DIM, budget_bytes=PLENTY, folder=tmp_path, quality=["sharpness"]
    ) as writer:
        writer.put(np.arange(5), bag.features.astype(np.float32), bag.status, quality=bag.quality)
        np.testing.assert_array_equal(writer.quality["sharpness"], bag.quality["sharpness"])
        writer.exclude(np.array([False, True, True, False, True]))
        writer.save(tmp_path / "A1.h5")
    read = read_bag(tmp_path / "A1.h5")
    out, unreadable = TileStatus.EXCLUDED, TileStatus.UNREADABLE
    assert read.status.tolist() == [0, out, unreadable, 0, out]
    assert read.usable.tolist() == [True, False, False, True, False]
    np.testing.assert_array_equal(read.features, bag.features)
