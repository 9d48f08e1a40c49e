"""A cohort of slides drawn offline, with a planted lesion on half of them and its ground truth.

Nothing here is tissue: the slides are there so that the whole way from file to heatmap can be run, and checked against
a known answer, without data. The lesion differs from what lies around it in *texture* alone (fewer, larger, vesicular
nuclei in disorder); its mean colour is matched to its surroundings, stain and density vary from slide to slide whatever
the label, and dense benign patches lie on slides of either label: a slide's mean colour does not tell its label.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsi_mil.synthetic.cohort import LABELS, draw_cohort

__all__ = ["LABELS", "draw_cohort"]


def __getattr__(name: str) -> Any:
    """Load the drawing code when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.cohort"), name)
