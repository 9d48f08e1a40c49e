"""The report of a study of 500 slides: seconds and megabytes, against the goals of 60 s and 30 MB.

    python benchmarks/report.py [--slides 500] [--keep FOLDER]

Twelve small slides are drawn, cut, and encoded; every slide of the study is one of them under another name, with noise
on its features, its own label and site, a thumbnail and a heatmap of 1,400 pixels. Splitting, training (one epoch),
prediction and calibration are real. Bags hold about 80 tiles: a study with 10,000 tiles a slide also pays for reading
its bags once (the baselines need them).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from wsi_mil.bags import bag_to_hdf5, read_bag
from wsi_mil.compute import executor
from wsi_mil.heatmaps import Heatmap, heatmap_to_hdf5, overlay
from wsi_mil.layout import record
from wsi_mil.slides import open_slide
from wsi_mil.stages import Work, load_study, run
from wsi_mil.synthetic import draw_cohort

GOAL_S, GOAL_MB = 60, 30

DRAWN = 12

STUDY = """\
cohort: {table: cohort.csv, slides: cohort/slides, label_of: patient}
task: {label: label, classes: [benign, lesion]}
split: {folds: 2}
model: {name: mean}
train: {epochs: 1}
report: {groups: [site]}
"""


def main() -> None:
    """Make the study, then print what its report takes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--slides", type=int, default=500)
    parser.add_argument("--keep", type=Path, help="Folder in which the study is left.")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = make_study(told.keep or Path(scratch), told.slides)
        start = time.perf_counter()
        through(work, ["report"])
        seconds = time.perf_counter() - start
        size_mb = (work.root / "report" / "index.html").stat().st_size / 1e6
    print(f"report of {told.slides} slides: {seconds:.1f} s (goal {GOAL_S} s), {size_mb:.1f} MB (goal {GOAL_MB} MB)")


def make_study(folder: Path, slides: int) -> Work:
    """A study that is ready for its report."""
    draw_cohort(folder / "cohort", slides=DRAWN, seed=0, side_px=(1800, 2400))
    shutil.copy(folder / "cohort" / "cohort.csv", folder / "cohort.csv")
    (folder / "study.yaml").write_text(STUDY)
    few = Work(folder / "few", load_study(folder / "study.yaml"))
    few.check_cohort()
    through(few, ["tissue", "tile", "extract"])
    table = multiplied(few.cohort.frame, slides)
    table.drop(columns="drawn").to_csv(folder / "cohort.csv", index=False)
    many = Work(folder / "run", load_study(folder / "study.yaml"))
    many.check_cohort()
    random = np.random.default_rng(0)
    for row in table.itertuples(index=False):
        copy_slide(few, many, (str(row.drawn), str(row.slide)), shift=float(row.label == "lesion"), random=random)
    through(many, ["split", "train", "predict", "calibrate"])
    pictures = {slide: drawn_map(few, slide) for slide in few.cohort.slides}
    for row in table.itertuples(index=False):
        place = many.stage("heatmap").folder(many) / str(row.slide)
        place.mkdir(parents=True)
        for suffix, data in zip((".h5", ".png"), pictures[str(row.drawn)], strict=True):
            (place / f"{row.slide}{suffix}").write_bytes(data)
        facts = {"models": 1, "channel": "contribution_lesion", "tiles": 80}
        write_record(many, "heatmap", str(row.slide), facts)
    return many


def multiplied(frame: pd.DataFrame, slides: int) -> pd.DataFrame:
    """The table of so many slides, two a patient, each one of the drawn ones."""
    number = np.arange(slides)
    return pd.DataFrame(
        {
            "slide": [f"S{one:04}" for one in number],
            "path": frame["path"].to_numpy()[number % len(frame)],
            "patient": [f"P{one // 2:04}" for one in number],
            "site": np.array(["north", "south", "east", "west"])[number // 2 % 4],
            "label": np.array(["benign", "lesion"])[number // 8 % 2],
            "drawn": frame["slide"].to_numpy()[number % len(frame)],
        }
    )


def copy_slide(few: Work, many: Work, names: tuple[str, str], *, shift: float, random: np.random.Generator) -> None:
    """Outline, thumbnail, records and a noisy bag of a drawn slide under another name."""
    old, new = names
    for suffix in (".geojson", ".png"):
        place = many.root / "tissue" / f"{new}{suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(few.root / "tissue" / f"{old}{suffix}", place)
    for name in ("tissue", "tile", "extract"):
        told = json.loads(record(few.stage(name).folder(few), old).read_text())
        write_record(many, name, new, told["facts"], seconds=told["seconds"])
    bag = read_bag(few.root / "extract" / "offline" / f"{old}.h5")
    # A file and tiles of its own, or the audit would find that one slide stands on both sides of a fold.
    slide = replace(bag.slide, id=new, fingerprint=hashlib.sha256(new.encode()).hexdigest())
    noise = random.normal(scale=0.5 * bag.features.std(axis=0) + 0.02, size=bag.features.shape) + 0.02 * shift
    features = (bag.features + noise).astype(bag.features.dtype)
    other = replace(bag, slide=slide, grid=replace(bag.grid, slide=slide), features=features, known_finite=True)
    (many.root / "extract" / "offline" / f"{new}.h5").write_bytes(bag_to_hdf5(other))


def write_record(work: Work, stage: str, slide: str, facts: dict[str, object], *, seconds: float = 1.0) -> None:
    """A record as the stage writes it."""
    path = record(work.stage(stage).folder(work), slide)
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {"outcome": "made", "why": "", "inputs": "", "output": "", "seconds": seconds, "facts": facts}
    path.write_text(json.dumps(told))


def drawn_map(few: Work, slide: str) -> tuple[bytes, bytes]:
    """A heatmap of smooth noise: its raw file and its picture."""
    bag = read_bag(few.root / "extract" / "offline" / f"{slide}.h5")
    scores = np.sin(bag.grid.coords_l0 / 400).sum(axis=1, keepdims=True).astype(np.float32)
    heatmap = Heatmap(bag.slide, bag.grid, scores, ("contribution_lesion",), model="mean", prediction={"lesion": 0.5})
    path = few.cohort.frame.set_index("slide").loc[slide, "path"]
    with open_slide(str(path)) as opened:
        rgb, downsample = opened.overview(max_px=1400)
    return heatmap_to_hdf5(heatmap), overlay(rgb, downsample, heatmap, "contribution_lesion", scale="signed")


def through(work: Work, stages: Sequence[str]) -> None:
    """Run stages; every item must be made."""
    for name in stages:
        start = time.perf_counter()
        outcomes = list(run(work.stage(name), work, executor("here")))
        faults = [one.why for one in outcomes if one.kind == "failed"]
        if faults:
            raise SystemExit(f"{name} failed: {faults[0]}")
        print(f"{name:10} {len(outcomes):4} items {time.perf_counter() - start:7.1f} s", flush=True)


if __name__ == "__main__":
    main()
