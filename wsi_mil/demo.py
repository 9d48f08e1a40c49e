"""The demo: draw a cohort with a planted lesion, run the whole study on it, and say where to look."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wsi_mil import files
from wsi_mil.compute import executor
from wsi_mil.console import run_shown, show_outcomes, show_table
from wsi_mil.stages import STAGES, Work, load_study
from wsi_mil.synthetic import draw_cohort

if TYPE_CHECKING:
    from rich.console import Console

STUDY = """\
# The study of `wsi-mil demo`: a synthetic cohort, one binary label a patient, everything offline.
cohort:
  table: cohort/cohort.csv
  slides: cohort/slides
  label_of: patient
task:
  label: label
  classes: [benign, lesion]
tile:
  mpp: 0.5
  size_px: 256
split:
  folds: 4
train:
  seeds: [0]
report:
  title: Synthetic demo cohort
  truth: cohort/truth
  truth_of: Lesion
"""


def run_demo(folder: Path, *, slides: int, on: str, console: Console) -> bool:
    """Draw the slides (once), run every stage, print the headline numbers; whether all went well."""
    study_file, cohort = folder / "study.yaml", folder / "cohort"
    if not (cohort / "cohort.csv").exists():
        console.print(f"drawing {slides} slides into {cohort} ...")
        draw_cohort(cohort, slides=slides, seed=0)
    files.write_text(study_file, STUDY)
    work = Work((folder / "run").absolute(), load_study(study_file))
    work.root.mkdir(parents=True, exist_ok=True)
    work.check_cohort()
    runner, outcomes = executor(on), []
    for name in STAGES:
        outcomes += run_shown(name, work, runner, console)
    show_outcomes(outcomes, console)
    if any(one.kind == "failed" for one in outcomes):
        return False
    figures = files.read_json(work.root / "report" / "figures.json")
    show_table(
        [(row["name"], row["value"], row["note"]) for row in figures["headlines"]],
        ("", "value", ""),
        console,
        title="What the study found",
    )
    console.print(f"report    {work.root / 'report' / 'index.html'}")
    console.print(f"heatmaps  {work.stage('heatmap').folder(work)}")
    console.print(f"viewer    wsi-mil view {work.root} --truth {cohort / 'truth'}")
    console.print(f"tables    {work.stage('predict').folder(work)}")
    return True
