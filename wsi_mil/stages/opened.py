"""A finished work folder as a study again: its configuration read back from what its stages remember."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wsi_mil import files
from wsi_mil.errors import StageError, unknown
from wsi_mil.layout import STAGE_JSON, record
from wsi_mil.stages.study import Study
from wsi_mil.stages.work import Work

LATER = ("calibrate", "heatmap")
"""Stages after predict whose configuration is taken along where they were run."""


def open_work(root: Path, *, model: str = "") -> Work:
    """The work folder with the configuration that its predictions were made with; `model` is a folder under predict/.

    Paths outside of the folder are known by their names alone: it is for looking, not for making anew.
    Raises StageError where nothing was predicted, where there are several models and none is named, or where the
    configuration is of another version.
    """
    if not (root / "cohort.csv").is_file():
        raise StageError(f"{root} is no work folder: it holds no cohort.csv")
    known = sorted(path.parent.name for path in root.glob("predict/*/slides.csv"))
    if not known:
        raise StageError(f"{root} has no predictions (no predict/MODEL/slides.csv): run `wsi-mil predict` first")
    if model and model not in known:
        raise StageError(unknown("model", model, known))
    if not model and len(known) > 1:
        raise StageError(f"{root} has the models {', '.join(known)}: name one with --model")
    name = model or known[0]
    told: dict[str, Any] = {}
    for stage in ("predict", *LATER):
        path = root / stage / name / STAGE_JSON
        if path.is_file():
            told |= files.read_json(path)["configuration"]
    sections = {key: value for key, value in told.items() if key in Study.model_fields and key != "cohort"}
    cohort = {"table": str(root / "cohort.csv"), "mpp": _given_mpp(root), "label_of": _label_of(root, name)}
    try:
        study = Study.model_validate({**sections, "cohort": cohort})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StageError(f"{root} was made by another version ({where}: {first['msg']}): predict again") from error
    return Work(root.absolute(), study)


def _given_mpp(root: Path) -> float | None:
    """The scale that was given for all slides, where a slide's record says that it was."""
    for path in sorted(record(root / "tissue", "x").parent.glob("*.json"))[:50]:
        facts = files.read_json(path).get("facts") or {}
        if facts.get("mpp_source") == "flag" and facts.get("mpp"):
            return float(facts["mpp"][0])
    return None


def _label_of(root: Path, model: str) -> str:
    return "patient" if (root / "predict" / model / "patients.csv").is_file() else "slide"
