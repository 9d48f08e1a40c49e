"""Nothing that is tested may be among what a fold learns from: one report before training, one before prediction."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsi_mil import files
from wsi_mil.bags import StoredBag, read_bag
from wsi_mil.cohort import read_table
from wsi_mil.errors import BagError, StageError
from wsi_mil.evaluation import (
    SAME_BAG,
    Signature,
    cramers_v,
    near_pairs,
    sampled,
    share_found,
    shared_patients,
    signature,
)
from wsi_mil.layout import slide_id
from wsi_mil.stages.features import bags_of, header_of

if TYPE_CHECKING:
    import pandas as pd

    from wsi_mil import training
    from wsi_mil.cohort import ClinicalEncoder
    from wsi_mil.stages.work import Work

logger = logging.getLogger("wsi_mil")

TCGA_BARCODE = re.compile(r"TCGA-[0-9A-Z]{2}-[0-9A-Z]{4}")
"""How the names of TCGA's slides begin."""

FILE_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}$")
"""What makes a name that of a file: "S.001" is none."""

CHECKED = "patients, files, near-duplicate bags, the encoder's pretraining"

MOST_SHOWN = 20

TOGETHER, SURE = 0.3, 0.05
"""Cramer's V of site and label that is a warning, and the p of a permutation below which it is no chance."""


def audit_fold(roles: Mapping[str, Sequence[str]], work: Work) -> dict[str, Any]:
    """Look for anything of the test role among what a fold learns from; return what was checked, and the warnings.

    Raises BagError with every finding: a patient, a file or nearly the same bag on both sides, or a tested slide that
    the encoder was pretrained on. Slides without a bag are left out.
    """
    paths = {role: bags_of(work, slides)[0] for role, slides in roles.items()}
    faults, warnings = _findings(roles, paths, work)
    warnings += tcga_warning(list(paths["test"].items()))
    if faults:
        raise BagError(leakage(faults))
    for warning in warnings:
        logger.warning("%s", warning)
    bags = sum(len(found) for found in paths.values())
    return {"checked": CHECKED, "bags": bags, "warnings": warnings, "key": audit_key(roles, work)}


def audit_study(work: Work) -> None:
    """The same for every fold that a study predicts by, since a bag or a patient may have changed after training.

    Raises BagError with every finding and its fold.
    """
    from wsi_mil.stages.train import read_folds, roles_of

    folds = read_folds(work)
    places = list(folds[["repeat", "fold"]].drop_duplicates().itertuples(index=False))
    known = bags_of(work, folds["slide"].unique())[0]
    several = len({repeat for repeat, _ in places}) > 1
    faults = []
    for repeat, fold in places:
        roles = roles_of(int(repeat), int(fold), work)
        paths = {role: {slide: known[slide] for slide in slides if slide in known} for role, slides in roles.items()}
        name = f"repeat {repeat} fold {fold}" if several else f"fold {fold}"
        faults += [f"{name}: {fault}" for fault in _findings(roles, paths, work)[0]]
    if faults:
        raise BagError(f"{leakage(faults)}; train again")


def audit_key(roles: Mapping[str, Sequence[str]], work: Work) -> str:
    """Digest of all that an audit of a fold looks at: it need not be run again while this stays the same."""
    told = [files.digest_file(work.study.train.encoder_saw)] if work.study.train.encoder_saw else []
    for role, slides in roles.items():
        paths, rows = bags_of(work, slides)[0], work.rows_of(slides)
        patients = dict(zip(rows["slide"], rows["patient"], strict=True))
        for slide, path in paths.items():
            header = header_of(path)
            told += [role, slide, patients[slide], header.slide.fingerprint, header.digest]
    return files.digest(*told)


def read_by(
    fitted: training.Fitted, units: Sequence[Sequence[str]], clinical: ClinicalEncoder | None
) -> dict[str, Any]:
    """What the fits say that they have read, by the names of slides; the audit holds it against the fit role."""
    return {
        "scaled_on": tuple(slide for bag in fitted.scaled for slide in units[bag]),
        "recorded_on": clinical.fitted_on if clinical else (),
    }


def patient_mark(patient: str) -> str:
    """What a checkpoint keeps of a patient's id: enough to know it again, and not the id itself."""
    return files.digest("patient", patient)[:16]


def marks_of(paths: Mapping[str, Path], work: Work) -> dict[str, Any]:
    """By what the slides that are learnt from are known again in another cohort."""
    slides = [header_of(path) for path in paths.values()]
    return {
        "patients": tuple(patient_mark(patient) for patient in work.rows_of(list(paths))["patient"]),
        "fingerprints": tuple(header.slide.fingerprint for header in slides),
        "digests": tuple(header.digest for header in slides),
    }


def _findings(
    roles: Mapping[str, Sequence[str]], paths: Mapping[str, Mapping[str, Path]], work: Work
) -> tuple[list[str], list[str]]:
    """Faults and warnings of a fold."""
    frame = work.cohort.frame
    patients = dict(zip(frame["slide"], frame["patient"], strict=True))
    faults = [
        f"patient {patient!r} is in the roles {' and '.join(found)}"
        for patient, found in shared_patients(roles, patients).items()
    ]
    twins, warnings = _same_files(paths)
    return [*faults, *twins, *_near_duplicates(paths), *pretrained(roles["test"], work)], warnings


def leakage(faults: Sequence[str]) -> str:
    """All findings as one sentence."""
    more = f"; ... and {len(faults) - MOST_SHOWN} more" if len(faults) > MOST_SHOWN else ""
    return f"leakage, {len(faults)} finding(s): {'; '.join(faults[:MOST_SHOWN])}{more}"


