"""Encoders of the timm library by name, with weights from a local file or drawn at random; nothing is downloaded."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn
from torch.nn import functional

from wsi_mil import files
from wsi_mil.encoders.encoder import PRECISIONS, Encoder
from wsi_mil.errors import EncoderError, MissingExtra, unknown
from wsi_mil.grid import EncoderContract

PREFIX = "timm:"

RANDOM = "random"
"""In place of a file of weights: an untrained network, always the same one."""

SEED = 0

WRAPPERS = ("state_dict", "model")
"""Keys under which training programs put a network's weights beside other things."""

LISTED_KEYS = 5
"""How many names of missing or surplus weights an error shows."""


class TimmEncoder(Encoder):
    """A network of timm: the whole tile, resized to the network's input and normalised, pooled as the network does."""

    def __init__(
        self,
        name: str,
        *,
        tile_px: int,
        tile_mpp: float,
        weights: str | None,
        precision: str = "fp32",
        device: str = "cpu",
    ) -> None:
        model = name.removeprefix(PREFIX)
        if not weights:
            raise EncoderError(
                f"encoder {name!r} needs weights: name a .safetensors or .pt file of them (extract.weights), "
                f"or {RANDOM!r} for an untrained network"
            )
        module = _create(model)
        if weights != RANDOM:
            _load(module, Path(weights), name=name)
        module.eval().requires_grad_(requires_grad=False)
        contract = _contract(name, module, weights=weights, precision=precision, tile_px=tile_px, tile_mpp=tile_mpp)
        super().__init__(contract, device=device)
        self._module = module.to(self.device).to(memory_format=torch.channels_last)
        self._mean = torch.tensor(contract.mean, device=self.device)[:, None, None] * 255
        self._std = torch.tensor(contract.std, device=self.device)[:, None, None] * 255

    def _forward(self, tiles: UInt8[Tensor, "tile size size 3"]) -> Tensor:
        pixels = self._prepared(tiles).contiguous(memory_format=torch.channels_last)
        reduced = PRECISIONS[self.contract.precision]
        with torch.autocast(self.device.type, dtype=reduced, enabled=reduced is not torch.float32):
            vectors: Tensor = self._module(pixels)
        return vectors

    def _prepared(self, tiles: UInt8[Tensor, "tile size size 3"]) -> Float32[Tensor, "tile 3 input input"]:
        pixels = tiles.permute(0, 3, 1, 2).float()
        side = self.contract.input_px
        if pixels.shape[-1] != side:
            filter_name = self.contract.resize.split()[0]
            pixels = functional.interpolate(
                pixels, size=(side, side), mode=filter_name, antialias=True, align_corners=False
            ).clamp_(0, 255)
        return (pixels - self._mean) / self._std


