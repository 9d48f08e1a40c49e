"""The cohort table: one row a slide, checked whole before any slide is read."""

from __future__ import annotations

import logging
import math
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from wsi_mil.cohort.spreadsheet import read_table, rewritten
from wsi_mil.errors import CohortError, suggestion
from wsi_mil.layout import id_problem, slide_id

logger = logging.getLogger("wsi_mil")

SLIDE_SUFFIXES = (
    ".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".czi", ".dcm", ".qptiff",
    ".zarr",
)  # fmt: skip
"""Names that a folder of slides is searched for; OpenSlide's own list plus what peers take."""

MAX_FAULTS_SHOWN = 40

NO_SLIDES = "none"
"""In place of a folder of slides: the study has bags of another program and no pixels."""

FIXED_COLUMNS = ("slide", "path", "patient", "site", "mpp")


@dataclass(frozen=True)
class Cohort:
    """One row a slide, in the order of the table.

    `frame` has the columns slide (a safe, unique id), path (absolute, or empty where the file is not needed), patient,
    site (empty where unknown), mpp (NaN where the slide's own counts), and every other column of the table as text.
    """

    frame: pd.DataFrame

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def slides(self) -> list[str]:
        """Slide ids in order."""
        return list(self.frame["slide"])

    def column(self, name: str) -> pd.Series:
        """One column by slide id; CohortError with a suggestion where there is none."""
        if name not in self.frame.columns:
            raise CohortError(f"the cohort table has no column {name!r}{suggestion(name, self.frame.columns)}")
        return self.frame.set_index("slide")[name]


def read_cohort(
    table: Path | None,
    *,
    slides: str,
    patient: str = "patient",
    labels: Sequence[str] = (),
    label_of: str = "slide",
    classes: Sequence[str] = (),
    missing_labels: str = "fault",
    further: Callable[[pd.DataFrame], list[str]] | None = None,
) -> Cohort:
    """Read and check a cohort; without a table, one row for each slide file found.

    `slides` is a folder (searched one level deep and below) or a glob pattern. A row without a `path` is matched to
    the file with its name; with `slides="none"` no row has one. `labels` are the columns that must be there; a label
    outside `classes` (where given) is a fault. With `label_of="patient"`, two labels of one patient are a fault. A
    slide without a label is a fault unless `missing_labels="predict"`: then it takes no part in the folds and is
    predicted by all of them. `further` gives what else is wrong with the table.
    Raises CohortError that lists every fault with its row number.
    """
    faults: list[str] = []
    files = [] if slides == NO_SLIDES else find_slides(slides)
    if table is None:
        frame = pd.DataFrame({"slide": sorted({slide_id(path) for path in files})}, dtype=str)
        if frame.empty:
            raise CohortError(f"no slides found in {slides!r}: give a folder or a pattern such as 'slides/*.svs'")
    else:
        frame = read_table(table)
        if "slide" not in frame.columns:
            lacking = [name for name in ("slide", *labels) if name not in frame.columns]
            told = "; ".join(f"no column {name!r}{suggestion(name, frame.columns)}" for name in lacking)
            raise CohortError(f"{table} has {told}")
        if frame.empty:
            raise CohortError(f"{table} has no rows")
    frame["slide"] = [unicodedata.normalize("NFC", name) for name in frame["slide"]]
    frame["patient"] = frame[patient] if patient in frame.columns else frame["slide"]
    if patient not in frame.columns and patient != "patient":
        faults.append(f"no column {patient!r} for patients{suggestion(patient, frame.columns)}")
    frame["site"] = frame["site"] if "site" in frame.columns else ""
    faults += _id_faults(frame)
    faults += _place(frame, files, table) if slides != NO_SLIDES else []
    frame["path"] = frame["path"] if slides != NO_SLIDES else ""
    faults += _scale(frame)
    faults += _label_faults(frame, labels, label_of=label_of, classes=classes)
    if missing_labels == "fault":
        faults += _missing_labels(frame, labels)
    faults += further(frame) if further else []
    if faults:
        shown = "\n".join(f"  {fault}" for fault in faults[:MAX_FAULTS_SHOWN])
        more = f"\n  ... and {len(faults) - MAX_FAULTS_SHOWN} more" if len(faults) > MAX_FAULTS_SHOWN else ""
        raise CohortError(f"{table or slides}: {len(faults)} fault(s), no slide was read:\n{shown}{more}")
    first = [*FIXED_COLUMNS, *[name for name in frame.columns if name not in FIXED_COLUMNS]]
    return Cohort(frame[first].reset_index(drop=True))


def find_slides(slides: str) -> list[Path]:
    """The files of a folder of slides, or of a pattern; none where that is empty."""
    if not slides:
        return []
    root = Path(slides)
    if root.is_dir():
        found = [path for path in root.rglob("*") if path.suffix.lower() in SLIDE_SUFFIXES]
    elif root.is_file():
        found = [root]
    else:
        anchor = Path(root.anchor) if root.is_absolute() else Path()
        found = list(anchor.glob(str(root.relative_to(anchor))))
    return sorted(path.absolute() for path in found if not path.name.startswith("."))


