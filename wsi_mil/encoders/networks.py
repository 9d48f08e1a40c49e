"""Networks by name and arguments, untrained: timm's, with the few parts that timm has not."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from wsi_mil.encoders.entry import Entry
from wsi_mil.encoders.towers import TOWERS, ConvStem
from wsi_mil.errors import EncoderError, MissingExtra, unknown

SEED = 0
"""Of every untrained network, so that it is always the same one."""


def create(architecture: str, arguments: Mapping[str, Any], *, dim: int = 0, device: str = "cpu") -> nn.Module:
    """An untrained network without its classifier, the same at each call.

    `arguments` are timm's, with layers by name, and besides `norm_eps` (of every layer norm) and `tower` (see TOWERS,
    which give vectors of `dim`). On the device "meta" no memory is taken. Raises EncoderError for an unknown name.
    """
    timm = import_timm()
    if not timm.is_model(architecture):
        raise EncoderError(unknown("timm model", architecture, timm.list_models()))
    values = {name: _resolved(value) for name, value in arguments.items() if name not in ("tower", "norm_eps")}
    if "norm_eps" in arguments:
        values["norm_layer"] = functools.partial(nn.LayerNorm, eps=arguments["norm_eps"])
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(SEED)
        try:
            module: nn.Module = timm.create_model(architecture, pretrained=False, num_classes=0, **values)
        except TypeError as error:
            raise EncoderError(f"timm model {architecture!r} does not take these arguments: {error}") from error
        if "tower" in arguments:
            module = TOWERS[arguments["tower"]](module, dim=dim)
    return module


def of_entry(entry: Entry, *, device: str = "cpu") -> nn.Module:
    """The untrained network of a row of the catalogue."""
    return create(entry.architecture, entry.arguments, dim=entry.dim, device=device)


def trunk_of(module: nn.Module) -> Any:
    """The network of timm inside a tower, or the network itself."""
    return getattr(module, "trunk", module)


def import_timm() -> Any:
    """The library; raises MissingExtra without it, EncoderError where it cannot be imported."""
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


def _resolved(value: Any) -> Any:
    """A layer for its name; all else as it is."""
    if value == "SwiGLUPacked":
        return import_timm().layers.SwiGLUPacked
    return {"SiLU": nn.SiLU, "ConvStem": ConvStem}.get(value, value) if isinstance(value, str) else value
