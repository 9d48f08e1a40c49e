"""A trained model on disk: weights as safetensors, all else as one JSON; nothing that is run when it is opened."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from wsi_mil.cohort import ClinicalEncoder
from wsi_mil.errors import ModelError, WsiMilError
from wsi_mil.files import read_json, write_bytes, write_json
from wsi_mil.grid import EncoderContract
from wsi_mil.models import MIL, build_model
from wsi_mil.tasks import Task, task_from_json
from wsi_mil.version import __version__

WEIGHTS = "model.safetensors"
RECORD = "model.json"
FORMAT = 1
"""Raised when a reader of the old number could not read the new."""

LISTS = ("slides", "scaled_on", "recorded_on", "patients", "fingerprints", "digests")
"""Fields of `Training` that are lists of words; a record written before one of them was kept has none of it."""

_PICKLES = (".pt", ".pth", ".pkl", ".ckpt", ".bin")


@dataclass(frozen=True)
class Training:
    """How the weights came to be."""

    slides: tuple[str, ...]
    """All slides that the weights or the choice of the epoch depend on: never to be tested on."""
    seed: int
    repeat: int
    fold: int
    epoch: int
    chosen_by: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    scaled_on: tuple[str, ...] = ()
    """Slides whose tiles were read to fit the scaler of the features, as the fit counted them."""
    recorded_on: tuple[str, ...] = ()
    """Slides whose rows of the table were read to fit the encoder of the clinical record."""
    patients: tuple[str, ...] = ()
    """Of each of `slides` a digest of its patient's id: models are given away, ids are not."""
    fingerprints: tuple[str, ...] = ()
    """Of each of `slides` that of its file."""
    digests: tuple[str, ...] = ()
    """Of each of `slides` that of its features: with it a slide is known again under another name."""


@dataclass(frozen=True)
class Checkpoint:
    """A model with what it may be used for."""

    model: MIL
    """In evaluation mode, on the CPU."""
    task: Task
    contract: EncoderContract
    training: Training
    versions: dict[str, str]
    """Libraries that trained it; shown, never compared."""
    clinical: ClinicalEncoder | None = None
    """How records become the numbers that the model reads, fitted on its training slides."""


def save_checkpoint(
    folder: Path,
    *,
    model: MIL,
    task: Task,
    contract: EncoderContract,
    training: Training,
    clinical: ClinicalEncoder | None = None,
) -> None:
    """Write model.safetensors and model.json into a folder, the JSON last: where it is, the weights are whole."""
    weights = save_tensors({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()})
    write_bytes(folder / WEIGHTS, weights)
    spec = model.spec
    record = {
        "format": FORMAT,
        "model": {**spec._asdict(), "factors": list(spec.factors)},
        "task": task.to_json(),
        "encoder": contract.to_dict(),
        "clinical": None if clinical is None else clinical.to_json(),
        "training": {
            **vars(training),
            **{name: list(getattr(training, name)) for name in LISTS},
            "settings": dict(training.settings),
        },
        "versions": {"wsi_mil": __version__, "torch": str(torch.__version__)},
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    write_json(folder / RECORD, record)


def load_checkpoint(folder: Path) -> Checkpoint:
    """The model in a folder, rebuilt from names and numbers. Pickles are never opened.

    ModelError, with the file and the remedy, where a file is missing, cut off, changed or not a checkpoint's.
    """
    record, weights = _read(folder)
    try:
        spec = dict(record["model"])
        model = build_model(
            spec["name"],
            dim=spec["dim"],
            n_out=spec["n_out"],
            factors=tuple(spec["factors"]),
            fusion=spec.get("fusion", "none"),
            **spec["options"],
        )
        told = record["training"]
        lists = {name: tuple(told.get(name, ())) for name in LISTS}
        training = Training(**{**told, **lists})
        contract = EncoderContract.from_dict(record["encoder"])
        task = task_from_json(record["task"])
        fitted = record.get("clinical")
        clinical = None if fitted is None else ClinicalEncoder.from_json(fitted)
        versions = {str(name): str(value) for name, value in record["versions"].items()}
    except (KeyError, TypeError, ValueError, WsiMilError) as error:
        raise ModelError(f"{folder / RECORD} does not describe a model this version can build: {error}") from error
    try:
        model.load_state_dict(load_tensors(weights))
    except (SafetensorError, RuntimeError) as error:
        raise ModelError(f"{folder / WEIGHTS} does not fit {folder / RECORD}: {error}; train it again") from error
    model.eval()
    return Checkpoint(model, task, contract, training, versions, clinical)


def require_contract(checkpoint: Checkpoint, contract: EncoderContract, *, where: str) -> None:
    """Refuse features of another encoder than the model was trained on; `where` names the bag or the slide."""
    differences = checkpoint.contract.difference(contract)
    if differences:
        raise ModelError(
            f"{where}: its features are not what the model was trained on ({'; '.join(differences)}); "
            "extract it with the model's encoder"
        )


def model_hash(folder: Path) -> str:
    """SHA-256 of a checkpoint's weights, as its record has it: names the model in what is made with it."""
    return str(_read(folder)[0]["weights_sha256"])


def _read(folder: Path) -> tuple[dict[str, Any], bytes]:
    """The record and the bytes of the weights, known to belong together."""
    for name in (RECORD, WEIGHTS):
        if not (folder / name).is_file():
            raise ModelError(f"{folder} holds no {name}{_pickle_hint(folder)}; give the folder of a trained model")
    try:
        record = read_json(folder / RECORD)
    except ValueError as error:
        raise ModelError(f"{folder / RECORD} is cut off or not JSON ({error}); train it again") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        found = record.get("format") if isinstance(record, dict) else type(record).__name__
        raise ModelError(
            f"{folder / RECORD} has format {found!r} and wsi_mil {__version__} reads {FORMAT}; "
            "it is of another program or another version"
        )
    weights = (folder / WEIGHTS).read_bytes()
    if hashlib.sha256(weights).hexdigest() != record.get("weights_sha256"):
        raise ModelError(f"{folder / WEIGHTS} is cut off or not the one {RECORD} was written for; train it again")
    return record, weights


def _pickle_hint(folder: Path) -> str:
    pickles = sorted(path.name for path in folder.glob("*") if path.suffix in _PICKLES) if folder.is_dir() else []
    return f" but {pickles[0]}, a pickle, which is never opened because it could run code" if pickles else ""
