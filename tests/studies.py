"""A tiny cohort and its study, drawn once; each test of a stage gets a work folder of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from wsi_mil.compute import executor
from wsi_mil.stages import STAGES, Outcome, Work, load_study, run
from wsi_mil.synthetic import draw_cohort

STUDY = """\
cohort: {table: cohort/cohort.csv, slides: cohort/slides, label_of: patient}
task: {label: label, classes: [benign, lesion]}
tissue: {thumbnail_px: 300, mpp: 2.0}
tile: {mpp: 1.0, size_px: 64}
split: {folds: 2, select: 0.25}
model: {options: {hidden: 16, attention: 8}}
train: {epochs: 3}
heatmap: {picture_px: 400}
report: {truth: cohort/truth, truth_of: Lesion, draws: 100, heatmaps: 2, tiles: 2, thumbnails: 3}
runtime: {threads: 1, readers: 1}
"""


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cohort/ (12 small slides) and study.yaml; not to be changed."""
    folder = tmp_path_factory.mktemp("study")
    draw_cohort(folder / "cohort", slides=12, seed=1, side_px=(1024, 1300))
    (folder / "study.yaml").write_text(STUDY)
    return folder


@pytest.fixture(scope="session")
def finished(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Work:
    """The study run through every stage; not to be changed."""
    work = open_work(cohort, tmp_path_factory.mktemp("finished"))
    for name in STAGES:
        outcomes = run_stage(work, name)
        assert {one.kind for one in outcomes} == {"made"}, outcomes
    return work


@pytest.fixture
def copy_of(finished: Work, tmp_path: Path) -> Callable[..., Work]:
    """A function that gives a work folder with the finished stages up to a name, free to change."""

    def copied(*stages: str) -> Work:
        root = tmp_path / "work"
        root.mkdir()
        shutil.copy(finished.root / "cohort.csv", root)
        for name in stages:
            shutil.copytree(finished.root / name, root / name)
        return Work(root, finished.study)

    return copied


def open_work(cohort: Path, root: Path, *settings: str) -> Work:
    """A work folder with its cohort checked."""
    work = Work(root, load_study(cohort / "study.yaml", list(settings)))
    work.check_cohort()
    return work


def run_stage(work: Work, name: str, *, on: str = "here", **options: object) -> list[Outcome]:
    """All outcomes of a stage, in the order of its items."""
    stage = work.stage(name)
    order = [item.name for item in stage.items(work)]
    outcomes = list(run(stage, work, executor(on), **options))  # type: ignore[arg-type]
    return sorted(outcomes, key=lambda one: order.index(one.item))
