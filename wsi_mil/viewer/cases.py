"""What a work folder has to show: its slides, what was predicted of them, and where their maps and outlines lie."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsi_mil import files
from wsi_mil.cohort import read_table
from wsi_mil.errors import StageError
from wsi_mil.layout import record

CALIBRATED = ("calibrated_", "cal_", "c_")
"""How columns of calibrated probabilities may begin, before the name of the class."""

FLAGS = {
    "rejected": "rejected",
    "abstained": "rejected",
    "out_of_distribution": "out of distribution",
    "ood": "out of distribution",
    "unknown": "unknown",
}
"""Columns of a table of predictions that are true where a slide asks for care, and what is said of it."""

FAULTY_SHARE = 0.1
"""Share of a slide's tiles with one fault of quality from which the slide is marked."""

ANNOTATIONS = "annotations"
"""Folder of a work folder in which drawn regions are kept, one GeoJSON a slide."""

KEY_LENGTH = 16

TRUE = ("true", "1", "1.0", "yes")


@dataclass(frozen=True)
class Prediction:
    """What the models of one name say of a slide."""

    predicted: str
    probabilities: dict[str, float]
    calibrated: dict[str, float]
    """Empty where the table has none."""
    disagreement: float | None
    """Standard deviation over the models, at most over the classes."""
    flags: tuple[str, ...]
    note: str


@dataclass(frozen=True)
class Case:
    """One slide of the cohort."""

    key: str
    """Opaque name in addresses: a digest of the slide's id."""
    slide: str
    path: str
    mpp: float | None
    """Scale given in the cohort's table."""
    label: str = ""
    flags: tuple[str, ...] = ()
    """Of the slide itself, such as faults of quality."""
    predictions: dict[str, Prediction] = field(default_factory=dict)
    maps: dict[str, Path] = field(default_factory=dict)
    """File of raw scores for each model's name."""


@dataclass(frozen=True)
class Cohort:
    """The slides of a work folder by their opaque keys."""

    root: Path
    cases: dict[str, Case]
    models: tuple[str, ...]
    truth: Path | None = None
    """Folder with SLIDE.geojson where the lesions are known."""

    def outline_file(self, case: Case) -> Path:
        """Tissue contours as the `tissue` stage wrote them or a person edited them."""
        return self.root / "tissue" / f"{case.slide}.geojson"

    def regions_file(self, case: Case) -> Path:
        """Regions that were drawn in the viewer."""
        return self.root / ANNOTATIONS / f"{case.slide}.geojson"

    def truth_file(self, case: Case) -> Path | None:
        """Polygons of the lesions, or None where there are none."""
        path = self.truth and self.truth / f"{case.slide}.geojson"
        return path if path and path.is_file() else None


def read_cases(root: Path, *, truth: Path | None = None, slides: Path | None = None) -> Cohort:
    """Read the tables of a work folder; `slides` is where the slides lie now, if not where the cohort says.

    Raises StageError where the folder holds no cohort, or `truth` or `slides` is no folder.
    """
    if not (root / "cohort.csv").is_file():
        hint = f"; did you mean {root / 'run'}?" if (root / "run" / "cohort.csv").is_file() else ""
        raise StageError(f"{root} is no work folder: it holds no cohort.csv{hint}")
    for what, folder in (("truth", truth), ("slides", slides)):
        if folder is not None and not folder.is_dir():
            raise StageError(f"--{what} {folder} is no folder")
    rows = read_table(root / "cohort.csv")
    models = _models(root)
    # The table of `calibrate` is that of `predict` with more columns.
    tables = {
        model: _table(root / "predict" / model / "slides.csv", more=root / "calibrate" / model / "slides.csv")
        for model in models
    }
    cases = {}
    for row in rows.to_dict("records"):
        case = _case(root, {str(name): str(value) for name, value in row.items()}, tables, slides)
        cases[case.key] = case
    return Cohort(root, cases, models, truth)


def key_of(slide: str) -> str:
    """The opaque key of a slide: the same in every session, so that an address that was kept still works."""
    return files.digest("wsi_mil viewer", slide)[:KEY_LENGTH]


