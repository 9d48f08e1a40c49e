"""What checkpoints were fitted on, against the slides that they are asked about: in their study, or another cohort."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wsi_mil.errors import ModelError, StageError
from wsi_mil.stages.audit import audit_study, leakage, patient_mark
from wsi_mil.stages.features import bags_of, header_of
from wsi_mil.stages.train import roles_of
from wsi_mil.stages.trained import TrainedModel, load, speakers, trained_models

if TYPE_CHECKING:
    from wsi_mil import training
    from wsi_mil.stages.work import Work

logger = logging.getLogger("wsi_mil")


@dataclass
class Overlap:
    """Slides that models have learnt from."""

    named: list[str] = field(default_factory=list)
    """They bear the name of a slide learnt from."""
    content: dict[str, str] = field(default_factory=dict)
    """Under another name the same file or the same features: by slide the name it was learnt from as."""
    patients: dict[str, str] = field(default_factory=dict)
    """Of none of these, but a patient learnt from has the same id: by slide the id."""

    @property
    def slides(self) -> list[str]:
        """Those that are the very slide, by name or by content."""
        return [*self.named, *self.content]


def audit_own(work: Work) -> None:
    """Both audits of a study that predicts by its own models: of its folds as they are now, and of its checkpoints.

    Raises BagError or ModelError with every finding.
    """
    models = trained_models(work)
    audit_study(work)
    audit_models(models, speakers(models, work), work)


def audit_models(models: Sequence[TrainedModel], tests: Mapping[str, Sequence[TrainedModel]], work: Work) -> None:
    """Compare what each checkpoint was fitted on with whom it is to be tested on; `tests` is models by slide.

    Raises ModelError with every finding: a model that learnt from a tested slide, whatever its name, or its patient, or
    from slides that have another role now, or whose scaler or clinical encoder was fitted outside the fit role.
    """
    frame = work.cohort.frame
    patients = dict(zip(frame["slide"], frame["patient"], strict=True))
    tested: dict[str, list[str]] = {}
    for slide, able in tests.items():
        for model in able:
            tested.setdefault(model.name, []).append(slide)
    faults = []
    for model in models:
        told, slides = load(model, work).training, tested.get(model.name, [])
        learnt = {patients.get(slide, slide) for slide in told.slides}
        very = set(overlap([told], slides, work).slides)
        both = [slide for slide in slides if slide in very or patients[slide] in learnt]
        if both:
            faults.append(f"{model.name} learnt from {len(both)} of the slides it is to be tested on, or from their "
                          f"patients (first {both[0]!r})")  # fmt: skip
        faults += [f"{model.name}: {fault}" for fault in _outside(model, told, work)]
    if faults:
        raise ModelError(f"{leakage(faults)}; train again")


def _outside(model: TrainedModel, told: training.Training, work: Work) -> list[str]:
    """What of a checkpoint was fitted on slides that have another role in folds.csv."""
    assert model.repeat is not None
    assert model.fold is not None
    roles = roles_of(model.repeat, model.fold, work)
    allowed = {
        "it learnt from": (told.slides, {*roles["fit"], *roles["select"]}, "fit and select"),
        "its scaler was fitted on": (told.scaled_on, set(roles["fit"]), "fit"),
        "its clinical encoder was fitted on": (told.recorded_on, set(roles["fit"]), "fit"),
    }
    faults = []
    for words, (slides, wanted, role) in allowed.items():
        outside = sorted(set(slides) - wanted)
        if outside:
            faults.append(f"{words} {len(outside)} slide(s) outside the role {role} (first {outside[0]!r})")
    return faults


def overlap(told: Sequence[training.Training], slides: Sequence[str], work: Work) -> Overlap:
    """Which of some slides of the cohort are among those that models learnt from, by name, content and patient.

    Checkpoints that kept no fingerprints are compared by name alone.
    """
    marks: dict[str, str] = {}
    names: set[str] = set()
    people: set[str] = set()
    for one in told:
        names |= set(one.slides)
        people |= set(one.patients)
        for kept in (one.fingerprints, one.digests):
            marks |= dict(zip(kept, one.slides, strict=False))
    found, paths, rows = Overlap(), bags_of(work, slides)[0], work.rows_of(slides)
    for slide, patient in zip(rows["slide"], rows["patient"], strict=True):
        header = header_of(paths[slide]) if slide in paths else None
        own = [mark for mark in (header.slide.fingerprint, header.digest) if mark in marks] if header else []
        if slide in names:
            found.named.append(slide)
        elif own:
            found.content[slide] = marks[own[0]]
        elif patient_mark(patient) in people:
            found.patients[slide] = patient
    return found


def overlap_warning(work: Work) -> str:
    """A warning where given models are asked about slides that they have learnt from; empty where they are not."""
    found = _given(work)
    if not found.slides:
        return _same_ids(found)
    return (
        f"the models have learnt from {len(found.slides)} of the {len(work.cohort)} slides ({_first(found)}): figures "
        "of slides that a model has learnt from say nothing"
    )


def require_new(work: Work) -> None:
    """Refuse a cohort for validation that holds slides which the models have learnt from.

    By name, by the file and by the features. Patients of the same id are warned of: in another hospital the same id may
    be another person. Raises StageError with the slides.
    """
    found = _given(work)
    if found.named:
        raise StageError(
            f"{len(found.named)} slide(s) have names of slides that the model has learnt from, first "
            f"{found.named[0]!r}: leave them out of an external cohort, or rename them if they are others"
        )
    if found.content:
        raise StageError(
            f"{len(found.content)} slide(s) are those that the model has learnt from under other names "
            f"({_first(found)}): leave them out of an external cohort"
        )
    if found.patients:
        logger.warning("%s", _same_ids(found))


def _given(work: Work) -> Overlap:
    return overlap([load(one, work).training for one in trained_models(work)], work.cohort.slides, work)


def _first(found: Overlap) -> str:
    if found.named:
        return f"first {found.named[0]!r}, by its name"
    slide, name = next(iter(found.content.items()))
    return f"first {slide!r}, learnt from as {name!r}: the same file or the same features"


def _same_ids(found: Overlap) -> str:
    if not found.patients:
        return ""
    slide, patient = next(iter(found.patients.items()))
    return (
        f"{len(found.patients)} slide(s) are of patients with ids that the model has learnt from (first {slide!r} of "
        f"patient {patient!r}): leave them out if they are the same people"
    )
