"""Tissue by a segmentation network from a local file: any geometry that the file states, none shipped.

The file is a safetensors checkpoint whose metadata holds one key, `wsi_mil`, with this JSON:

    {"architecture": "unet",                        or torchvision:NAME, or smp:NAME
     "arguments": {"widths": [16, 32, 64]},         of the architecture, without the number of classes
     "mpp": 10.0, "patch_px": 512,                  scale and side of what the network sees
     "classes": ["tissue", "background"],           its outputs in order
     "tissue": ["tissue"],                          those that count as tissue
     "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
     "jpeg_quality": 80}                            optional: the picture goes through JPEG first

GrandQC (Weng et al., Nature Communications 2024) in these terms. Tissue: UNet++ on efficientnet-b0
(smp:UnetPlusPlus, encoder_name efficientnet-b0), 512 px at 10 um/px, classes tissue, background, trained on JPEGs, so
that it needs the recompression. Artefacts: 512 px at 1, 1.5 or 2 um/px, eight outputs, of which 1 is tissue, 2 fold,
3 dark spot or foreign body, 4 pen, 5 air bubble or edge, 6 out of focus, 7 background. Its weights are
CC-BY-NC-SA-4.0: convert them yourself, for purposes that licence allows.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor, nn

from wsi_mil import files
from wsi_mil.errors import MissingExtra, SlideError, unknown

KEY = "wsi_mil"
"""Of the metadata that holds the JSON."""

OVERLAP_PX = 64
"""How far neighbouring patches reach into each other: near its edge a network sees too little to be sure."""

PATCHES = 4
"""Patches in one pass."""

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class TissueNetwork:
    """A segmentation network and the geometry it was trained with."""

    module: nn.Module
    mpp: float
    """Micrometres per pixel of the pictures it takes."""
    patch_px: int
    classes: tuple[str, ...]
    tissue: tuple[str, ...]
    """The classes that count as tissue."""
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]
    jpeg_quality: int | None = None
    device: str = "cpu"
    digest: str = field(default="", compare=False)
    """SHA-256 of the file."""

    def find(self, rgb: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
        """Pixels of a picture at `mpp` whose most probable class is tissue; beyond the picture the network sees white.

        Patches overlap and probabilities are averaged where they do.
        """
        rgb = _through_jpeg(rgb, self.jpeg_quality) if self.jpeg_quality else rgb
        height, width = rgb.shape[:2]
        rows, columns = (_starts(side, self.patch_px) for side in (height, width))
        shape = rows[-1] + self.patch_px, columns[-1] + self.patch_px
        padded = np.full((*shape, 3), 255, np.uint8)
        padded[:height, :width] = rgb
        summed = np.zeros((len(self.classes), *shape), np.float32)
        places = [(top, left) for top in rows for left in columns]
        for start in range(0, len(places), PATCHES):
            part = places[start : start + PATCHES]
            patches = np.stack([padded[y : y + self.patch_px, x : x + self.patch_px] for y, x in part])
            for (y, x), probabilities in zip(part, self._probabilities(patches), strict=True):
                summed[:, y : y + self.patch_px, x : x + self.patch_px] += probabilities
        best = summed[:, :height, :width].argmax(axis=0)
        return np.isin(best, [self.classes.index(name) for name in self.tissue])

    def _probabilities(
        self, patches: UInt8[np.ndarray, "patch side side 3"]
    ) -> Float[np.ndarray, "patch class side side"]:
        pixels = torch.from_numpy(patches).to(self.device).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(values, device=self.device)[:, None, None] for values in (self.mean, self.std))
        with torch.inference_mode():
            logits = self.module((pixels - mean) / std)
            # torchvision's networks give their answers by name.
            logits = logits["out"] if isinstance(logits, dict) else logits
            probabilities: np.ndarray = logits.float().softmax(dim=1).cpu().numpy()
        wanted = (len(patches), len(self.classes), self.patch_px, self.patch_px)
        if probabilities.shape != wanted:
            raise SlideError(
                f"the tissue network gives shape {probabilities.shape} where {wanted} was expected: "
                "correct `classes` and `patch_px` in its metadata"
            )
        return probabilities


def load_network(path: Path, *, device: str = "cpu") -> TissueNetwork:
    """The network in a file. Raises SlideError where the file is broken, says too little, or holds another network."""
    told, weights = _read(path)
    lacking = [key for key in ("architecture", "mpp", "patch_px", "classes", "tissue") if key not in told]
    if lacking:
        raise SlideError(f"tissue network {path.name}: its metadata lacks {', '.join(lacking)}")
    classes, tissue = tuple(map(str, told["classes"])), tuple(map(str, told["tissue"]))
    strange = [name for name in tissue if name not in classes]
    if strange or not tissue:
        raise SlideError(f"tissue network {path.name}: `tissue` must name some of {', '.join(classes)}, not {strange}")
    module = _build(str(told["architecture"]), dict(told.get("arguments") or {}), classes=len(classes), where=path.name)
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise SlideError(
            f"tissue network {path.name}: the weights are not those of {told['architecture']!r} with these arguments "
            f"({reason})"
        ) from error
    module.eval().requires_grad_(requires_grad=False).to(device)
    return TissueNetwork(
        module,
        mpp=float(told["mpp"]),
        patch_px=int(told["patch_px"]),
        classes=classes,
        tissue=tissue,
        mean=tuple(told.get("mean") or IMAGENET[0]),
        std=tuple(told.get("std") or IMAGENET[1]),
        jpeg_quality=told.get("jpeg_quality"),
        device=device,
        digest=files.digest_file(path),
    )


class UNet(nn.Module):
    """A small U-Net (Ronneberger et al., MICCAI 2015): `widths` channels a level, halved in size from each to the next.

    Takes [patch 3 side side] with a side that 2 ** (levels - 1) divides, gives logits [patch class side side].
    """

    def __init__(self, *, classes: int, widths: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__()
        inputs = (3, *widths[:-1])
        self.down = nn.ModuleList([_block(before, width) for before, width in zip(inputs, widths, strict=True)])
        pairs = list(zip(widths[:-1], widths[1:], strict=True))[::-1]
        self.up = nn.ModuleList([_block(fine + coarse, fine) for fine, coarse in pairs])
        self.head = nn.Conv2d(widths[0], classes, kernel_size=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits of each pixel."""
        kept: list[Tensor] = []
        for number, block in enumerate(self.down):
            pixels = block(pixels if number == 0 else nn.functional.max_pool2d(pixels, 2))
            kept.append(pixels)
        for block, fine in zip(self.up, kept[-2::-1], strict=True):
            pixels = block(torch.cat([fine, nn.functional.interpolate(pixels, size=fine.shape[-2:])], dim=1))
        logits: Tensor = self.head(pixels)
        return logits


def _block(before: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, width):
        layers += [nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers)


def _build(architecture: str, arguments: dict[str, Any], *, classes: int, where: str) -> nn.Module:
    library, _, name = architecture.rpartition(":")
    try:
        if architecture == "unet":
            return UNet(classes=classes, **arguments)
        if library == "torchvision":
            return _torchvision(name, arguments, classes=classes)
        if library == "smp":
            return _smp(name, arguments, classes=classes)
    except TypeError as error:
        raise SlideError(f"tissue network {where}: {architecture!r} does not take these arguments ({error})") from error
    known = ["unet", "torchvision:NAME", "smp:NAME"]
    raise SlideError(f"tissue network {where}: {unknown('architecture', architecture, known)}")


def _torchvision(name: str, arguments: dict[str, Any], *, classes: int) -> nn.Module:
    try:
        from torchvision.models import segmentation
    except ImportError as error:
        raise MissingExtra("torchvision", extra="timm", purpose="this tissue network") from error
    builder = getattr(segmentation, name, None)
    if builder is None or name.startswith("_"):
        known = [key for key in dir(segmentation) if key.islower() and not key.startswith("_")]
        raise SlideError(unknown("segmentation network of torchvision", name, known))
    network: nn.Module = builder(weights=None, weights_backbone=None, num_classes=classes, **arguments)
    return network


def _smp(name: str, arguments: dict[str, Any], *, classes: int) -> nn.Module:
    try:
        import segmentation_models_pytorch as smp
    except ImportError as error:
        raise MissingExtra(
            "segmentation_models_pytorch", extra="segmentation", purpose="this tissue network"
        ) from error
    builder = getattr(smp, name, None)
    if builder is None:
        raise SlideError(
            unknown("network of segmentation_models_pytorch", name, [key for key in dir(smp) if key[0].isupper()])
        )
    network: nn.Module = builder(encoder_weights=None, classes=classes, **arguments)
    return network


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise SlideError(f"there is no tissue network at {str(path)!r}: correct tissue.weights")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except SafetensorError as error:
        raise SlideError(f"tissue network {path.name} is no safetensors file, or is not whole ({error})") from error
    if text is None:
        raise SlideError(
            f"tissue network {path.name} does not say what it is: its metadata needs a key {KEY!r} with JSON of "
            "architecture, mpp, patch_px, classes and tissue"
        )
    try:
        told = json.loads(text)
    except ValueError as error:
        raise SlideError(f"tissue network {path.name}: the metadata under {KEY!r} is not JSON ({error})") from error
    return told, weights


def _starts(side: int, patch_px: int) -> list[int]:
    """Where patches begin along a side, the last one reaching its end or beyond."""
    step = max(1, patch_px - OVERLAP_PX) if patch_px > 2 * OVERLAP_PX else patch_px
    return list(range(0, max(1, side - (patch_px - step)), step))


def _through_jpeg(rgb: UInt8[np.ndarray, "h w 3"], quality: int) -> UInt8[np.ndarray, "h w 3"]:
    data = io.BytesIO()
    Image.fromarray(rgb).save(data, format="jpeg", quality=quality)
    return np.asarray(Image.open(data).convert("RGB"))