def _create(model: str) -> nn.Module:
    """An untrained network without its classifier, always drawn from the same seed."""
    timm = _timm()
    if not timm.is_model(model):
        raise EncoderError(unknown("timm model", model, timm.list_models()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        module: nn.Module = timm.create_model(model, pretrained=False, num_classes=0)
    return module


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise MissingExtra("timm", extra="timm", purpose="an encoder of timm") from error
    except RuntimeError as error:
        if "torchvision::nms" in str(error):
            raise EncoderError(
                "timm cannot be imported, since torchvision was built for another build of torch (operator "
                "torchvision::nms does not exist); install both from the same index, for a machine without a GPU: "
                "pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu"
            ) from error
        raise
    return timm


def _load(module: nn.Module, path: Path, *, name: str) -> None:
    """Put the weights of a file into a network; the file can hold nothing but tensors."""
    weights = _read(path, name=name)
    config = getattr(module, "pretrained_cfg", {})
    heads = config.get("classifier") or ()
    heads = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
    wanted = module.state_dict()
    # The classifier was left out on purpose; everything else must fit exactly.
    given = {key: value for key, value in weights.items() if key in wanted or not key.startswith(heads)}
    missing, surplus = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing or surplus:
        raise EncoderError(
            f"encoder {name!r}: the weights in {str(path)!r} are of another network (missing: {_listed(missing)}; "
            f"surplus: {_listed(surplus)}); give the file that belongs to {name!r}"
        )
    for key, value in given.items():
        if value.shape != wanted[key].shape:
            raise EncoderError(
                f"encoder {name!r}: weight {key!r} in {str(path)!r} has shape {tuple(value.shape)}, "
                f"the network needs {tuple(wanted[key].shape)}"
            )
    module.load_state_dict(given, strict=True)


def _read(path: Path, *, name: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise EncoderError(f"encoder {name!r}: there is no file of weights at {str(path)!r}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise EncoderError(
            f"encoder {name!r}: {str(path)!r} holds more than tensors, and opening it could run a stranger's code; "
            "refused. Get the weights as .safetensors"
        ) from error
    except Exception as error:  # noqa: BLE001 - both libraries raise many kinds for a damaged file
        raise EncoderError(f"encoder {name!r}: the weights in {str(path)!r} cannot be read ({error})") from error
    for key in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise EncoderError(f"encoder {name!r}: {str(path)!r} is not a table of named tensors")
    return loaded


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - LISTED_KEYS} more" if len(keys) > LISTED_KEYS else ""
    return (", ".join(keys[:LISTED_KEYS]) or "none") + more


def _contract(
    name: str, module: nn.Module, *, weights: str, precision: str, tile_px: int, tile_mpp: float
) -> EncoderContract:
    config: dict[str, Any] = getattr(module, "pretrained_cfg", {})
    filter_name = "bicubic" if config.get("interpolation") == "bicubic" else "bilinear"
    input_px = int(config.get("input_size", (3, 224, 224))[1])
    arguments = {"model": name.removeprefix(PREFIX), "num_classes": 0}
    return EncoderContract(
        name=name,
        revision=f"untrained, seed {SEED}" if weights == RANDOM else "local file",
        weights_digest=_digest(module),
        architecture=json.dumps(arguments, sort_keys=True),
        input_px=input_px,
        resize=f"{filter_name} with antialiasing, on values of 0 to 255, not rounded",
        crop="none",
        mean=tuple(config.get("mean", (0.5, 0.5, 0.5))),
        std=tuple(config.get("std", (0.5, 0.5, 0.5))),
        pooling=_pooling(module),
        dim=_dim(name, module, input_px),
        precision=precision,
        tile_px=tile_px,
        tile_mpp=tile_mpp,
        licence=str(config.get("license", "unknown")) if weights != RANDOM else "none (untrained)",
        versions={"torch": torch.__version__, "timm": _timm().__version__},
    )


def _pooling(module: nn.Module) -> str:
    """What timm calls the network's pooling: "avg", "token", "map" ..."""
    pool = getattr(module, "global_pool", None) or getattr(getattr(module, "head", None), "global_pool", None)
    return str(getattr(pool, "pool_type", pool) or "as in timm")


def _dim(name: str, module: nn.Module, input_px: int) -> int:
    """Length of a vector, from one blank image: timm's networks do not all state it the same way."""
    with torch.inference_mode():
        vectors = module(torch.zeros(1, 3, input_px, input_px))
    if vectors.ndim != 2:
        raise EncoderError(
            f"encoder {name!r} gives shape {tuple(vectors.shape)} and not one vector a tile; choose another"
        )
    return int(vectors.shape[1])


def _digest(module: nn.Module) -> str:
    """SHA-256 over the network's tensors and their names, the same whatever kind of file they came in."""
    parts: list[bytes | str] = []
    for key, value in sorted(module.state_dict().items()):
        parts += [key, str(value.dtype), str(tuple(value.shape)), value.cpu().contiguous().numpy().tobytes()]
    return files.digest(*parts)
