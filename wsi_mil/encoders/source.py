"""Where an encoder's weights come from: a file, a folder, the weights folder of this machine, or the hub."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from wsi_mil.encoders.records import read_record, weights_folder
from wsi_mil.errors import EncoderError, MissingExtra

USUAL_FILES = ("model.safetensors", "pytorch_model.bin")
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")

CANNOT_REACH = ("LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "ConnectTimeout", "ReadTimeout")
"""Errors of the hub's client, by name, that mean that the hub was not reached."""


@dataclass(frozen=True)
class Origin:
    """A file of weights and what is known of where it is from."""

    path: Path
    source: str
    """Such as "hub MahmoodLab/UNI" or "file uni.safetensors"."""
    revision: str = ""
    """Commit of the hub, where it is from there."""
    licence: str = ""
    """As the hub states it."""


@dataclass(frozen=True)
class Wanted:
    """What is looked for: the encoder's name, its hub repository, the file there and the pinned commit."""

    name: str
    hub: str = ""
    file: str = ""
    revision: str = ""
    gated: str = "unknown"


def find(wanted: Wanted, weights: str) -> Origin:
    """The file of an encoder's weights: `weights` (a file or a folder), else this machine's folder, else the hub.

    Raises EncoderError that says what to do where there is none.
    """
    if weights:
        return Origin(*_given(wanted, Path(weights)))
    own = installed(wanted)
    if own is not None:
        return Origin(own, f"file {own.name} of the weights folder")
    if not wanted.hub:
        raise EncoderError(
            f"encoder {wanted.name!r} is on no hub: get its weights from its authors and put the file at "
            f"{weights_folder() / wanted.name}.pth, or name it with extract.weights=FILE"
        )
    return _downloaded(wanted)


def installed(wanted: Wanted) -> Path | None:
    """The file of the weights folder that belongs to an encoder: NAME.safetensors (.bin .pt .pth), or in NAME/."""
    root = weights_folder()
    for path in [root / f"{wanted.name}{suffix}" for suffix in SUFFIXES]:
        if path.is_file():
            return path
    return next(_inside(wanted, root / wanted.name), None)


def cached(wanted: Wanted) -> Path | None:
    """The file in the hub's own cache of this machine, without asking the hub."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    for file in _files(wanted):
        found = try_to_load_from_cache(wanted.hub, file, revision=_pinned(wanted) or None) if wanted.hub else None
        if isinstance(found, str):
            return Path(found)
    return None


def _given(wanted: Wanted, path: Path) -> tuple[Path, str]:
    if not path.is_dir():
        if not path.is_file():
            raise EncoderError(f"encoder {wanted.name!r}: there is no file of weights at {str(path)!r}")
        return path, f"file {path.name}"
    found = next(_inside(wanted, path), None)
    if found is None:
        names = ", ".join(_files(wanted))
        raise EncoderError(f"encoder {wanted.name!r}: the folder {str(path)!r} holds no file of weights ({names})")
    return found, f"file {found.name}"


def _inside(wanted: Wanted, folder: Path) -> Iterator[Path]:
    for name in _files(wanted):
        if (folder / name).is_file():
            yield folder / name
    others = [path for path in sorted(folder.glob("*")) if path.suffix in SUFFIXES] if folder.is_dir() else []
    if len(others) == 1:
        yield others[0]


def _files(wanted: Wanted) -> tuple[str, ...]:
    return (wanted.file,) if wanted.file else USUAL_FILES


def _pinned(wanted: Wanted) -> str:
    """The commit to take: the catalogue's, else the one that was recorded at the first load."""
    return wanted.revision or str(read_record(wanted.name).get("revision", ""))


def _downloaded(wanted: Wanted) -> Origin:
    try:
        import huggingface_hub as hub
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
    except ImportError as error:
        raise MissingExtra("huggingface_hub", extra="timm", purpose=f"downloading encoder {wanted.name!r}") from error
    pinned = _pinned(wanted)
    for file in _files(wanted):
        try:
            path = Path(hub.hf_hub_download(wanted.hub, file, revision=pinned or None))
        except EntryNotFoundError as error:
            if type(error).__name__ in CANNOT_REACH:
                _explain(wanted, error)
            continue
        except (HfHubHTTPError, OSError, ValueError) as error:
            _explain(wanted, error)
        except Exception as error:
            if type(error).__name__ not in CANNOT_REACH:
                raise
            _explain(wanted, error)
        # The hub's cache keeps a file under snapshots/<commit>/.
        commit = path.parent.name if path.parent.parent.name == "snapshots" else pinned
        return Origin(path, f"hub {wanted.hub}", commit, _licence(hub, wanted, commit))
    raise EncoderError(
        f"encoder {wanted.name!r}: {wanted.hub} on the hub holds none of {', '.join(_files(wanted))}"
        f"{f' at revision {pinned}' if pinned else ''}; give a file with extract.weights=FILE"
    )


def _licence(hub: Any, wanted: Wanted, commit: str) -> str:
    """As the model's card states it, or "" where that cannot be asked."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        card = hub.model_info(wanted.hub, revision=commit or None).card_data
    except (HfHubHTTPError, OSError, ValueError):
        return ""
    return str(getattr(card, "license", "") or "")


def _explain(wanted: Wanted, error: Exception) -> NoReturn:
    """Raise EncoderError that says exactly what to do."""
    kind = type(error).__name__
    status = getattr(getattr(error, "response", None), "status_code", None)
    folder = weights_folder() / wanted.name
    by_hand = (
        f"or copy {' or '.join(_files(wanted))} to {folder}{os.sep} on a machine without network, "
        "or name a file with extract.weights=FILE"
    )
    if kind == "GatedRepoError" or status in (401, 403):
        raise EncoderError(
            f"encoder {wanted.name!r}: the hub does not give out {wanted.hub} without permission. "
            f"1. Log in at https://huggingface.co/{wanted.hub} and accept the terms (some are granted by a person, "
            "days later). 2. Make a token with read access at https://huggingface.co/settings/tokens. "
            f"3. Run `hf auth login`, or set HF_TOKEN. Then the same command again; {by_hand}"
        ) from error
    if kind in ("RepositoryNotFoundError", "RevisionNotFoundError") or status == 404:
        raise EncoderError(
            f"encoder {wanted.name!r}: the hub shows no {wanted.hub} (revision {_pinned(wanted) or 'newest'}) to you: "
            f"a private repository needs a token (HF_TOKEN or `hf auth login`), {by_hand}"
        ) from error
    reason = (str(error).strip().splitlines() or [kind])[0]
    raise EncoderError(f"encoder {wanted.name!r}: the hub could not be reached ({reason}): try again, {by_hand}") from (
        error
    )
