"""Bags from and for other programs: whole folders at a time, with the slides or a table where a scale is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from wsi_mil import files
from wsi_mil.bags import Given, bag_to_hdf5, cells, export_bag, import_bag, read_bag, read_foreign, verify_bag
from wsi_mil.cohort import find_slides, read_table
from wsi_mil.encoders import CATALOGUE, SlideEncoder
from wsi_mil.errors import BagError, CohortError, WsiMilError
from wsi_mil.grid import SlideRef
from wsi_mil.layout import id_problem, slide_id
from wsi_mil.slides import open_slide

SUFFIXES = (".h5", ".hdf5", ".pt")


@dataclass(frozen=True)
class Exchanged:
    """What became of one file."""

    path: Path
    slide: str
    kind: str
    """made, found or failed."""
    tiles: int = 0
    dim: int = 0
    what: str = ""
    """Layout and encoder."""
    note: str = ""


@dataclass(frozen=True)
class Help:
    """What the person who imports knows beyond the files."""

    slides: str = ""
    """Folder or pattern of the slides."""
    table: Path | None = None
    """CSV with slide and mpp, and as known width and height in level-0 pixels."""
    mpp: float | None = None
    """Scale of every slide."""
    places: Path | None = None
    """Folder of CLAM's patches/SLIDE.h5."""
    encoder: str = ""
    tile_px: int = 0
    tile_mpp: float = 0.0


def import_bags(paths: Sequence[Path], folder: Path, known: Help, *, redo: bool = False) -> Iterator[Exchanged]:
    """Import files, or all below folders; each becomes FOLDER/SLIDE.h5, whole or not at all.

    One bad file never stops the others. Raises BagError where there is nothing to import, or two files are of one
    slide; CohortError for a table that cannot be read.
    """
    found = gathered(paths)
    slides = {slide_id(path): path for path in find_slides(known.slides)}
    table = _table(known.table) if known.table is not None else {}
    for path in found:
        slide = path.name.rpartition(".")[0]
        target = folder / f"{slide}.h5"
        if target.exists() and not redo:
            yield Exchanged(path, slide, "found")
            continue
        try:
            yield _imported(path, slide, target, known, table.get(slide), slides.get(slide))
        except (WsiMilError, OSError) as error:
            yield Exchanged(path, slide, "failed", note=_reason(error))


def export_bags(paths: Sequence[Path], folder: Path, layout: str) -> Iterator[Exchanged]:
    """Write bags as another program's files below a folder."""
    for path in gathered(paths):
        try:
            bag = read_bag(path)
            for place, data in export_bag(bag, layout).items():
                files.write_bytes(folder / place, data)
            yield Exchanged(path, bag.slide.id, "made", len(bag), bag.features.shape[1], layout)
        except (WsiMilError, OSError) as error:
            yield Exchanged(path, path.stem, "failed", note=_reason(error))


def verify_bags(paths: Sequence[Path]) -> Iterator[Exchanged]:
    """Read bags whole and compare their digests."""
    for path in gathered(paths):
        try:
            header = verify_bag(path)
            what = f"{header.encoder.name} {header.encoder.weights_digest[:12]}".strip()
            yield Exchanged(path, header.slide.id, "found", header.tiles, header.dim, what)
        except WsiMilError as error:
            yield Exchanged(path, path.stem, "failed", note=str(error))


def embed_slides(paths: Sequence[Path], output: Path, encoder: SlideEncoder) -> Iterator[Exchanged]:
    """One vector a slide by a slide encoder, as a CSV with a row a slide: slide, then the numbers."""
    rows: dict[str, list[float]] = {}
    for path in gathered(paths):
        try:
            bag = read_bag(path)
            where = f"slide {bag.slide.id!r}"
            keep = bag.usable
            vector, _ = encoder.encode(bag.features[keep], cells(bag.grid)[keep], contract=bag.encoder, where=where)
            rows[bag.slide.id] = vector.tolist()
            yield Exchanged(path, bag.slide.id, "made", int(keep.sum()), len(vector), encoder.entry.name)
        except WsiMilError as error:
            yield Exchanged(path, path.stem, "failed", note=str(error))
    if rows:
        names = [f"e{number}" for number in range(encoder.entry.dim)]
        frame = pd.DataFrame.from_dict(rows, orient="index", columns=names)
        files.write_text(output, frame.to_csv(index_label="slide", float_format="%.7g"))


