"""The file of a bag: what it says to others, what is read of it cheaply, and every file that must not be believed."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from contracts.store import StoreTests, assert_same_bag, some_bag, some_grid

from wsi_mil.bags import (
    Bag,
    bag_to_hdf5,
    grid_to_hdf5,
    read_bag,
    read_grid,
    read_header,
    read_quality,
    verify_bag,
)
from wsi_mil.errors import BagError


class TestHdf5(StoreTests):
    """A bag built in memory keeps the contract."""

    @classmethod
    def write(cls, bag: Bag, path: Path) -> None:
        path.write_bytes(bag_to_hdf5(bag))

    @classmethod
    def read(cls, path: Path) -> Bag:
        return read_bag(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A bag's file."""
    path = tmp_path / "A1.h5"
    path.write_bytes(bag_to_hdf5(some_bag()))
    return path


def test_others_find_the_names_they_know(path: Path) -> None:
    bag = some_bag()
    with h5py.File(path) as file:
        assert file["features"].dtype == np.float16
        assert file["coords"].dtype == np.int64
        assert file["features"].chunks is None
        assert file["features"].compression is None
        np.testing.assert_array_equal(file["coords"][()], bag.grid.coords_l0)
        attributes = dict(file["coords"].attrs)
    assert attributes["patch_size"] == 256
    assert attributes["patch_size_level0"] == round(256 * 0.5 / 0.499)
    assert attributes["patch_level"] == 0
    assert attributes["overlap"] == 32
    np.testing.assert_allclose(attributes["patch_size"] * attributes["downsample"], bag.grid.extent_l0)
    assert (attributes["level0_width"], attributes["level0_height"]) == (5000, 3700)


def test_the_provenance_is_readable_without_this_package(path: Path) -> None:
    with h5py.File(path) as file:
        told = dict(file.attrs)
    assert told["slide"] == "A1"
    assert told["slide_mpp"].tolist() == [0.499, 0.4571]
    assert told["slide_mpp_source"] == "metadata"
    assert told["tile_mpp_requested"] == 0.5
    np.testing.assert_allclose(told["tile_mpp_effective"], [0.5, 0.5])
    assert json.loads(told["encoder"])["name"] == told["encoder_name"] == "some"
    assert told["encoder_weights_digest"] == "d" * 64
    assert told["complete"] == 1


def test_nothing_says_where_the_file_was_made(path: Path, tmp_path: Path) -> None:
    assert str(tmp_path).encode() not in path.read_bytes()


def test_the_header_says_what_the_bag_is(path: Path) -> None:
    bag, header = some_bag(), read_header(path)
    assert (header.slide, header.encoder, header.digest) == (bag.slide, bag.encoder, bag.digest)
    assert (header.tiles, header.dim) == bag.features.shape
    assert (header.extent_l0, header.step_l0) == (bag.grid.extent_l0, bag.grid.step_l0)


def test_some_rows_in_the_order_asked(path: Path) -> None:
    rows = np.array([5, 0, 9])
    bag, some = some_bag(), read_bag(path, rows=rows)
    np.testing.assert_array_equal(some.features, bag.features[rows])
    np.testing.assert_array_equal(some.grid.coords_l0, bag.grid.coords_l0[rows])
    np.testing.assert_array_equal(some.quality["sharpness"], bag.quality["sharpness"][rows])
    assert len(read_bag(path, rows=bag.usable)) == len(bag) - 1


def test_a_grid_comes_back_from_its_own_file_and_from_a_bags(path: Path, tmp_path: Path) -> None:
    (tmp_path / "grid.h5").write_bytes(grid_to_hdf5(some_grid(), attributes={"outline": "abc", "min_tissue": 0.25}))
    for source in (tmp_path / "grid.h5", path):
        grid = read_grid(source)
        np.testing.assert_array_equal(grid.coords_l0, some_grid().coords_l0)
        np.testing.assert_array_equal(grid.tissue, some_grid().tissue)
        assert dataclasses.astuple(grid)[3:] == dataclasses.astuple(some_grid())[3:]
    with h5py.File(tmp_path / "grid.h5") as file:
        assert file.attrs["outline"] == "abc"
    with pytest.raises(BagError, match="run extract first"):
        read_bag(tmp_path / "grid.h5")


def test_an_empty_grid_comes_back(tmp_path: Path) -> None:
    (tmp_path / "grid.h5").write_bytes(grid_to_hdf5(some_grid(tiles=0)))
    assert len(read_grid(tmp_path / "grid.h5")) == 0


def test_a_flipped_bit_is_found_by_verify(path: Path) -> None:
    verify_bag(path)
    with h5py.File(path) as file:
        offset = file["features"].id.get_offset()
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    with pytest.raises(BagError, match=r"A1\.h5: the features have changed"):
        verify_bag(path)


