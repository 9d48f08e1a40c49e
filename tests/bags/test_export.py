"""Our bags as other programs' files: what their readers look for is there, and it comes back as it was."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from contracts.store import some_bag

from wsi_mil.bags import LAYOUTS, Bag, Given, export_bag, import_bag, read_foreign
from wsi_mil.errors import BagError


def _written(bag: Bag, layout: str, folder: Path) -> list[Path]:
    paths = []
    for place, data in export_bag(bag, layout).items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(data)
        paths.append(folder / place)
    return paths


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("number", [0, 1])
def test_it_comes_back(layout: str, number: int, tmp_path: Path) -> None:
    """Features, places and size; of CLAM both the HDF5 and the tensor."""
    bag = some_bag()
    paths = [path for path in _written(bag, layout, tmp_path) if "patches" not in str(path.parent)]
    if number >= len(paths):
        pytest.skip("this layout has one file of features")
    known = Given(bag.slide, tile_px=256, tile_mpp=0.5)
    back, _ = import_bag(read_foreign(paths[number]), known)
    keep = bag.usable
    assert not keep.all(), "an unreadable tile has no features to export"
    np.testing.assert_array_equal(back.features, bag.features[keep])
    np.testing.assert_array_equal(back.grid.coords_l0, bag.grid.coords_l0[keep])
    assert back.slide == bag.slide
    # CLAM and TRIDENT keep whole level-0 pixels, and one number for both axes.
    whole = 0 if layout == "stamp" else 0.5
    assert back.grid.extent_l0[0] == pytest.approx(bag.grid.extent_l0[0], abs=whole + 1e-6)
    assert back.encoder.tile_mpp == 0.5


def test_what_clams_readers_look_for(tmp_path: Path) -> None:
    bag = some_bag()
    _written(bag, "clam", tmp_path)
    with h5py.File(tmp_path / "h5_files" / "A1.h5") as file:
        assert file["features"].dtype == np.float32
        assert file["features"].chunks == (32, 6)
        assert file["coords"].dtype == np.int32
        assert not file["coords"].attrs
    with h5py.File(tmp_path / "patches" / "A1.h5") as file:
        assert file["coords"].dtype == np.int64
        told = dict(file["coords"].attrs)
    assert told["patch_size"] * told["downsample"][0] == round(bag.grid.extent_l0[0])
    assert told["level_dim"].tolist() == [5000, 3700]
    tensor = torch.load(tmp_path / "pt_files" / "A1.pt", weights_only=True)
    assert tensor.dtype == torch.float32
    assert tensor.shape == (bag.usable.sum(), 6)


def test_what_tridents_readers_look_for(tmp_path: Path) -> None:
    bag = some_bag()
    _written(bag, "trident", tmp_path)
    folder = tmp_path / "20x_256px_32px_overlap"
    with h5py.File(folder / "features_some" / "A1.h5") as file:
        assert file["features"].attrs["encoder"] == "some"
        told = dict(file["coords"].attrs)
    names = "patch_size patch_size_level0 level0_magnification target_magnification overlap name savetodir"
    assert set(told) == {*names.split(), "level0_width", "level0_height"}
    assert (told["patch_size"], told["target_magnification"], told["overlap"]) == (256, 20, 32)
    with h5py.File(folder / "patches" / "A1_patches.h5") as file:
        assert len(file["coords"]) == bag.usable.sum()


def test_what_stamps_readers_look_for(tmp_path: Path) -> None:
    bag = some_bag()
    (path,) = _written(bag, "stamp", tmp_path)
    assert path == tmp_path / "some" / "A1.h5"
    with h5py.File(path) as file:
        assert (file["feats"].dtype, file["coords"].dtype) == (np.float16, np.float32)
        assert file["feats"].chunks is None
        told = dict(file.attrs)
    assert (told["unit"], told["feat_type"], told["tile_size_px"]) == ("um", "tile", 256)
    assert told["tile_size_um"] == pytest.approx(128)


def test_what_a_layout_needs_is_asked_for() -> None:
    bag = some_bag()
    homeless = dataclasses.replace(bag, grid=dataclasses.replace(bag.grid, placed=False))
    with pytest.raises(BagError, match="no coordinates"):
        export_bag(homeless, "clam")
    slide = dataclasses.replace(bag.slide, mpp=(0.0, 0.0))
    unscaled = dataclasses.replace(bag, slide=slide, grid=dataclasses.replace(bag.grid, slide=slide))
    for layout in ("trident", "stamp"):
        with pytest.raises(BagError, match="nobody knows its scale"):
            export_bag(unscaled, layout)
    assert export_bag(unscaled, "clam"), "CLAM's files have no scale"
    with pytest.raises(BagError, match="unknown layout 'tridnt': did you mean 'trident'"):
        export_bag(bag, "tridnt")


def test_features_that_stamp_cannot_hold_are_refused() -> None:
    bag = some_bag(dtype="float32")
    bag.features[0, 0] = 1e6
    with pytest.raises(BagError, match="too large for float16"):
        export_bag(bag, "stamp")
