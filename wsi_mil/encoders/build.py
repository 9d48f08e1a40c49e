"""Encoders by name: the offline one, rows of the catalogue, `timm:NAME`, `local:FOLDER`, and a network of one's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wsi_mil import files
from wsi_mil.encoders import layouts, networks, records, source, weights
from wsi_mil.encoders.catalogue import CATALOGUE
from wsi_mil.encoders.encoder import Encoder
from wsi_mil.encoders.entry import POOLINGS, Entry
from wsi_mil.encoders.network import NetworkEncoder, Transform, vectors_of
from wsi_mil.encoders.offline import NAME as OFFLINE
from wsi_mil.encoders.offline import OfflineEncoder
from wsi_mil.errors import EncoderError, unknown
from wsi_mil.grid import EncoderContract

TIMM, LOCAL = "timm:", "local:"

RANDOM = "random"
"""In place of a file of weights: an untrained network, always the same one."""

SAME_SCALE = 1.3
"""How far from the scale an encoder was trained at its input may be: 256 px at 0.5 resized to 224 are 1.14 times as
coarse and common practice; the next magnification of a scanner is twice."""


def build_encoder(
    name: str,
    *,
    tile_px: int,
    tile_mpp: float,
    precision: str = "fp32",
    weights: str | None = None,
    device: str = "cpu",
    pooling: str = "",
    any_scale: bool = False,
    compiled: bool = False,
) -> Encoder:
    """The encoder of a name, for tiles of `tile_px` pixels at `tile_mpp` micrometres per pixel.

    `weights` is a file, a folder, or "random" for an untrained network; without it the weights folder of this machine
    is looked at, then the hub. `pooling` is one of POOLINGS, or empty for the encoder's own. Raises EncoderError for an
    unknown name (with the nearest known one), for weights that are missing, damaged or of another network, for a scale
    the encoder was not trained at (unless `any_scale`), and for sizes or precisions it cannot take.
    """
    if name == OFFLINE:
        return _offline(tile_px=tile_px, tile_mpp=tile_mpp, precision=precision, weights=weights, device=device,
                        pooling=pooling)  # fmt: skip
    return from_entry(
        entry_of(name), tile_px=tile_px, tile_mpp=tile_mpp, precision=precision,
        weights=_local_folder(name) or weights, device=device, pooling=pooling, any_scale=any_scale, compiled=compiled,
    )  # fmt: skip


def entry_of(name: str) -> Entry:
    """What is known of a named network. Raises EncoderError for an unknown name."""
    if name in CATALOGUE:
        return CATALOGUE[name]
    if name.startswith(TIMM) and name != TIMM:
        return _of_timm(name)
    if name.startswith(LOCAL) and name != LOCAL:
        return _of_folder(name)
    raise EncoderError(unknown("encoder", name, [OFFLINE, *CATALOGUE, f"{TIMM}MODEL", f"{LOCAL}FOLDER"]))


def from_entry(
    entry: Entry,
    *,
    tile_px: int,
    tile_mpp: float,
    precision: str = "fp32",
    weights: str | None = None,
    device: str = "cpu",
    pooling: str = "",
    any_scale: bool = False,
    compiled: bool = False,
) -> NetworkEncoder:
    """The encoder of a row, as `build_encoder`; a row of one's own works as those of the catalogue do."""
    if pooling and pooling not in POOLINGS:
        raise EncoderError(unknown("pooling", pooling, POOLINGS))
    transform = Transform(entry.input_px, *entry.norm, resize_px=entry.resize_px, filter=entry.filter)
    if not any_scale:
        _check_scale(entry, transform, tile_px=tile_px, tile_mpp=tile_mpp)
    module, loaded = _loaded(entry, weights)
    facts: dict[str, Any] = loaded
    module.eval()
    pooling = pooling or entry.pooling
    contract = EncoderContract(
        name=entry.name,
        architecture=json.dumps({"model": entry.architecture, **entry.arguments}, sort_keys=True),
        input_px=entry.input_px,
        resize=transform.resize,
        crop=transform.crop,
        mean=transform.mean,
        std=transform.std,
        pooling=pooling,
        dim=_dim(module, pooling, entry),
        precision=precision,
        tile_px=tile_px,
        tile_mpp=tile_mpp,
        trained_mpp=entry.mpp,
        paper=entry.paper,
        saw_tcga=entry.saw_tcga,
        versions={"torch": torch.__version__, "timm": networks.import_timm().__version__},
        **facts,
    )
    return NetworkEncoder(module, contract, transform, device=device, compiled=compiled)


