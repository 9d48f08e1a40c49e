"""Files of other programs, byte for byte as they write them, into bags; and files that must not be believed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from wsi_mil.bags import Bag, Given, bag_to_hdf5, import_bag, read_bag, read_foreign
from wsi_mil.errors import BagError
from wsi_mil.grid import UNVERIFIED, SlideRef

SLIDE = SlideRef("A1", "f" * 64, (20_000, 10_000), (0.25, 0.25), "metadata")
PLACES = np.array([[0, 0], [512, 0], [1024, 0], [512, 512]])
"""Tiles of 256 px at .5 um per pixel on a slide of .25."""

FEATURES = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)


def write(path: Path, datasets: dict[str, Any], attributes: dict[str, Any] | None = None, **told: Any) -> Path:
    """An HDF5 file with datasets, attributes of the file, and attributes of datasets by name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            chunks = {"chunks": (1, values.shape[1])} if np.ndim(values) == 2 and len(values) else {}
            file.create_dataset(name, data=values, **chunks).attrs.update(told.get(name, {}))
        file.attrs.update(attributes or {})
    return path


def trident(path: Path, **changes: Any) -> Path:
    told = {
        "patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40, "target_magnification": 20,
        "overlap": 0, "name": "A1", "savetodir": "out", "level0_width": 20_000, "level0_height": 10_000,
    }  # fmt: skip
    datasets = {"features": FEATURES, "coords": PLACES}
    return write(path, datasets, features={"encoder": "uni_v1", "name": "A1"}, coords=told | changes)


def clam(path: Path) -> Path:
    """RESULTS/h5_files/A1.h5 with RESULTS/patches/A1.h5."""
    told = {
        "patch_size": 256, "patch_level": 1, "downsample": np.array([2.0, 2.0]), "name": "A1", "save_path": "x",
        "downsampled_level_dim": np.array([10_000, 5_000]), "level_dim": np.array([10_000, 5_000]),
    }  # fmt: skip
    write(path.parent / "patches" / "A1.h5", {"coords": PLACES}, coords=told)
    return write(path.parent / "h5_files" / "A1.h5", {"features": FEATURES, "coords": PLACES.astype(np.int32)})


def stamp(path: Path, **attributes: Any) -> Path:
    told = {"stamp_version": "2.1.0", "extractor": "uni", "unit": "um", "tile_size_um": 128.0, "tile_size_px": 256}
    told |= {"code_hash": "ab", "feat_type": "tile"}
    datasets = {"feats": FEATURES.astype(np.float16), "coords": (PLACES * 0.25).astype(np.float32)}
    return write(path, datasets, told | attributes)


def older_stamp(path: Path) -> Path:
    path = stamp(path)
    with h5py.File(path, "r+") as file:
        del file.attrs["tile_size_um"], file.attrs["tile_size_px"]
        file.attrs["tile_size"] = 128.0
    return path


def slideflow(path: Path) -> Path:
    path = path.with_suffix(".pt")
    torch.save(torch.from_numpy(FEATURES), path)
    np.savez(path.with_name("A1.index.npz"), PLACES + 256)
    return path


