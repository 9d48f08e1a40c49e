"""What this machine remembers of the weights it has loaded: an encoder never changes under a name unseen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from wsi_mil import files
from wsi_mil.errors import EncoderError
from wsi_mil.layout import folder_name

VARIABLE = "WSI_MIL_WEIGHTS"
"""Environment variable that names the weights folder."""

RECORDS = "records"


def weights_folder() -> Path:
    """Where this machine keeps files of weights and what it knows of them; `WSI_MIL_WEIGHTS`, else the user's cache."""
    told = os.environ.get(VARIABLE)
    if told:
        return Path(told).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "wsi_mil" / "weights"


def record_path(name: str) -> Path:
    """Where the record of an encoder lies."""
    return weights_folder() / RECORDS / f"{folder_name(name)}.json"


def read_record(name: str) -> dict[str, Any]:
    """What was recorded at the first load: weights_digest, revision, licence, source; empty before it."""
    try:
        value = files.read_json(record_path(name))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError as error:
        raise EncoderError(f"{record_path(name)} is not JSON ({error}): remove it, and check the encoder again") from (
            error
        )
    return value if isinstance(value, dict) else {}


def check_record(name: str, *, weights_digest: str, revision: str, licence: str, source: str) -> dict[str, str]:
    """Compare what was just loaded with the first load, and record it where it is the first; return the record.

    What was unknown then and is known now is added. Raises EncoderError with the difference where weights, revision
    or licence have changed.
    """
    now = {"weights_digest": weights_digest, "revision": revision, "licence": licence, "source": source}
    then = {key: str(value) for key, value in read_record(name).items()}
    changed = [
        f"{key}: {then[key]!r} -> {now[key]!r}"
        for key in ("weights_digest", "revision", "licence")
        if then.get(key) and now[key] and then[key] != now[key]
    ]
    if changed:
        raise EncoderError(
            f"encoder {name!r} is not what this machine first loaded under its name ({'; '.join(changed)}): its "
            f"features would not mix with earlier ones. If the change is meant, remove {record_path(name)}"
        )
    whole = now | {key: value for key, value in then.items() if value}
    if whole != then:
        try:
            files.write_json(record_path(name), whole)
        except OSError as error:
            raise EncoderError(
                f"cannot record what encoder {name!r} is in {record_path(name)} ({error.strerror or error}): set "
                f"{VARIABLE} to a folder that can be written"
            ) from error
    return whole
