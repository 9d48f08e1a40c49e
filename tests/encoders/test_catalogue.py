"""Every row of the catalogue: names, size on the meta device, and at depth 2 from a file to vectors."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.encoder import stained_tiles

pytest.importorskip("timm", reason="timm is not installed: pip install 'wsi_mil[timm]'", exc_type=ImportError)

from safetensors.torch import save_file

from wsi_mil.encoders import CATALOGUE, Entry, from_entry, networks
from wsi_mil.encoders.entry import POOLINGS
from wsi_mil.encoders.layouts import LAYOUTS

PUBLISHED_MILLIONS = {
    "uni": 303, "uni2-h": 681, "virchow": 631, "virchow2": 631, "prov-gigapath": 1135, "h-optimus-0": 1135,
    "h-optimus-1": 1135, "h0-mini": 86, "phikon": 86, "phikon-v2": 303, "hibou-b": 85.7, "hibou-l": 303.7,
    "midnight-12k": 1135, "lunit-s8": 21.7, "lunit-s16": 21.7, "gpfm": 303, "ctranspath": 27.5, "conch-v1.5": 306,
    "plip": 87.8, "resnet50": 8.54, "kaiko-s8": 21.7, "kaiko-s16": 21.7, "kaiko-b8": 85.8, "kaiko-b16": 85.8,
    "kaiko-l14": 304, "dinov2-s14": 22.1, "dinov2-b14": 86.6, "dinov3-s16": 21.6, "dinov3-b16": 85.7,
    "dinov3-l16": 303.1, "vit-s16": 21.7,
}  # fmt: skip
"""Parameters that cards and papers state, or for small networks timm."""


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_row_says_what_is_needed(name: str) -> None:
    row = CATALOGUE[name]
    assert row.name == name
    assert row.pooling in (*POOLINGS, "network")
    assert row.layout in LAYOUTS
    assert row.paper
    assert row.hub or row.file_sha256, "somewhere to get it from, or a way to know it"
    assert all(0 < value < 1 for part in row.norm for value in part)
    assert not row.revision or len(row.revision) == 40, "a commit, or nothing"
    assert json.loads(json.dumps(row.arguments)) == row.arguments, "the contract keeps the arguments as JSON"
    if row.mpp:
        seen = row.mpp[0] * row.tile_px / (row.resize_px or row.input_px)
        assert row.mpp[0] / 1.3 <= seen <= row.mpp[1] * 1.3, "the tiles it recommends are tiles it takes"


def test_the_names_of_the_field_are_there() -> None:
    assert set(PUBLISHED_MILLIONS) == set(CATALOGUE)


def test_those_trained_on_tcga_are_marked() -> None:
    marked = {name for name, row in CATALOGUE.items() if row.saw_tcga == "yes"}
    kaiko = {f"kaiko-{name}" for name in ("s8", "s16", "b8", "b16", "l14")}
    assert marked == {"phikon", "ctranspath", "lunit-s8", "lunit-s16", "midnight-12k"} | kaiko
    named = {name for name, row in CATALOGUE.items() if "TCGA" in row.pretraining_data}
    assert named == marked, "the words and the mark say the same"
    assert {name for name, row in CATALOGUE.items() if row.saw_tcga == "probably"} == {"phikon-v2", "gpfm", "h0-mini"}


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_network_has_the_published_size(name: str) -> None:
    row = CATALOGUE[name]
    module = networks.of_entry(row, device="meta")
    assert all(value.is_meta for value in module.parameters()), "no memory is taken"
    assert sum(value.numel() for value in module.parameters()) == row.parameters
    assert row.parameters == pytest.approx(PUBLISHED_MILLIONS[name] * 1e6, rel=0.005)


def shallow(row: Entry) -> Entry:
    """The row with two blocks (a stage), read in timm's own names."""
    depth = {"swin_tiny_patch4_window7_224": ("depths", (2, 2, 2, 2)), "resnet50": ("layers", (2, 2, 2, 2))}
    key, value = depth.get(row.architecture, ("depth", 2))
    return dataclasses.replace(row, arguments={**row.arguments, key: value}, layout="timm", file_sha256="")


def _drawn(row: Entry) -> torch.nn.Module:
    """The network with random weights; drawing them as timm does takes longest in this file."""
    module = networks.of_entry(row, device="meta")
    if {name for name, _ in module.named_buffers()} - set(module.state_dict()):
        return networks.of_entry(row)
    module = module.to_empty(device="cpu")
    random = torch.Generator().manual_seed(5)
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            value.uniform_(-0.05, 0.05, generator=random).add_(1.0 if name.endswith("running_var") else 0.0)
        else:
            value.zero_()
    return module


@pytest.mark.parametrize("name", CATALOGUE)
def test_from_a_file_to_vectors(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved, loaded and run through the real path, beside the network and the pooling written out here."""
    monkeypatch.setenv("WSI_MIL_WEIGHTS", str(tmp_path / "weights"))
    row = shallow(CATALOGUE[name])
    side, cut = row.resize_px or row.input_px, row.input_px
    module = _drawn(row)
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    encoder = from_entry(row, tile_px=side, tile_mpp=0.5, weights=str(tmp_path / "w.safetensors"))
    tiles = stained_tiles(1, side)
    features = encoder.encode(tiles)
    assert features.shape == (1, row.dim)

    first = (side - cut) // 2
    mean, std = (np.array(part) for part in row.norm)
    pixels = (tiles[:, first : first + cut, first : first + cut] / 255 - mean) / std
    with torch.inference_mode():
        module.eval()
        inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
        if row.pooling == "network":
            expected = module(inputs)
        else:
            tokens = module.forward_features(inputs)
            prefix = 1 + dict(row.arguments).get("reg_tokens", 4 if "reg4" in row.architecture else 0)
            prefix = 5 if "dinov3" in row.architecture else prefix
            parts = {"cls": tokens[:, 0], "mean": tokens[:, prefix:].mean(1)}
            expected = torch.cat([parts[part] for part in row.pooling.split("+")], dim=1)
    np.testing.assert_allclose(features, expected.numpy(), atol=2e-3 * max(1, expected.abs().max().item()))
    contract = encoder.contract
    assert (contract.dim, contract.input_px, contract.pooling) == (row.dim, row.input_px, row.pooling)
    assert contract.crop == ("none" if side == cut else f"middle {cut} px")
    assert json.loads(contract.architecture)["model"] == row.architecture


def test_the_page_shows_every_row_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "encoders.md").read_text()
    for row in CATALOGUE.values():
        line = next(line for line in page.splitlines() if line.startswith(f"| `{row.name}` |"))
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        told = [row.licence, row.commercial, {"yes": "gated", "no": "open"}.get(row.gated, "unknown"), row.saw_tcga]
        told.append(row.pretraining_data)
        known = ["?" if value == "unknown" else value for value in told]
        size = f"{row.parameters / 1e6:,.0f}"
        assert cells[1:] == [str(row.dim), row.pooling, size, row.scale, str(row.tile_px), *known, row.paper]
