"""YAML to frozen pydantic models, strictly: every fault at once, with its line and the nearest known name."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from wsi_mil.errors import ConfigError, suggestion


class Section(BaseModel):
    """A part of a study file: frozen, no unknown keys, each field explained by the docstring under it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def _beside_the_study(path: Path, info: Any) -> Path:
    folder: Path = (info.context or {}).get("folder", Path())
    return folder / path.expanduser()


StudyPath = Annotated[Path, AfterValidator(_beside_the_study)]
"""A path of a study file; a relative one starts at the folder of the study file."""

M = TypeVar("M", bound=BaseModel)


def load(path: Path, *, into: type[M], overrides: Sequence[str] = ()) -> M:
    """Read a study file, apply `section.key=value` overrides, and check it all.

    Raises ConfigError with every fault, one a line: dotted key, what was expected, what was given, where.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read the study file {path}: {error.strerror or error}") from error
    return parse(text, into=into, overrides=overrides, folder=path.parent, where=str(path))


def parse(text: str, *, into: type[M], overrides: Sequence[str] = (), folder: Path, where: str) -> M:
    """Check the text of a study file; relative paths in it start at `folder`."""
    try:
        values = yaml.safe_load(text) or {}
        lines = _lines(yaml.compose(text))
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{where} holds a {type(values).__name__} where sections (`cohort:`, `tile:` ...) belong")
    for override in overrides:
        _override(values, override)
        lines[override.partition("=")[0]] = "the command line"
    try:
        return into.model_validate(_expand(values, where), context={"folder": folder})
    except ValidationError as error:
        raise ConfigError("\n".join(_sentence(fault, into, lines, where) for fault in error.errors())) from None


def explain(model: BaseModel) -> str:
    """A configuration as YAML, each field under a comment that says what it means."""
    out: list[str] = []
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            title = (type(value).__doc__ or "").strip().splitlines()[0]
            out += ["", f"{name}:  # {title}"]
            out += [f"  {line}" if line else "" for line in explain(value).splitlines()]
        else:
            out += [f"# {line}" for line in (field.description or "").splitlines()]
            # In brackets, so that any value fits on the line of its key.
            told = yaml.safe_dump([_plain(value)], sort_keys=False, default_flow_style=True, width=10**6)
            out.append(f"{name}: {told.strip()[1:-1]}")
    return "\n".join(out).strip("\n") + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise ConfigError(f"cannot read the setting {override!r}: write section.key=value, as in tile.mpp=0.5")
    for part in parts[:-1]:
        inner = values.get(part)
        values[part] = dict(inner) if isinstance(inner, dict) else {}
        values = values[part]
    try:
        values[parts[-1]] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"cannot read the value of {override!r}: {error}") from error


def _expand(value: Any, where: str) -> Any:
    """Replace ${NAME} by environment variables, all through a tree of values."""
    if isinstance(value, dict):
        return {key: _expand(inner, where) for key, inner in value.items()}
    if isinstance(value, list):
        return [_expand(inner, where) for inner in value]
    if isinstance(value, str):
        return re.sub(r"\$\{(\w+)\}", lambda match: _variable(match[1], where), value)
    return value


def _variable(name: str, where: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise ConfigError(f"{where} needs the environment variable {name}, which is not set: export {name}=...")
    # A relative path in a variable is meant from where the command runs, not from where the study file lies.
    return str(Path(value).absolute()) if value and Path(value).exists() else value


def _lines(node: yaml.Node | None, prefix: str = "") -> dict[str, str]:
    """Dotted key to line number, for all mappings of a YAML document."""
    lines: dict[str, str] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            dotted = f"{prefix}{key.value}"
            lines[dotted] = f"line {key.start_mark.line + 1}"
            lines |= _lines(value, f"{dotted}.")
    return lines


def _sentence(fault: Any, into: type[BaseModel], lines: Mapping[str, str], where: str) -> str:
    loc = [str(part) for part in fault["loc"]]
    dotted = ".".join(loc)
    place = next((lines[".".join(loc[:n])] for n in range(len(loc), 0, -1) if ".".join(loc[:n]) in lines), "")
    place = place if place == "the command line" else f"{where}, {place}" if place else where
    if fault["type"] == "extra_forbidden":
        return f"{dotted}: unknown key{suggestion(loc[-1], _known_keys(into, loc[:-1]))}  ({place})"
    if fault["type"] == "missing":
        return f"{dotted}: is missing  ({place})"
    return f"{dotted}: {fault['msg'].removeprefix('Value error, ')}, got {fault['input']!r}  ({place})"


def _known_keys(into: type[BaseModel], loc: Sequence[str]) -> list[str]:
    model: Any = into
    for part in loc:
        if part not in model.model_fields:
            continue  # a name of one's own in a table of sections
        annotation = model.model_fields[part].annotation
        options = [annotation, *get_args(annotation)]
        model = next((kind for kind in options if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if model is None:
            return []
    return list(model.model_fields)
