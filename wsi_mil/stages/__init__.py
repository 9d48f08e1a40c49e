"""The corridor: one page a step, the only place where a file of one kind becomes a file of the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsi_mil.stages.believed import believe as believe
    from wsi_mil.stages.casebook import Reported as Reported
    from wsi_mil.stages.casebook import find_browser as find_browser
    from wsi_mil.stages.casebook import report_cases as report_cases
    from wsi_mil.stages.comparing import Comparison as Comparison
    from wsi_mil.stages.comparing import compare_studies as compare_studies
    from wsi_mil.stages.exchange import Exchanged as Exchanged
    from wsi_mil.stages.exchange import Help as Help
    from wsi_mil.stages.exchange import embed_slides as embed_slides
    from wsi_mil.stages.exchange import export_bags as export_bags
    from wsi_mil.stages.exchange import import_bags as import_bags
    from wsi_mil.stages.exchange import verify_bags as verify_bags
    from wsi_mil.stages.leave_out import WITHOUT_STAGES as WITHOUT_STAGES
    from wsi_mil.stages.leave_out import score_without as score_without
    from wsi_mil.stages.leave_out import works_without as works_without
    from wsi_mil.stages.leave_out import write_scores as write_scores
    from wsi_mil.stages.one_scale import draw_on_one_scale as draw_on_one_scale
    from wsi_mil.stages.opened import open_work as open_work
    from wsi_mil.stages.pace import told_pace as told_pace
    from wsi_mil.stages.runner import Plan as Plan
    from wsi_mil.stages.runner import plan as plan
    from wsi_mil.stages.runner import run as run
    from wsi_mil.stages.side_by_side import compare_works as compare_works
    from wsi_mil.stages.stage import Outcome as Outcome
    from wsi_mil.stages.stage import Stage as Stage
    from wsi_mil.stages.study import Study as Study
    from wsi_mil.stages.study import load_study as load_study
    from wsi_mil.stages.study import study_of_model as study_of_model
    from wsi_mil.stages.sweep import CHOSEN as CHOSEN
    from wsi_mil.stages.sweep import read_sweep as read_sweep
    from wsi_mil.stages.sweep import score_sweep as score_sweep
    from wsi_mil.stages.validation import validate_study as validate_study
    from wsi_mil.stages.work import Work as Work

STAGES = {
    "tissue": "Find the tissue of each slide.",
    "tile": "Lay a grid of tiles over the tissue of each slide.",
    "extract": "Turn the tiles of each slide into a bag of features.",
    "split": "Deal the patients into folds: who trains, who chooses, who is tested.",
    "train": "Train one model for each fold and seed.",
    "predict": "Predict every slide and patient with models that never saw them.",
    "calibrate": "Calibrate the predictions and decide, on patients of their own.",
    "heatmap": "Draw, for each slide, the scores behind its prediction.",
    "report": "Gather the study on one page.",
}
"""Every stage in the order they run, with the first line of its docstring (held to it by a test)."""

_PLACES = {
    "Reported": "casebook",
    "find_browser": "casebook",
    "report_cases": "casebook",
    "open_work": "opened",
    "validate_study": "validation",
    "believe": "believed",
    "Comparison": "comparing",
    "compare_studies": "comparing",
    "compare_works": "side_by_side",
    "Exchanged": "exchange",
    "Help": "exchange",
    "embed_slides": "exchange",
    "export_bags": "exchange",
    "import_bags": "exchange",
    "verify_bags": "exchange",
    "draw_on_one_scale": "one_scale",
    "WITHOUT_STAGES": "leave_out",
    "score_without": "leave_out",
    "works_without": "leave_out",
    "write_scores": "leave_out",
    "told_pace": "pace",
    "Outcome": "stage",
    "Plan": "runner",
    "plan": "runner",
    "Stage": "stage",
    "Study": "study",
    "Work": "work",
    "load_study": "study",
    "run": "runner",
    "CHOSEN": "sweep",
    "read_sweep": "sweep",
    "score_sweep": "sweep",
    "study_of_model": "study",
}

__all__ = ["STAGES", *sorted(_PLACES)]


def __getattr__(name: str) -> Any:
    # Loaded when first asked for, so that `wsi-mil --help` lists the stages without importing what they need.
    if name in _PLACES:
        from importlib import import_module

        return getattr(import_module(f"wsi_mil.stages.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
