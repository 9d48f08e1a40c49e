"""What a stage remembers on disk: how it was made (stage.json) and a record of each item (.made/)."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from wsi_mil import files
from wsi_mil.errors import EmptyItem, StageError
from wsi_mil.layout import STAGE_JSON, record
from wsi_mil.stages.stage import Item, Outcome, Stage
from wsi_mil.stages.work import Work

LIBRARIES = ("wsi_mil", "torch", "numpy", "scikit-learn", "scikit-image", "openslide-python", "openslide-bin", "timm")


def chain(stage: Stage, work: Work) -> dict[str, Any]:
    """All configuration that decides what a stage makes: its own, its extra sections', that of the stages before."""
    told: dict[str, Any] = {}
    for name in stage.after:
        told |= chain(work.stage(name), work)
    for section in (*stage.reads, stage.name):
        told[section] = _told(getattr(work.study, section).model_dump())
    return told


def check_chain(stage: Stage, work: Work, *, redo: bool) -> None:
    """Refuse to mix outputs of two configurations; write stage.json where the folder is new or redone.

    Raises StageError with the fields that differ, for this stage and every stage before it.
    """
    for name in (*_before(stage, work), stage.name):
        other = work.stage(name)
        path = other.folder(work) / STAGE_JSON
        if not path.exists() or (redo and name == stage.name):
            continue
        differences = _differences(files.read_json(path)["configuration"], chain(other, work))
        if differences:
            where = path.parent.relative_to(work.root)
            raise StageError(
                f"{where}/ was made with another configuration ({'; '.join(differences)}): "
                f"use another work folder, or make it again with `wsi-mil {name} ... --redo`"
            )
    path = stage.folder(work) / STAGE_JSON
    if redo or not path.exists():
        files.write_json(path, {"stage": stage.name, "configuration": chain(stage, work), "versions": versions()})


def inputs_digest(stage: Stage, item: Item, work: Work) -> str:
    """Digest of all that an item is made from: the configuration and the item's own inputs."""
    return files.digest(files.digest_json(chain(stage, work)), *stage.inputs(item, work))


def read_record(stage: Stage, name: str, work: Work) -> dict[str, Any] | None:
    """The record of an item, or None where there is none."""
    path = record(stage.folder(work), name)
    try:
        value: dict[str, Any] = files.read_json(path)
    except FileNotFoundError:
        return None
    return value


def write_record(stage: Stage, outcome: Outcome, work: Work, *, inputs: str, output: Path) -> None:
    """Remember what became of an item. Written after the output is in its place."""
    files.write_json(
        record(stage.folder(work), outcome.item),
        {
            "outcome": outcome.kind,
            "why": outcome.why,
            "inputs": inputs,
            "output": files.digest_file(output) if stage.editable and output.is_file() else "",
            "seconds": round(outcome.seconds, 3),
            "facts": outcome.facts,
        },
    )


def require(name: str, item: str, work: Work) -> Path:
    """The output of an earlier stage for an item.

    Raises EmptyItem where that stage found nothing, StageError where it failed or was not run. What an earlier run left
    is not the output of one that failed, unless a person has edited it since.
    """
    stage = work.stage(name)
    path = stage.output(Item(item), work)
    told = read_record(stage, item, work)
    if told and told["outcome"] == "failed" and not edited(stage, path, told):
        raise StageError(f"{name}: {told['why']}")
    if path.exists():
        return path
    if told and told["outcome"] == "empty":
        raise EmptyItem(told["why"])
    raise StageError(f"{item!r} has no {name}/ output yet: run `wsi-mil {name}` first")


def check_ended(folder: Path, item: str) -> None:
    """For those who read a folder without its study: StageError where the last run of an item there failed."""
    path = record(folder, item)
    told = files.read_json(path) if path.exists() else {}
    if told.get("outcome") == "failed":
        raise StageError(f"{folder}: what lies there is of an earlier run; the last one failed: {told['why']}")


def edited(stage: Stage, output: Path, told: dict[str, Any] | None) -> bool:
    """Whether a person has made or changed an output since its record `told` was written."""
    return stage.editable and output.exists() and (told is None or told["output"] != files.digest_file(output))


def versions() -> dict[str, str]:
    """Versions of the libraries that decide results, and of Python."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def _before(stage: Stage, work: Work) -> list[str]:
    names: list[str] = []
    for name in stage.after:
        names += [*_before(work.stage(name), work), name]
    return list(dict.fromkeys(names))


def _told(value: Any) -> Any:
    """A configuration value as JSON; of a path only the name, since its content is an input and its place is not."""
    if isinstance(value, Path):
        return value.name
    if isinstance(value, dict):
        return {str(key): _told(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_told(inner) for inner in value]
    return value


def _differences(old: Any, new: Any, prefix: str = "") -> Sequence[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        found: list[str] = []
        for key in dict.fromkeys([*old, *new]):
            dotted = f"{prefix}.{key}" if prefix else str(key)
            found += _differences(old.get(key), new.get(key), dotted)
        return found
    return [] if old == new else [f"{prefix}: {_short(old)} -> {_short(new)}"]


def _short(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def portable(study: Any) -> dict[str, Any]:
    """The sections of a study that decide how a new slide becomes a bag, and what is asked of it."""
    names = ("tissue", "tile", "extract", "task", "model")
    return {name: getattr(study, name).model_dump(mode="json") for name in names}
