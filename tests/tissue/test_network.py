"""Tissue by a network from a file: geometry, classes, and what is wrong with a file said in words."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from wsi_mil.errors import MissingExtra, SlideError
from wsi_mil.tissue import TissueNetwork, load_network
from wsi_mil.tissue.network import UNet

HEADER: dict[str, Any] = {
    "architecture": "unet",
    "arguments": {"widths": [4, 8]},
    "mpp": 10.0,
    "patch_px": 32,
    "classes": ["tissue", "background"],
    "tissue": ["tissue"],
}


def save(path: Path, *, module: nn.Module | None = None, **changes: Any) -> Path:
    """A checkpoint of random weights; a change of None takes the key out."""
    torch.manual_seed(0)
    module = module or UNet(classes=2, widths=(4, 8))
    header = {key: value for key, value in (HEADER | changes).items() if value is not None}
    save_file(module.state_dict(), path, metadata={"wsi_mil": json.dumps(header)})
    return path


class Dark(nn.Module):
    """Calls a pixel tissue where its red is below a half; what it was shown is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.seen.append(pixels)
        red = pixels[:, 0]
        return torch.stack([0.5 - red, red - 0.5], dim=1) * 20


def dark(**changes: Any) -> TissueNetwork:
    options = {"mpp": 10.0, "patch_px": 32, "classes": ("tissue", "background"), "tissue": ("tissue",)}
    return TissueNetwork(Dark(), **{"mean": (0.0,) * 3, "std": (1.0,) * 3, **options, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(20, 25), (32, 32), (100, 75), (33, 300)])
@pytest.mark.parametrize("patch_px", [32, 160])
def test_every_pixel_is_answered_at_its_place(size: tuple[int, int], patch_px: int) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = dark(patch_px=patch_px).find(rgb)
    np.testing.assert_array_equal(found, rgb[..., 0] < 128)


def test_beyond_the_picture_is_white_and_pixels_are_normalised() -> None:
    network = dark(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    network.find(np.zeros((10, 10, 3), np.uint8))
    seen = network.module.seen[0]  # type: ignore[union-attr]
    assert seen[0, :, 0, 0].tolist() == [-2.0] * 3
    assert seen[0, :, 31, 31].tolist() == [2.0] * 3


def test_several_classes_may_be_tissue() -> None:
    rgb = np.zeros((16, 16, 3), np.uint8)
    assert dark(tissue=("background",)).find(rgb).sum() == 0
    assert dark(tissue=("background", "tissue")).find(rgb).all()


def test_a_picture_can_go_through_jpeg_first() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    plain, pressed = dark(), dark(jpeg_quality=80)
    plain.find(rgb)
    pressed.find(rgb)
    difference = (plain.module.seen[0] - pressed.module.seen[0]).abs().mean()  # type: ignore[union-attr,operator]
    assert 0.01 < float(difference) < 0.3


def test_a_file_gives_what_was_saved(tmp_path: Path) -> None:
    network = load_network(save(tmp_path / "net.safetensors"))
    assert (network.mpp, network.patch_px, network.classes) == (10.0, 32, ("tissue", "background"))
    torch.manual_seed(0)
    same = UNet(classes=2, widths=(4, 8)).eval()
    rgb = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    mean, std = torch.tensor(network.mean)[:, None, None], torch.tensor(network.std)[:, None, None]
    with torch.inference_mode():
        logits = same(((torch.from_numpy(rgb).permute(2, 0, 1) / 255 - mean) / std)[None])
    np.testing.assert_array_equal(network.find(rgb), logits[0].argmax(dim=0).numpy() == 0)
    assert len(network.digest) == 64


def test_a_network_of_torchvision(tmp_path: Path) -> None:
    segmentation = pytest.importorskip("torchvision.models.segmentation")
    module = segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=2)
    path = save(
        tmp_path / "net.safetensors",
        module=module,
        architecture="torchvision:lraspp_mobilenet_v3_large",
        arguments=None,
    )
    assert load_network(path).find(np.zeros((40, 30, 3), np.uint8)).shape == (40, 30)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mpp": None}, "lacks mpp"),
        ({"architecture": "unett"}, "did you mean 'unet'"),
        ({"architecture": "torchvision:deeplab"}, "unknown segmentation network"),
        ({"arguments": {"width": [4]}}, "does not take these arguments"),
        ({"arguments": {"widths": [4, 16]}}, "the weights are not those of"),
        ({"tissue": ["stroma"]}, "must name some of tissue, background"),
    ],
)
def test_a_file_that_says_something_wrong(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SlideError, match=words):
        load_network(save(tmp_path / "net.safetensors", **changes))


def test_a_missing_library_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(MissingExtra, match=r"pip install 'wsi_mil\[segmentation\]'"):
        load_network(save(tmp_path / "net.safetensors", architecture="smp:UnetPlusPlus"))


def test_the_architecture_of_grandqc(tmp_path: Path) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch", reason="extra `segmentation`")
    arguments = {"encoder_name": "efficientnet-b0"}
    module = smp.UnetPlusPlus(encoder_weights=None, classes=2, **arguments)
    path = save(tmp_path / "net.safetensors", module=module, architecture="smp:UnetPlusPlus", arguments=arguments)
    assert load_network(path).find(np.zeros((40, 30, 3), np.uint8)).shape == (40, 30)


def test_files_that_are_no_networks(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match=r"no tissue network at.*tissue\.weights"):
        load_network(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(SlideError, match="no safetensors file"):
        load_network(tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "bare.safetensors")
    with pytest.raises(SlideError, match="does not say what it is"):
        load_network(tmp_path / "bare.safetensors")


def test_wrong_classes_are_told_at_the_first_picture() -> None:
    with pytest.raises(SlideError, match=r"gives shape \(1, 2, 32, 32\) where \(1, 3, 32, 32\)"):
        dark(classes=("tissue", "pen", "background")).find(np.zeros((10, 10, 3), np.uint8))