def module_encoder(
    module: nn.Module,
    *,
    name: str,
    transform: Transform,
    tile_px: int,
    tile_mpp: float,
    precision: str = "fp32",
    device: str = "cpu",
    **facts: Any,
) -> NetworkEncoder:
    """A network of one's own, from inputs [tile 3 side side] to vectors [tile dim], as an encoder.

    It is known by `name` and by the digest of its weights; `facts` are further fields of the contract, such as licence.
    The module is used as it is and set to evaluation; with a reduced precision its linear layers are rounded in place.
    """
    module.eval()
    contract = EncoderContract(
        name=name, revision="", weights_digest=weights.digest(module), source="a module from Python",
        architecture=json.dumps({"model": f"{type(module).__module__}.{type(module).__qualname__}"}),
        input_px=transform.input_px, resize=transform.resize, crop=transform.crop, mean=transform.mean,
        std=transform.std, pooling="network", dim=_measured(module, transform.input_px, name), precision=precision,
        tile_px=tile_px, tile_mpp=tile_mpp, **{"versions": {"torch": torch.__version__}, **facts},
    )  # fmt: skip
    return NetworkEncoder(module, contract, transform, device=device)


def _offline(
    *, tile_px: int, tile_mpp: float, precision: str, weights: str | None, device: str, pooling: str
) -> Encoder:
    if weights:
        raise EncoderError(
            f"encoder {OFFLINE!r} has no weights, but {weights!r} was given; leave extract.weights empty"
        )
    if pooling:
        raise EncoderError(f"encoder {OFFLINE!r} pools in its own way; leave extract.pooling empty, not {pooling!r}")
    return OfflineEncoder(tile_px=tile_px, tile_mpp=tile_mpp, precision=precision, device=device)


def _check_scale(entry: Entry, transform: Transform, *, tile_px: int, tile_mpp: float) -> None:
    """Refuse tiles that reach the network at a scale it never saw."""
    if not entry.mpp:
        return
    seen = tile_mpp * tile_px / transform.side_px
    if entry.mpp[0] / SAME_SCALE <= seen <= entry.mpp[-1] * SAME_SCALE:
        return
    wanted = f"tile.size_px={entry.tile_px} tile.mpp={entry.mpp[0]:g}"
    raise EncoderError(
        f"encoder {entry.name!r} was trained at {entry.scale} um per pixel, but tiles of {tile_px} px at {tile_mpp:g}, "
        f"resized to {transform.side_px} px, reach it at {seen:.3g}: lay them again with "
        f"`wsi-mil tile STUDY.yaml {wanted} --work WORK --redo` (and write {wanted} into the study), or set "
        "extract.any_scale=true to go on all the same"
    )


def _loaded(entry: Entry, given: str | None) -> tuple[nn.Module, dict[str, str]]:
    """The network with its weights, and what its contract says of them."""
    if given == RANDOM:
        module = networks.of_entry(entry)
        facts = {"revision": "", "source": f"untrained, seed {networks.SEED}", "licence": "none (untrained)"}
        return module, {**facts, "weights_digest": weights.digest(module)}
    origin = source.find(wanted_of(entry), given or "")
    _check_file(entry, origin.path)
    module = networks.of_entry(entry, device="meta")
    if _has_hidden_buffers(module):
        # Made of numbers that no file holds, so they must be computed.
        module = networks.of_entry(entry)
    named = layouts.LAYOUTS[entry.layout](weights.read(origin.path, name=entry.name))
    weights.fit(module, _without_classifier(named, module), name=entry.name, where=str(origin.path))
    known = records.check_record(
        entry.name, weights_digest=weights.digest(module), revision=origin.revision, licence=origin.licence,
        source=origin.source,
    )  # fmt: skip
    facts = {"revision": known["revision"], "weights_digest": known["weights_digest"], "source": origin.source}
    return module, {**facts, "licence": known["licence"] or entry.licence}


