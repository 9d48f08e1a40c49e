"""Figures of what a probability is worth: reliability diagrams and decision curves, as SVG text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from jaxtyping import Float

from wsi_mil.report.figures import COLOURS, DASHES, GRID, MARKERS, MUTED, STYLE, Curve, drawn, new_figure


@dataclass(frozen=True)
class Bins:
    """What was said and what came true, bin by bin, with the interval of what came true."""

    name: str
    said: Float[np.ndarray, "bin"]
    came: Float[np.ndarray, "bin"]
    low: Float[np.ndarray, "bin"]
    high: Float[np.ndarray, "bin"]


def reliability_figure(lines: Sequence[Bins], *, title: str, thresholds: Sequence[float] = ()) -> str:
    """Share that came true against predicted probability, with intervals; on the diagonal they are the same."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(3.6, 3.5)
        axes.plot([0, 1], [0, 1], ":", color=MUTED, linewidth=1, label="as said")
        for number, line in enumerate(lines):
            colour = COLOURS[number % len(COLOURS)]
            bars = np.maximum(np.stack([line.came - line.low, line.high - line.came]), 0)
            axes.errorbar(line.said, line.came, yerr=bars, color=colour, elinewidth=0.8, alpha=0.8, linewidth=1.4,
                          linestyle=DASHES[number % len(DASHES)], marker=MARKERS[number % len(MARKERS)], markersize=4,
                          label=line.name)  # fmt: skip
        for number, threshold in enumerate(thresholds):
            label = "threshold" if number == 0 else None
            axes.axvline(threshold, color=GRID, linewidth=1, zorder=0, label=label)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="predicted probability", ylabel="share that came true")
        axes.set(title=title)
        axes.set_aspect("equal")
        axes.legend(loc="upper left", frameon=False, fontsize=8)
        return drawn(figure, title)


def benefit_figure(curves: Sequence[Curve], *, call_all: Curve, title: str) -> str:
    """Net benefit at each threshold of risk, beside calling every case (dotted) and none (the zero line)."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(4.4, 3.5)
        axes.axhline(0, color=MUTED, linewidth=1, label="call none")
        axes.plot(call_all.x, call_all.y, ":", color=MUTED, linewidth=1.2, label=call_all.name)
        top = 0.05
        for number, curve in enumerate(curves):
            colour = COLOURS[number % len(COLOURS)]
            if curve.low is not None and curve.high is not None:
                axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
                top = max(top, float(np.max(curve.high)))
            dash = DASHES[number % len(DASHES)]
            axes.plot(curve.x, curve.y, color=colour, linewidth=1.8, linestyle=dash, label=curve.name)
        axes.set(xlim=(0, 1), ylim=(-0.25 * top, 1.08 * top), xlabel="threshold of risk", ylabel="net benefit a case")
        axes.set(title=title)
        axes.grid(color=GRID)
        axes.set_axisbelow(True)
        axes.legend(loc="upper right", frameon=False, fontsize=8)
        return drawn(figure, title)