def tcga_warning(paths: Sequence[tuple[str, Path]]) -> list[str]:
    """A warning where slides of TCGA are read through an encoder that was pretrained on TCGA."""
    tcga = [(slide, path) for slide, path in paths if TCGA_BARCODE.match(slide)]
    if not tcga:
        return []
    encoder = header_of(tcga[0][1]).encoder
    if encoder.saw_tcga not in ("yes", "probably"):
        return []
    return [
        f"{len(tcga)} of {len(paths)} slides are of TCGA (first {tcga[0][0]!r}), and encoder {encoder.name!r} was "
        f"{'' if encoder.saw_tcga == 'yes' else 'probably '}pretrained on TCGA: these figures may be better than "
        "on slides it never saw; evaluate on another cohort too"
    ]


def site_warning(rows: pd.DataFrame) -> list[str]:
    """A warning where site and label go together, so that a model can learn the site; rows of patient, label, site.

    By Cramer's V over patients: what folds by patients cannot mend, and folds by sites show.
    """
    known = rows[rows["site"] != ""].drop_duplicates("patient")
    if known["site"].nunique() < 2 or known["label"].nunique() < 2:
        return []
    strength, p = cramers_v(list(known["site"]), list(known["label"]))
    if not (strength >= TOGETHER and p < SURE):
        return []
    sites = known.groupby("label")["site"].agg(lambda found: sorted(set(found)))
    lone = [f"{label!r} comes from {found[0]!r} alone" for label, found in sites.items() if len(found) == 1]
    return [
        f"site and label go together (Cramer's V {strength:.2f} over {len(known)} patients"
        f"{'; ' + ', '.join(lone) if lone else ''}): a model can learn the site in place of the tissue; compare with "
        "split.by: sites, and look at the baseline 'site alone' of the report"
    ]


def _same_files(paths: Mapping[str, Mapping[str, Path]]) -> tuple[list[str], list[str]]:
    """The same file under two names: a fault on both sides of the fold, a warning on one."""
    seen: dict[str, tuple[str, str]] = {}
    faults, warnings = [], []
    for role, found in paths.items():
        for slide, path in found.items():
            header = header_of(path)
            for mark in dict.fromkeys((header.slide.fingerprint, header.digest)):
                other, of = seen.setdefault(mark, (slide, role))
                if other == slide:
                    continue
                twins = f"slides {other!r} and {slide!r} are the same file"
                if (of == "test") != (role == "test"):
                    faults.append(f"{twins}, one to learn from and one to be tested on: leave one out of the cohort")
                else:
                    warnings.append(f"{twins}; both are in the role {role}")
                break
    return faults, warnings


def _near_duplicates(paths: Mapping[str, Mapping[str, Path]]) -> list[str]:
    """Bags of two files that hold the same tiles: a slide saved again, or cropped."""
    tested = paths["test"]
    learnt = {slide: path for role, found in paths.items() if role != "test" for slide, path in found.items()}
    known = {slide: header_of(path).slide.fingerprint for slide, path in [*tested.items(), *learnt.items()]}
    faults = []
    for one, other in near_pairs(_signatures(tested), _signatures(learnt)):
        if known[one] == known[other] or header_of(tested[one]).digest == header_of(learnt[other]).digest:
            continue  # told as the same file
        share = _share(tested[one], learnt[other], _changed(tested[one]), _changed(learnt[other]))
        if share >= SAME_BAG:
            faults.append(
                f"slide {one!r} (test) and {other!r} (learnt from) are two files of one slide: {share:.0%} of the "
                "tiles looked at are in both"
            )
    return faults


def pretrained(tested: Sequence[str], work: Work) -> list[str]:
    """Tested slides that stand in the list of what the encoder was pretrained on, or whose patients do.

    By name, with or without folder and suffix; of TCGA by the barcode of the patient, since slides of one patient are
    named in many ways.
    """
    listed = work.study.train.encoder_saw
    if listed is None:
        return []
    table = read_table(listed)
    columns = [name for name in table.columns if name in ("slide", "patient")]
    if not columns:
        raise StageError(f"train.encoder_saw: {listed} has no column 'slide' or 'patient', but {list(table.columns)}")
    saw = {name for column in columns for cell in table[column] for name in _names(str(cell).strip())} - {""}
    rows = work.rows_of(tested)
    both = [
        slide for slide, who in zip(rows["slide"], rows["patient"], strict=True) if saw & {*_names(slide), *_names(who)}
    ]
    if not both:
        return []
    return [f"the encoder was pretrained on {len(both)} of the slides to be tested, or on their patients "
            f"(first {both[0]!r})"]  # fmt: skip


def _names(cell: str) -> set[str]:
    """What a slide or patient may be called by: as it is, as the id of a file, and by the barcode of TCGA's patient."""
    file = Path(cell.replace("\\", "/"))
    barcode = TCGA_BARCODE.match(file.name.upper())
    return {cell, *([slide_id(file)] if FILE_SUFFIX.search(cell) else []), *([barcode.group()] if barcode else [])}


def _signatures(paths: Mapping[str, Path]) -> dict[str, Signature]:
    return {slide: _signature(path, _changed(path)) for slide, path in paths.items()}


def _rows(path: Path) -> Any:
    return read_bag(path).features


@lru_cache(maxsize=65536)
def _signature(path: Path, changed_ns: int) -> Signature:
    return signature(StoredBag.of(path).read(sampled)[0])


@lru_cache(maxsize=65536)
def _share(one: Path, other: Path, one_changed_ns: int, other_changed_ns: int) -> float:
    # Seeds and folds ask for the same pairs.
    return share_found(_rows(one), _rows(other))


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns
