"""A file is whole, or it is not there: drafts, flushes, renames and digests."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DRAFT_SUFFIX = ".part"

STALE_DRAFT_S = 24 * 3600.0
"""Age after which a draft is taken for the leftover of a killed run; longer than any one slide takes."""


@contextlib.contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """Give the path of a draft that becomes `path` when the block ends well.

    The caller makes a file or a folder of it. The draft lies in the folder of `path`, so that the rename is one step of
    the file system; it is flushed to disk before the rename and removed when the block raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.parent / f".{path.name}.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}{DRAFT_SUFFIX}"
    try:
        yield draft
        _flush(draft)
        _replace(draft, path)
        _flush_folder(path.parent)
    finally:
        remove(draft)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file or nothing."""
    with drafted(path) as draft:
        draft.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file or nothing."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a whole JSON file or nothing; keys keep their order."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def remove(path: Path) -> None:
    """Remove a file or a folder with all in it; nothing happens where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep(folder: Path, *, older_than_s: float = STALE_DRAFT_S) -> int:
    """Remove the drafts that killed runs left in a folder; return how many."""
    swept = 0
    now = time.time()
    for draft in folder.glob(f".*{DRAFT_SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):  # another runner may sweep at the same time
            if now - draft.stat().st_mtime > older_than_s:
                remove(draft)
                swept += 1
    return swept


def digest(*parts: bytes | str) -> str:
    """SHA-256 over parts, each preceded by its length, so that no two lists of parts run together."""
    sha = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        sha.update(len(data).to_bytes(8, "little"))
        sha.update(data)
    return sha.hexdigest()


def digest_json(value: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    return digest(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str))


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    if path.is_dir():
        for inner in path.rglob("*"):
            if inner.is_file():
                _flush_file(inner)
        _flush_folder(path)
    else:
        _flush_file(path)


def _flush_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(path: Path) -> None:
    # Some network file systems refuse to flush a folder; the file itself is flushed already.
    with contextlib.suppress(OSError):
        _flush_file(path)


def _replace(draft: Path, path: Path) -> None:
    if draft.is_dir() and path.is_dir():
        # A folder cannot be renamed over a full one: the old one steps aside first, under a draft's name, so that a
        # kill between the two renames leaves the old one to be swept and the item to be made again.
        aside = draft.with_name(draft.name.removesuffix(DRAFT_SUFFIX) + f".old{DRAFT_SUFFIX}")
        os.rename(path, aside)
        os.rename(draft, path)
        remove(aside)
    else:
        os.replace(draft, path)
