"""The raw scores and their file."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable

import h5py
import numpy as np
import pytest

from wsi_mil.errors import StageError
from wsi_mil.grid import SlideRef
from wsi_mil.heatmaps import Heatmap, heatmap_from_hdf5, heatmap_to_hdf5


def test_a_heatmap_comes_back_as_it_was(make: Callable[..., Heatmap]) -> None:
    heatmap = make()
    heatmap.scores[3] = np.nan
    back = heatmap_from_hdf5(heatmap_to_hdf5(heatmap))
    assert (back.slide, back.channels, back.model) == (heatmap.slide, heatmap.channels, heatmap.model)
    assert (back.prediction, back.kinds) == (heatmap.prediction, heatmap.kinds)
    assert list(back.prediction) == ["tumour", "normal"], "the order of the classes is kept"
    assert dataclasses.astuple(back.grid)[3:] == dataclasses.astuple(heatmap.grid)[3:]
    np.testing.assert_array_equal(back.scores, heatmap.scores)
    np.testing.assert_array_equal(back.grid.coords_l0, heatmap.grid.coords_l0)
    np.testing.assert_array_equal(back.grid.tissue, heatmap.grid.tissue)


def test_the_same_heatmap_makes_the_same_bytes(make: Callable[..., Heatmap]) -> None:
    assert heatmap_to_hdf5(make()) == heatmap_to_hdf5(make())


def test_the_file_explains_itself(make: Callable[..., Heatmap]) -> None:
    with h5py.File(io.BytesIO(heatmap_to_hdf5(make()))) as file:
        assert file["scores"].shape == (len(make().grid), 2)
        assert file["coords"].dtype == np.int64
        assert file.attrs["slide"] == "A1"
        assert file.attrs["slide_mpp"].tolist() == [0.499, 0.4571]
        assert file.attrs["channels"] == '["attention", "contribution_tumour"]'


def test_scores_that_do_not_fit_are_refused(make: Callable[..., Heatmap]) -> None:
    heatmap = make()
    with pytest.raises(StageError, match="'A1': scores of shape"):
        dataclasses.replace(heatmap, scores=heatmap.scores[:, :1])
    with pytest.raises(StageError, match="'A1': scores of shape"):
        dataclasses.replace(heatmap, channels=("attention", "attention"))
    other = SlideRef("B2", "", (1, 1), (1.0, 1.0), "flag")
    with pytest.raises(StageError, match="'B2': its grid is of 'A1'"):
        dataclasses.replace(heatmap, slide=other)


def test_an_unknown_channel_gets_a_suggestion(make: Callable[..., Heatmap]) -> None:
    with pytest.raises(StageError, match="did you mean 'attention'"):
        make().column("atention")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_bytes_cut_short_are_refused(make: Callable[..., Heatmap], share: float) -> None:
    data = heatmap_to_hdf5(make())
    with pytest.raises(StageError, match="broken"):
        heatmap_from_hdf5(data[: int(share * len(data))])


def _changed(data: bytes, change: Callable[[h5py.File], object]) -> bytes:
    buffer = io.BytesIO(data)
    with h5py.File(buffer, "r+") as file:
        change(file)
    return buffer.getvalue()


def _external(file: h5py.File) -> None:
    shape = file["scores"].shape
    del file["scores"]
    file.create_dataset("scores", shape, "float32", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def _soft(file: h5py.File) -> None:
    del file["scores"]
    file["scores"] = h5py.SoftLink("/tissue")


@pytest.mark.parametrize(
    "change",
    [
        _external,
        _soft,
        lambda file: file.__delitem__("coords"),
        lambda file: file.attrs.__delitem__("complete"),
        lambda file: file.attrs.__setitem__("format", "else"),
        lambda file: file.attrs.__setitem__("channels", "["),
    ],
)
def test_forged_bytes_are_refused(make: Callable[..., Heatmap], change: Callable[[h5py.File], object]) -> None:
    with pytest.raises(StageError, match="heatmap"):
        heatmap_from_hdf5(_changed(heatmap_to_hdf5(make()), change))
