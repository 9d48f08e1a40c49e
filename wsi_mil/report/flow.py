"""The figure of a cohort's flow as SVG text: who is left at each step, and who was lost on the way, and why."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.patches import FancyBboxPatch

from wsi_mil.report.figures import COLOURS, GRID, MUTED, STYLE, drawn, new_figure

WIDTH_IN, BOX_IN, SIDE_IN = 7.4, 2.7, 3.7
"""Width of the figure, of a step and of what it lost, in inches."""

STEP_IN, LINE_IN, GAP_IN = 0.42, 0.155, 0.2
"""Height of a step, of a line of reasons, and of the space between two steps."""

LETTERS, MOST_REASONS = 58, 4
"""Letters in a line of reasons, and reasons named for one step."""


@dataclass(frozen=True)
class Step:
    """What is left after a step, and what it lost."""

    name: str
    slides: int
    patients: int
    lost: Sequence[tuple[int, str]] = ()
    """How many slides, and why; the most frequent first."""


def flow_figure(steps: Sequence[Step], *, title: str) -> str:
    """Boxes from top to bottom with counts; beside each that lost slides, how many and why."""
    said = [_reasons(step) for step in steps]
    heights = [max(STEP_IN, LINE_IN * len(lines) + 0.12 if lines else 0) for lines in said]
    total = sum(heights) + GAP_IN * (len(steps) - 1) + 0.1
    with matplotlib.rc_context(STYLE):
        width = WIDTH_IN if any(said) else BOX_IN + 1
        figure, axes = new_figure(width, total)
        axes.set(xlim=(0, width), ylim=(total, 0))
        axes.axis("off")
        top = 0.05
        for number, (step, lines, height) in enumerate(zip(steps, said, heights, strict=True)):
            middle = top + height / 2
            last = number == len(steps) - 1
            _box(axes, 0.05, middle - STEP_IN / 2, BOX_IN, STEP_IN, edge=COLOURS[0] if last or not number else MUTED)
            axes.text(0.2, middle, step.name, va="center", fontsize=9.5, weight="bold")
            axes.text(BOX_IN - 0.1, middle, f"{step.slides:,}", va="center", ha="right", fontsize=11, weight="bold")
            axes.text(BOX_IN + 0.12, middle, f"{step.patients:,} patients", va="center", fontsize=8, color=MUTED)
            if lines:
                left = WIDTH_IN - SIDE_IN - 0.05
                axes.annotate("", (left, middle), (left - 0.14, middle), arrowprops={"arrowstyle": "-", "color": MUTED})
                _box(axes, left, top, SIDE_IN, height, edge=GRID)
                axes.text(left + 0.12, middle, "\n".join(lines), va="center", fontsize=8, linespacing=1.35)
            if not last:
                end = top + height + GAP_IN + (heights[number + 1] - STEP_IN) / 2
                arrow = {"arrowstyle": "-|>", "color": MUTED, "shrinkA": 0, "shrinkB": 0}
                axes.annotate("", (BOX_IN / 2, end), (BOX_IN / 2, middle + STEP_IN / 2), arrowprops=arrow)
            top += height + GAP_IN
        return drawn(figure, title)


def _reasons(step: Step) -> list[str]:
    if not step.lost:
        return []
    lines = []
    for count, why in list(step.lost)[:MOST_REASONS]:
        lines += textwrap.wrap(f"{count:,} left out: {why}", LETTERS, subsequent_indent="   ", max_lines=2)
    more = sum(count for count, _ in list(step.lost)[MOST_REASONS:])
    return [*lines, *([f"{more:,} left out for other reasons (table below)"] if more else [])]


def _box(axes: object, x: float, y: float, width: float, height: float, *, edge: str) -> None:
    style = "round,pad=0,rounding_size=0.06"
    box = FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor="#ffffff", edgecolor=edge, linewidth=1.2)
    axes.add_patch(box)  # type: ignore[attr-defined]
