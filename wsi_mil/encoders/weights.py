"""Files of weights: read without running anything that is in them, and put into a network only where all fits."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from wsi_mil import files
from wsi_mil.errors import EncoderError

WRAPPERS = ("state_dict", "model", "teacher")
"""Keys under which training programs put a network's weights beside other things."""

LISTED_KEYS = 5
"""How many names of missing or surplus weights an error shows."""


def read(path: Path, *, name: str) -> dict[str, Tensor]:
    """The named tensors of a .safetensors file or of a state dict; a file that holds more than tensors is refused.

    Raises EncoderError with the file and the reason.
    """
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
        raise EncoderError(
            f"encoder {name!r}: the weights in {str(path)!r} cannot be read ({_first_line(error)}): cut short or no "
            "file of weights; get it again"
        ) from error
    for key in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise EncoderError(f"encoder {name!r}: {str(path)!r} is not a table of named tensors")
    return loaded


def fit(module: nn.Module, weights: Mapping[str, Tensor], *, name: str, where: str) -> None:
    """Put weights into a network, in place; names and shapes must agree exactly.

    Raises EncoderError that names what is missing, surplus, of another shape or not finite.
    """
    wanted = module.state_dict()
    missing, surplus = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    if missing or surplus:
        raise EncoderError(
            f"encoder {name!r}: the weights in {where!r} are of another network (missing: {_listed(missing)}; "
            f"surplus: {_listed(surplus)}); give the file that belongs to {name!r}"
        )
    for key, value in weights.items():
        if value.shape != wanted[key].shape:
            raise EncoderError(
                f"encoder {name!r}: weight {key!r} in {where!r} has shape {tuple(value.shape)}, "
                f"the network needs {tuple(wanted[key].shape)}"
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise EncoderError(
                f"encoder {name!r}: weight {key!r} in {where!r} holds NaN or infinity: the file is damaged, or of a "
                "training that failed"
            )
    # Assigned and not copied, so that a network made without memory takes the file's own.
    whole = {key: value.float() if value.is_floating_point() else value for key, value in weights.items()}
    module.load_state_dict(whole, strict=True, assign=True)


def digest(module: nn.Module) -> str:
    """SHA-256 over a network's tensors and their names, the same whatever kind of file they came in."""
    sha = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        sha.update(files.digest(key, str(value.dtype), str(tuple(value.shape))).encode())
        sha.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - LISTED_KEYS} more" if len(keys) > LISTED_KEYS else ""
    return (", ".join(keys[:LISTED_KEYS]) or "none") + more


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
