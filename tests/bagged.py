"""A study of bags alone, without pixels: classes, sites and patients as a test wants them, trained in a second."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from studies import run_stage

from wsi_mil.stages import Help, Work, import_bags, load_study

DIM = 8


def bag_study(
    folder: Path,
    *settings: str,
    slides: int = 24,
    signal: float = 2.0,
    seed: int = 0,
    slides_each: int = 1,
    site_shift: float = 0.0,
    prefix: str = "S",
) -> Work:
    """A folder with cohort.csv, study.yaml and work/extract/; class 1 is shifted by `signal` in one feature.

    Patients have `slides_each` slides; sites A, B and C; columns scanner and age. Noise overlaps the classes.
    """
    random = np.random.default_rng(seed)
    source = folder / "features"
    source.mkdir(parents=True)
    rows = []
    for number in range(slides):
        patient = number // slides_each
        label, site = patient % 2, "ABC"[patient // 2 % 3]
        features = random.normal(size=(20 + number % 7, DIM)).astype(np.float32)
        features[:, 0] += signal * label + random.normal()
        features[:, 1] += site_shift * (site == "A")
        with h5py.File(source / f"{prefix}{number:03}.h5", "w") as file:
            file.create_dataset("features", data=features, chunks=(1, DIM)).attrs["encoder"] = "phikon"
        age = 40 + 20 * label + random.integers(10)
        rows.append(
            (
                f"{prefix}{number:03}",
                f"{'' if prefix == 'S' else prefix}P{patient:03}",
                ("normal", "tumour")[label],
                site,
                "uv"[patient % 4 // 2],
                age,
            )
        )
    table = pd.DataFrame(rows, columns=["slide", "patient", "label", "site", "scanner", "age"])
    table.to_csv(folder / "cohort.csv", index=False)
    (folder / "study.yaml").write_text(
        "cohort: {table: cohort.csv, slides: none}\ntask: {label: label}\nextract: {encoder: phikon}\n"
        "split: {folds: 2, select: 0.25}\ntrain: {epochs: 4, lr: 0.03, batch_bags: 8}\n"
        "model: {options: {hidden: 8, attention: 4}}\n"
        "report: {draws: 100}\nruntime: {threads: 1}\n"
    )
    work = Work(folder / "work", load_study(folder / "study.yaml", list(settings)))
    work.check_cohort()
    told = list(import_bags([source], work.root / "extract" / "phikon", Help()))
    assert {one.kind for one in told} == {"made"}, told
    return work


def with_settings(work: Work, *settings: str) -> Work:
    """The same folder with other settings."""
    other = Work(work.root, load_study(work.root.parent / "study.yaml", list(settings)))
    other.check_cohort()
    return other


def through(work: Work, *stages: str) -> None:
    """Run stages, each of which must be made."""
    for name in stages:
        outcomes = run_stage(work, name)
        assert {one.kind for one in outcomes} <= {"made", "found"}, outcomes
