"""The study on one page: figures from arrays, a page from figures and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsi_mil.report.answer import answer_figure as answer_figure
    from wsi_mil.report.figures import Curve as Curve
    from wsi_mil.report.figures import bar_figure as bar_figure
    from wsi_mil.report.figures import confusion_figure as confusion_figure
    from wsi_mil.report.figures import curve_figure as curve_figure
    from wsi_mil.report.figures import history_figure as history_figure
    from wsi_mil.report.figures import interval_figure as interval_figure
    from wsi_mil.report.figures import score_figure as score_figure
    from wsi_mil.report.flow import Step as Step
    from wsi_mil.report.flow import flow_figure as flow_figure
    from wsi_mil.report.html import Cell as Cell
    from wsi_mil.report.html import Figure as Figure
    from wsi_mil.report.html import Headline as Headline
    from wsi_mil.report.html import Link as Link
    from wsi_mil.report.html import Part as Part
    from wsi_mil.report.html import Picture as Picture
    from wsi_mil.report.html import TableView as TableView
    from wsi_mil.report.html import interval_text as interval_text
    from wsi_mil.report.html import page as page
    from wsi_mil.report.outcomes import scatter_figure as scatter_figure
    from wsi_mil.report.outcomes import survival_figure as survival_figure
    from wsi_mil.report.reliability import Bins as Bins
    from wsi_mil.report.reliability import benefit_figure as benefit_figure
    from wsi_mil.report.reliability import reliability_figure as reliability_figure

_PLACES = {
    "answer_figure": "answer",
    "Curve": "figures",
    "bar_figure": "figures",
    "confusion_figure": "figures",
    "curve_figure": "figures",
    "history_figure": "figures",
    "interval_figure": "figures",
    "score_figure": "figures",
    "scatter_figure": "outcomes",
    "survival_figure": "outcomes",
    "Step": "flow",
    "flow_figure": "flow",
    "Cell": "html",
    "Figure": "html",
    "Headline": "html",
    "Link": "html",
    "Part": "html",
    "Picture": "html",
    "TableView": "html",
    "interval_text": "html",
    "page": "html",
    "Bins": "reliability",
    "benefit_figure": "reliability",
    "reliability_figure": "reliability",
}

__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    # Loaded when first asked for: matplotlib takes most of a second.
    if name in _PLACES:
        from importlib import import_module

        return getattr(import_module(f"wsi_mil.report.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
