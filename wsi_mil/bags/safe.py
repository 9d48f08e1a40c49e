"""Opening an HDF5 file that a stranger may have written, without reading anything it does not itself contain.

A bag of two kilobytes can show any file of the machine as its features (external storage, external and soft links,
virtual datasets) or claim a terabyte; CVE-2026-1669, CVE-2026-12480 and CVE-2026-0897 were these in Keras. All are
refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from wsi_mil.errors import BagError

DEEPEST = 4
"""Groups within groups that a file of ours may hold; a group that contains itself would have no end."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """The file, open for reading and free of links that lead elsewhere; raises BagError that names file and fault."""
    if not path.is_file():
        raise BagError(f"{path}: no such file; run the stage that makes it")
    try:
        with h5py.File(path, "r", locking=False) as file:
            _check_links(file, path=path, depth=0)
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise BagError(
            f"{path}: broken or not one of our HDF5 files ({error}); remove it and run its stage again"
        ) from error


def _check_links(group: h5py.Group, *, path: Path, depth: int) -> None:
    if depth > DEEPEST:
        raise BagError(f"{path}: groups are nested deeper than {DEEPEST}: not one of our files")
    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise BagError(f"{path}: {group.name.rstrip('/')}/{name} is a {type(link).__name__}, which is refused")
        item = group[name]
        if isinstance(item, h5py.Group):
            _check_links(item, path=path, depth=depth + 1)


def dataset(file: h5py.File, name: str, *, path: Path, kinds: tuple[str, ...], shape: tuple[int | None, ...]) -> Any:
    """A dataset of an expected dtype and shape (None: any length) whose bytes lie in this very file, in one piece."""
    item = file.get(name)
    if not isinstance(item, h5py.Dataset):
        raise BagError(f"{path}: dataset {name!r} is missing; remove the file and run its stage again")
    # dtype first: it alone says whether reading the rest is sensible.
    if item.dtype.name not in kinds:
        raise BagError(f"{path}: dataset {name!r} is {item.dtype.name}, expected {' or '.join(kinds)}")
    if item.is_virtual or item.external:
        raise BagError(f"{path}: dataset {name!r} keeps its data in other files, which is refused")
    if item.chunks is not None:
        raise BagError(f"{path}: dataset {name!r} is chunked, where ours lie in one piece: import it as a foreign bag")
    fits = len(item.shape) == len(shape) and all(
        want in (None, have) for have, want in zip(item.shape, shape, strict=False)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise BagError(f"{path}: dataset {name!r} has shape {item.shape}, expected ({wanted})")
    claimed = int(np.prod(item.shape, dtype=object)) * item.dtype.itemsize
    offset = item.id.get_offset()
    stored = item.id.get_storage_size()
    if claimed and (offset is None or stored < claimed or offset + claimed > path.stat().st_size):
        raise BagError(
            f"{path}: dataset {name!r} claims {claimed} bytes, but {stored} are stored: file cut short or forged"
        )
    return item


def attributes(file: h5py.File) -> dict[str, Any]:
    """All attributes of the file, each read once: asking HDF5 for one costs more than a thousand features."""
    return {name: file.attrs[name] for name in file.attrs}


def attribute(values: Mapping[str, Any], name: str, kind: type, *, path: Path) -> Any:
    """An attribute of the file as a Python value of a kind (int, float, str or tuple of numbers)."""
    if name not in values:
        raise BagError(f"{path}: attribute {name!r} is missing: not one of our files, or made by another version")
    value = values[name]
    if kind is tuple:
        return tuple(np.asarray(value).tolist())
    return kind(value)