def wanted_of(entry: Entry) -> source.Wanted:
    """What to look for."""
    return source.Wanted(entry.name, entry.hub, entry.file, entry.revision, entry.gated)


def where_installed(entry: Entry) -> str:
    """Where this machine has the weights: "yes" in its weights folder, "hub" in the cache of the hub, or "no"."""
    wanted = wanted_of(entry)
    if source.installed(wanted) is not None:
        return "yes"
    return "hub" if source.cached(wanted) is not None else "no"


def _check_file(entry: Entry, path: Path) -> None:
    if not entry.file_sha256 or path.suffix == ".safetensors":
        return
    found = files.digest_file(path)
    if found != entry.file_sha256:
        raise EncoderError(
            f"encoder {entry.name!r}: {str(path)!r} is not the published file (SHA-256 {found[:12]}, expected "
            f"{entry.file_sha256[:12]}): cut short or another model; get it again, or give a .safetensors of your own"
        )


def _has_hidden_buffers(module: nn.Module) -> bool:
    kept = set(module.state_dict())
    return any(name not in kept for name, _ in module.named_buffers())


def _without_classifier(named: Mapping[str, torch.Tensor], module: nn.Module) -> dict[str, torch.Tensor]:
    """The classifier was left out on purpose; everything else must fit exactly."""
    config = getattr(networks.trunk_of(module), "pretrained_cfg", None) or {}
    heads = config.get("classifier") or ()
    heads = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
    wanted = module.state_dict()
    return {key: value for key, value in named.items() if key in wanted or not key.startswith(heads)}


def _of_timm(name: str) -> Entry:
    """A row for a model of timm, as its own configuration says it."""
    model = name.removeprefix(TIMM)
    module = networks.create(model, {}, device="meta")
    return _row(name, model, {}, dict(getattr(module, "pretrained_cfg", None) or {}))


def _of_folder(name: str) -> Entry:
    """A row for a folder with config.json as timm saves it for a hub."""
    folder = Path(name.removeprefix(LOCAL))
    path = folder / "config.json"
    try:
        told = files.read_json(path)
        model, arguments = str(told["architecture"]), dict(told.get("model_args") or {})
        config = dict(told.get("pretrained_cfg") or {})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EncoderError(
            f"encoder {name!r}: {str(path)!r} does not say which network this is ({type(error).__name__}: {error}); "
            "give a folder as timm saves it (config.json with `architecture` and the weights), or "
            "extract.encoder=timm:MODEL extract.weights=FILE"
        ) from error
    row = _row(f"{LOCAL}{folder.name}", model, arguments, config)
    return replace(row, hub="")


def _row(name: str, model: str, arguments: dict[str, Any], config: dict[str, Any]) -> Entry:
    norm = tuple(tuple(config.get(key, (0.5, 0.5, 0.5))) for key in ("mean", "std"))
    return Entry(
        name, name, model, 0, 0, "network", norm,  # type: ignore[arg-type]
        arguments, input_px=int(config.get("input_size", (3, 224, 224))[1]),
        filter="bicubic" if config.get("interpolation") == "bicubic" else "bilinear",
        hub=str(config.get("hf_hub_id") or ""), licence=str(config.get("license") or "unknown"),
    )  # fmt: skip


def _local_folder(name: str) -> str:
    return name.removeprefix(LOCAL) if name.startswith(LOCAL) else ""


def _dim(module: nn.Module, pooling: str, entry: Entry) -> int:
    """Length of a vector: of a vision transformer from its width, else from one blank image."""
    if pooling != "network":
        vectors_of(module, pooling, name=entry.name)
        width = int(networks.trunk_of(module).num_features)
        return 2 * width if pooling == "cls+mean" else width
    return entry.dim or _measured(module, entry.input_px, entry.name)


def _measured(module: nn.Module, input_px: int, name: str) -> int:
    with torch.inference_mode():
        vectors = module(torch.zeros(1, 3, input_px, input_px))
    if not isinstance(vectors, torch.Tensor) or vectors.ndim != 2:
        shape = tuple(vectors.shape) if isinstance(vectors, torch.Tensor) else type(vectors).__name__
        raise EncoderError(f"encoder {name!r} gives {shape} and not one vector a tile; choose another")
    return int(vectors.shape[1])