def gathered(paths: Sequence[Path]) -> list[Path]:
    """The files of features that are named, or lie in folders; of CLAM's two copies the one with coordinates."""
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise BagError(f"{path}: there is no such file or folder")
        inside = sorted(one for one in path.rglob("*") if one.suffix in SUFFIXES) if path.is_dir() else [path]
        found += [one for one in inside if path.is_file() or not any(_no_features(part) for part in one.parts)]
    h5 = {path.stem for path in found if path.parent.name == "h5_files"}
    found = [path for path in found if not (path.parent.name == "pt_files" and path.stem in h5)]
    if not found:
        raise BagError(f"no files of features ({', '.join(SUFFIXES)}) in {', '.join(str(path) for path in paths)}")
    by_slide: dict[str, Path] = {}
    for path in found:
        other = by_slide.setdefault(path.name.rpartition(".")[0], path)
        if other != path:
            raise BagError(f"{other} and {path} are of one slide: give one folder of features at a time")
    return found


def _reason(error: WsiMilError | OSError) -> str:
    """A full disk or a missing permission in words."""
    if not isinstance(error, OSError):
        return str(error)
    return f"cannot be written ({error.strerror or error}): make room, then run the same command again"


def _no_features(folder: str) -> bool:
    return folder == "patches" or folder.startswith(("slide_features", "."))


def _imported(
    path: Path, slide: str, target: Path, known: Help, row: SlideRef | None, slide_path: Path | None
) -> Exchanged:
    problem = id_problem(slide)
    if problem:
        raise BagError(f"{path}: {slide!r} cannot be a slide id: it {problem}; rename the file")
    places = known.places / f"{slide}.h5" if known.places is not None else None
    foreign = read_foreign(path, places=places if places is not None and places.is_file() else None)
    ref = row
    if slide_path is not None:
        mpp = row.mpp[0] if row is not None else known.mpp
        source = "cohort" if row is not None else "flag"
        with open_slide(slide_path, mpp=mpp, mpp_source=source, id=slide) as opened:  # type: ignore[arg-type]
            ref = opened.ref()
    elif row is None and known.mpp is not None:
        ref = SlideRef(slide, "", (0, 0), (known.mpp, known.mpp), "flag")
    saw = _saw_tcga(known.encoder or foreign.encoder)
    bag, note = import_bag(foreign, Given(ref, known.encoder, known.tile_px, known.tile_mpp, saw))
    files.write_bytes(target, bag_to_hdf5(bag))
    what = f"{foreign.layout}, {bag.encoder.name}"
    return Exchanged(path, slide, "made", len(bag), bag.features.shape[1], what, note)


def _saw_tcga(encoder: str) -> str:
    """What the catalogue says of an encoder that other programs spell in their own way."""
    spelt = {name.replace("-", ""): row for name, row in CATALOGUE.items()}
    row = spelt.get(encoder.lower().replace("_", "").replace("-", ""))
    return row.saw_tcga if row is not None else "unknown"


def _table(path: Path) -> dict[str, SlideRef]:
    """Scale, and size where it is told, of each slide of a table."""
    frame, found, faults = read_table(path), {}, []
    lacking = [name for name in ("slide", "mpp") if name not in frame.columns]
    if lacking:
        raise CohortError(f"{path}: no column {', '.join(lacking)}: a table for imports has slide and mpp")
    for number, row in enumerate(frame.to_dict("records")):
        try:
            mpp = float(row["mpp"])
            size = (int(row.get("width") or 0), int(row.get("height") or 0))
        except ValueError as error:
            faults.append(f"row {number + 2}: {error}")
            continue
        if not 0 < mpp < 1000:
            faults.append(f"row {number + 2}: mpp {row['mpp']!r} is no scale in micrometres per pixel")
            continue
        found[str(row["slide"])] = SlideRef(str(row["slide"]), "", size, (mpp, mpp), "cohort")
    if faults:
        raise CohortError(f"{path}: {len(faults)} fault(s): {'; '.join(faults[:10])}")
    return found