def _rows(index: Sequence[int]) -> str:
    """Row numbers as a spreadsheet shows them: the header is row 1."""
    return ", ".join(str(row + 2) for row in index)


def _id_faults(frame: pd.DataFrame) -> list[str]:
    faults = [
        f"row {row + 2}: slide {name!r} {problem}: rename it"
        for row, name in enumerate(frame["slide"])
        if (problem := id_problem(name))
    ]
    # Two names that differ in case alone are one file on Windows and macOS.
    for _, group in frame.groupby(frame["slide"].str.casefold(), sort=False):
        if len(group) > 1:
            names = " and ".join(repr(name) for name in dict.fromkeys(group["slide"]))
            faults.append(
                f"rows {_rows(list(group.index))}: slide {names} stands there {len(group)} times: keep one row"
            )
    faults += [
        f"row {row + 2}: no patient for slide {frame['slide'][row]!r}" for row in frame.index[frame["patient"] == ""]
    ]
    return faults


def _place(frame: pd.DataFrame, files: Sequence[Path], table: Path | None) -> list[str]:
    """Fill the column `path`; return what is missing or ambiguous."""
    by_id: dict[str, list[Path]] = {}
    for path in files:
        by_id.setdefault(slide_id(path), []).append(path)
    given = list(frame["path"]) if "path" in frame.columns else [""] * len(frame)
    faults, places = [], []
    for row, (name, given_path) in enumerate(zip(frame["slide"], given, strict=True)):
        found = by_id.get(name) or by_id.get(slide_id(Path(name)), [])
        if "://" in given_path:
            places.append(given_path)
        elif given_path:
            place = Path(given_path) if table is None else table.parent / given_path
            if not place.exists():
                faults.append(f"row {row + 2}: the file {str(place)!r} of slide {name!r} does not exist")
            places.append(str(place.absolute()))
        elif len(found) == 1:
            places.append(str(found[0]))
        else:
            places.append("")
            if len(found) > 1:
                names = ", ".join(str(place) for place in found)
                faults.append(f"row {row + 2}: slide {name!r} could be any of {names}: say which in a column `path`")
            elif files or table is None:
                faults.append(f"row {row + 2}: no file found for slide {name!r}{_as_meant(name, by_id)}")
            else:
                faults.append(f"row {row + 2}: no file for slide {name!r}: `cohort.slides` finds no slides at all")
    frame["path"] = places
    extra = len(set(by_id) - set(frame["slide"]))
    if extra:
        logger.info("%d slide file(s) have no row in the table and take no part", extra)
    return faults


def _as_meant(name: str, ids: Iterable[str]) -> str:
    """What to do about a slide without a file: most often a spreadsheet has changed its name."""
    bare = [one for one in ids if one.lstrip("0") == name]
    if bare:
        return f": a spreadsheet has cut the zeros off {bare[0]!r}; save the column as text"
    if rewritten(name):
        return ": a spreadsheet has made a date or a number of its name; save the column as text"
    return ": add it, or a column `path`"


def _scale(frame: pd.DataFrame) -> list[str]:
    faults, scales = [], []
    for row, text in enumerate(frame["mpp"] if "mpp" in frame.columns else [""] * len(frame)):
        try:
            scale = float(text) if text else math.nan
        except ValueError:
            scale = -1.0
        if text and not (math.isfinite(scale) and 0 < scale < 1000):
            faults.append(
                f"row {row + 2}: mpp {text!r} is no scale in micrometres per pixel: write a number such as 0.25"
            )
        scales.append(scale)
    frame["mpp"] = pd.Series(scales, index=frame.index, dtype=float)
    return faults


def _label_faults(frame: pd.DataFrame, labels: Sequence[str], *, label_of: str, classes: Sequence[str]) -> list[str]:
    faults: list[str] = []
    for name in labels:
        if name not in frame.columns:
            faults.append(f"no label column {name!r}{suggestion(name, frame.columns)}")
            continue
        values = frame[name]
        if classes:
            faults += [
                f"row {row + 2}: unknown label {values[row]!r} in {name!r}{suggestion(values[row], classes)}"
                for row in frame.index[(values != "") & ~values.isin(list(classes))]
            ]
        else:
            faults += [
                f"row {row + 2}: the label {values[row]!r} in {name!r} looks like a date or number that a spreadsheet "
                "made of it: mend it, or list it in task.classes"
                for row in frame.index[values.map(rewritten)]
            ]
        if label_of == "patient":
            for patient, group in frame[values != ""].groupby("patient", sort=False):
                if group[name].nunique() > 1:
                    both = " and ".join(repr(value) for value in sorted(group[name].unique()))
                    faults.append(
                        f"rows {_rows(list(group.index))}: patient {patient!r} has the labels {both} in {name!r}: "
                        "mend them, or set cohort.label_of: slide"
                    )
    return faults


def _missing_labels(frame: pd.DataFrame, labels: Sequence[str]) -> list[str]:
    return [
        f"rows {_rows(rows)}: no label in {name!r}: fill them in, or set cohort.missing_labels: predict"
        for name in labels
        if name in frame.columns and (rows := list(frame.index[frame[name] == ""]))
    ]