def test_a_nan_in_the_file_names_the_row(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["features"][3, 0] = np.nan
    with pytest.raises(BagError, match="row 3"):
        verify_bag(path)
    with h5py.File(path, "r+") as file:
        del file.attrs["finite"]
    with pytest.raises(BagError, match="row 3"):
        read_bag(path)


@pytest.mark.parametrize("rows", [None, np.array([3, 1])])
def test_what_was_checked_at_writing_is_not_looked_at_again(
    path: Path, rows: np.ndarray | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, tiles = [], len(some_bag())
    monkeypatch.setattr("wsi_mil.bags.bag.first_not_finite", lambda features: looked.append(len(features)))
    read_bag(path, rows=rows)
    assert looked == []
    verify_bag(path)
    assert looked == [tiles]


def test_a_bag_that_is_not_finite_is_not_written() -> None:
    bag = some_bag()
    bag.features[4, 1] = np.inf
    with pytest.raises(BagError, match="'A1': row 4 of the features holds NaN or infinity"):
        bag_to_hdf5(bag)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.2, 0.5, 0.9, 0.99])
def test_a_file_cut_short_is_refused(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    for reader in (read_bag, read_header, read_grid, verify_bag):
        with pytest.raises(BagError, match=r"A1\.h5"):
            reader(path)


def test_what_is_no_hdf5_or_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("not HDF5")
    for name, fault in (("text.h5", "broken"), ("none.h5", "no such file"), (".", "no such file")):
        with pytest.raises(BagError, match=fault):
            read_bag(tmp_path / name)


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(shape=file["features"].shape, dtype="float16")
    layout[:] = h5py.VirtualSource("other.h5", "features", shape=file["features"].shape)
    del file["features"]
    file.create_virtual_dataset("features", layout)


def _replace(name: str, **options: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        shape = file[name].shape
        del file[name]
        file.create_dataset(name, **{"shape": shape, "dtype": "float16"} | options)

    return change


def _link(link: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file["features"]
        file["features"] = link

    return change


def _external(file: h5py.File) -> None:
    """Features that are the bytes of another file of this machine."""
    shape = file["features"].shape
    del file["features"]
    file.create_dataset("features", shape, "float16", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def _loop(file: h5py.File) -> None:
    file.create_group("loop")["again"] = file["/"]


FORGED: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "external storage": (_external, "other files"),
    "virtual dataset": (_virtual, "other files"),
    "external link": (_link(h5py.ExternalLink("other.h5", "features")), "ExternalLink"),
    "soft link": (_link(h5py.SoftLink("/coords")), "SoftLink"),
    "soft link in a group": (lambda file: file["quality"].__setitem__("x", h5py.SoftLink("/coords")), "SoftLink"),
    "group in itself": (_loop, "nested deeper"),
    "claimed size": (_replace("features", shape=(1 << 36, 8)), "expected"),
    "never written": (_replace("features"), "claims"),
    "chunked": (_replace("features", chunks=(1, 6)), "chunked"),
    "integers": (_replace("features", dtype="int16"), "int16"),
    "references": (_replace("features", dtype=h5py.ref_dtype), "expected float16"),
    "wrong rank": (_replace("features", shape=(7,)), r"shape \(7,\)"),
    "fewer rows": (_replace("status", shape=(3,), dtype="uint8", data=np.zeros(3, np.uint8)), r"shape \(3,\)"),
    "no coords": (lambda file: file.__delitem__("coords"), "'coords' is missing"),
    "not complete": (lambda file: file.attrs.__delitem__("complete"), "not written to its end"),
    "foreign": (lambda file: file.attrs.__delitem__("format"), "import it as a foreign bag"),
    "from the future": (lambda file: file.attrs.__setitem__("format_version", 99), "newer"),
    "no encoder": (lambda file: file.attrs.__delitem__("encoder"), "'encoder' is missing"),
    "bad contract": (lambda file: file.attrs.__setitem__("encoder", '{"name": 1}'), "broken"),
    "bad JSON": (lambda file: file.attrs.__setitem__("encoder", "{"), "broken"),
    "bad number": (lambda file: file.attrs.__setitem__("tiles", "many"), "broken"),
}


@pytest.mark.parametrize("forgery", FORGED)
def test_a_forged_file_is_refused(path: Path, forgery: str) -> None:
    change, fault = FORGED[forgery]
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(BagError, match=rf"A1\.h5.*{fault}"):
        read_bag(path)


def test_the_bytes_are_those_of_a_file(path: Path) -> None:
    with h5py.File(io.BytesIO(path.read_bytes())) as file:
        assert file["features"].shape == some_bag().features.shape
    assert_same_bag(read_bag(path), some_bag())


def test_measures_are_read_without_the_features(path: Path) -> None:
    bag = some_bag()
    with h5py.File(path, "r+") as file:
        del file["features"]
    grid, status, measures = read_quality(path)
    np.testing.assert_array_equal(grid.coords_l0, bag.grid.coords_l0)
    np.testing.assert_array_equal(status, bag.status)
    assert measures.keys() == {"sharpness"}
    np.testing.assert_array_equal(measures["sharpness"], bag.quality["sharpness"])


def test_a_bag_without_measures_is_read_as_one_without_measures(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["quality"]
    assert read_bag(path).quality == {}
    assert read_quality(path)[2] == {}
