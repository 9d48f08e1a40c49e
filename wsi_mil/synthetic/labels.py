"""Labels of synthetic patients for every kind of question, all of which hang on what was drawn on their slides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wsi_mil.synthetic.scene import Scene

OUTCOMES = ("lesion", "extensive", "dense", "lesion_percent", "grade", "months", "died")
"""Columns of the cohort table besides slide, patient, label and site."""

GRADES = (0.0, 0.06, 0.10)
"""Share of lesion above which the grade is 1, 2 and 3; without lesion it is 0."""

EXTENSIVE = 0.08
"""Share of lesion above which it is extensive."""

DENSE_PATCHES = 2
"""Dense benign patches from which on a slide counts as dense."""

LAST_MONTH = (24.0, 72.0)
"""When patients were last seen, at the earliest and the latest."""


def outcomes(patients: Sequence[str], scenes: Sequence[Scene], *, seed: int) -> list[dict[str, str]]:
    """The columns OUTCOMES for each slide, one value a patient.

    lesion, extensive and dense (0 or 1; the last two are unknown for every fifth patient; dense patches are small, and
    hard to learn from some dozens of slides), lesion_percent of the tissue (mean over the slides), grade 0 to 3 by it,
    and months to death (died 1) or to the last visit (died 0): the hazard grows with the share of lesion.
    """
    by_patient: dict[str, list[Scene]] = {}
    for patient, scene in zip(patients, scenes, strict=True):
        by_patient.setdefault(patient, []).append(scene)
    told = {}
    for number, (patient, own) in enumerate(by_patient.items()):
        share = float(np.mean([scene.lesion_share for scene in own]))
        dense = any(len(scene.patches) >= DENSE_PATCHES for scene in own)
        rng = np.random.default_rng([seed, 2, number])
        # A tenth of lesion shortens the mean time from ten years to one.
        death, last = 120 * 10 ** (-10 * share) * rng.weibull(2), rng.uniform(*LAST_MONTH)
        told[patient] = {
            "lesion": str(int(share > 0)),
            "extensive": "" if number % 5 == 4 else str(int(share > EXTENSIVE)),
            "dense": "" if number % 5 == 4 else str(int(dense)),
            "lesion_percent": f"{100 * share:.2f}",
            "grade": str(sum(share > least for least in GRADES)),
            "months": f"{max(0.1, min(death, last)):.1f}",
            "died": str(int(death <= last)),
        }
    return [told[patient] for patient in patients]
