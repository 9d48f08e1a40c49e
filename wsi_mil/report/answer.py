"""The figure of one case's answer as SVG text: where it lies, how far it moves, and where the threshold is."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib

from wsi_mil.report.figures import COLOURS, GRID, INK, MUTED, STYLE, drawn, new_figure


def answer_figure(
    value: float,
    spreads: Mapping[str, tuple[float, float]],
    *,
    title: str,
    limits: tuple[float, float] | None,
    threshold: float | None = None,
) -> str:
    """A value as a dot, below it a bar for each spread (low, high), the threshold as a dashed line."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(6.2, 0.95 + 0.34 * (1 + len(spreads)))
        axes.plot([value], [0], "D", color=COLOURS[0], markersize=9)
        axes.annotate(f"{value:.3f}", (value, 0), xytext=(0, 9), textcoords="offset points", ha="center", weight="bold")
        for row, (low, high) in enumerate(spreads.values(), start=1):
            axes.plot([low, high], [row, row], color=MUTED, linewidth=5, solid_capstyle="butt")
            for end in (low, high):
                axes.plot([end, end], [row - 0.2, row + 0.2], color=INK, linewidth=1.2)
        if threshold is not None:
            axes.axvline(threshold, linestyle="--", color=COLOURS[1], linewidth=1.3)
            axes.annotate(f"threshold {threshold:.2f}", (threshold, -0.75), xytext=(4, 0), textcoords="offset points",
                          color=COLOURS[1], fontsize=8, va="center")  # fmt: skip
        axes.set_yticks(range(1 + len(spreads)), ["prediction", *spreads])
        axes.set_ylim(len(spreads) + 0.6, -1.0)
        if limits is not None:
            span = 0.02 * (limits[1] - limits[0])
            axes.set_xlim(limits[0] - span, limits[1] + span)
        axes.grid(axis="x", color=GRID)
        axes.set_axisbelow(True)
        axes.set(title=title)
        return drawn(figure, title)
