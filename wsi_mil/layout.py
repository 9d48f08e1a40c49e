"""Where each stage's files lie in a work folder, and which names are safe to be files.

work/                        one study on disk, readable by a person
  cohort.csv                             the cohort as it was checked
  tissue/A1.geojson  tissue/A1.png       outline to edit, thumbnail to look at
  tile/A1.h5                             grid
  extract/<encoder>/A1.h5                bag
  split/folds.csv                        repeat, fold, slide, patient, role
  train/<model>/seed-0/repeat-0-fold-0/  model.safetensors, model.json, history.csv
  predict/<model>/                       slides.csv, patients.csv, models.csv, calibrate.csv
  calibrate/<model>/                     slides.csv, patients.csv, calibration.json
  heatmap/<model>/A1/                    A1.h5 (raw scores), A1.png, A1.geojson, other exports
  report/index.html                      with figures.json and study.yaml
  case/<model>/A1.html                   and A1.pdf: the report of one slide
  annotations/A1.geojson                 regions drawn in the viewer
Every stage folder also holds stage.json (how it was made) and .made/ (one record an item).
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

MADE = ".made"
"""Folder of the records of a stage's items; hidden, and no slide id may start with a dot."""

STAGE_JSON = "stage.json"

_RESERVED = {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)}
_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')


def id_problem(name: str) -> str | None:
    """Why a slide id cannot be a file name on every system, or None where it can."""
    if not name or name != name.strip():
        return "is empty or has blanks at an end"
    if name.startswith((".", "-")) or name.endswith("."):
        return "starts with '.' or '-', or ends with '.'"
    if _UNSAFE.search(name):
        return 'holds a control character or one of / \\ : * ? " < > |'
    if len(name.encode()) > 180:
        return "is longer than 180 bytes"
    if name.split(".")[0].lower() in _RESERVED:
        return "is a device name on Windows"
    return None


def slide_id(path: Path) -> str:
    """The id of a slide file: its name without the last suffix, `.ome.tif(f)` and `.ome.zarr` whole, in one form."""
    name = unicodedata.normalize("NFC", path.name)
    for suffix in (".ome.tiff", ".ome.tif", ".ome.zarr"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name.rpartition(".")[0] or name


def folder_name(name: str) -> str:
    """A name such as "timm:resnet18" as one folder name: "timm-resnet18"."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip("-.") or "unnamed"


def record(folder: Path, item: str) -> Path:
    """Where the record of one item of a stage lies."""
    return folder / MADE / f"{item}.json"