def _models(root: Path) -> tuple[str, ...]:
    found = [path.parent.name for path in (root / "predict").glob("*/slides.csv")]
    found += [path.name for path in (root / "heatmap").glob("*") if path.is_dir() and not path.name.startswith(".")]
    return tuple(sorted(set(found)))


def _table(path: Path, *, more: Path) -> dict[str, dict[str, str]]:
    """Rows by slide; those of `more` where it was made after the table."""
    if more.is_file() and not (path.is_file() and path.stat().st_mtime_ns > more.stat().st_mtime_ns):
        path = more
    if not path.is_file():
        return {}
    frame = read_table(path)
    return {str(row["slide"]): {str(k): str(v) for k, v in row.items()} for row in frame.to_dict("records")}


def _case(root: Path, row: dict[str, str], tables: dict[str, dict[str, dict[str, str]]], slides: Path | None) -> Case:
    slide, path = row["slide"], row.get("path", "")
    if slides is not None and path:
        path = str(slides / Path(path).name)
    told = {model: table[slide] for model, table in tables.items() if slide in table}
    maps = {model: root / "heatmap" / model / slide / f"{slide}.h5" for model in tables}
    return Case(
        key=key_of(slide),
        slide=slide,
        path=path,
        mpp=_number(row.get("mpp", "")),
        label=next((one["label"] for one in told.values() if one.get("label")), ""),
        flags=_quality_flags(root, slide),
        predictions={model: _prediction(one) for model, one in told.items()},
        maps={model: file for model, file in maps.items() if file.is_file()},
    )


def _prediction(row: dict[str, str]) -> Prediction:
    probabilities = _answers(row, ("p_",))
    flags = [said for name, said in FLAGS.items() if row.get(name, "").lower() in TRUE]
    flags += _decision_flags(row)
    if row.get("status", "predicted") not in ("predicted", ""):
        flags.append(row["status"])
    return Prediction(
        predicted=row.get("predicted", ""),
        probabilities=probabilities,
        calibrated={name: value for name, value in _answers(row, CALIBRATED).items() if name in probabilities},
        disagreement=_number(row.get("disagreement", "")),
        flags=tuple(dict.fromkeys(flags)),
        note=row.get("note", ""),
    )


def _decision_flags(row: dict[str, str]) -> list[str]:
    """A conformal set that is not one class, and a decision at the threshold that is not the likeliest class."""
    held, called = row.get("set", ""), row.get("decision", "")
    flags = ["unknown"] if held == "none" else [held.replace("|", " or ")] if "|" in held else []
    return flags + ([f"called {called}"] if called and called != row.get("predicted", "") else [])


def _answers(row: dict[str, str], prefixes: tuple[str, ...]) -> dict[str, float]:
    found = {}
    for name, text in row.items():
        prefix = next((one for one in prefixes if name.startswith(one)), None)
        value = _number(text)
        if prefix is not None and value is not None:
            found[name.removeprefix(prefix)] = value
    return found


def _quality_flags(root: Path, slide: str) -> tuple[str, ...]:
    """What the records of `tissue` and `extract` say against a slide."""
    flags: list[str] = []
    folders = [root / "tissue", *sorted((root / "extract").glob("*"))]
    for folder in folders:
        path = record(folder, slide)
        told: dict[str, Any] = files.read_json(path) if path.is_file() else {}
        if told.get("outcome") in ("failed", "empty"):
            flags.append(f"{folder.name if folder.parent == root else 'extract'} {told['outcome']}")
        facts = told.get("facts", {})
        tiles = int(facts.get("tiles", 0) or 0)
        if facts.get("unreadable"):
            flags.append(f"{facts['unreadable']} damaged tiles")
        faults = facts.get("faults") or {}
        flags += [
            f"{name} {count / tiles:.0%}" for name, count in faults.items() if tiles and count / tiles > FAULTY_SHARE
        ]
    return tuple(dict.fromkeys(flags))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