LAYOUTS: dict[str, tuple[Callable[[Path], Path], str, int]] = {
    "trident": (trident, "uni_v1", 256),
    "clam": (clam, "unknown", 256),
    "stamp": (stamp, "uni", 256),
    "stamp 2.0": (older_stamp, "uni", 0),
    "slideflow": (slideflow, "unknown", 0),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_layout_becomes_the_same_geometry(name: str, tmp_path: Path) -> None:
    build, encoder, tile_px = LAYOUTS[name]
    found = read_foreign(build(tmp_path / "A1.h5"))
    assert found.layout == name.split()[0]
    bag, note = import_bag(found, Given(SLIDE))
    np.testing.assert_array_equal(bag.grid.coords_l0, PLACES)
    assert bag.grid.extent_l0 == pytest.approx((512, 512))
    assert bag.grid.step_l0 == pytest.approx((512, 512))
    np.testing.assert_allclose(bag.features, FEATURES, atol=2e-3)
    assert (bag.slide, bag.encoder.name, bag.encoder.dim) == (SLIDE, encoder, 6)
    assert bag.encoder.tile_px == tile_px
    assert bag.encoder.tile_mpp == (0.5 if tile_px else 0), "what nobody said stays unknown"
    assert bag.encoder.revision == UNVERIFIED
    assert "encoder unknown" in note if encoder == "unknown" else "encoder" not in note
    back = tmp_path / "back.h5"
    back.write_bytes(bag_to_hdf5(bag))
    assert read_bag(back).digest == bag.digest


def _import(path: Path, given: Given | None = None, **options: Any) -> tuple[Bag, str]:
    return import_bag(read_foreign(path, **options), given or Given())


def test_without_the_slide_it_says_unverified(tmp_path: Path) -> None:
    bag, note = _import(trident(tmp_path / "A1.h5"))
    assert bag.slide.mpp == (0, 0)
    assert bag.slide.mpp_source == UNVERIFIED
    assert bag.slide.size_l0 == (20_000, 10_000), "TRIDENT says it"
    assert f"scale {UNVERIFIED}" in note
    assert bag.encoder.tile_mpp == 0.5
    path = tmp_path / "back.h5"
    path.write_bytes(bag_to_hdf5(bag))
    assert read_bag(path).slide == bag.slide


def test_the_nominal_magnification_is_checked_against_the_slide(tmp_path: Path) -> None:
    finer = SlideRef("A1", "f" * 64, (20_000, 10_000), (0.2, 0.2), "metadata")
    bag, note = _import(trident(tmp_path / "A1.h5"), Given(finer))
    assert "its tiles are at 0.4 um per pixel, though it says 0.5" in note
    assert (bag.grid.mpp, bag.encoder.tile_mpp) == (pytest.approx(0.4), 0.5)


def test_overlap_makes_the_step(tmp_path: Path) -> None:
    bag, _ = _import(trident(tmp_path / "A1.h5", overlap=64), Given(SLIDE))
    assert bag.grid.step_l0 == pytest.approx((384, 384))


def test_micrometres_need_a_scale(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="--slides FOLDER.*--table.*--mpp"):
        _import(stamp(tmp_path / "A1.h5"))
    wide = SlideRef("A1", "", (0, 0), (0.25, 0.5), "cohort")
    bag, _ = _import(stamp(tmp_path / "A1.h5"), Given(wide))
    np.testing.assert_array_equal(bag.grid.coords_l0, PLACES / [1, 2])
    assert bag.grid.extent_l0 == pytest.approx((512, 256))


def test_marugoto_is_known_by_its_stride(tmp_path: Path) -> None:
    path = write(tmp_path / "A1.h5", {"feats": FEATURES, "coords": PLACES // 512 * 224})
    bag, _ = _import(path, Given(SLIDE))
    np.testing.assert_array_equal(bag.grid.coords_l0, PLACES * 2)
    assert bag.grid.extent_l0 == pytest.approx((1024, 1024))


def test_bare_coordinates_are_level_0_and_their_distance_the_size(tmp_path: Path) -> None:
    bag, note = _import(write(tmp_path / "A1.h5", {"feats": FEATURES, "coords": PLACES}), Given(SLIDE))
    np.testing.assert_array_equal(bag.grid.coords_l0, PLACES)
    assert bag.grid.extent_l0 == (512, 512)
    assert "tile size from the distance of its tiles" in note


def test_clams_older_files_have_coordinates_of_the_level(tmp_path: Path) -> None:
    told = {"patch_level": 1, "downsample": np.array([2.0, 2.0]), "patch_size": 256}
    pixels = np.zeros((4, 2, 2, 3), np.uint8)
    places = write(tmp_path / "p" / "A1.h5", {"imgs": pixels, "coords": PLACES // 2}, imgs=told)
    path = write(tmp_path / "A1.h5", {"features": FEATURES})
    bag, _ = _import(path, Given(SLIDE), places=places)
    np.testing.assert_array_equal(bag.grid.coords_l0, PLACES)
    assert bag.grid.extent_l0 == (512, 512)


def test_clams_tensor_takes_the_coordinates_beside_it(tmp_path: Path) -> None:
    clam(tmp_path / "A1.h5")
    (tmp_path / "pt_files").mkdir()
    torch.save(torch.from_numpy(FEATURES), tmp_path / "pt_files" / "A1.pt")
    bag, _ = _import(tmp_path / "pt_files" / "A1.pt", Given(SLIDE))
    np.testing.assert_array_equal(bag.grid.coords_l0, PLACES)


def test_coordinates_of_another_run_are_refused(tmp_path: Path) -> None:
    places = write(tmp_path / "p" / "A1.h5", {"coords": PLACES + 1}, coords={"patch_size": 256})
    path = write(tmp_path / "A1.h5", {"features": FEATURES, "coords": PLACES})
    with pytest.raises(BagError, match="another run of patching"):
        read_foreign(path, places=places)


def test_without_coordinates_nothing_is_placed(tmp_path: Path) -> None:
    bag, note = _import(write(tmp_path / "A1.h5", {"features": FEATURES[None]}), Given(SLIDE))
    assert not bag.grid.placed
    assert not bag.grid.coords_l0.any()
    assert "no coordinates" in note
    path = tmp_path / "back.h5"
    path.write_bytes(bag_to_hdf5(bag))
    assert not read_bag(path).grid.placed


def test_twins_are_seen_without_their_slides(tmp_path: Path) -> None:
    bags = [_import(trident(tmp_path / name))[0] for name in ("A1.h5", "B2.h5")]
    assert bags[0].slide.fingerprint == bags[1].slide.fingerprint


def test_a_tile_outside_the_slide_is_refused(tmp_path: Path) -> None:
    small = SlideRef("A1", "f" * 64, (600, 600), (0.25, 0.25), "metadata")
    with pytest.raises(BagError, match=r"tile \(1024, 0\) lies outside"):
        _import(trident(tmp_path / "A1.h5"), Given(small))


def test_nan_names_the_row(tmp_path: Path) -> None:
    features = FEATURES.copy()
    features[2, 3] = np.nan
    with pytest.raises(BagError, match="row 2"):
        _import(write(tmp_path / "A1.h5", {"features": features}))


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo wsi_mil",)


def _evil(path: Path) -> Path:
    torch.save({"features": _Evil()}, path.with_suffix(".pt"))
    return path.with_suffix(".pt")


def _cut(path: Path) -> Path:
    trident(path).write_bytes(trident(path).read_bytes()[:900])
    return path


def _linked(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file["features"] = h5py.ExternalLink("other.h5", "features")
    return path


def _external(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (4, 6), "float32", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])
    return path


def _claimed(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (1 << 30, 1024), "float32", chunks=(1, 1024))
    return path


FORGED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "pickle": (_evil, "could run a stranger's code"),
    "cut": (_cut, "broken"),
    "link": (_linked, "ExternalLink"),
    "external": (_external, "other files"),
    "claimed": (_claimed, "claims"),
    "no features": (lambda path: write(path, {"coords": PLACES}), "no features in it .it holds coords"),
    "words": (lambda path: write(path, {"features": np.array([b"a"])}), "no array of numbers"),
    "a slide": (lambda path: write(path, {"feats": FEATURES[0]}, {"feat_type": "slide"}), "whole slide"),
    "a vector": (lambda path: write(path, {"features": FEATURES[0]}), "not features of tiles"),
    "empty": (lambda path: write(path, {"features": np.zeros((0, 6), np.float32)}), "no tiles in it"),
    "lengths": (lambda path: write(path, {"features": FEATURES, "coords": PLACES[1:]}), "4 vectors, but 3"),
    "places": (lambda path: write(path, {"features": FEATURES, "coords": PLACES * np.nan}), "not finite"),
    "unit": (lambda path: stamp(path, unit="furlong"), "furlong"),
    "nothing": (lambda path: path, "no such file"),
}


@pytest.mark.parametrize("forgery", FORGED)
def test_what_must_not_be_believed_is_refused(forgery: str, tmp_path: Path) -> None:
    build, words = FORGED[forgery]
    path = build(tmp_path / "A1.h5")
    with pytest.raises(BagError, match=words):
        read_foreign(path)


def test_one_of_ours_is_told(tmp_path: Path) -> None:
    bag, _ = _import(trident(tmp_path / "A1.h5"))
    (tmp_path / "B2.h5").write_bytes(bag_to_hdf5(bag))
    with pytest.raises(BagError, match="our own"):
        read_foreign(tmp_path / "B2.h5")


def test_real_features_of_two_slides(test_data: Path) -> None:
    """As KatherLab/mopadi published them, with two sets of names."""
    with_places, _ = _import(test_data / "features" / "TCGA-AD-6964-01Z-00-DX1.h5")
    assert (len(with_places), with_places.encoder.dim, with_places.grid.extent_l0) == (777, 512, (512, 512))
    assert with_places.grid.placed
    without, _ = _import(test_data / "features" / "TCGA-3X-AAVA-01Z-00-DX1.h5")
    assert (len(without), without.grid.placed) == (180, False)
    assert not with_places.encoder.difference(without.encoder), "they may be trained on together"
